//! What a container changed: its tree beside the one that it began with, in docker's three letters.
//!
//! Where overlay keeps the changes apart, only those are read (`upper`); where the root is a copy of the layers, all of it
//! is compared. A directory counts as changed for what it is or has, never for its time or size.

use std::collections::HashSet;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};

use super::super::entry::Kind;
use super::inode;
use super::source::{Child, Source, join, names};

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// It, or something in it, is another.
    Changed,
    /// It is gone.
    Deleted,
}

impl Change {
    /// A, C or D.
    pub fn letter(self) -> char {
        match self {
            Change::Added => 'A',
            Change::Changed => 'C',
            Change::Deleted => 'D',
        }
    }
}

/// A container's tree and the one that it began with.
#[derive(Debug)]
pub struct Compared<'a> {
    /// The container's: overlay's upper directory, or all of the root.
    pub new: &'a Source,
    /// Whether `new` is no more than the changes.
    pub is_upper: bool,
    /// The image's.
    pub old: &'a Source,
    /// Paths that every start makes for its mounts: while nothing is in them they are no change.
    pub ignored: &'a HashSet<Vec<u8>>,
}

const MAX_DEPTH: usize = 2048;

/// All changes, each directory before what is in it, in the order of names.
pub fn changes(compared: &Compared<'_>) -> Result<Vec<(Change, Vec<u8>)>> {
    let mut found = Vec::new();
    let (new, old) = (compared.new.top()?, compared.old.top()?);
    let mut walk = Walk { compared, path: Vec::new(), found: &mut found };
    walk.directory(&new, &old, !compared.is_upper, 0)?;
    Ok(found)
}

struct Walk<'a> {
    compared: &'a Compared<'a>,
    path: Vec<u8>,
    found: &'a mut Vec<(Change, Vec<u8>)>,
}

impl Walk<'_> {
    /// `whole`: what is not in `new` is gone, and not just unchanged.
    fn directory(&mut self, new: &[OwnedFd], old: &[OwnedFd], whole: bool, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            bail!(
                "cannot read {}: it is more than {MAX_DEPTH} directories deep",
                String::from_utf8_lossy(&self.path)
            );
        }
        let mut there = self.compared.new.children(new)?;
        let mut before = self.compared.old.children(old)?;
        before.retain(|_, child| !child.is_whiteout);
        let mut all: Vec<Vec<u8>> = there.keys().cloned().collect();
        if whole {
            all.extend(before.keys().filter(|name| !there.contains_key(*name)).cloned());
            all.sort();
        }
        for name in all {
            let length = self.path.len();
            join(&mut self.path, &name);
            let (now, then) = (there.remove(&name), before.remove(&name));
            match (now.filter(|child| !child.is_whiteout), then) {
                (None, None) => {}
                (None, Some(_)) => self.found.push((Change::Deleted, self.path.clone())),
                (Some(now), then) => self.child(new, old, &name, (&now, then.as_ref()), whole, depth)?,
            }
            self.path.truncate(length);
        }
        Ok(())
    }

    fn child(
        &mut self,
        new: &[OwnedFd],
        old: &[OwnedFd],
        name: &[u8],
        (now, then): (&Child, Option<&Child>),
        whole: bool,
        depth: usize,
    ) -> Result<()> {
        if self.compared.new.is_covered(&new[now.top], name) {
            return Ok(());
        }
        let is_dir = !now.dirs.is_empty();
        if then.is_none() && self.is_ignored(&new[now.top], name, is_dir)? {
            return Ok(());
        }
        let is_changed = match then {
            None => true,
            Some(then) => self.differ(&new[now.top], &old[then.top], name)?,
        };
        let change = if then.is_some() { Change::Changed } else { Change::Added };
        let place = self.found.len();
        self.found.push((change, self.path.clone()));
        if is_dir {
            let inner = self.compared.new.inner(new, name, now)?;
            let below = match then {
                Some(then) => self.compared.old.inner(old, name, then)?,
                None => Vec::new(),
            };
            // Without anything beneath, or hiding it, a directory of the changes is all that there is.
            let hides = self.compared.new.hides(&inner);
            if !inner.is_empty() {
                self.directory(&inner, &below, whole || hides, depth + 1)?;
            }
        }
        // A directory that was only gone through, or made on the way to a mount.
        let is_bare = self.found.len() == place + 1;
        if is_bare && (!is_changed || (then.is_none() && is_dir && self.leads_to_ignored())) {
            self.found.truncate(place);
        }
        Ok(())
    }

    fn is_ignored(&self, parent: &OwnedFd, name: &[u8], is_dir: bool) -> Result<bool> {
        if !self.compared.ignored.contains(&self.path) {
            return Ok(false);
        }
        let (fd, stat) = inode::locate(parent, name)?;
        if !is_dir {
            return Ok(stat.st_size == 0);
        }
        let open = inode::reopen(&fd, rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY)?;
        Ok(names(&open)?.iter().all(|name| {
            let mut path = self.path.clone();
            join(&mut path, name);
            self.compared.ignored.contains(&path)
        }))
    }

    fn leads_to_ignored(&self) -> bool {
        self.compared
            .ignored
            .iter()
            .any(|path| path.starts_with(&self.path) && path.get(self.path.len()) == Some(&b'/'))
    }

    fn differ(&self, new: &OwnedFd, old: &OwnedFd, name: &[u8]) -> Result<bool> {
        let about = || format!("cannot look at {}", String::from_utf8_lossy(&self.path));
        let mut now = inode::read(new, name, &self.path).with_context(about)?.entry;
        let mut then = inode::read(old, name, &self.path).with_context(about)?.entry;
        // A fraction of a second is lost in most archives.
        if now.mtime.seconds == then.mtime.seconds
            && (now.mtime.nanoseconds == 0 || then.mtime.nanoseconds == 0)
        {
            now.mtime = then.mtime;
        }
        for entry in [&mut now, &mut then] {
            // SELinux's labels are the machine's.
            entry.xattrs.retain(|(name, _)| name != b"security.selinux");
        }
        if now.kind == Kind::Directory && then.kind == Kind::Directory {
            now.mtime = then.mtime;
        }
        Ok(now != then)
    }
}
