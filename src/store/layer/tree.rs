//! The directories of a layer that is being unpacked: finding an entry's parent beneath the root, making the parents
//! that the archive left out, and remembering what each directory gets in the end.
//!
//! Directories are made with mode 0700 and get their own mode, time and default access control list when everything is
//! in them: files made before then inherit nothing (set-group-id, lists), and a read-only directory can be filled.
//!
//! Invariant: nothing outside the root is ever reached. A parent is opened beneath the root following no symlink; where
//! that fails, it is walked component by component, each symlink being read and interpreted within the root, which is
//! what other engines do with `bin -> usr/bin` followed by `bin/sh`.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, XattrFlags, chmodat, fchmod, fsetxattr, futimens, mkdirat, openat,
    readlinkat, statat,
};
use rustix::io::Errno;

use crate::host::Ids;

use super::attributes::{Owners, set_xattr, timestamps};
use super::beneath;
use super::entry::{Entry, Time};
use super::overlay::Overlay;
use super::replaced::Replaced;

/// As path_resolution(7) has it.
const MAX_SYMLINKS: u32 = 40;
/// Deeper than any tree that is used; keeps what walks a layer later within its stack.
const MAX_DEPTH: u32 = 4096;
/// Open parents kept, the deepest last: archives go through a tree depth first.
const MAX_PARENTS: usize = 32;
/// Bytes of access control lists kept until the end.
const MAX_LISTS: usize = 16 << 20;

/// A directory of the tree, by number; 0 is the root.
pub(super) type DirId = u32;
pub(super) const ROOT: DirId = 0;

pub(super) struct Tree {
    root: Rc<OwnedFd>,
    dirs: Vec<Dir>,
    /// By parent (four bytes) and name.
    ids: HashMap<Box<[u8]>, DirId>,
    /// Open directories, each one's path a prefix of the next one's and of `current`.
    parents: Vec<(usize, At)>,
    current: Vec<u8>,
    pub(super) overlay: Overlay,
    pub(super) owners: Owners,
    /// The root hides all that lies beneath the layer.
    pub(super) is_opaque: bool,
    replaced: Replaced,
    list_bytes: usize,
}

struct Dir {
    parent: DirId,
    depth: u32,
    name: Box<[u8]>,
    /// The archive named things in it, but not the directory itself.
    is_implied: bool,
    is_gone: bool,
    last: Option<Last>,
}

/// What a directory gets in the end.
struct Last {
    mode: u32,
    mtime: Time,
    lists: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A directory that entries are made in.
#[derive(Clone)]
pub(super) struct At {
    pub(super) fd: Rc<OwnedFd>,
    pub(super) dir: DirId,
    /// Reached through a symlink of the layer, so that the path in the archive is not the path on disk.
    pub(super) is_linked: bool,
}

/// Whether a walk makes directories that are missing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Make,
    Refuse,
}

impl Tree {
    /// An empty tree in `root`, a directory that exists; `layer` is the directory around it.
    pub(super) fn new(root: &Path, layer: &Path, ids: &Ids) -> Result<Tree> {
        let fd = Rc::new(beneath::root(root)?);
        let dirs = vec![Dir::new(ROOT, 0, b"")];
        let at = At { fd: Rc::clone(&fd), dir: ROOT, is_linked: false };
        Ok(Tree {
            root: fd,
            dirs,
            ids: HashMap::new(),
            parents: vec![(0, at)],
            current: Vec::new(),
            overlay: Overlay::new(ids),
            owners: Owners::new(ids),
            is_opaque: false,
            replaced: Replaced::new(layer),
            list_bytes: 0,
        })
    }

    /// The directory of this path, made where it is missing.
    pub(super) fn parent(&mut self, path: &[u8]) -> Result<At> {
        while self.parents.len() > 1
            && !has_prefix(path, &self.current[..self.parents[self.parents.len() - 1].0])
        {
            self.parents.pop();
        }
        let (length, base) = &self.parents[self.parents.len() - 1];
        if *length == path.len() {
            return Ok(base.clone());
        }
        let rest = if *length == 0 { path } else { &path[length + 1..] };
        let at = match beneath::directory(&*base.fd, rest) {
            Ok(fd) => At { fd: Rc::new(fd), dir: self.known(base.dir, rest)?, is_linked: base.is_linked },
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => self.walk(path, Missing::Make)?,
            Err(error) => return Err(error).context("cannot open its directory"),
        };
        if self.parents.len() == MAX_PARENTS {
            self.parents.pop();
        }
        self.current.clear();
        self.current.extend_from_slice(path);
        self.parents.push((path.len(), at.clone()));
        Ok(at)
    }

