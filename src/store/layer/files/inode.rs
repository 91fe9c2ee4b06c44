//! Reading one inode: what `attributes` sets, and its open content.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, fgetxattr, flistxattr, lgetxattr, llistxattr, major, minor,
    openat, readlinkat, statat,
};
use rustix::io::Errno;

use super::super::attributes::{CANNOT_LIST, CANNOT_READ, xattr_names, xattr_value};
use super::super::entry::{Entry, Kind, Time};
use super::super::owner;
use crate::store::mapped::Moves;

impl Inode {
    /// Gives it the owner that it has in the container, whose files are kept under other ids.
    pub fn undo(&mut self, moves: Option<&Moves>) {
        if let Some(moves) = moves {
            (self.entry.uid, self.entry.gid) =
                (moves.uid.undo(self.entry.uid), moves.gid.undo(self.entry.gid));
        }
    }
}

/// One inode, as it was at one moment.
#[derive(Debug)]
pub struct Inode {
    /// What archives say of it.
    pub entry: Entry,
    /// The content, where it is a regular file.
    pub file: Option<File>,
    /// Whether it has more than one name.
    pub has_more_names: bool,
    /// Device and inode number.
    pub key: (u64, u64),
}

/// Opens what is at a name, following no link and touching nothing, and tells what it is.
pub fn locate(parent: impl AsFd, name: &[u8]) -> Result<(OwnedFd, Stat), Errno> {
    let fd = openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = statat(&fd, c"", AtFlags::EMPTY_PATH)?;
    Ok((fd, stat))
}

/// Opens what a location is of, for reading or writing: that very inode, not what has its name by now.
pub fn reopen(location: impl AsFd, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/fd/{}", location.as_fd().as_raw_fd());
    openat(CWD, path, flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
}

/// Reads the inode at a name, `.` for the directory itself; `path` is what the entry says. The owner and the device that
/// are kept beside an inode are what it has.
pub fn read(parent: impl AsFd, name: &[u8], path: &[u8]) -> Result<Inode> {
    let about = || format!("cannot read {}", String::from_utf8_lossy(path));
    let (fd, stat) = locate(&parent, name).with_context(about)?;
    of(Some((parent.as_fd(), name)), &fd, &stat, path).with_context(about)
}

/// The same for a location that is open already (O_PATH). Attributes of links and special files are not seen this way.
pub fn read_located(fd: &OwnedFd, path: &[u8]) -> Result<Inode> {
    let about = || format!("cannot read {}", String::from_utf8_lossy(path));
    let stat = statat(fd, c"", AtFlags::EMPTY_PATH).with_context(about)?;
    of(None, fd, &stat, path).with_context(about)
}

fn of(place: Option<(BorrowedFd<'_>, &[u8])>, fd: &OwnedFd, stat: &Stat, path: &[u8]) -> Result<Inode> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let device = |is_block| Kind::Device { is_block, major: major(stat.st_rdev), minor: minor(stat.st_rdev) };
    let mut entry = Entry {
        path: path.to_vec(),
        kind: match kind {
            FileType::Directory => Kind::Directory,
            FileType::RegularFile => Kind::File,
            FileType::Symlink => Kind::Symlink(readlinkat(fd, c"", Vec::new())?.into_bytes()),
            FileType::CharacterDevice => device(false),
            FileType::BlockDevice => device(true),
            FileType::Fifo => Kind::Fifo,
            // Sockets end with who listens on them; no archive has them.
            _ => Kind::Ignored,
        },
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid.into(),
        gid: stat.st_gid.into(),
        mtime: Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 },
        xattrs: Vec::new(),
        payload: 0,
    };
    let mut file = None;
    match entry.kind {
        Kind::Directory => {
            let open = reopen(fd, OFlags::RDONLY | OFlags::DIRECTORY)?;
            read_attributes(&open, &mut entry)?;
        }
        Kind::File => {
            entry.payload = stat.st_size as u64;
            let open = File::from(reopen(fd, OFlags::RDONLY)?);
            read_attributes(&open, &mut entry)?;
            file = Some(open);
        }
        _ => {
            let Some((parent, name)) = place else {
                return Ok(Inode {
                    entry,
                    file,
                    has_more_names: stat.st_nlink > 1,
                    key: (stat.st_dev, stat.st_ino),
                });
            };
            let path = [format!("/proc/self/fd/{}/", parent.as_raw_fd()).as_bytes(), name].concat();
            entry.xattrs = pairs(
                |buffer| llistxattr(&path[..], buffer),
                |name, buffer| lgetxattr(&path[..], name, buffer),
            )?;
        }
    }
    entry.xattrs.retain(|(name, _)| !name.starts_with(owner::PREFIX.as_bytes()));
    if !matches!(entry.kind, Kind::File) {
        file = None;
        entry.payload = 0;
    }
    Ok(Inode { entry, file, has_more_names: stat.st_nlink > 1, key: (stat.st_dev, stat.st_ino) })
}

/// Attributes of what can be opened, and what is kept in them of the owner and the device.
fn read_attributes(fd: impl AsFd, entry: &mut Entry) -> Result<()> {
    entry.xattrs = pairs(|buffer| flistxattr(&fd, buffer), |name, buffer| fgetxattr(&fd, name, buffer))?;
    if !entry.xattrs.iter().any(|(name, _)| name.starts_with(owner::PREFIX.as_bytes())) {
        return Ok(());
    }
    if let Some(owner) = owner::read(&fd)? {
        (entry.uid, entry.gid) = (owner.uid, owner.gid);
    }
    if let Some(node) = owner::read_node(&fd)? {
        entry.kind = Kind::Device { is_block: node.is_block, major: node.major, minor: node.minor };
    }
    Ok(())
}

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// All extended attributes but overlay's marks, in the order of their names.
fn pairs(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&CStr, &mut [u8]) -> Result<usize, Errno>,
) -> Result<Pairs> {
    let names = match xattr_names(list) {
        Err(Errno::NOENT | Errno::ACCESS) => Vec::new(),
        other => other.context(CANNOT_LIST)?,
    };
    let mut pairs = Pairs::new();
    for name in names {
        match xattr_value(|buffer| get(&name, buffer)) {
            Ok(value) => pairs.push((name.into_bytes(), value)),
            // It went away, or is not for us to see.
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS | Errno::NOTSUP | Errno::NOENT) => {}
            Err(error) => return Err(error).context(CANNOT_READ),
        }
    }
    pairs.sort();
    Ok(pairs)
}
