//! Freeing blobs and layers that nothing needs, by marking from everything that does: names, manifest lists, pins,
//! containers, and what the caller says besides.
//!
//! ```text
//! publisher   hold_off { publish layers, blobs; write the name }            shared lock, while it renames
//!             hold_off { write a pin } then look whether the layer exists   shared lock, for one file
//! container   hold_off { look whether the layers exist; make the container }   shared lock
//! sweep       { read pins, names, containers; take the rest away }          exclusive lock
//! ```
//! So a sweep sees either the pin or the name of whatever a publisher counts on; and neither waits for the other's slow
//! part, reading an archive or a network.

use std::collections::HashSet;
use std::fs::File;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::fs;
use crate::oci::DiffId;
use crate::oci::Digest;
use crate::sys::lock;

use super::Store;
use super::blob;
use super::container;
use super::container::{ContainerDir, Record, Source};
use super::draft;
use super::image::listed::Listed;
use super::image::names;
use super::image::summary::Summary;
use super::layer;
use super::mapped;
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
    /// What they took on disk, where it was to be counted.
    pub bytes: u64,
    /// Names and manifests that are damaged, so that nobody can tell what they need: while there is one, nothing is
    /// freed, because it may be in use by an image that can be repaired.
    pub unknown: Vec<String>,
}

/// Waits for a sweep that is under way, and keeps off the next one.
pub fn hold_off(store: &Store) -> Result<HoldOff> {
    lock_file(store, lock::Kind::Shared).map(|file| HoldOff { _file: file })
}

/// Waits for all publishers and sweeps, and keeps them off: for what changes the whole store.
pub fn exclusive(store: &Store) -> Result<HoldOff> {
    lock_file(store, lock::Kind::Exclusive).map(|file| HoldOff { _file: file })
}

/// Frees every blob and layer that no image, no pin, no container and none of `in_use` needs.
pub fn sweep(store: &Store, in_use: &[DiffId]) -> Result<Freed> {
    sweep_with(store, in_use, false)
}

/// [`sweep`], which counts what the disk got back: that takes a walk through every layer that goes.
pub fn sweep_counted(store: &Store, in_use: &[DiffId]) -> Result<Freed> {
    sweep_with(store, in_use, true)
}

fn sweep_with(store: &Store, in_use: &[DiffId], is_counted: bool) -> Result<Freed> {
    let exclusive = lock_file(store, lock::Kind::Exclusive)?;
    // The pins of the dead first, so that they keep nothing alive.
    draft::sweep(store)?;
    // Whoever counts wants room, and so gives up what an interrupted pull would go on with.
    let partials = partial::sweep(store, if is_counted { Duration::ZERO } else { partial::KEPT })?;
    let names_lock = names::Lock::new(store)?;
    let mut needs = needs(store)?;
    drop(names_lock);
    needs.digests.extend(in_use.iter().map(|d| d.0.clone()));
    let mut freed = Freed { unknown: needs.unknown, bytes: partials, ..Freed::default() };
    if !freed.unknown.is_empty() {
        return Ok(freed);
    }
    for digest in blob::list(store)?.into_iter().filter(|d| !needs.digests.contains(d)) {
        freed.bytes += blob::size_on_disk(store, &digest)?;
        blob::remove(store, &digest)?;
        freed.blobs.push(digest);
    }
    freed.layers = layer::list(store)?.into_iter().filter(|d| !needs.digests.contains(&d.0)).collect();
    let removed = layer::take_away(store, &freed.layers)?;
    // Taken apart when it is dropped, at the end.
    let _mapped = mapped::take_away(store, &needs.digests)?;
    shipped::forget(store, |diff_id| needs.digests.contains(&diff_id.0))?;
    // What goes is nowhere any more: nobody needs to wait until it is taken apart.
    drop(exclusive);
    if is_counted {
        // As far as it can be counted.
        freed.bytes += removed.iter().map(|r| layer::size_of_removed(r).unwrap_or(0)).sum::<u64>();
    }
    Ok(freed)
}

/// What must stay.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    /// Blobs, and layers by their diff ids.
    pub digests: HashSet<Digest>,
    /// See [`Freed::unknown`].
    pub unknown: Vec<String>,
}

/// What there was at one moment at which nobody was publishing or freeing anything.
#[derive(Debug)]
pub struct Snapshot {
    /// All names.
    pub names: names::Names,
    /// What was needed.
    pub needs: Needs,
    /// All blobs of our own.
    pub blobs: Vec<Digest>,
    /// All layers of our own.
    pub layers: Vec<DiffId>,
}

/// Looks at names, blobs and layers at one moment; waits for those who are publishing.
pub fn snapshot(store: &Store) -> Result<Snapshot> {
    let _exclusive = lock_file(store, lock::Kind::Exclusive)?;
    Ok(Snapshot {
        needs: needs(store)?,
        names: names::Names::read(store)?,
        blobs: blob::list(store)?,
        layers: layer::list(store)?,
    })
}

/// Marks from pins, names, manifest lists and containers. To be trusted while nothing can be published.
pub fn needs(store: &Store) -> Result<Needs> {
    let mut needs = Needs { digests: pin::all(store)?.into_iter().collect(), unknown: Vec::new() };
    let names = names::Names::read(store)?;
    needs.unknown.extend(names.damaged.keys().cloned());
    for manifest in names.manifests() {
        needs.digests.insert(manifest.clone());
        // What the file of the name kept serves where a document was lost.
        let summary = match names.summaries.get(manifest) {
            Some(summary) => Ok(summary.clone()),
            None => Summary::of(store, manifest).map(|(summary, _)| summary),
        };
        match summary {
            Ok(summary) => {
                needs.digests.insert(summary.id);
                needs.digests.extend(summary.layers);
                needs.digests.extend(summary.diff_ids.into_iter().map(|d| d.0));
            }
            Err(_) => needs.unknown.push(manifest.to_string()),
        }
    }
    let listed = Listed::read(store)?;
    needs.unknown.extend(listed.damaged);
    for manifest in listed.manifests.keys() {
        // A list may name what was removed before lists protected anything; what it needed is unknown and gone.
        if let Ok((summary, _)) = Summary::of(store, manifest) {
            needs.digests.insert(manifest.clone());
            needs.digests.insert(summary.id);
            needs.digests.extend(summary.layers);
            needs.digests.extend(summary.diff_ids.into_iter().map(|d| d.0));
        }
    }
    for id in container::ids(store)? {
        let dir = ContainerDir::of(store, &id);
        match dir.record() {
            Ok(Record { source, mounted_layers, .. }) => {
                needs.digests.extend(mounted_layers.into_iter().map(|d| d.0));
                if let Source::Image { diff_ids, .. } = source {
                    needs.digests.extend(diff_ids.into_iter().map(|d| d.0));
                }
            }
            // It can never be started again; but it may run, on layers that nobody knows of.
            Err(_) if dir.status().is_ok_and(|status| status.is_alive()) => needs.unknown.push(id),
            Err(_) => {}
        }
    }
    Ok(needs)
}

fn lock_file(store: &Store, kind: lock::Kind) -> Result<File> {
    let path = store.data.join("images/.lock");
    let file = fs::open_or_create(&path, 0o600)?;
    lock::acquire(&file, kind).with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}
