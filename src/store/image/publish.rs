//! Putting a new image in its place: layers and blobs, one by one durable, then the names.
//!
//! A publisher that finds a layer or blob in the store and so does not bring its own must hold it (see
//! [`Pins`](crate::store::pin::Pins)) before it looks.

use std::io::Write;

use anyhow::{Context, Result};

use crate::fs;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::store::Store;
use crate::store::blob;
use crate::store::blob::Sealed;
use crate::store::gc;
use crate::store::layer;
use crate::store::layer::Unpacked;

use super::names;

/// A document, and the digest by which it is asked for: what names it from outside may do so by any algorithm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Of the bytes.
    pub digest: Digest,
    /// All of it.
    pub bytes: Vec<u8>,
}

impl Document {
    /// One that was made here, or that nothing names.
    pub fn of(bytes: Vec<u8>) -> Document {
        Document { digest: Digest::of(&bytes), bytes }
    }
}

/// What makes an image, less what is in the store already.
#[derive(Debug)]
pub struct Parts {
    /// The manifest.
    pub manifest: Document,
    /// The config, as the manifest names it.
    pub config: Document,
    /// Compressed layers.
    pub blobs: Vec<Sealed>,
    /// Unpacked layers.
    pub layers: Vec<Unpacked>,
    /// The index that the manifest was chosen from, if it was pulled by one.
    pub index: Option<Digest>,
}

/// Publishes an image under these names, or untagged where there is none. Returns the digest of the manifest.
///
/// Killed anywhere in between, it leaves no name, and things that the next [`gc::sweep`] frees.
pub fn publish(store: &Store, parts: Parts, references: &[Reference]) -> Result<Digest> {
    // From here to the name nothing says that these are needed.
    let _publishing = gc::hold_off(store)?;
    let digest = parts.manifest.digest.clone();
    let mut blobs = parts.blobs;
    for document in [&parts.config, &parts.manifest] {
        blobs.extend(seal(store, document)?);
    }
    place(store, blobs, parts.layers)?;
    let lock = names::Lock::new(store)?;
    if references.is_empty() && names::Names::read(store)?.of(&digest).next().is_none() {
        names::keep(store, &lock, &digest)?;
    }
    for reference in references {
        names::assign_chosen(store, &lock, reference, &digest, parts.index.as_ref())?;
    }
    Ok(digest)
}

/// Publishes layers and blobs of an image that is not whole yet. The caller holds them.
pub fn publish_parts(store: &Store, blobs: Vec<Sealed>, layers: Vec<Unpacked>) -> Result<()> {
    let _publishing = gc::hold_off(store)?;
    place(store, blobs, layers)
}

/// One sync for all that was written, however much; then the renames; then what the renames changed, so that a name that is
/// written after this never is on the disk without them.
fn place(store: &Store, blobs: Vec<Sealed>, layers: Vec<Unpacked>) -> Result<()> {
    if blobs.is_empty() && !layers.iter().any(Unpacked::is_new) {
        return Ok(());
    }
    store.sync()?;
    layer::place(store, layers)?;
    for blob in blobs {
        blob.place(store)?;
    }
    for path in blob::dirs(store)?.into_iter().chain([store.data.join("layers")]) {
        let synced = fs::open(&path)?.sync_all();
        synced.with_context(|| format!("cannot sync {}", path.display()))?;
    }
    Ok(())
}

/// A document, unless the store has it. Those of an additional store do not count: a name of ours must not point there.
fn seal(store: &Store, Document { digest, bytes }: &Document) -> Result<Option<Sealed>> {
    if blob::is_own(store, digest)? {
        return Ok(None);
    }
    let mut writer = blob::Writer::new(store, digest.algorithm())?;
    writer.write_all(bytes).with_context(|| format!("cannot write blob {digest}"))?;
    writer.seal(Some(digest)).map(Some)
}
