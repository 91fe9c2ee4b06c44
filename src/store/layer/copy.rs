//! Copying layers into one plain directory, for where overlay cannot be had: what overlay would show of them, as files.
//!
//! Every directory of the result is one job: its names from all layers that have it, top-most first. Jobs know paths, not
//! descriptors (a tree may be deeper than we may have files open), and are shared by as many threads as there are
//! processors; they end before [`copy`] returns, so that none lives while a name space is made.
//!
//! Invariant: the directory is made in a draft and renamed; whoever sees it sees all of it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, linkat, mkdirat, statat};

use crate::fs;
use crate::host::Ids;

use super::super::Store;
use super::super::draft::Draft;
use super::super::mapped::Moves;
use super::attributes::Owners;
use super::beneath::{self, parent_and_name};
use super::inode;
use super::overlay::Overlay;

/// Copies `lower`, top-most first, to the directory `to`, which must not exist.
pub fn copy(store: &Store, lower: &[PathBuf], to: &Path) -> Result<()> {
    copy_with(store, lower, to, None)
}

/// The same with other owners.
pub fn copy_moved(store: &Store, lower: &[PathBuf], to: &Path, moves: Moves) -> Result<()> {
    copy_with(store, lower, to, Some(moves))
}

fn copy_with(store: &Store, lower: &[PathBuf], to: &Path, moves: Option<Moves>) -> Result<()> {
    let draft = Draft::new(store)?;
    let merged = draft.path().join("merged");
    fs::create_dir(&merged, 0o700)?;
    merge(&store.ids, moves, lower, &merged)
        .with_context(|| format!("cannot copy the layers to {}", to.display()))?;
    draft.publish("merged".as_ref(), to)?;
    Ok(())
}

/// Gives the directory `to` owner, mode, extended attributes and times of the directory `from`.
pub fn copy_directory_attributes(store: &Store, from: &Path, to: &Path) -> Result<()> {
    let open = |path| {
        beneath::open(beneath::root(path)?, b"", OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(anyhow::Error::from)
    };
    inode::copy_directory(&open(from)?, &open(to)?, &Owners::new(&store.ids))
        .with_context(|| format!("cannot set the attributes of {}", to.display()))
}

fn merge(ids: &Ids, moves: Option<Moves>, lower: &[PathBuf], to: &Path) -> Result<()> {
    let layers = lower.iter().map(|dir| beneath::root(dir)).collect::<Result<Vec<_>>>()?;
    let first = Job { path: Vec::new(), layers: (0..layers.len()).collect() };
    let queue = Queue { jobs: vec![first], busy: 0, error: None };
    let merge = Merge {
        ids,
        moves,
        layers,
        target: beneath::root(to)?,
        links: Mutex::default(),
        can_clone: AtomicBool::new(true),
        queue: Mutex::new(queue),
        changed: Condvar::new(),
    };
    let n_threads = std::thread::available_parallelism().map_or(2, usize::from).min(8);
    std::thread::scope(|scope| {
        for _ in 1..n_threads {
            scope.spawn(|| merge.work());
        }
        merge.work();
    });
    let queue = merge.queue.into_inner().unwrap_or_else(PoisonError::into_inner);
    queue.error.map_or(Ok(()), Err)
}

struct Merge<'a> {
    ids: &'a Ids,
    moves: Option<Moves>,
    layers: Vec<OwnedFd>,
    target: OwnedFd,
    /// Where files with several names were copied to, by device and inode. Held while one is copied.
    links: Mutex<HashMap<(u64, u64), Vec<u8>>>,
    /// Whether the file system may share blocks between files (FICLONE); unset by the first refusal.
    can_clone: AtomicBool,
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// A directory to fill, and the layers that have it, top-most first.
struct Job {
    path: Vec<u8>,
    layers: Vec<usize>,
}

struct Queue {
    jobs: Vec<Job>,
    /// Jobs that are being done; they may still bring new ones.
    busy: usize,
    error: Option<anyhow::Error>,
}

/// What is known of a name in the layers looked at so far.
enum Seen {
    /// Lower layers have no say.
    Settled,
    /// A directory, which lower layers may add to: its number among the new jobs.
    Dir(usize),
}

/// A directory's handles while it is filled.
struct Place<'a> {
    path: &'a [u8],
    to: &'a OwnedFd,
    owners: &'a Owners,
}

