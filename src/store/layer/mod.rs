//! Layers: one unpacked layer each, `layers/HEX/`, named by the diff id.
//!
//! | file in a layer | what |
//! | --- | --- |
//! | `diff/` | the tree, as overlay takes it for a lower directory: whiteouts, opaque directories |
//! | `split` | the archive without what `diff/` has, so that [`write_tar`] gives back the very bytes |
//! | `replaced/` | contents that are in the archive and no more in the tree; mostly missing |
//! | `stacking` | directories that the archive implies, whether the root is opaque; mostly missing |
//! | `record.json` | the size |
//!
//! Beside the layers lie extra directories, `CHAIN_ID.dirs/`: see `implied`.
//!
//! Invariant: a layer in its place is whole, was durable before it was named, had its digest, and is never changed.

mod attributes;
mod beneath;
mod compare;
mod copy;
pub mod decompress;
mod entry;
pub mod files;
mod implied;
mod inode;
mod input;
mod layout;
mod overlay;
pub mod owner;
mod place;
pub mod remnant;
mod replaced;
mod split;
mod stacking;
mod tar;
#[cfg(test)]
mod tests;
mod tree;
mod unpack;
pub mod usage;
mod verify;
pub mod window;

use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::error::{NotFound, ResultExt, is_disk_full};
use crate::fs;
use crate::oci::DiffId;
use crate::oci::Digest;

use super::Store;
use super::draft::{self, Draft, Removed};
use super::partial::Partial;

pub use copy::{copy, copy_directory_attributes, copy_moved};
pub(super) use layout::SPLIT;
pub use verify::{Depth, verify};
use window::Windows;

/// Windows for the decompressors of layers that are unpacked side by side in this store.
pub fn windows(store: &Store) -> Windows {
    Windows::new(&store.data.join("tmp"))
}

/// What a layer is called inside its draft.
const DRAFT: &str = "layer";
/// As much is lost of a layer that is unpacked beside its partial when we are killed, and as much again of small files.
const BESIDE_PIECE: usize = 64 * 1024;
const COPY_BUFFER: usize = 256 * 1024;

/// A layer in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The digest of its uncompressed tar.
    pub diff_id: DiffId,
    /// The size of its uncompressed tar in bytes.
    pub size: u64,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Record {
    size: u64,
}

/// A layer that is unpacked but not yet in its place: see [`publish`].
#[derive(Debug)]
pub struct Unpacked {
    /// What it will be.
    pub layer: Layer,
    made: Made,
}

/// Where a layer is while it is made.
#[derive(Debug)]
enum Made {
    /// In its place already.
    Before,
    /// In a draft, which goes if it is not published.
    Draft(Draft),
    /// Beside the partial that it is fetched by, whose holder we are.
    Beside(PathBuf),
}

impl Made {
    fn dir(&self) -> Option<PathBuf> {
        match self {
            Made::Before => None,
            Made::Draft(draft) => Some(draft.path().join(DRAFT)),
            Made::Beside(tree) => Some(tree.clone()),
        }
    }

    /// Renames it, unless there is one already. The caller has synced.
    fn publish(self, place: &Path) -> Result<()> {
        match self {
            Made::Before => {}
            Made::Draft(draft) => drop(draft.publish(DRAFT.as_ref(), place)?),
            Made::Beside(tree) => {
                if !draft::rename_new(&tree, place)? {
                    fs::remove_tree(&tree)?;
                }
            }
        }
        Ok(())
    }
}

impl Unpacked {
    /// Whether it was not in its place when it was unpacked.
    pub fn is_new(&self) -> bool {
        !matches!(self.made, Made::Before)
    }
}

/// Unpacks an uncompressed tar stream into a draft. A layer that exists already is only hashed, if `expected` names it.
pub fn extract(store: &Store, tar: impl Read + Send, expected: Option<&DiffId>) -> Result<Unpacked> {
    let is_there = expected.map_or(Ok(false), |diff_id| exists(store, diff_id))?;
    let made = if is_there { Made::Before } else { Made::Draft(Draft::new(store)?) };
    extract_into(store, tar, expected, made)
}

/// [`extract`] of a layer that is fetched as it is. What is unpacked when an error ends it is a [`remnant`], until
/// [`Partial::clear`]; there is none when it begins.
pub fn extract_beside(store: &Store, tar: impl Read + Send, partial: &Partial) -> Result<Unpacked> {
    let diff_id = DiffId(partial.digest.clone());
    let made = if exists(store, &diff_id)? { Made::Before } else { Made::Beside(partial.tree()) };
    extract_into(store, tar, Some(&diff_id), made)
}

/// [`extract`] although there is such a layer: for [`replace`].
pub fn extract_again(store: &Store, tar: impl Read + Send, diff_id: &DiffId) -> Result<Unpacked> {
    extract_into(store, tar, Some(diff_id), Made::Draft(Draft::new(store)?))
}

