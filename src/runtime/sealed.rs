//! Our own executable in a form that nothing can write to.
//!
//! A container whose program is /proc/self/exe, or one that watches `exec`, gets hold of the file we run from
//! (CVE-2019-5736). So whatever of us is seen inside a container runs from a copy that has no writable way to the
//! original: a read-only overlay above its directory (free of cost, and no remount can make it writable, having no upper),
//! or, where overlay is refused, a sealed memory file. A user whose dhow belongs to root needs none: root is not mapped in
//! any name space of theirs, so that the file's own permissions keep everybody away from it.

use std::io::{Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::fs;
use crate::host::Host;

/// Our executable, safe to run inside a container.
///
/// To be dropped when there is time: taking the mount down waits for every processor (synchronize_rcu in the kernel).
#[derive(Debug)]
pub struct Executable {
    file: OwnedFd,
    _mount: Option<OwnedFd>,
}

impl AsFd for Executable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Opens our executable for running. Needs a mount name space that we may mount in.
pub fn executable(host: &Host) -> Result<Executable> {
    if host.executable_is_out_of_reach {
        return Executable::own();
    }
    let exe = Path::new("/proc/self/exe");
    overlay(exe).or_else(|_| Ok(Executable { file: memory_file(exe)?, _mount: None }))
}

/// The same for a process that runs from a sealed executable already, such as the supervisor.
pub fn own() -> Result<OwnedFd> {
    rustix::fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .context("cannot open our executable")
}

impl Executable {
    /// [`own`] in the form of [`executable`].
    pub fn own() -> Result<Executable> {
        Ok(Executable { file: own()?, _mount: None })
    }
}

fn overlay(exe: &Path) -> Result<Executable> {
    let path = fs::read_link(exe)?.context("/proc/self/exe is no link")?;
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        anyhow::bail!("our executable has no path");
    };
    let dir_fd =
        rustix::fs::openat(CWD, dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let context = above(&dir_fd, dir)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
    let tree = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let fd =
        rustix::fs::openat(&tree, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    // The file may have been replaced since we were started (an upgrade): run what we are, not what is there now.
    let (ours, found) =
        (rustix::fs::stat(exe)?, rustix::fs::statat(fd.as_fd(), c"", rustix::fs::AtFlags::EMPTY_PATH)?);
    anyhow::ensure!(
        ours.st_ino == found.st_ino && ours.st_size == found.st_size,
        "our executable was replaced"
    );
    Ok(Executable { file: fd, _mount: Some(tree) })
}

/// An overlay of this directory. It wants two lower layers where there is no upper; what the second has in it does not
/// matter, since only our own name is looked up. Nothing is ever mounted below /sys/class, which would be refused in a
/// user name space; where there is no /sys a tmpfs does, from Linux 6.15 on (it is mounted nowhere).
fn above(dir_fd: &OwnedFd, dir: &Path) -> Result<OwnedFd> {
    let create = |second: &str| -> rustix::io::Result<OwnedFd> {
        let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let lower = format!("/proc/self/fd/{}:{second}", dir_fd.as_raw_fd());
        rustix::mount::fsconfig_set_string(&context, "lowerdir", lower.as_str())?;
        rustix::mount::fsconfig_create(&context)?;
        Ok(context)
    };
    let empty = || {
        let tmpfs = super::mount::make("tmpfs", Some("tmpfs"), &super::mount::Options::default())?;
        create(&format!("/proc/self/fd/{}", tmpfs.as_raw_fd()))
    };
    create("/sys/class")
        .or_else(|_| empty())
        .with_context(|| format!("cannot mount overlay above {}", dir.display()))
}

fn memory_file(exe: &Path) -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // MEMFD_EXEC is unknown before Linux 6.3, and without it vm.memfd_noexec may forbid execution after.
    let fd = rustix::fs::memfd_create("dhow", flags | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create("dhow", flags))
        .context("cannot make a copy of our executable")?;
    let mut copy = std::fs::File::from(fd);
    std::io::copy(&mut fs::open(exe)?, &mut copy).context("cannot copy our executable")?;
    copy.flush().and_then(|()| copy.rewind()).context("cannot copy our executable")?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals).context("cannot seal the copy of our executable")?;
    Ok(copy.into())
}
