//! Manifests that we write. Reading goes through `oci::image`; this is for the ones that have to be made: for an image
//! that came without one, or whose layers are to be written otherwise than they came.
//!
//! Invariant: the same image gives the same bytes, so the same digest.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::oci::Digest;
use crate::oci::image::Descriptor;

/// The media type of a manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of a list of manifests.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The media type of a config.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The media type of a layer that is an uncompressed tar.
pub const LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
/// The same, compressed by gzip.
pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// The same, compressed by zstd.
pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// What docker called [`MANIFEST`] before there was a specification.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// What docker called [`INDEX`].
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// A layer as a manifest names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerEntry {
    /// What kind of tar it is.
    pub media_type: String,
    /// The digest of the bytes as they are shipped.
    pub digest: Digest,
    /// The number of these bytes.
    pub size: u64,
}

/// The bytes of an OCI manifest.
pub fn build(config: &[u8], layers: &[LayerEntry]) -> Vec<u8> {
    let descriptor = |media_type: &str, digest: &Digest, size: u64| -> Value {
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": size})
    };
    let layers: Vec<Value> = layers.iter().map(|l| descriptor(&l.media_type, &l.digest, l.size)).collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &Digest::of(config), config.len() as u64),
        "layers": layers,
    });
    manifest.to_string().into_bytes()
}

/// What a manifest or an index says it is; one that does not say is told by what is in it (image-spec, manifest.md and
/// image-index.md leave `mediaType` out).
pub fn media_type(bytes: &[u8]) -> Result<String> {
    let document: Value = serde_json::from_slice(bytes).context("cannot read the manifest")?;
    if let Some(said) = document.get("mediaType").and_then(Value::as_str) {
        return Ok(said.to_owned());
    }
    match () {
        () if document.get("manifests").is_some() => Ok(INDEX.to_owned()),
        () if document.get("config").is_some() => Ok(MANIFEST.to_owned()),
        () => bail!("it is neither the manifest of an image nor an index"),
    }
}

/// The digest that a descriptor has.
pub fn digest(descriptor: &Descriptor) -> Result<Digest> {
    let text = descriptor.digest().to_string();
    text.parse().with_context(|| format!("cannot use {}", descriptor.media_type()))
}

/// The specification's word for docker's media type of a layer.
pub fn oci_layer(media_type: &str) -> Result<&str> {
    Ok(match media_type {
        "application/vnd.docker.image.rootfs.diff.tar" => LAYER_TAR,
        "application/vnd.docker.image.rootfs.diff.tar.gzip"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => LAYER_GZIP,
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => LAYER_ZSTD,
        other if other.starts_with("application/vnd.oci.image.layer.") => other,
        other => bail!("{other} is not a layer of a container image"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::image::ImageManifest;

    #[test]
    fn what_is_built_is_read_back() {
        let layer = LayerEntry { media_type: LAYER_TAR.to_owned(), digest: Digest::of(b"x"), size: 7 };
        let bytes = build(b"{}", std::slice::from_ref(&layer));
        assert_eq!(bytes, build(b"{}", &[layer]));
        let manifest: ImageManifest = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(digest(manifest.config()).unwrap(), Digest::of(b"{}"));
        assert_eq!(manifest.layers()[0].size(), 7);
        assert_eq!(digest(&manifest.layers()[0]).unwrap(), Digest::of(b"x"));
    }
}