fn extract_into(
    store: &Store,
    tar: impl Read + Send,
    expected: Option<&DiffId>,
    made: Made,
) -> Result<Unpacked> {
    let dir = made.dir();
    // What nobody goes on with is not written out before its time.
    let (piece, write_out) = match made {
        Made::Beside(_) => (BESIDE_PIECE, BESIDE_PIECE as u64),
        _ => (usize::MAX, u64::MAX),
    };
    let algorithm = expected.map(|diff_id| diff_id.0.algorithm()).unwrap_or_default();
    let ((), digest, size) = input::with_pieces(tar, algorithm, piece, |input| match &dir {
        Some(dir) => {
            fs::create_dir(dir, 0o755)?;
            unpack::unpack(input, dir, &store.ids, write_out).or_else(explain)
        }
        None => Ok(()),
    })?;
    let diff_id = DiffId(digest);
    if let Some(expected) = expected
        && *expected != diff_id
    {
        bail!("cannot unpack layer {}: its content has digest {}", expected.0, diff_id.0);
    }
    if let Some(dir) = &dir {
        let record = serde_json::to_vec(&Record { size }).context("cannot write a layer's record")?;
        fs::write(&dir.join(layout::RECORD), &record)?;
    }
    Ok(Unpacked { layer: Layer { diff_id, size }, made })
}

/// Adds the way out to an error that has one.
pub fn explain<T>(error: anyhow::Error) -> Result<T> {
    if is_disk_full(&error) {
        return Err(error)
            .hint("free some space on the file system of the store, or name another one with --root");
    }
    Err(error)
}

/// Puts unpacked layers in their places, durably, with one sync for all.
pub fn publish(store: &Store, layers: Vec<Unpacked>) -> Result<Vec<Layer>> {
    if layers.iter().any(Unpacked::is_new) {
        store.sync()?;
    }
    place(store, layers)
}

/// Puts unpacked layers in their places. The caller has synced.
pub(super) fn place(store: &Store, layers: Vec<Unpacked>) -> Result<Vec<Layer>> {
    let publish_one = |unpacked: Unpacked| {
        unpacked.made.publish(&layout::layer(store, &unpacked.layer.diff_id))?;
        Ok(unpacked.layer)
    };
    layers.into_iter().map(publish_one).collect()
}

/// Puts a layer in the place of a damaged one, durably and in one step, and takes away what was made of that. No
/// container that runs may stand on it.
pub fn replace(store: &Store, unpacked: Unpacked) -> Result<()> {
    let Made::Draft(draft) = unpacked.made else { return Ok(()) };
    store.sync()?;
    let place = layout::layer(store, &unpacked.layer.diff_id);
    if !draft.exchange(DRAFT.as_ref(), &place)? {
        drop(draft::take_away(store, &place)?);
        draft.publish(DRAFT.as_ref(), &place)?;
    }
    implied::take_away(store, &[unpacked.layer.diff_id].into())?;
    Ok(())
}

/// Takes away the extra directories that are damaged, or whose chain has a layer that is no more, and is the beginning of
/// none of these stacks, which containers stand on; returns what they are called. Unless `is_serious`, they are only
/// named.
pub fn sweep_extra(store: &Store, stacks: &[Vec<DiffId>], is_serious: bool) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for name in implied::names(store)? {
        let path = store.data.join(layout::LAYERS).join(&name);
        let is_needed = match implied::chain_of(&path)? {
            Some(chain) => {
                let all = chain.iter().map(|d| exists(store, d)).collect::<Result<Vec<_>>>()?;
                all.iter().all(|exists| *exists) || stacks.iter().any(|stack| stack.starts_with(&chain))
            }
            None => false,
        };
        if !is_needed && fs::symlink_metadata(&path)?.is_some() {
            if is_serious {
                draft::take_away(store, &path)?;
            }
            found.push(name);
        }
    }
    Ok(found)
}

/// [`extract`] and [`publish`] for one layer.
pub fn unpack(store: &Store, tar: impl Read + Send, expected: Option<&DiffId>) -> Result<Layer> {
    let unpacked = extract(store, tar, expected)?;
    Ok(publish(store, vec![unpacked])?.remove(0))
}

/// Writes exactly the bytes that were unpacked. An error at the end means that the layer was changed on disk, and that
/// what was written is not to be used.
pub fn write_tar(store: &Store, diff_id: &DiffId, out: &mut dyn Write) -> Result<()> {
    let found = tar::write(&existing(store, diff_id)?, diff_id.0.algorithm(), out)?;
    if found != diff_id.0 {
        bail!("cannot write layer {}: it was changed on disk", diff_id.0);
    }
    Ok(())
}

/// The directories to stack for these layers (lowest first), as overlay wants them: top-most first. There may be more
/// directories than layers: see `implied`.
pub fn lower_dirs(store: &Store, diff_ids: &[DiffId]) -> Result<Vec<PathBuf>> {
    let layers = diff_ids.iter().map(|diff_id| Ok((diff_id.clone(), existing(store, diff_id)?)));
    let mut dirs = implied::stack(store, &layers.collect::<Result<Vec<_>>>()?)?;
    dirs.reverse();
    Ok(dirs)
}

