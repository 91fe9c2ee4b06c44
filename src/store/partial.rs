//! A partial: a blob that is being fetched, `partial/HEX`. It stays when its fetcher dies, and is gone on with by whoever
//! wants the blob next, in any process.
//!
//! Who holds the lock of the file fetches; others wait for the lock and then look again whether there is anything left
//! to do. The lock goes with its process, so nobody waits for the dead. A partial that is whole becomes the blob by a
//! rename, without being written twice: see [`Partial::seal`].
//!
//! A layer that comes uncompressed is unpacked beside its partial, which then has no bytes: `partial/HEX.tree`, and
//! `partial/HEX.old` for what an interrupted pull left of it (`layer::remnant`).
//!
//! Invariant: only the holder of the lock writes to the file, renames or removes it. What is in it is worth nothing until
//! it was hashed: after a power cut the file may have its size and not its bytes.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use crate::fs;
use crate::oci::Digest;
use crate::sys::lock;

use super::Store;
use super::blob::Sealed;
use super::layer;

const PARTIALS: &str = "partial";
const TREE: &str = "tree";
const OLD: &str = "old";
/// How long one is kept that nobody goes on with.
pub const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A partial that is ours to write to. Dropped while it is empty, it leaves nothing behind.
#[derive(Debug)]
pub struct Partial {
    /// What the bytes are to become.
    pub digest: Digest,
    path: PathBuf,
    file: File,
}

/// Takes the partial of a blob; `None` while somebody else has it.
pub fn claim(store: &Store, digest: &Digest) -> Result<Option<Partial>> {
    take(store, digest, |file| lock::try_acquire(file, lock::Kind::Exclusive))
}

/// Takes the partial of a blob as soon as nobody else has it.
pub fn wait(store: &Store, digest: &Digest) -> Result<Partial> {
    let waited = take(store, digest, |file| lock::acquire(file, lock::Kind::Exclusive).map(|()| true))?;
    waited.context("cannot wait for a lock: it was not taken")
}

fn take(
    store: &Store,
    digest: &Digest,
    acquire: impl Fn(&File) -> std::io::Result<bool>,
) -> Result<Option<Partial>> {
    let path = path(store, digest);
    let about = || format!("cannot lock {}", path.display());
    loop {
        let file = fs::open_or_create(&path, 0o644)?;
        if !acquire(&file).with_context(about)? {
            return Ok(None);
        }
        // Whoever had it may have renamed or removed it; then this is no partial any more.
        let own = file.metadata().with_context(about)?;
        let there = fs::symlink_metadata(&path)?;
        if there.is_some_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino())) {
            return Ok(Some(Partial { digest: digest.clone(), path, file }));
        }
    }
}