    /// The directory of this path, which must exist.
    pub(super) fn existing(&mut self, path: &[u8]) -> Result<At> {
        self.walk(path, Missing::Refuse)
    }

    /// Removes what is at `name`, because another entry wants the name.
    pub(super) fn replace(&mut self, at: &At, name: &[u8]) -> Result<()> {
        // An open directory may be inside, or be reached through, what goes.
        self.parents.truncate(1);
        if self.replaced.take(&*at.fd, name)?
            && let Some(id) = self.ids.remove(&key(at.dir, name))
        {
            self.dirs[id as usize].is_gone = true;
        }
        Ok(())
    }

    /// Makes a directory where there is none; returns it and whether it is new.
    pub(super) fn make_dir(&mut self, at: &At, name: &[u8]) -> Result<(DirId, bool)> {
        match mkdirat(&*at.fd, name, Mode::RWXU) {
            Ok(()) => Ok((self.add(at.dir, name)?, true)),
            Err(Errno::EXIST) => match self.ids.get(&key(at.dir, name)) {
                Some(id) => Ok((*id, false)),
                None => self.make_dir_over(at, name).map(|id| (id, true)),
            },
            Err(error) => Err(error).context("cannot make the directory"),
        }
    }

    /// A directory in the place of something else. In the place of a whiteout of this layer it is opaque: the layer says
    /// that what was there is gone, and that a new directory is there.
    fn make_dir_over(&mut self, at: &At, name: &[u8]) -> Result<DirId> {
        let was_whiteout = self.overlay.is_whiteout(&*at.fd, name)?;
        self.replace(at, name)?;
        mkdirat(&*at.fd, name, Mode::RWXU).context("cannot make the directory")?;
        let id = self.add(at.dir, name)?;
        if was_whiteout {
            self.overlay.set_opaque(&*at.fd, name)?;
        }
        Ok(id)
    }

    /// Remembers an explicit directory's attributes for the end.
    pub(super) fn set_last(&mut self, id: DirId, entry: &Entry) -> Result<()> {
        let lists: Vec<_> = entry.xattrs.iter().filter(|(name, _)| is_list(name)).cloned().collect();
        self.list_bytes += lists.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        if self.list_bytes > MAX_LISTS {
            bail!("the archive has more than {MAX_LISTS} bytes of access control lists");
        }
        let dir = &mut self.dirs[id as usize];
        dir.is_implied = false;
        dir.last = Some(Last { mode: entry.mode, mtime: entry.mtime, lists });
        Ok(())
    }

    /// The number of the directory at `name`, if there is one.
    pub(super) fn dir(&self, at: &At, name: &[u8]) -> Option<DirId> {
        self.ids.get(&key(at.dir, name)).copied()
    }

    /// Says that a directory is one of this layer's own, whatever lies beneath.
    pub(super) fn set_own(&mut self, id: DirId) {
        self.dirs[id as usize].is_implied = false;
    }

    /// Gives all directories their modes and times, and hands out the paths of the implied ones, parents first.
    pub(super) fn finish(mut self, mut implied: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        for id in 1..self.dirs.len() {
            let parent = self.dirs[id].parent as usize;
            self.dirs[id].is_gone |= self.dirs[parent].is_gone;
        }
        // Children first, as a directory may not be searched any more once it has its mode.
        for id in (0..self.dirs.len()).rev() {
            let dir = &self.dirs[id];
            if let Some(last) = dir.last.as_ref().filter(|_| !dir.is_gone) {
                let path = self.path(id as DirId);
                self.finish_dir(&path, last)
                    .with_context(|| format!("cannot finish directory {}", String::from_utf8_lossy(&path)))?;
            }
        }
        for id in 1..self.dirs.len() {
            if self.dirs[id].is_implied && !self.dirs[id].is_gone {
                implied(&self.path(id as DirId))?;
            }
        }
        Ok(())
    }

