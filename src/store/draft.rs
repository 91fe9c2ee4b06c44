//! A draft: a directory beneath `tmp/` in which an object is made before it is renamed into its place.
//!
//! A draft is alive while its `lock` file is held. Whoever finds the lock free knows that the maker died, and removes
//! the draft; so no process needs to clean up after a kill -9, a crash or a reboot.
//!
//! Invariant: `lock` is the last thing that is removed from a draft, so that half a removal is finished by the next.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::fs;
use crate::sys::lock;

use super::Store;

const LOCK: &str = "lock";
const REMOVED: &str = "removed";

/// A directory that nobody else looks into; removed when dropped.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    // Held for as long as the draft lives: what keeps `sweep` off.
    _lock: File,
}

impl Draft {
    /// Makes an empty draft.
    pub fn new(store: &Store) -> Result<Draft> {
        loop {
            let path = store.data.join("tmp").join(random_name()?);
            fs::create_dir(&path, 0o700)?;
            // Between the two steps a sweep may take the directory for an abandoned one; then we take another name.
            match claim(&path) {
                Ok(Some(lock)) => return Ok(Draft { path, _lock: lock }),
                Ok(None) => {}
                Err(_) if fs::symlink_metadata(&path)?.is_none() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Renames `sub` of this draft to `to`; false if `to` exists already, which then stays as it is. The rest of the
    /// draft is removed. Not synced: see [`Store::sync`].
    pub fn publish(self, sub: &Path, to: &Path) -> Result<bool> {
        rename_new(&self.path.join(sub), to)
    }
}

/// Renames, but leaves what exists as it is: then it returns false.
pub(super) fn rename_new(from: &Path, to: &Path) -> Result<bool> {
    let about = || format!("cannot rename {} to {}", from.display(), to.display());
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        // A file system without RENAME_NOREPLACE: a directory is still never replaced by rename(2) unless it is
        // empty, and a file only by one of the same content, since files are named by their digests.
        Err(Errno::INVAL | Errno::NOSYS) => {
            if fs::symlink_metadata(to)?.is_some() {
                return Ok(false);
            }
            fs::rename(from, to).map(|()| true)
        }
        Err(error) => Err(error).with_context(about),
    }
}

impl Draft {
    /// Exchanges `sub` of this draft with what is at `place`; false where the file system cannot do that, or nothing is
    /// there.
    pub(super) fn exchange(&self, sub: &Path, place: &Path) -> Result<bool> {
        let from = self.path.join(sub);
        match renameat_with(CWD, &from, CWD, place, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(true),
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOENT) => Ok(false),
            Err(error) => Err(error)
                .with_context(|| format!("cannot exchange {} and {}", from.display(), place.display())),
        }
    }
}

/// What was taken out of its place. Dropped, it is taken apart.
#[derive(Debug)]
pub struct Removed {
    place: PathBuf,
    path: PathBuf,
    draft: Draft,
}

/// Takes a file or a directory out of its place, in one step as seen from outside; `None` if it is gone already.
pub fn take_away(store: &Store, place: &Path) -> Result<Option<Removed>> {
    if fs::symlink_metadata(place)?.is_none() {
        return Ok(None);
    }
    let draft = Draft::new(store)?;
    let path = draft.path().join(REMOVED);
    fs::rename(place, &path)?;
    Ok(Some(Removed { place: place.to_owned(), path, draft }))
}

impl Removed {
    /// Where it is now.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts it back, unless something else has taken its place.
    pub fn put_back(self) -> Result<()> {
        self.draft.publish(REMOVED.as_ref(), &self.place).map(drop)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next sweep.
        let _ = remove(&self.path);
    }
}

/// Removes the drafts that their makers left behind. Must run where the files in them can be removed: inside the user
/// name space, if there is one.
pub fn sweep(store: &Store) -> Result<()> {
    let tmp = store.data.join("tmp");
    for name in fs::read_dir(&tmp)? {
        let path = tmp.join(name);
        if let Some(_lock) = claim_abandoned(&path)? {
            remove(&path)?;
        }
    }
    Ok(())
}

/// The drafts that their makers left behind, by name; nothing is removed.
pub fn abandoned(store: &Store) -> Result<Vec<String>> {
    let tmp = store.data.join("tmp");
    let mut found = Vec::new();
    for name in fs::read_dir(&tmp)? {
        let path = tmp.join(&name);
        let is_abandoned = match fs::open(&path.join(LOCK)) {
            Ok(file) => !lock::is_held(&file).unwrap_or(true),
            // An empty one may be one that is being made just now.
            Err(_) => {
                fs::symlink_metadata(&path)?.is_some_and(|m| !m.is_dir()) || !fs::read_dir(&path)?.is_empty()
            }
        };
        if is_abandoned && fs::symlink_metadata(&path)?.is_some() {
            found.push(name.to_string_lossy().into_owned());
        }
    }
    Ok(found)
}

/// Whether somebody is making the draft that lies there.
pub(super) fn is_alive(path: &Path) -> bool {
    fs::open(&path.join(LOCK)).is_ok_and(|file| lock::is_held(&file).unwrap_or(true))
}

/// Whether a draft that somebody is making at this moment satisfies `wanted`, which looks at its directory.
pub fn any_held(store: &Store, wanted: impl Fn(&Path) -> bool) -> Result<bool> {
    let tmp = store.data.join("tmp");
    for name in fs::read_dir(&tmp)? {
        let path = tmp.join(name);
        if wanted(&path) && is_alive(&path) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes the lock of a draft whose maker is dead; `None` if it lives, or if nothing is left to remove.
fn claim_abandoned(path: &Path) -> Result<Option<File>> {
    // An empty one's maker died between its first two steps, or is there now and will notice. Only rmdir(2) may take it
    // away: looking first would leave the time in which the maker puts its lock there.
    if rustix::fs::rmdir(path).is_ok() {
        return Ok(None);
    }
    match claim(path) {
        // Somebody removed it between the two looks.
        Err(_) if fs::symlink_metadata(path)?.is_none() => Ok(None),
        claimed => claimed,
    }
}

/// Takes the lock of a draft; `None` if another process holds it or has removed the draft meanwhile.
fn claim(path: &Path) -> Result<Option<File>> {
    let lock_path = path.join(LOCK);
    let file = fs::open_or_create(&lock_path, 0o600)?;
    let about = || format!("cannot lock {}", lock_path.display());
    if !lock::try_acquire(&file, lock::Kind::Exclusive).with_context(about)? {
        return Ok(None);
    }
    let is_linked = file.metadata().with_context(about)?.nlink() > 0;
    Ok(is_linked.then_some(file))
}

/// Removes what has the shape of a draft, `lock` last.
pub(super) fn remove(path: &Path) -> Result<()> {
    for name in fs::read_dir(path)? {
        if name == LOCK {
            continue;
        }
        let inner = path.join(name);
        match fs::symlink_metadata(&inner)? {
            Some(meta) if meta.is_dir() => fs::remove_tree(&inner)?,
            _ => fs::remove_file(&inner)?,
        }
    }
    fs::remove_file(&path.join(LOCK))?;
    match rustix::fs::rmdir(path) {
        // Gone; or a sweep that came in between has put a lock of its own there, and finishes the work.
        Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot remove directory {}", path.display())),
    }
}

/// 16 random hex digits.
fn random_name() -> Result<String> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .context("cannot read random bytes")?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Ids;
    use crate::store::tests::Scratch;

    #[test]
    fn a_draft_is_published_once() {
        let scratch = Scratch::new(Ids::Root);
        let to = scratch.dir.join("object");
        for (n, first) in [(1, true), (2, false)] {
            let draft = Draft::new(&scratch.store).unwrap();
            fs::create_dir(&draft.path().join("sub"), 0o755).unwrap();
            fs::write(&draft.path().join("sub/n"), format!("{n}").as_bytes()).unwrap();
            assert_eq!(draft.publish(Path::new("sub"), &to).unwrap(), first);
        }
        assert_eq!(fs::read(&to.join("n")).unwrap(), b"1");
        assert!(scratch.is_tidy());
    }

    #[test]
    fn only_abandoned_drafts_are_swept() {
        let scratch = Scratch::new(Ids::Root);
        let tmp = scratch.store.data.join("tmp");
        let living = Draft::new(&scratch.store).unwrap();
        for abandoned in ["0000000000000001", "0000000000000002"] {
            fs::create_dir_all(&tmp.join(abandoned).join("deep/er"), 0o755).unwrap();
            fs::write(&tmp.join(abandoned).join(LOCK), b"").unwrap();
        }
        fs::create_dir(&tmp.join("0000000000000003"), 0o700).unwrap();
        sweep(&scratch.store).unwrap();
        assert_eq!(fs::read_dir(&tmp).unwrap(), [living.path().file_name().unwrap()]);
        drop(living);
        assert!(scratch.is_tidy());
    }

    #[test]
    fn makers_and_sweeps_side_by_side_lose_nothing() {
        let scratch = Scratch::new(Ids::Root);
        let make = |maker: usize| {
            for n in 0..300 {
                let draft = Draft::new(&scratch.store).unwrap();
                fs::write(&draft.path().join("object"), b"x").unwrap();
                if n % 3 > 0 {
                    let to = scratch.dir.join(format!("{maker}-{n}"));
                    assert!(draft.publish(Path::new("object"), &to).unwrap());
                }
            }
        };
        let make = &make;
        std::thread::scope(|scope| {
            let makers: Vec<_> = (0..3).map(|maker| scope.spawn(move || make(maker))).collect();
            while !makers.iter().all(|m| m.is_finished()) {
                std::thread::scope(|sweepers| {
                    for _ in 0..2 {
                        sweepers.spawn(|| sweep(&scratch.store).unwrap());
                    }
                });
            }
        });
        assert!(scratch.is_tidy());
    }
}
