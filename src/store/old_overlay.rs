//! Overlay for kernels before 6.7 where fsconfig(2) does not do: its strings end at 256 bytes, too few for many layers, and
//! what is mounted nowhere can be no part of an overlay. mount(2) takes a page of options, but wants a mount point and
//! all parts in its own mount name space.
//!
//! So a child with a mount name space of its own mounts it there and clones it; the clone is what is left of it. The
//! supervisor stays in the name space of the host, because a `shared` volume has to be a peer of the host's.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, OpenTreeFlags};
use rustix::process::{WaitId, WaitIdOptions};

use super::Store;
use crate::host::Ids;
use crate::sys::process::{self, Forked};

/// Where the changes go.
pub(super) enum Upper<'a> {
    /// Upper and work directory.
    Disk(&'a Path, &'a Path),
    /// A tmpfs that goes away with the overlay.
    Memory,
}

/// Mounts overlay the old way; `lower` is top-most first.
pub(super) fn mount(store: &Store, lower: &[PathBuf], upper: &Upper<'_>, volatile: bool) -> Result<OwnedFd> {
    let about = || format!("cannot mount overlay of {} layers", lower.len());
    let point = store.data.join("tmp");
    // The child shares our descriptors and puts its result in the place of this one.
    let tree = location(&point).with_context(about)?;
    match process::fork((libc::CLONE_NEWNS | libc::CLONE_FILES) as u64, None).with_context(about)? {
        Forked::Child => {
            let marks = [
                (store.ids == Ids::Root, ",redirect_dir=off"),
                (store.ids != Ids::Root, ",userxattr"),
                (volatile, ",volatile"),
            ];
            let marks: String = marks.iter().filter(|(is_set, _)| *is_set).map(|(_, text)| *text).collect();
            let code = match mount_and_clone(&point, lower, upper, &marks, &tree) {
                Ok(()) => 0,
                Err(errno) => errno.raw_os_error(),
            };
            process::exit_now(code);
        }
        Forked::Parent { pidfd, .. } => {
            let status = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)
                .with_context(about)?;
            match status.and_then(|s| s.exit_status()) {
                Some(0) => {}
                Some(errno) => return Err(Errno::from_raw_os_error(errno)).with_context(about),
                None => return Err(anyhow!("the process that mounts it was killed")).with_context(about),
            }
        }
    }
    process::set_close_on_exec(tree.as_raw_fd());
    Ok(tree)
}

/// In the child. All locations are opened here: those of our parent's mount name space are none of ours.
fn mount_and_clone(
    point: &Path,
    lower: &[PathBuf],
    upper: &Upper<'_>,
    marks: &str,
    result: &OwnedFd,
) -> rustix::io::Result<()> {
    rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    let layers = lower.iter().map(|path| location(path)).collect::<rustix::io::Result<Vec<_>>>()?;
    let (upper, work) = match upper {
        Upper::Disk(upper, work) => (location(upper)?, location(work)?),
        Upper::Memory => memory(point)?,
    };
    // Descriptors by their bare numbers: nothing to escape, and five hundred of them fit in a page.
    let numbers: Vec<String> = layers.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
    let numbers = numbers.join(":");
    let data =
        format!("lowerdir={numbers},upperdir={},workdir={}{marks}", upper.as_raw_fd(), work.as_raw_fd());
    let data = CString::new(data).map_err(|_| Errno::INVAL)?;
    rustix::process::chdir("/proc/self/fd")?;
    rustix::mount::mount("overlay", point, "overlay", MountFlags::empty(), data.as_c_str())?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(CWD, point, flags)?;
    process::dup_to(tree.as_raw_fd(), result.as_raw_fd())
        .map_err(|e| e.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))
}

/// Upper and work directory on a new tmpfs.
fn memory(point: &Path) -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    rustix::mount::mount("tmpfs", point, "tmpfs", MountFlags::empty(), c"mode=755")?;
    let make = |name: &str| {
        let path = point.join(name);
        rustix::fs::mkdirat(CWD, &path, Mode::from_raw_mode(0o755))?;
        location(&path)
    };
    Ok((make("upper")?, make("work")?))
}

/// A directory as a location.
pub(super) fn location(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
}
