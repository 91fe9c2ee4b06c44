//! Copying one inode from a layer: content, then what `attributes` says of the order.
//!
//! Overlay's marks stay behind; what is kept out of band (`owner`) comes along as the extended attributes that it is.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat,
    chownat, copy_file_range, fchmod, fchown, fgetxattr, flistxattr, fsetxattr, fstat, ftruncate, futimens,
    ioctl_ficlone, lgetxattr, llistxattr, lsetxattr, mknodat, openat, readlinkat, seek, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::attributes::{CANNOT_LIST, CANNOT_READ, Owners, keep_owner, set_xattr, xattr_names, xattr_value};
use super::owner::{self, Node, Owner};

const BUFFER: usize = 256 * 1024;

/// Copies what is no directory: from directory, to directory, the name in both. `can_clone` is unset where the file
/// system turns out not to share blocks.
pub(super) fn copy(
    (from, to, name): (&OwnedFd, &OwnedFd, &[u8]),
    stat: &Stat,
    owners: &Owners,
    can_clone: &AtomicBool,
) -> Result<()> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let (source, file) = (File::from(openat(from, name, flags, Mode::empty())?), create(to, name)?);
            fill(&source, &file, stat, can_clone)?;
            copy_attributes(&source, &file, stat, owners)
        }
        FileType::Symlink => {
            symlinkat(readlinkat(from, name, Vec::new())?, to, name)?;
            copy_special_attributes(from, to, name, stat, owners)
        }
        kind => match mknodat(to, name, kind, Mode::from_raw_mode(stat.st_mode & 0o7777), stat.st_rdev) {
            Ok(()) => copy_special_attributes(from, to, name, stat, owners),
            // Without CAP_MKNOD: an empty file stands for it, as when a layer is unpacked.
            Err(Errno::PERM) => stand_in(&create(to, name)?, stat, owners),
            Err(error) => Err(error.into()),
        },
    }
}

/// Gives a directory that is filled the attributes of the one that it is a copy of.
pub(super) fn copy_directory(from: &OwnedFd, to: &OwnedFd, owners: &Owners) -> Result<()> {
    copy_attributes(from, to, &fstat(from)?, owners)
}

fn create(to: &OwnedFd, name: &[u8]) -> Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(to, name, flags, Mode::RUSR | Mode::WUSR)?.into())
}

/// Copies the content of a file; its holes stay holes.
pub(super) fn fill(from: &File, to: &File, stat: &Stat, can_clone: &AtomicBool) -> Result<()> {
    let size = stat.st_size as u64;
    if size == 0 {
        return Ok(());
    }
    if can_clone.load(Ordering::Relaxed) {
        match ioctl_ficlone(to, from) {
            Ok(()) => return Ok(()),
            Err(_) => can_clone.store(false, Ordering::Relaxed),
        }
    }
    if stat.st_blocks as u64 * 512 >= size {
        return copy_range(from, to, 0, size);
    }
    ftruncate(to, size)?;
    let mut offset = 0;
    while offset < size {
        let data = match seek(from, SeekFrom::Data(offset)) {
            // No data up to the end.
            Err(Errno::NXIO) => break,
            found => found?,
        };
        offset = seek(from, SeekFrom::Hole(data))?;
        copy_range(from, to, data, offset - data)?;
    }
    Ok(())
}

fn copy_range(from: &File, to: &File, offset: u64, length: u64) -> Result<()> {
    let (mut at, mut left) = (offset, length);
    while left > 0 {
        let (mut source, mut target) = (at, at);
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(1 << 30);
        let n = match copy_file_range(from, Some(&mut source), to, Some(&mut target), most) {
            Ok(n) if n > 0 => n,
            // Not between these two file systems, or not at all: the end of a file is found by reading, too.
            Ok(_) | Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::NOTSUP | Errno::PERM) => {
                return read_and_write(from, to, at, left);
            }
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        at += n as u64;
        left -= n as u64;
    }
    Ok(())
}

fn read_and_write(from: &File, to: &File, mut at: u64, mut left: u64) -> Result<()> {
    let mut buffer = vec![0; BUFFER.min(usize::try_from(left).unwrap_or(BUFFER))];
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let n = from.read_at(&mut buffer[..most], at)?;
        if n == 0 {
            break;
        }
        to.write_all_at(&buffer[..n], at)?;
        at += n as u64;
        left -= n as u64;
    }
    Ok(())
}

fn owner_of(stat: &Stat) -> Owner {
    Owner { uid: stat.st_uid.into(), gid: stat.st_gid.into() }
}

fn mode_of(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode & 0o7777)
}

/// The copied time, to the nanosecond, twice: when the original was last read says nothing of the copy.
fn times_of(stat: &Stat) -> Timestamps {
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ };
    Timestamps { last_access: time, last_modification: time }
}

fn copy_attributes(from: impl AsFd, to: impl AsFd, stat: &Stat, owners: &Owners) -> Result<()> {
    give(&to, stat, owners)?;
    for name in xattr_names(|buffer| flistxattr(&from, buffer)).context(CANNOT_LIST)? {
        let value = xattr_value(|buffer| fgetxattr(&from, name.as_c_str(), buffer)).context(CANNOT_READ)?;
        set_xattr(name.to_bytes(), || fsetxattr(&to, name.as_c_str(), &value, XattrFlags::empty()))?;
    }
    fchmod(&to, mode_of(stat)).context("cannot chmod")?;
    futimens(&to, &times_of(stat)).context("cannot set the time")
}

fn give(to: impl AsFd, stat: &Stat, owners: &Owners) -> Result<()> {
    if !owners.give(owner_of(stat), |uid, gid| fchown(&to, Some(uid), Some(gid)))? {
        keep_owner(&to, owner_of(stat))?;
    }
    Ok(())
}

fn copy_special_attributes(
    from: &OwnedFd,
    to: &OwnedFd,
    name: &[u8],
    stat: &Stat,
    owners: &Owners,
) -> Result<()> {
    let chown = |uid: Uid, gid: Gid| chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
    owners.give(owner_of(stat), chown)?;
    let path = |dir: &OwnedFd| [format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(), name].concat();
    let (source, target) = (path(from), path(to));
    for name in xattr_names(|buffer| llistxattr(&source[..], buffer)).context(CANNOT_LIST)? {
        let value =
            xattr_value(|buffer| lgetxattr(&source[..], name.as_c_str(), buffer)).context(CANNOT_READ)?;
        set_xattr(name.to_bytes(), || lsetxattr(&target[..], name.as_c_str(), &value, XattrFlags::empty()))?;
    }
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        chmodat(to, name, mode_of(stat), AtFlags::empty()).context("cannot chmod")?;
    }
    utimensat(to, name, &times_of(stat), AtFlags::SYMLINK_NOFOLLOW).context("cannot set the time")
}

/// An empty file that says which device it stands for.
fn stand_in(file: &File, stat: &Stat, owners: &Owners) -> Result<()> {
    give(file, stat, owners)?;
    let is_block = FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice;
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    match owner::set_node(file, Node { is_block, major, minor }) {
        Ok(()) | Err(Errno::NOTSUP) => {}
        Err(error) => return Err(error).context("cannot keep the device number"),
    }
    fchmod(file, mode_of(stat)).context("cannot chmod")?;
    futimens(file, &times_of(stat)).context("cannot set the time")
}
