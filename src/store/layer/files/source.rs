//! Walking a tree in the order of names: one directory, or several on top of each other as overlay would show them,
//! without mounting anything. So it works where overlay does not, and beside a container that runs.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, StatxFlags, openat, statat, statx};
use rustix::io::Errno;

use super::super::beneath;
use super::super::overlay::Overlay;
use crate::host::Ids;

/// Deeper than any tree that is used; every level costs descriptors and stack.
const MAX_DEPTH: usize = 2048;

/// A tree to read.
#[derive(Debug)]
pub struct Source {
    /// Top-most first.
    pub(super) layers: Vec<OwnedFd>,
    /// How marks are read; `None` where the tree is what it shows.
    pub(super) overlay: Option<Overlay>,
    /// The one mount that the walk stays on.
    mount: Option<u64>,
}

/// What a walk comes across.
#[derive(Debug)]
pub struct Found<'a> {
    /// Beneath the top; empty for the top itself.
    pub path: &'a [u8],
    /// The directory that has it; for the top, the top itself.
    pub parent: &'a OwnedFd,
    /// Its name there; `.` for the top.
    pub name: &'a [u8],
    /// Something else is mounted there: what is seen is not the tree's.
    pub is_covered: bool,
}

/// A name in a directory that may lie in several layers.
pub(super) struct Child {
    /// The layer that shows it: a number among the directory's.
    pub(super) top: usize,
    /// The layers whose directories of this name are merged; empty for anything else.
    pub(super) dirs: Vec<usize>,
    /// Lower layers have no say any more.
    is_settled: bool,
    pub(super) is_whiteout: bool,
}

impl Source {
    /// One directory, as it is.
    pub fn plain(dir: OwnedFd) -> Source {
        Source { layers: vec![dir], overlay: None, mount: None }
    }

    /// One directory without what is mounted beneath it.
    pub fn one_mount(dir: OwnedFd) -> Source {
        let mount = mount_id(&dir, b"");
        Source { mount, ..Source::plain(dir) }
    }