impl Partial {
    /// The file, for reading and writing at offsets.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// How many bytes there are.
    pub fn len(&self) -> Result<u64> {
        let meta = self.file.metadata().with_context(|| format!("cannot look at {}", self.path.display()))?;
        Ok(meta.len())
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Throws away all that there is.
    pub fn clear(&self) -> Result<()> {
        self.file.set_len(0).with_context(|| format!("cannot shorten {}", self.path.display()))?;
        fs::remove_tree(&self.tree())?;
        self.clear_remnant()
    }

    /// Throws away what an earlier pull left of a layer.
    pub fn clear_remnant(&self) -> Result<()> {
        fs::remove_tree(&self.remnant())
    }

    /// Where the layer is unpacked that is fetched.
    pub(super) fn tree(&self) -> PathBuf {
        self.path.with_extension(TREE)
    }

    /// What an earlier pull left of that.
    pub(super) fn remnant(&self) -> PathBuf {
        self.path.with_extension(OLD)
    }

    fn trees(&self) -> Result<Vec<PathBuf>> {
        let mut trees = Vec::new();
        for tree in [self.tree(), self.remnant()] {
            if fs::symlink_metadata(&tree)?.is_some() {
                trees.push(tree);
            }
        }
        Ok(trees)
    }

    /// A blob to be published; the caller has hashed the `size` bytes of the file, and it is still locked.
    pub fn seal(self, size: u64) -> Result<Sealed> {
        let found = self.len()?;
        if found != size {
            bail!("cannot store blob {}: it has {found} bytes, not {size}", self.digest);
        }
        Ok(Sealed::of_partial(self, size))
    }

    /// Where it lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // The lock is still held. Where it was renamed, the name is free or somebody else's.
        let is_own = || -> Result<bool> {
            let own = self.file.metadata()?;
            let there = fs::symlink_metadata(&self.path)?;
            Ok(own.len() == 0
                && self.trees()?.is_empty()
                && there.is_some_and(|t| (t.dev(), t.ino()) == (own.dev(), own.ino())))
        };
        if is_own().unwrap_or(false) {
            // What cannot be removed now is removed by the next sweep.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes the partials that nobody fetches, and that nobody has gone on with for so long or needs any more. Returns the bytes that the disk gets
/// back.
pub fn sweep(store: &Store, unused_for: Duration) -> Result<u64> {
    let mut bytes = 0;
    for digest in list(store)? {
        let Some(partial) = claim(store, &digest)? else { continue };
        let about = || format!("cannot look at {}", partial.path.display());
        let meta = partial.file.metadata().with_context(about)?;
        let mut modified = meta.modified().with_context(about)?;
        let trees = partial.trees()?;
        for tree in &trees {
            // Its directory is as old as its first file; this one is written until the end.
            let split = fs::symlink_metadata(&tree.join(layer::SPLIT))?;
            modified = split.and_then(|m| m.modified().ok()).map_or(modified, |m| m.max(modified));
        }
        // One from the future, by a clock that was wrong, is old.
        let age = SystemTime::now().duration_since(modified).unwrap_or(Duration::MAX);
        if age >= unused_for || is_there(store, &digest)? {
            for tree in &trees {
                bytes += layer::usage::of(tree).unwrap_or(0);
            }
            partial.clear()?;
            bytes += meta.blocks() * 512;
        }
    }
    Ok(bytes)
}

/// The partials that nobody fetches and that are of no use any more: the blob is there, or nobody has gone on for
/// [`KEPT`].
pub fn dead(store: &Store) -> Result<Vec<Digest>> {
    let mut found = Vec::new();
    for digest in list(store)? {
        let Ok(file) = File::open(path(store, &digest)) else { continue };
        let is_held =
            lock::is_held(&file).with_context(|| format!("cannot look at the partial of {digest}"))?;
        let age =
            file.metadata().and_then(|m| m.modified()).ok().map(|m| m.elapsed().unwrap_or(Duration::MAX));
        let is_old = age.is_some_and(|age| age >= KEPT);
        if !is_held && (is_old || is_there(store, &digest)?) {
            found.push(digest);
        }
    }
    Ok(found)
}

/// Whether what was fetched came by another way.
fn is_there(store: &Store, digest: &Digest) -> Result<bool> {
    Ok(super::blob::is_own(store, digest)? || layer::is_own(store, digest)?)
}

/// Removes what [`dead`] names.
pub fn sweep_dead(store: &Store) -> Result<()> {
    for digest in dead(store)? {
        if let Some(partial) = claim(store, &digest)? {
            partial.clear()?;
        }
    }
    Ok(())
}

/// All partials.
pub fn list(store: &Store) -> Result<Vec<Digest>> {
    let names = fs::read_dir(&store.data.join(PARTIALS))?;
    // What lies beside one is of the same blob, should the file itself be lost.
    let digest = |name: &OsString| {
        let (name, ending) = name.to_str()?.split_once('.').unwrap_or((name.to_str()?, TREE));
        [TREE, OLD].contains(&ending).then(|| Digest::from_hex(name))?
    };
    let found: BTreeSet<Digest> = names.iter().filter_map(digest).collect();
    Ok(found.into_iter().collect())
}

fn path(store: &Store, digest: &Digest) -> PathBuf {
    store.data.join(PARTIALS).join(digest.hex())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Ids;
    use crate::store::blob;
    use crate::store::tests::Scratch;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_partial_is_gone_on_with_and_becomes_the_blob() {
        let scratch = Scratch::new(Ids::Root);
        let store = &scratch.store;
        let digest = Digest::of(b"hello");
        let first = claim(store, &digest).unwrap().unwrap();
        first.file().write_all_at(b"he", 0).unwrap();
        assert!(claim(store, &digest).unwrap().is_none());
        drop(first);
        let second = claim(store, &digest).unwrap().unwrap();
        assert_eq!(second.len().unwrap(), 2);
        second.file().write_all_at(b"llo", 2).unwrap();
        assert!(claim(store, &digest).unwrap().is_none());
        let sealed = second.seal(5).unwrap();
        assert!(claim(store, &digest).unwrap().is_none());
        assert!(!blob::exists(store, &digest).unwrap());
        blob::publish(store, vec![sealed]).unwrap();
        assert_eq!(blob::read(store, &digest, 5).unwrap(), b"hello");
        assert!(list(store).unwrap().is_empty());
        assert!(wait(store, &digest).unwrap().is_empty().unwrap());
        assert!(list(store).unwrap().is_empty(), "an empty one leaves nothing");
    }

    #[test]
    fn a_wrong_size_is_not_sealed() {
        let scratch = Scratch::new(Ids::Root);
        let partial = claim(&scratch.store, &Digest::of(b"x")).unwrap().unwrap();
        partial.file().write_all_at(b"xy", 0).unwrap();
        assert!(partial.seal(1).is_err());
    }

    #[test]
    fn waiters_come_one_after_the_other() {
        let scratch = Scratch::new(Ids::Root);
        let store = &scratch.store;
        let digest = Digest::of(b"shared");
        let downloads = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let partial = wait(store, &digest).unwrap();
                    if blob::exists(store, &digest).unwrap() {
                        return;
                    }
                    downloads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    partial.file().write_all_at(b"shared", 0).unwrap();
                    blob::publish(store, vec![partial.seal(6).unwrap()]).unwrap();
                });
            }
        });
        assert_eq!(downloads.into_inner(), 1);
        assert!(list(store).unwrap().is_empty());
    }

    #[test]
    fn only_old_ones_that_nobody_holds_are_swept() {
        let scratch = Scratch::new(Ids::Root);
        let store = &scratch.store;
        let (held, left) = (Digest::of(b"1"), Digest::of(b"2"));
        let partial = claim(store, &held).unwrap().unwrap();
        partial.file().write_all_at(b"1", 0).unwrap();
        let other = claim(store, &left).unwrap().unwrap();
        other.file().write_all_at(b"2", 0).unwrap();
        drop(other);
        assert_eq!(sweep(store, KEPT).unwrap(), 0);
        assert_eq!(list(store).unwrap().len(), 2);
        // What was got by another way is of no use.
        blob::put(store, b"2").unwrap();
        assert_eq!(dead(store).unwrap(), [left]);
        sweep(store, KEPT).unwrap();
        assert_eq!(list(store).unwrap(), std::slice::from_ref(&held));
        let other = claim(store, &Digest::of(b"3")).unwrap().unwrap();
        other.file().write_all_at(b"3", 0).unwrap();
        drop(other);
        sweep(store, Duration::ZERO).unwrap();
        assert_eq!(list(store).unwrap(), [held]);
    }
}