/// The layer, or `None` where there is no such layer.
pub fn find(store: &Store, diff_id: &DiffId) -> Result<Option<Layer>> {
    let Some(dir) = locate(store, diff_id)? else { return Ok(None) };
    let path = dir.join(layout::RECORD);
    let Some(text) = fs::read_to_string_if_exists(&path)? else { return Ok(None) };
    let record: Record =
        serde_json::from_str(&text).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Some(Layer { diff_id: diff_id.clone(), size: record.size }))
}

/// Whether our own store has the layer whose archive has this digest.
pub fn is_own(store: &Store, digest: &Digest) -> Result<bool> {
    Ok(fs::symlink_metadata(&layout::layer(store, &DiffId(digest.clone())))?.is_some())
}

/// The tree of the layer, as overlay takes it; `None` where there is no such layer.
pub fn tree(store: &Store, diff_id: &DiffId) -> Result<Option<PathBuf>> {
    Ok(locate(store, diff_id)?.map(|dir| dir.join(layout::DIFF)))
}

/// Whether there is such a layer, here or in an additional store.
pub fn exists(store: &Store, diff_id: &DiffId) -> Result<bool> {
    Ok(locate(store, diff_id)?.is_some())
}

/// Which store has the layer: the first of them.
pub fn store_with<'s>(store: &'s Store, diff_id: &DiffId) -> Result<Option<&'s Path>> {
    for data in store.places() {
        if fs::symlink_metadata(&layout::layer_in(data, diff_id))?.is_some() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

fn locate(store: &Store, diff_id: &DiffId) -> Result<Option<PathBuf>> {
    Ok(store_with(store, diff_id)?.map(|data| layout::layer_in(data, diff_id)))
}

/// Whether overlay may have the layer as it lies there: our own, and others that belong to us. One that is missing may,
/// because there is nothing to be done about it. To be asked as root, of a user name space or not.
pub fn is_mountable(store: &Store, diff_id: &DiffId) -> Result<bool> {
    let Some(data) = store_with(store, diff_id)? else { return Ok(true) };
    let meta = fs::symlink_metadata(&layout::layer_in(data, diff_id))?;
    Ok(data == store.data || meta.is_none_or(|m| m.uid() == rustix::process::geteuid().as_raw()))
}

/// Unpacks a layer of an additional store in our own.
pub fn take_home(store: &Store, diff_id: &DiffId) -> Result<()> {
    let dir = existing(store, diff_id)?;
    let about = || format!("cannot copy layer {} from {}", diff_id.0, dir.display());
    let (reader, writer) = io::pipe().with_context(about)?;
    std::thread::scope(|scope| {
        let made =
            scope.spawn(|| tar::write_unhashed(&dir, &mut io::BufWriter::with_capacity(COPY_BUFFER, writer)));
        let unpacked = extract_again(store, reader, diff_id);
        let made = made.join().map_err(|_| anyhow::anyhow!("its archive could not be made"))?;
        // What went wrong with the reading end tells less.
        made.and(unpacked).with_context(about)
    })
    .and_then(|unpacked| publish(store, vec![unpacked]).map(drop))
}

/// Removes a layer; one that is gone already is fine. That nobody uses it is for the caller to know.
pub fn remove(store: &Store, diff_id: &DiffId) -> Result<()> {
    take_away(store, std::slice::from_ref(diff_id)).map(drop)
}

/// Takes layers out of their places, and what was made of them. They take room until what is returned is dropped, which
/// is to be when no lock is held any more.
pub fn take_away(store: &Store, diff_ids: &[DiffId]) -> Result<Vec<Removed>> {
    let mut removed = implied::take_away(store, &diff_ids.iter().cloned().collect())?;
    for diff_id in diff_ids {
        removed.extend(draft::take_away(store, &layout::layer(store, diff_id))?);
    }
    Ok(removed)
}

/// All layers of our own, unsorted.
pub fn list(store: &Store) -> Result<Vec<DiffId>> {
    let names = fs::read_dir(&store.data.join(layout::LAYERS))?;
    let digests = names.iter().filter_map(|n| Digest::from_hex(n.to_str()?));
    Ok(digests.map(DiffId).collect())
}

/// The bytes that a layer takes on disk, as du(1) counts them.
pub fn size_on_disk(store: &Store, diff_id: &DiffId) -> Result<u64> {
    usage::of(&existing(store, diff_id)?)
}

/// The bytes that a layer takes on disk which was taken away.
pub fn size_of_removed(removed: &Removed) -> Result<u64> {
    usage::of(removed.path())
}

fn existing(store: &Store, diff_id: &DiffId) -> Result<PathBuf> {
    locate(store, diff_id)?.ok_or_else(|| NotFound { kind: "layer", name: diff_id.0.to_string() }.into())
}