    /// Directories on top of each other, top-most first.
    pub fn stacked<'a>(ids: &Ids, dirs: impl IntoIterator<Item = &'a Path>) -> Result<Source> {
        let layers = dirs.into_iter().map(beneath::root).collect::<Result<Vec<_>>>()?;
        Ok(Source { layers, overlay: Some(Overlay::new(ids)), mount: None })
    }

    /// Hands out the top and everything beneath it, each directory before what is in it. What vanishes meanwhile is
    /// passed over.
    pub fn walk(&self, visit: &mut dyn FnMut(&Found<'_>) -> Result<()>) -> Result<()> {
        let dirs = self.top()?;
        let Some(parent) = dirs.first() else { return Ok(()) };
        visit(&Found { path: b"", parent, name: b".", is_covered: false })?;
        self.directory(&dirs, &mut Vec::new(), 0, visit)
    }

    /// Opens something of the top-most layer by its path, following no link.
    pub fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
        let top = self.layers.first().context("there is nothing in it")?;
        beneath::open(top, path, flags)
            .with_context(|| format!("cannot open {}", String::from_utf8_lossy(path)))
    }

    /// The top's directories.
    pub(super) fn top(&self) -> Result<Vec<OwnedFd>> {
        let mut dirs = Vec::new();
        for layer in &self.layers {
            let dir = beneath::open(layer, b"", OFlags::RDONLY | OFlags::DIRECTORY)
                .context("cannot open a directory")?;
            if self.push(&mut dirs, dir)? {
                break;
            }
        }
        Ok(dirs)
    }

    /// Adds a layer's directory; whether it hides the layers beneath.
    fn push(&self, dirs: &mut Vec<OwnedFd>, dir: OwnedFd) -> Result<bool> {
        let is_last = self.overlay.as_ref().is_some_and(|o| o.is_opaque(&dir).unwrap_or(false));
        dirs.push(dir);
        Ok(is_last)
    }

    /// Whether something else is mounted there, where the walk is to stay on one mount.
    pub(super) fn is_covered(&self, parent: &OwnedFd, name: &[u8]) -> bool {
        self.mount.is_some() && mount_id(parent, name) != self.mount
    }

    /// Whether the lowest of these directories hides what lies beneath.
    pub(super) fn hides(&self, dirs: &[OwnedFd]) -> bool {
        let is_opaque = |dir| self.overlay.as_ref().is_some_and(|o| o.is_opaque(dir).unwrap_or(false));
        dirs.last().is_some_and(is_opaque)
    }

    fn directory(
        &self,
        dirs: &[OwnedFd],
        path: &mut Vec<u8>,
        depth: usize,
        visit: &mut dyn FnMut(&Found<'_>) -> Result<()>,
    ) -> Result<()> {
        if depth > MAX_DEPTH {
            bail!(
                "cannot read {}: it is more than {MAX_DEPTH} directories deep",
                String::from_utf8_lossy(path)
            );
        }
        for (name, child) in self.children(dirs)? {
            if child.is_whiteout {
                continue;
            }
            let length = path.len();
            join(path, &name);
            let parent = &dirs[child.top];
            let is_covered = self.is_covered(parent, &name);
            visit(&Found { path, parent, name: &name, is_covered })?;
            if !child.dirs.is_empty() && !is_covered {
                let inner = self.inner(dirs, &name, &child)?;
                if !inner.is_empty() {
                    self.directory(&inner, path, depth + 1, visit)?;
                }
            }
            path.truncate(length);
        }
        Ok(())
    }

    /// The names in a directory, whiteouts too.
    pub(super) fn children(&self, dirs: &[OwnedFd]) -> Result<BTreeMap<Vec<u8>, Child>> {
        let mut children: BTreeMap<Vec<u8>, Child> = BTreeMap::new();
        for (n, dir) in dirs.iter().enumerate() {
            for name in names(dir)? {
                if children.get(&name).is_some_and(|known| known.is_settled) {
                    continue;
                }
                let stat = match statat(dir, &name[..], AtFlags::SYMLINK_NOFOLLOW) {
                    Err(Errno::NOENT) => continue,
                    stat => stat.context("cannot look at a file")?,
                };
                let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                let is_whiteout = match &self.overlay {
                    Some(overlay) => overlay.is_whiteout_as(&stat, dir, &name).unwrap_or(false),
                    None => false,
                };
                let child = children.entry(name).or_insert_with(|| Child {
                    top: n,
                    dirs: Vec::new(),
                    is_settled: false,
                    is_whiteout,
                });
                match is_dir {
                    true => child.dirs.push(n),
                    false => child.is_settled = true,
                }
            }
        }
        Ok(children)
    }

    /// Opens the directories of a child; none if it is none any more.
    pub(super) fn inner(&self, dirs: &[OwnedFd], name: &[u8], child: &Child) -> Result<Vec<OwnedFd>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut inner = Vec::new();
        for n in &child.dirs {
            match openat(&dirs[*n], name, flags, Mode::empty()) {
                Ok(dir) => {
                    if self.push(&mut inner, dir)? {
                        break;
                    }
                }
                // Whoever works there has put something else in its place.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("cannot open directory {}", String::from_utf8_lossy(name)));
                }
            }
        }
        Ok(inner)
    }
}

/// The names in an open directory.
pub(super) fn names(dir: &OwnedFd) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir).context("cannot read a directory")? {
        let entry = entry.context("cannot read a directory")?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

/// Appends a name to a path.
pub(super) fn join(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// Which mount something is on (Linux 5.8).
pub(super) fn mount_id(dir: &OwnedFd, name: &[u8]) -> Option<u64> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT;
    let found = statx(dir, name, flags, StatxFlags::MNT_ID).ok()?;
    (found.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(found.stx_mnt_id)
}
