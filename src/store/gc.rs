//! Freeing blobs and layers that nothing needs, by marking from everything that does: names, pins, and what the caller
//! says its containers use.
//!
//! ```text
//! publisher   hold_off { publish layers, blobs; write the name }            shared lock, while it renames
//!             hold_off { write a pin } then look whether the layer exists   shared lock, for one file
//! sweep       { read pins, names; free the rest }                           exclusive lock
//! ```
//! So a sweep sees either the pin or the name of whatever a publisher counts on; and neither waits for the other's slow
//! part, reading an archive or a network.

use std::collections::HashSet;
use std::fs::File;

use anyhow::{Context, Result};

use crate::fs;
use crate::oci::DiffId;
use crate::oci::Digest;
use crate::sys::lock;

use super::Store;
use super::blob;
use super::draft;
use super::image;
use super::image::names;
use super::layer;
use super::partial;
use super::pin;
use super::shipped;

/// While this lives, nothing is freed.
pub struct HoldOff {
    _file: File,
}

/// What a sweep freed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Freed {
    /// The blobs.
    pub blobs: Vec<Digest>,
    /// The layers.
    pub layers: Vec<DiffId>,
}

/// Waits for a sweep that is under way, and keeps off the next one.
pub fn hold_off(store: &Store) -> Result<HoldOff> {
    lock_file(store, lock::Kind::Shared).map(|file| HoldOff { _file: file })
}

/// Frees every blob and layer that no image, no pin and none of `in_use` needs.
pub fn sweep(store: &Store, in_use: &[DiffId]) -> Result<Freed> {
    let _exclusive = lock_file(store, lock::Kind::Exclusive)?;
    // The pins of the dead first, so that they keep nothing alive.
    draft::sweep(store)?;
    partial::sweep(store, partial::KEPT)?;
    let names_lock = names::Lock::new(store)?;
    let mut needed: HashSet<Digest> = in_use.iter().map(|d| d.0.clone()).collect();
    needed.extend(pin::all(store)?);
    let mut freed = Freed::default();
    for manifest in names::Names::read(store)?.manifests() {
        let about = || "cannot tell what may be freed";
        let image = image::describe(store, manifest).with_context(about)?;
        needed.insert(manifest.clone());
        needed.insert(image.id);
        needed.extend(image.layers);
        needed.extend(image.diff_ids.into_iter().map(|d| d.0));
    }
    drop(names_lock);
    for digest in blob::list(store)?.into_iter().filter(|d| !needed.contains(d)) {
        blob::remove(store, &digest)?;
        freed.blobs.push(digest);
    }
    for diff_id in layer::list(store)?.into_iter().filter(|d| !needed.contains(&d.0)) {
        layer::remove(store, &diff_id)?;
        freed.layers.push(diff_id);
    }
    shipped::forget(store, |diff_id| needed.contains(&diff_id.0))?;
    Ok(freed)
}

fn lock_file(store: &Store, kind: lock::Kind) -> Result<File> {
    let path = store.data.join("images/.lock");
    let file = fs::open_or_create(&path, 0o600)?;
    lock::acquire(&file, kind).with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}