impl Merge<'_> {
    fn work(&self) {
        let (overlay, owners) = (Overlay::new(self.ids), Owners::new(self.ids).moved(self.moves.clone()));
        while let Some(job) = self.next() {
            let done = self
                .directory(&job, &overlay, &owners)
                .with_context(|| format!("cannot copy /{}", String::from_utf8_lossy(&job.path)));
            let mut queue = self.queue();
            queue.busy -= 1;
            match done {
                Ok(jobs) => queue.jobs.extend(jobs),
                Err(error) => queue.error = queue.error.take().or(Some(error)),
            }
            self.changed.notify_all();
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.queue();
        loop {
            if queue.error.is_some() {
                return None;
            }
            if let Some(job) = queue.jobs.pop() {
                queue.busy += 1;
                return Some(job);
            }
            if queue.busy == 0 {
                return None;
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Fills one directory; its directories are the jobs that are returned.
    fn directory(&self, job: &Job, overlay: &Overlay, owners: &Owners) -> Result<Vec<Job>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let to = beneath::open(&self.target, &job.path, flags)?;
        let mut sources = Vec::new();
        for n in &job.layers {
            let source = beneath::open(&self.layers[*n], &job.path, flags)?;
            let is_last = overlay.is_opaque(&source)?;
            sources.push((*n, source));
            if is_last {
                break;
            }
        }
        let place = Place { path: &job.path, to: &to, owners };
        let mut jobs: Vec<Job> = Vec::new();
        let mut seen: HashMap<Vec<u8>, Seen> = HashMap::new();
        for (n, source) in &sources {
            for entry in Dir::read_from(source)? {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if name == b"." || name == b".." {
                    continue;
                }
                let about = || format!("cannot copy {}", String::from_utf8_lossy(name));
                let stat = statat(source, name, AtFlags::SYMLINK_NOFOLLOW).with_context(about)?;
                let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                match seen.entry(name.to_vec()) {
                    Entry::Occupied(mut known) => match *known.get() {
                        Seen::Dir(job) if is_dir => jobs[job].layers.push(*n),
                        _ => drop(known.insert(Seen::Settled)),
                    },
                    Entry::Vacant(new) if is_dir => {
                        new.insert(Seen::Dir(jobs.len()));
                        mkdirat(&to, name, Mode::RWXU).with_context(about)?;
                        jobs.push(Job { path: join(&job.path, name), layers: vec![*n] });
                    }
                    Entry::Vacant(new) => {
                        new.insert(Seen::Settled);
                        if !overlay.is_whiteout_as(&stat, source, name).with_context(about)? {
                            self.inode(source, name, &stat, &place).with_context(about)?;
                        }
                    }
                }
            }
        }
        // Last: nothing more is made in this directory itself, so its time stays, and no file inherited its lists.
        if let Some((_, source)) = sources.first() {
            inode::copy_directory(source, &to, owners)?;
        }
        Ok(jobs)
    }

    /// Copies what is no directory, or gives a copy its second name.
    fn inode(&self, from: &OwnedFd, name: &[u8], stat: &Stat, place: &Place<'_>) -> Result<()> {
        let copy = || inode::copy((from, place.to, name), stat, place.owners, &self.can_clone);
        if stat.st_nlink == 1 {
            return copy();
        }
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        match links.entry((stat.st_dev, stat.st_ino)) {
            Entry::Occupied(first) => {
                let (parent, first) = parent_and_name(first.get());
                let dir = beneath::directory(&self.target, parent)?;
                Ok(linkat(&dir, first, place.to, name, AtFlags::empty())?)
            }
            Entry::Vacant(new) => {
                copy()?;
                new.insert(join(place.path, name));
                Ok(())
            }
        }
    }
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}
