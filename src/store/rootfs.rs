//! A container's root file system: its layers and its own changes as one tree, as a detached mount.
//!
//! The ladder, each rung tried where the one above is refused: overlay with the changes on disk; overlay with the changes
//! in memory (only for containers whose changes are thrown away anyway: on a disk that is overlay itself, as inside another
//! container, the kernel takes no upper); a copy of the layers.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::container::{ContainerDir, Record, Source};
use super::mapped::{self, Moves};
use super::old_overlay::Upper;
use super::shifted::Shifted;
use super::{Store, layer, old_overlay, piecewise};
use crate::error::ResultExt;
use crate::fs;
use crate::host::Ids;

/// A root file system, ready for a container.
#[derive(Debug)]
pub enum Root {
    /// A detached mount.
    Mount(OwnedFd),
    /// A directory.
    Dir(PathBuf),
}

/// Makes the root file system of a container, with other owners where `moves` says so; the second part names the rung (`overlay`, `overlay-memory`, `copy`, `dir`).
pub fn prepare(
    store: &Store,
    dir: &ContainerDir,
    record: &Record,
    moves: Option<Moves>,
) -> Result<(Root, &'static str)> {
    let copied = dir.file("rootfs");
    if fs::metadata(&copied)?.is_some() {
        return Ok((Root::Dir(copied), "copy"));
    }
    // What is shown with other owners is there as long as this is.
    let shifted;
    let (lower, may_lose) = match &record.source {
        Source::Dir { path, throw_away: false } => return Ok((Root::Dir(path.clone()), "dir")),
        Source::Dir { path, throw_away: true } => (vec![path.clone()], true),
        Source::Image { diff_ids, .. } => {
            let lower = match moves {
                Some(moves) if store.ids == Ids::Root => match Shifted::new(store, diff_ids, &moves) {
                    Ok(mounts) => {
                        shifted = mounts;
                        shifted.paths()
                    }
                    Err(_) => vec![mapped::tree(store, diff_ids, moves)?],
                },
                Some(moves) => vec![mapped::tree(store, diff_ids, moves)?],
                None => layer::lower_dirs(store, diff_ids)?,
            };
            (lower, record.auto_remove)
        }
    };
    forget_volatile(dir)?;
    take_root_attributes(&lower, dir)?;
    // What is kept for the next start is worth being written through.
    let volatile = record.auto_remove;
    let refused = match overlay(store, &lower, (&dir.file("upper"), &dir.file("work")), volatile) {
        Ok(tree) => return Ok((Root::Mount(tree), "overlay")),
        Err(error) if is_refusal(&error) => error,
        Err(error) => return Err(error),
    };
    let pieces = |kept: Option<&Path>| match &record.source {
        Source::Dir { path, .. } if store.ids != Ids::Root => {
            piecewise::mount(store, path, &dir.file("merged"), kept).ok()
        }
        _ => None,
    };
    if !record.auto_remove
        && let Some(tree) = pieces(Some(&dir.file("pieces")))
    {
        return Ok((Root::Mount(tree), "overlay"));
    }
    if may_lose && let Ok(tree) = in_memory(store, &lower) {
        return Ok((Root::Mount(tree), "overlay-memory"));
    }
    // A directory of the host's may be all of the host: that is not copied.
    if let Source::Dir { .. } = &record.source {
        if let Some(tree) = pieces(None) {
            return Ok((Root::Mount(tree), "overlay-memory"));
        }
        return Err(refused).hint("run it on the directory itself, without :O, or import a tar of it");
    }
    layer::copy(store, &lower, &copied)?;
    Ok((Root::Dir(copied), "copy"))
}

/// Which rung a container of this store would have, and why not a better one; found by mounting nothing over nothing.
pub fn try_out(store: &Store) -> Result<(&'static str, String)> {
    let draft = super::draft::Draft::new(store)?;
    let dirs = ["lower", "upper", "work"].map(|name| draft.path().join(name));
    for dir in &dirs {
        fs::create_dir(dir, 0o755)?;
    }
    let lower = std::slice::from_ref(&dirs[0]);
    let refused = match overlay(store, lower, (&dirs[1], &dirs[2]), false) {
        Ok(_) => return Ok(("overlay", "the kernel mounts it, with its changes on the disk".into())),
        Err(error) if is_refusal(&error) => crate::error::chain(&error),
        Err(error) => return Err(error),
    };
    match in_memory(store, lower) {
        Ok(_) => Ok((
            "overlay-memory",
            format!("{refused}; changes are in memory where they are thrown away, else layers are copied"),
        )),
        Err(_) => Ok(("copy", format!("{refused}; layers are copied"))),
    }
}

