//! Putting a new image in its place: layers and blobs, one by one durable, then the names.
//!
//! A publisher that finds a layer or blob in the store and so does not bring its own must hold it (see
//! [`Pins`](crate::store::pin::Pins)) before it looks.

use std::io::Write;

use anyhow::{Context, Result};

use crate::oci::Digest;
use crate::oci::Reference;
use crate::store::Store;
use crate::store::blob;
use crate::store::blob::Sealed;
use crate::store::gc;
use crate::store::layer;
use crate::store::layer::Unpacked;

use super::names;

/// What makes an image, less what is in the store already.
pub struct Parts {
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// The config's bytes; the manifest has their digest.
    pub config: Vec<u8>,
    /// Compressed layers.
    pub blobs: Vec<Sealed>,
    /// Unpacked layers.
    pub layers: Vec<Unpacked>,
}

/// Publishes an image under these names, or untagged where there is none. Returns the digest of the manifest.
///
/// Killed anywhere in between, it leaves no name, and things that the next [`gc::sweep`] frees.
pub fn publish(store: &Store, parts: Parts, references: &[Reference]) -> Result<Digest> {
    // From here to the name nothing says that these are needed.
    let _publishing = gc::hold_off(store)?;
    layer::publish(store, parts.layers)?;
    let manifest = seal(store, &parts.manifest)?;
    let digest = manifest.digest.clone();
    let mut blobs = parts.blobs;
    blobs.push(seal(store, &parts.config)?);
    blobs.push(manifest);
    blob::publish(store, blobs)?;
    let lock = names::Lock::new(store)?;
    if references.is_empty() && names::Names::read(store)?.of(&digest).next().is_none() {
        names::keep(store, &lock, &digest)?;
    }
    for reference in references {
        names::assign(store, &lock, reference, &digest)?;
    }
    Ok(digest)
}

fn seal(store: &Store, bytes: &[u8]) -> Result<Sealed> {
    let mut writer = blob::Writer::new(store)?;
    writer.write_all(bytes).with_context(|| format!("cannot write blob {}", Digest::of(bytes)))?;
    writer.seal(None)
}
