//! `image copy`: an image from one place to another, without the store.
//!
//! 1. [`source`] and [`target`] are opened; what is wrong with either is found before anything is moved.
//! 2. [`gather`]: the documents, read and verified: one manifest, or with `all` an index and all that it names.
//! 3. The blobs that they name, a few at once, each verified on the way.
//! 4. The documents, byte for byte where the target can hold them, what names others after what it names.
//!
//! A docker archive is special at both ends: it has no manifest, and its layers are not compressed. As a source, one is
//! made for it; as a target, see [`docker`].
//!
//! Invariant: a registry's or file's bytes that do not have the digest under which they were asked for reach no target as
//! a whole file, and no manifest that would name them.

mod archive_file;
mod directory;
mod docker;
mod fetch;
pub mod location;
mod source;
mod target;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::event::{Event, Sink};
use crate::oci::Digest;
use crate::oci::image::{ImageIndex, ImageManifest};
use crate::registry::{Client, Manifest, Repository};

use super::Platform;
use super::compression::{Compression, Windows};
use super::manifest;
use super::packing::Packing;
use super::parallel;
use super::remote::Remote;
use super::rewrite;
use super::select::select;

use location::Location;
use source::{Opening, Source};
use target::Target;

/// An index may name so many manifests, and indexes so deep.
const DOCUMENTS_LIMIT: usize = 1000;
const DEPTH_LIMIT: usize = 4;

/// How to copy.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether an index is copied with everything that it names, and not only the image for one platform.
    pub all: bool,
    /// That platform.
    pub platform: Platform,
    /// How layers are packed that have no packed form, where the target wants one.
    pub packing: Packing,
    /// Where unnamed files can be made.
    pub spool: PathBuf,
}

/// A place and the client that knows who we are to it.
pub type End<'a> = (&'a Location, &'a Client);

/// Copies an image. Returns the digest of what is at the top of the target now.
pub fn copy(from: End<'_>, to: End<'_>, options: &Options, events: Sink<'_>) -> Result<Digest> {
    let about = || format!("cannot copy {} to {}", from.0, to.0);
    if from.0 == to.0 {
        bail!("{}: both are the same place", about());
    }
    copy_between(from, to, options, events).with_context(about)
}

fn copy_between(from: End<'_>, to: End<'_>, options: &Options, events: Sink<'_>) -> Result<Digest> {
    // Only a registry is far away.
    let is_registry = matches!(to.0, Location::Registry(_));
    let packing = if is_registry { options.packing } else { Packing::new(Compression::None, None)? };
    let opening = Opening { client: from.1, spool: &options.spool, packing };
    let source = Source::open(from.0, &opening, events)?;
    let top = source.top()?;
    if let Location::DockerArchive(path, name) = to.0 {
        let image = one_image(&source, top, &options.platform)?;
        return docker::write(&source, &image, (path, name.as_ref()), &Windows::new(&options.spool), events);
    }
    let target = Target::open(to.0, to.1)?;
    let mut documents = gather(&source, top, options)?;
    let lender = lender(from.0, to.0);
    copy_blobs(&source, &target, &documents, lender.as_deref(), events)?;
    if target.is_oci() {
        documents = in_oci_words(documents)?;
    }
    let Some(top) = documents.pop() else { bail!("there is no image in it") };
    for document in &documents {
        target.put(document)?;
    }
    target.finish(&top)
}

/// The documents of an image in a repository, verified; nothing is copied.
pub(super) fn look(from: Repository<'_>, tag_or_digest: String, platform: &Platform) -> Result<Remote> {
    let source = Source::Registry(from, tag_or_digest);
    let top = source.top()?;
    let manifest = one_image(&source, top.clone(), platform)?;
    let parsed = read_manifest(&manifest)?;
    let config = source.config(&manifest::digest(parsed.config())?, parsed.config().size())?;
    Ok(Remote { top, manifest, config })
}

/// The repository of a registry that can lend the blobs, if both ends are in one registry.
fn lender(from: &Location, to: &Location) -> Option<String> {
    match (from, to) {
        (Location::Registry(from), Location::Registry(to)) if from.registry == to.registry => {
            (from.repository != to.repository).then(|| from.repository.clone())
        }
        _ => None,
    }
}

/// Whether it is an index.
pub(super) fn is_index(document: &Manifest) -> bool {
    matches!(document.media_type.as_str(), manifest::INDEX | manifest::DOCKER_INDEX)
}

/// All documents that are to be copied, each once, each after those that it names.
fn gather(source: &Source<'_>, top: Manifest, options: &Options) -> Result<Vec<Manifest>> {
    let mut documents = Vec::new();
    if options.all {
        gather_all(source, top, 0, &mut documents)?;
    } else {
        documents.push(one_image(source, top, &options.platform)?);
    }
    Ok(documents)
}

fn gather_all(
    source: &Source<'_>,
    document: Manifest,
    depth: usize,
    documents: &mut Vec<Manifest>,
) -> Result<()> {
    if documents.iter().any(|d| d.digest == document.digest) {
        return Ok(());
    }
    if is_index(&document) {
        if depth == DEPTH_LIMIT {
            bail!("its indexes are more than {DEPTH_LIMIT} deep");
        }
        for descriptor in read_index(&document)?.manifests() {
            if documents.len() >= DOCUMENTS_LIMIT {
                bail!("its index names more than {DOCUMENTS_LIMIT} manifests");
            }
            gather_all(source, source.manifest(descriptor)?, depth + 1, documents)?;
        }
    }
    documents.push(document);
    Ok(())
}