    fn finish_dir(&self, path: &[u8], last: &Last) -> Result<()> {
        let fd = beneath::open(&*self.root, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        fchmod(&fd, Mode::from_raw_mode(last.mode)).context("cannot chmod")?;
        for (name, value) in &last.lists {
            set_xattr(name, || fsetxattr(&fd, &name[..], value, XattrFlags::empty()))?;
        }
        futimens(&fd, &timestamps(last.mtime)).context("cannot set the time")
    }

    /// Goes to a directory by hand, following symlinks within the root.
    fn walk(&mut self, path: &[u8], missing: Missing) -> Result<At> {
        let root = At { fd: Rc::clone(&self.root), dir: ROOT, is_linked: false };
        let mut at = root.clone();
        let mut n_symlinks = 0;
        // What is left to go, the next component last.
        let mut todo: Vec<Vec<u8>> = components(path);
        while let Some(name) = todo.pop() {
            if name == b".." {
                let dir = self.dirs[at.dir as usize].parent;
                let fd =
                    beneath::directory(&*self.root, &self.path(dir)).context("cannot open a directory")?;
                at = At { fd: Rc::new(fd), dir, ..at };
                continue;
            }
            if let Some(next) = self.step(&at, &name, missing)? {
                at = next;
                continue;
            }
            let target = readlinkat(&*at.fd, &name[..], Vec::new()).context("cannot read a symlink")?;
            n_symlinks += 1;
            if n_symlinks > MAX_SYMLINKS {
                bail!("it goes through more than {MAX_SYMLINKS} symlinks");
            }
            if target.as_bytes().starts_with(b"/") {
                at = root.clone();
            }
            at.is_linked = true;
            todo.extend(components(target.as_bytes()));
        }
        Ok(at)
    }

    /// One component of a walk; `None` if it is a symlink.
    fn step(&mut self, at: &At, name: &[u8], missing: Missing) -> Result<Option<At>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = match openat(&*at.fd, name, flags, Mode::empty()) {
            Err(Errno::NOTDIR) => {
                let stat = statat(&*at.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                    return Ok(None);
                }
                if missing == Missing::Refuse || !self.overlay.is_whiteout(&*at.fd, name)? {
                    bail!("{} is not a directory", String::from_utf8_lossy(name));
                }
                let id = self.make_dir_over(at, name)?;
                self.set_own(id);
                chmod_implied(at, name)?;
                openat(&*at.fd, name, flags, Mode::empty())
            }
            Err(Errno::NOENT) if missing == Missing::Make => {
                let (id, _) = self.make_dir(at, name)?;
                self.dirs[id as usize].is_implied = true;
                chmod_implied(at, name)?;
                openat(&*at.fd, name, flags, Mode::empty())
            }
            found => found,
        };
        let fd = found.with_context(|| format!("cannot open {}", String::from_utf8_lossy(name)))?;
        Ok(Some(At { fd: Rc::new(fd), dir: self.known(at.dir, name)?, is_linked: at.is_linked }))
    }

    fn add(&mut self, parent: DirId, name: &[u8]) -> Result<DirId> {
        let depth = self.dirs[parent as usize].depth + 1;
        if depth > MAX_DEPTH {
            bail!("it is more than {MAX_DEPTH} directories deep");
        }
        let id = DirId::try_from(self.dirs.len()).context("the layer has too many directories")?;
        self.dirs.push(Dir::new(parent, depth, name));
        self.ids.insert(key(parent, name), id);
        Ok(id)
    }

    /// The number of a directory that is there, by its path from another.
    fn known(&self, from: DirId, path: &[u8]) -> Result<DirId> {
        path.split(|b| *b == b'/').filter(|name| !name.is_empty()).try_fold(from, |dir, name| {
            self.ids.get(&key(dir, name)).copied().context("a directory appeared that nobody made")
        })
    }

    fn path(&self, id: DirId) -> Vec<u8> {
        let mut names = Vec::new();
        let mut dir = &self.dirs[id as usize];
        while !dir.name.is_empty() {
            names.push(&*dir.name);
            dir = &self.dirs[dir.parent as usize];
        }
        names.reverse();
        names.join(&b'/')
    }
}

impl Dir {
    fn new(parent: DirId, depth: u32, name: &[u8]) -> Dir {
        Dir { parent, depth, name: name.into(), is_implied: false, is_gone: false, last: None }
    }
}

/// Whether an attribute waits for the end: lists change the mode, and default ones are inherited.
pub(super) fn is_list(name: &[u8]) -> bool {
    name.starts_with(b"system.")
}

/// What a directory gets that the archive does not describe, independent of the umask.
fn chmod_implied(at: &At, name: &[u8]) -> Result<()> {
    chmodat(&*at.fd, name, Mode::from_raw_mode(0o755), AtFlags::empty()).context("cannot chmod")
}

fn key(parent: DirId, name: &[u8]) -> Box<[u8]> {
    [&parent.to_ne_bytes(), name].concat().into()
}

fn has_prefix(path: &[u8], prefix: &[u8]) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// The components of a path, last first; `.` is none.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let names = path.split(|b| *b == b'/').filter(|name| !matches!(*name, b"" | b"."));
    names.rev().map(<[u8]>::to_vec).collect()
}