/// The merged root shows its upper directory's mode and owner: before its first mount that takes on those of the image.
fn take_root_attributes(lower: &[PathBuf], dir: &ContainerDir) -> Result<()> {
    let was_mounted = fs::metadata(&dir.file("work/work"))?.is_some();
    let Some(top) = lower.first().filter(|_| !was_mounted) else { return Ok(()) };
    let upper = dir.file("upper");
    let about = || format!("cannot set mode and owner of {}", upper.display());
    let stat = rustix::fs::stat(top).with_context(|| format!("cannot look at {}", top.display()))?;
    let (uid, gid) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
    match rustix::fs::chown(&upper, Some(uid), Some(gid)) {
        // An id that this user cannot give is one that the container does not know either.
        Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
        Err(e) => return Err(e).with_context(about),
    }
    rustix::fs::chmod(&upper, Mode::from_raw_mode(stat.st_mode & 0o7777)).with_context(about)
}

/// Whether overlay cannot be had here, as opposed to a full disk or a missing layer.
pub(super) fn is_refusal(error: &anyhow::Error) -> bool {
    let refusals = [
        Errno::INVAL,
        Errno::PERM,
        Errno::ACCESS,
        Errno::NODEV,
        Errno::NOSYS,
        Errno::NOTSUP,
        Errno::LOOP,
        Errno::XDEV,
        Errno::STALE,
    ];
    error.downcast_ref::<Errno>().is_some_and(|errno| refusals.contains(errno))
}

/// Overlay with its changes on a tmpfs that goes away with it.
fn in_memory(store: &Store, lower: &[PathBuf]) -> Result<OwnedFd> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    let tmpfs = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    for name in ["upper", "work"] {
        rustix::fs::mkdirat(&tmpfs, name, Mode::from_raw_mode(0o755))?;
    }
    let base = PathBuf::from(format!("/proc/self/fd/{}", tmpfs.as_raw_fd()));
    // Before Linux 6.15 what is mounted nowhere can be no part of an overlay.
    overlay(store, lower, (&base.join("upper"), &base.join("work")), false)
        .or_else(|_| old_overlay::mount(store, lower, &Upper::Memory, false))
}

/// A volatile overlay refuses to be mounted twice; the mark is ours to take away, since what it guards is thrown away.
fn forget_volatile(dir: &ContainerDir) -> Result<()> {
    fs::remove_tree(&dir.file("work/work/incompat"))
}

/// Mounts overlay; `lower` is top-most first. Layers are handed over by descriptor, so that neither a path's length nor
/// a `:` in it matters.
pub(super) fn overlay(
    store: &Store,
    lower: &[PathBuf],
    (upper, work): (&Path, &Path),
    volatile: bool,
) -> Result<OwnedFd> {
    let open =
        |path: &Path| old_overlay::location(path).with_context(|| format!("cannot open {}", path.display()));
    let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let layers = lower.iter().map(|path| open(path)).collect::<Result<Vec<_>>>()?;
    // Kept open until the end: before Linux 6.5 names are only looked up when all of them are there.
    let (upper_fd, work_fd) = (open(upper)?, open(work)?);
    let mut strings: Vec<(&str, String)> = Vec::new();
    if is_linux_since(6, 7) {
        strings.extend(layers.iter().map(|fd| ("lowerdir+", name(fd))));
    } else {
        strings.push(("lowerdir", layers.iter().map(name).collect::<Vec<_>>().join(":")));
        // A string of fsconfig(2) ends here.
        if strings[0].1.len() > 255 {
            return old_overlay::mount(store, lower, &Upper::Disk(upper, work), volatile);
        }
    }
    if store.ids == Ids::Root {
        // What diff and commit read in the upper directory is to be all of a change, whatever this kernel's default is: a
        // directory that was moved, not a note of where it was.
        strings.extend([("redirect_dir", "off".into()), ("metacopy", "off".into())]);
    }
    strings.extend([
        ("source", "overlay".into()),
        ("upperdir", name(&upper_fd)),
        ("workdir", name(&work_fd)),
    ]);
    let mount = || -> rustix::io::Result<OwnedFd> {
        let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (key, value) in &strings {
            rustix::mount::fsconfig_set_string(&context, *key, value.as_str())?;
        }
        for (is_set, flag) in [(store.ids != Ids::Root, "userxattr"), (volatile, "volatile")] {
            if is_set {
                rustix::mount::fsconfig_set_flag(&context, flag)?;
            }
        }
        rustix::mount::fsconfig_create(&context)?;
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    };
    mount().with_context(|| format!("cannot mount overlay on {}", upper.display()))
}

/// Whether the kernel is at least this one. To be asked only where trying is no way to find out: before 6.5 overlay takes
/// any option and complains, without saying about which, when it is too late.
pub(super) fn is_linux_since(major: u32, minor: u32) -> bool {
    let uname = rustix::system::uname();
    let mut numbers = uname.release().to_str().unwrap_or_default().split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next().and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
    (next(), next()) >= (major, minor)
}
