//! A throw-away root above a directory that has mounts beneath it, such as `/`, for a user: overlay as many times as needed.
//!
//! In a user name space the mounts that came with it are locked in place, and overlay takes no directory that has such
//! beneath it (clone_private_mount, fs/namespace.c): what is under a mount might be meant to be hidden. So each directory
//! without any becomes an overlay of its own, and those on the way to a mount are made anew. Changes are kept on the disk
//! for a container that is kept; in the directories made anew only what was added is, and what was removed comes back.

use std::fs::Metadata;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

use super::Store;
use super::rootfs::overlay;
use crate::fs;
use crate::oci::Digest;
use crate::sys::mount::{MountAttr, mount_setattr};
use crate::sys::process;

/// What every container gets of its own.
const OWN: &[&str] = &["/proc", "/sys", "/dev"];
/// Enough for the mounts of any machine; an end where overlay is refused for another reason.
const MAX_PIECES: u32 = 2000;

/// Makes the root above `lower`; `at` is an empty directory to build it on, in a mount name space of our own. Changes go
/// to the directory `kept`, made where it is missing; without one, to memory.
pub(super) fn mount(store: &Store, lower: &Path, at: &Path, kept: Option<&Path>) -> Result<OwnedFd> {
    process::unshare(libc::CLONE_NEWNS).context("cannot make a mount name space")?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .context("cannot cut mount propagation from the host")?;
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    let tmpfs = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    attach(&tmpfs, at)?;
    let root = at.join("root");
    fs::create_dir(&root, 0o755)?;
    if let Some(kept) = kept {
        let anew = kept.join("anew");
        fs::create_dir_all(&anew, 0o755)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = rustix::mount::open_tree(CWD, &anew, flags)
            .with_context(|| format!("cannot bind {}", anew.display()))?;
        attach(&tree, &root)?;
    }
    let changes = kept.map_or_else(|| at.join("changes"), Path::to_owned);
    fs::create_dir_all(&changes, 0o700)?;
    let built = Pieces { store, changes, count: 0 }.directory(lower, &root);
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree =
        built.and_then(|()| rustix::mount::open_tree(CWD, &root, flags).context("cannot clone the root"));
    rustix::mount::unmount(at, UnmountFlags::DETACH).context("cannot unmount what the root was built on")?;
    tree
}

struct Pieces<'a> {
    store: &'a Store,
    changes: PathBuf,
    count: u32,
}

impl Pieces<'_> {
    /// Fills the directory `to` with what `from` has. What the container put there itself, in a run before, stays.
    fn directory(&mut self, from: &Path, to: &Path) -> Result<()> {
        for name in fs::read_dir(from)? {
            let (from, to) = (from.join(&name), to.join(&name));
            match self.entry(&from, &to) {
                // It went away since it was listed: others work there.
                Err(_) if matches!(fs::symlink_metadata(&from), Ok(None)) => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn entry(&mut self, from: &Path, to: &Path) -> Result<()> {
        let Ok(Some(meta)) = fs::symlink_metadata(from) else { return Ok(()) };
        let there = fs::symlink_metadata(to)?;
        if there.as_ref().is_some_and(|there| !is_ours(there, &meta)) {
            return Ok(());
        }
        if meta.is_dir() {
            if there.is_none() {
                fs::create_dir(to, meta.permissions().mode() & 0o7777)?;
            }
            if !OWN.iter().any(|own| Path::new(own) == from) {
                self.piece(from, to)?;
            }
        } else if meta.is_symlink() && there.is_none() {
            let target = fs::read_link(from)?.unwrap_or_default();
            fs::symlink(&target, to).with_context(|| format!("cannot link {}", to.display()))?;
        } else if meta.is_file() {
            if there.is_none() {
                drop(fs::create_new(to, 0o644)?);
            }
            bind_file(from, to)?;
        }
        Ok(())
    }

    /// One overlay, or, where that is refused, a directory made of smaller pieces.
    fn piece(&mut self, from: &Path, to: &Path) -> Result<()> {
        self.count += 1;
        if self.count > MAX_PIECES {
            bail!("cannot mount overlay on {} or on any part of it", from.display());
        }
        // The same name in each run, whatever else is mounted by then, and one that is short for any path.
        let changes = self.changes.join(Digest::of(from.as_os_str().as_encoded_bytes()).short());
        for dir in ["upper", "work"] {
            fs::create_dir_all(&changes.join(dir), 0o755)?;
        }
        match overlay(self.store, &[from.to_owned()], (&changes.join("upper"), &changes.join("work")), false)
        {
            Ok(tree) => attach(&tree, to),
            Err(error) if !super::rootfs::is_refusal(&error) => Err(error),
            // Not ours to read: then there is nothing to show of it either.
            Err(_) if rustix::fs::access(from, rustix::fs::Access::READ_OK).is_err() => Ok(()),
            Err(_) => self.directory(from, to),
        }
    }
}

/// Whether what is there is what a run before made for this: a directory, a link, or the empty file that one is bound on.
fn is_ours(there: &Metadata, meta: &Metadata) -> bool {
    there.file_type() == meta.file_type() && (!there.is_file() || there.len() == 0)
}

/// A file beside a mount is bound, read-only: overlay is for directories, and changes must not reach the host.
fn bind_file(from: &Path, to: &Path) -> Result<()> {
    let about = || format!("cannot bind {}", from.display());
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(CWD, from, flags).with_context(about)?;
    let attr = MountAttr { attr_set: libc::MOUNT_ATTR_RDONLY, ..MountAttr::default() };
    mount_setattr(&tree, c"", libc::AT_EMPTY_PATH as u32, &attr).with_context(about)?;
    attach(&tree, to)
}

fn attach(tree: &OwnedFd, to: &Path) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(tree, c"", CWD, to, flags)
        .with_context(|| format!("cannot mount on {}", to.display()))
}