/// The manifest of the image for a platform.
fn one_image(source: &Source<'_>, top: Manifest, platform: &Platform) -> Result<Manifest> {
    let mut document = top;
    for _ in 0..=DEPTH_LIMIT {
        if !is_index(&document) {
            return Ok(document);
        }
        let index = read_index(&document)?;
        document = source.manifest(select(&index, platform)?)?;
    }
    bail!("its indexes are more than {DEPTH_LIMIT} deep")
}

/// An index, read.
pub(super) fn read_index(document: &Manifest) -> Result<ImageIndex> {
    serde_json::from_slice(&document.bytes)
        .with_context(|| format!("cannot read the index {}", document.digest))
}

fn read_manifest(document: &Manifest) -> Result<ImageManifest> {
    let about = || format!("cannot read the manifest {}", document.digest);
    serde_json::from_slice(&document.bytes).with_context(about)
}

/// Copies the blobs of all documents, each once.
fn copy_blobs(
    source: &Source<'_>,
    target: &Target<'_>,
    documents: &[Manifest],
    lender: Option<&str>,
    events: Sink<'_>,
) -> Result<()> {
    let mut blobs: BTreeMap<Digest, u64> = BTreeMap::new();
    for document in documents.iter().filter(|d| !is_index(d)) {
        let parsed = read_manifest(document)?;
        for descriptor in parsed.layers().iter().chain([parsed.config()]) {
            let is_elsewhere = descriptor.urls().as_ref().is_some_and(|urls| !urls.is_empty());
            if !(is_elsewhere && rewrite::is_foreign(descriptor.media_type().as_ref())) {
                blobs.insert(manifest::digest(descriptor)?, descriptor.size());
            }
        }
    }
    let blobs = blobs.into_iter().collect();
    parallel::map_on(target.at_once(), blobs, events, |(digest, size), progress| {
        let how = target
            .take(source, lender, &digest, size, progress)
            .with_context(|| format!("cannot copy blob {digest}"))?;
        let _ = progress.send(Event::Pushing { what: digest.short().to_owned(), state: how });
        Ok(())
    })?;
    Ok(())
}

/// The documents in the specification's words; an index then names those that changed by their new digests.
fn in_oci_words(documents: Vec<Manifest>) -> Result<Vec<Manifest>> {
    let mut renamed: BTreeMap<String, Manifest> = BTreeMap::new();
    let mut all = Vec::new();
    for document in documents {
        let old = document.digest.to_string();
        let bytes = if is_index(&document) {
            index_in_oci_words(&document, &renamed)?
        } else {
            rewrite::to_oci(&document.bytes)?
        };
        let document = if bytes == document.bytes {
            document
        } else {
            let media_type = if is_index(&document) { manifest::INDEX } else { manifest::MANIFEST };
            let new = Manifest { digest: Digest::of(&bytes), media_type: media_type.to_owned(), bytes };
            renamed.insert(old, new.clone());
            new
        };
        all.push(document);
    }
    Ok(all)
}

fn index_in_oci_words(index: &Manifest, renamed: &BTreeMap<String, Manifest>) -> Result<Vec<u8>> {
    let about = || format!("cannot read the index {}", index.digest);
    let mut document: Value = serde_json::from_slice(&index.bytes).with_context(about)?;
    let is_docker = document["mediaType"] == manifest::DOCKER_INDEX;
    let mut has_changed = is_docker;
    for entry in document.get_mut("manifests").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(new) = entry["digest"].as_str().and_then(|d| renamed.get(d)) else { continue };
        entry["mediaType"] = json!(new.media_type);
        entry["digest"] = json!(new.digest.to_string());
        entry["size"] = json!(new.bytes.len());
        has_changed = true;
    }
    if !has_changed {
        return Ok(index.bytes.clone());
    }
    document["mediaType"] = json!(manifest::INDEX);
    Ok(document.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(value: &Value) -> Manifest {
        let bytes = value.to_string().into_bytes();
        Manifest { media_type: manifest::media_type(&bytes).unwrap(), digest: Digest::of(&bytes), bytes }
    }

    fn index(media_type: &str, children: &[&Manifest]) -> Manifest {
        let entries: Vec<Value> = children
            .iter()
            .map(
                |c| json!({"mediaType": c.media_type, "digest": c.digest.to_string(), "size": c.bytes.len()}),
            )
            .collect();
        document(&json!({"schemaVersion": 2, "mediaType": media_type, "manifests": entries}))
    }

    #[test]
    fn what_is_in_the_specifications_words_stays_as_it_is() {
        let image = document(&json!({"schemaVersion": 2, "config": {}, "layers": []}));
        let all = vec![image.clone(), index(manifest::INDEX, &[&image])];
        assert_eq!(in_oci_words(all.clone()).unwrap(), all);
    }

    #[test]
    fn an_index_follows_what_it_names() {
        let docker = document(&json!({
            "schemaVersion": 2, "mediaType": manifest::DOCKER_MANIFEST, "config": {}, "layers": [],
        }));
        let list = index(manifest::DOCKER_INDEX, &[&docker]);
        let found = in_oci_words(vec![docker.clone(), list]).unwrap();
        assert_eq!([&found[0].media_type, &found[1].media_type], [manifest::MANIFEST, manifest::INDEX]);
        assert_ne!(found[0].digest, docker.digest);
        assert_eq!(found[1], index(manifest::INDEX, &[&found[0]]));
    }
}
