//! What is done to one name in a directory that somebody else may be working in: each by one call of the kernel, or by
//! calls that end in the same whatever comes in between.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, statat, unlinkat};
use rustix::io::Errno;

use super::inode::{locate, reopen};
use super::source::mount_id;

/// Opens a directory, through no link.
pub(super) fn open_dir(parent: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    openat(
        parent,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Makes a file that was not there.
pub(super) fn create(dir: &OwnedFd, name: &[u8]) -> Result<File, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?.into())
}

/// Whether there is a link.
pub(super) fn is_link(parent: &OwnedFd, name: &[u8]) -> bool {
    statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_symlink())
}

/// Whether something is mounted on a name. The kernel protects only the mounts of our own mount name space: what is
/// renamed over, or removed, while it is a mount point in the container's would be unmounted there.
pub(super) fn is_mounted_on(parent: &OwnedFd, name: &[u8]) -> bool {
    let there = mount_id(parent, name);
    there.is_some() && there != mount_id(parent, b"")
}

/// An error if there is a directory.
pub(super) fn refuse_directory(parent: &OwnedFd, name: &[u8]) -> Result<()> {
    let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
    if stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir()) {
        bail!("a directory cannot be overwritten by what is no directory");
    }
    Ok(())
}

/// Takes a name with `make`, removing the file that has it already.
pub(super) fn make_over<T>(
    dir: &OwnedFd,
    name: &[u8],
    make: impl Fn(&OwnedFd, &[u8]) -> Result<T, Errno>,
) -> Result<T> {
    match make(dir, name) {
        Err(Errno::EXIST) => {
            refuse_directory(dir, name)?;
            anyhow::ensure!(!is_mounted_on(dir, name), "something is mounted there");
            unlinkat(dir, name, AtFlags::empty()).context("cannot replace what is there")?;
            Ok(make(dir, name)?)
        }
        made => Ok(made?),
    }
}

/// A file under a name that nobody else has.
pub(super) fn create_draft(dir: &OwnedFd) -> Result<(Vec<u8>, File), Errno> {
    loop {
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let name = format!(".dhow-cp.{:016x}", u64::from_ne_bytes(random)).into_bytes();
        match create(dir, &name) {
            Err(Errno::EXIST) => {}
            other => return other.map(|file| (name, file)),
        }
    }
}

/// Opens a regular file that is there, and empties it.
pub(super) fn open_to_overwrite(dir: &OwnedFd, name: &[u8]) -> Result<File> {
    let (fd, stat) = locate(dir, name)?;
    if !FileType::from_raw_mode(stat.st_mode).is_file() {
        bail!("what is mounted there is no file");
    }
    Ok(reopen(&fd, OFlags::WRONLY | OFlags::TRUNC)?.into())
}

/// Copies so many bytes; fewer are an error.
pub(super) fn exactly(stream: &mut (dyn Read + '_), size: u64, file: &mut File) -> Result<()> {
    let mut left = size;
    let mut buffer = vec![0; (256 * 1024).min(usize::try_from(size).unwrap_or(usize::MAX))];
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let n = stream.read(&mut buffer[..most])?;
        if n == 0 {
            bail!("the archive is cut off");
        }
        file.write_all(&buffer[..n])?;
        left -= n as u64;
    }
    Ok(())
}
