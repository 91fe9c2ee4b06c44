//! An image: a manifest, the config it names, and layers; reached through names, which are files in `images/`.
//!
//! [`names`] are the files, [`find()`] looks images up, [`publish()`] puts a new one in its place, and the module
//! [`gc`](super::gc) frees what no image needs any more. Knows neither archives nor registries.
//!
//! Invariant: what a name stands for is whole: manifest, config and every layer were durable before the name was
//! written, and nothing of it is freed while the name is there.

pub mod find;
pub mod listed;
mod name_file;
pub mod names;
pub mod publish;
pub mod summary;

use std::io::Write;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde_json::Value;

use crate::oci::DiffId;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::oci::image::ImageConfiguration;
use crate::oci::image::ImageManifest;

use super::Store;
use super::blob;

pub use find::{Entry, entries, find, list};
pub use names::{tag, untag};
pub use publish::{Document, Parts, publish, publish_parts};

/// The most that a manifest, an index or a config may have: what registries allow, and then some.
pub const DOCUMENT_LIMIT: u64 = 8 << 20;

/// An image of the store.
#[derive(Debug, Clone)]
pub struct Image {
    /// The digest of the config, which is what people call the image id.
    pub id: Digest,
    /// The digest of the manifest. Two manifests may share one id: the same layers, compressed and not.
    pub manifest: Digest,
    /// All names of this id, sorted; none for an untagged image.
    pub names: Vec<Reference>,
    /// The same names, with what each stands for and since when.
    pub named: Vec<Named>,
    /// The config, read.
    pub config: ImageConfiguration,
    /// The config, as it came.
    pub config_bytes: Vec<u8>,
    /// The layers, lowest first.
    pub diff_ids: Vec<DiffId>,
    /// The sum of the uncompressed layers in bytes.
    pub size: u64,
    /// Whether only an additional store has it.
    pub is_read_only: bool,
}

/// A name of an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    /// The name.
    pub reference: Reference,
    /// What it stands for.
    pub manifest: Digest,
    /// The index that the manifest was chosen from when it was pulled, or the manifest as it was pushed.
    pub index: Option<Digest>,
    /// When it was given.
    pub created: Timestamp,
}

impl Named {
    /// The digest by which a registry knows it.
    pub fn digest(&self) -> &Digest {
        self.reference.digest.as_ref().or(self.index.as_ref()).unwrap_or(&self.manifest)
    }
}

/// What a manifest and its config say, before anything is known about names.
#[derive(Debug, Clone)]
pub struct Description {
    /// The digest of the config.
    pub id: Digest,
    /// The digests of the layers as the manifest has them, lowest first.
    pub layers: Vec<Digest>,
    /// The layers, lowest first.
    pub diff_ids: Vec<DiffId>,
    /// The config, read.
    pub config: ImageConfiguration,
    /// The config, as it came.
    pub config_bytes: Vec<u8>,
}

/// Reads the documents of an image.
pub fn describe(store: &Store, manifest: &Digest) -> Result<Description> {
    let about = || format!("cannot read the manifest {manifest}");
    let bytes = blob::read(store, manifest, DOCUMENT_LIMIT).with_context(about)?;
    let parsed: ImageManifest = serde_json::from_slice(&bytes).with_context(about)?;
    let digest = |d: &crate::oci::image::Descriptor| -> Result<Digest> {
        d.digest().to_string().parse().with_context(about)
    };
    let id = digest(parsed.config())?;
    let layers = parsed.layers().iter().map(digest).collect::<Result<_>>()?;
    let config_bytes = blob::read(store, &id, DOCUMENT_LIMIT)
        .with_context(|| format!("cannot read the config of the manifest {manifest}"))?;
    let (config, diff_ids) =
        parse_config(&config_bytes).with_context(|| format!("cannot read the config {id}"))?;
    Ok(Description { id, layers, diff_ids, config, config_bytes })
}

/// Reads a config. Docker leaves out what the specification wants: an image without layers has no `diff_ids`, an old
/// one no `os`.
pub fn parse_config(bytes: &[u8]) -> Result<(ImageConfiguration, Vec<DiffId>)> {
    let mut value: Value = serde_json::from_slice(bytes)?;
    let Some(fields) = value.as_object_mut() else {
        bail!("it is not an object");
    };
    for name in ["architecture", "os"] {
        fields.entry(name).or_insert_with(|| Value::from(""));
    }
    let rootfs = fields.entry("rootfs").or_insert_with(|| serde_json::json!({"type": "layers"}));
    if let Some(rootfs) = rootfs.as_object_mut()
        && rootfs.get("diff_ids").is_none_or(Value::is_null)
    {
        rootfs.insert("diff_ids".to_owned(), Value::Array(Vec::new()));
    }
    let config: ImageConfiguration = serde_json::from_value(value)?;
    let diff_ids =
        config.rootfs().diff_ids().iter().map(|d| Ok(DiffId(d.parse()?))).collect::<Result<Vec<_>>>()?;
    Ok((config, diff_ids))
}

/// The image that this manifest and these names make.
fn image(store: &Store, manifest: &Digest, named: Vec<Named>) -> Result<Image> {
    let Description { id, diff_ids, config, config_bytes, .. } = describe(store, manifest)?;
    let (size, _) = summary::size_of(store, &diff_ids);
    let mut image = Image {
        id,
        manifest: manifest.clone(),
        names: Vec::new(),
        named,
        config,
        config_bytes,
        diff_ids,
        size,
        is_read_only: false,
    };
    image.sort_names();
    Ok(image)
}

/// Makes the documents of an image of an additional store our own, before a name of ours stands for it.
fn adopt(store: &Store, manifest: &Digest) -> Result<()> {
    let copy = |digest: &Digest| -> Result<blob::Sealed> {
        let bytes = blob::read(store, digest, DOCUMENT_LIMIT)?;
        let mut writer = blob::Writer::new(store, digest.algorithm())?;
        writer.write_all(&bytes).with_context(|| format!("cannot write blob {digest}"))?;
        writer.seal(Some(digest))
    };
    let id = describe(store, manifest)?.id;
    blob::publish(store, vec![copy(&id)?, copy(manifest)?])
}

impl Image {
    fn sort_names(&mut self) {
        self.named.sort();
        self.names = self.named.iter().map(|n| n.reference.clone()).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configs_that_docker_writes_are_read() {
        let check = |json: &str, layers: usize| {
            let (_, diff_ids) = parse_config(json.as_bytes()).unwrap();
            assert_eq!(diff_ids.len(), layers, "{json}");
        };
        let hex = "0f".repeat(32);
        check("{}", 0);
        check(r#"{"rootfs":{"type":"layers"},"config":null,"history":null}"#, 0);
        check(r#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":null}}"#, 0);
        check(&format!(r#"{{"rootfs":{{"type":"layers","diff_ids":["sha256:{hex}"]}}}}"#), 1);
        check(r#"{"config":{"Env":null,"Volumes":{"/v":{}},"ExposedPorts":{"1/tcp":{}},"Labels":null}}"#, 0);
        for bad in ["", "[]", "{", r#"{"rootfs":{"type":"layers","diff_ids":["sha256:../x"]}}"#] {
            assert!(parse_config(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
