//! Comparing the tree of a layer with the entries of its archive, as it is made again: every name is there, and is what
//! its header says. Contents are not compared here: the archive is made of them, and has to have its digest.
//!
//! Looked at as the entries come, so that memory does not grow with the layer: what is not as an entry says is only
//! remembered, because a later entry may be the reason.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, FileType, Stat, major, minor, readlinkat, statat};
use rustix::io::Errno;

use crate::host::Ids;

use super::beneath;
use super::beneath::parent_and_name;
use super::entry::{Entry, Kind};
use super::layout;
use super::overlay::Overlay;
use super::tree::is_list;

/// How many differences are remembered; more cannot be told anyway.
const MAX_WRONG: usize = 100;
/// Permissions and set-id. Set-group-id is the kernel's to take away where the group is not ours (chmod(2)).
const MODE: u32 = 0o4777;

pub(super) struct Comparison {
    root: OwnedFd,
    overlay: Overlay,
    /// The directory of the last entry, by path; none where it is reached through a symlink.
    parent: (Vec<u8>, Option<OwnedFd>),
    wrong: BTreeMap<Vec<u8>, &'static str>,
}

impl Comparison {
    pub(super) fn new(layer: &Path, ids: &Ids) -> Result<Comparison> {
        let root = beneath::root(&layer.join(layout::DIFF))?;
        let parent = (Vec::new(), Some(beneath::directory(&root, b"")?));
        Ok(Comparison { root, overlay: Overlay::new(ids), parent, wrong: BTreeMap::new() })
    }

    pub(super) fn entry(&mut self, entry: &Entry) -> Result<()> {
        if matches!(entry.kind, Kind::Ignored | Kind::Opaque) || entry.path.is_empty() {
            return Ok(());
        }
        self.supersede(entry);
        let problem = self.look(entry).with_context(|| {
            format!("cannot look at {} of the layer", String::from_utf8_lossy(&entry.path))
        })?;
        if let Some(problem) = problem
            && self.wrong.len() < MAX_WRONG
        {
            self.wrong.insert(entry.path.clone(), problem);
        }
        Ok(())
    }

    /// An error that tells the first difference, if there is any.
    pub(super) fn finish(self) -> Result<()> {
        match self.wrong.first_key_value() {
            Some((path, problem)) => bail!("its {} {problem}", String::from_utf8_lossy(path)),
            None => Ok(()),
        }
    }

    /// What earlier entries put where this one is, or beneath it, may be gone because of this one.
    fn supersede(&mut self, entry: &Entry) {
        if self.wrong.is_empty() || entry.kind == Kind::Whiteout {
            return;
        }
        let is_directory = entry.kind == Kind::Directory;
        let is_beneath =
            |path: &[u8]| path.strip_prefix(&entry.path[..]).is_some_and(|rest| rest.starts_with(b"/"));
        self.wrong.retain(|path, _| *path != entry.path && (is_directory || !is_beneath(path)));
    }

    fn look(&mut self, entry: &Entry) -> Result<Option<&'static str>> {
        let (parent, name) = parent_and_name(&entry.path);
        if self.parent.0 != parent {
            let opened = match beneath::directory(&self.root, parent) {
                Ok(fd) => Some(fd),
                // Reached through a symlink of the layer, or replaced by a later entry. If neither, it is itself missing.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => None,
                Err(error) => return Err(error.into()),
            };
            self.parent = (parent.to_vec(), opened);
        }
        let Some(dir) = &self.parent.1 else { return Ok(None) };
        let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(Some("is missing")),
            stat => stat?,
        };
        let is_same = match &entry.kind {
            // Of what else the layer has by this name, that entry tells.
            Kind::Whiteout | Kind::Opaque | Kind::Ignored => return Ok(None),
            Kind::HardLink(_) => {
                return Ok(self.overlay.is_whiteout_as(&stat, dir, name)?.then_some("is missing"));
            }
            Kind::Directory => is(&stat, FileType::Directory),
            Kind::File => is(&stat, FileType::RegularFile) && stat.st_size as u64 == entry.payload,
            Kind::Sparse { size, .. } => is(&stat, FileType::RegularFile) && stat.st_size as u64 == *size,
            Kind::Symlink(target) => {
                is(&stat, FileType::Symlink) && readlinkat(dir, name, Vec::new())?.as_bytes() == &target[..]
            }
            // An empty file may stand for them.
            Kind::Fifo => is(&stat, FileType::Fifo) || is_stand_in(&stat),
            Kind::Device { is_block, major: of, minor: number } => {
                let kind = if *is_block { FileType::BlockDevice } else { FileType::CharacterDevice };
                is_stand_in(&stat)
                    || is(&stat, kind) && (major(stat.st_rdev), minor(stat.st_rdev)) == (*of, *number)
            }
        };
        if !is_same {
            return Ok(Some("is something else on disk"));
        }
        // Symlinks have no mode, and access control lists change it.
        let has_mode =
            !matches!(entry.kind, Kind::Symlink(_)) && !entry.xattrs.iter().any(|(name, _)| is_list(name));
        if has_mode && stat.st_mode & MODE != entry.mode & MODE {
            return Ok(Some("has another mode on disk"));
        }
        Ok(None)
    }
}

fn is(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}

fn is_stand_in(stat: &Stat) -> bool {
    is(stat, FileType::RegularFile) && stat.st_size == 0
}
