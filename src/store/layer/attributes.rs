//! What an inode has besides its content: owner, mode, extended attributes, times; set in the order that the kernel
//! needs (a chown clears set-id bits and capabilities, a write changes the time).
//!
//! Not here: directories' modes and times, which `tree` sets when all is in them.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result};
use rustix::fs::{
    AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat, fchmod, fchown, fsetxattr,
    futimens, lsetxattr, utimensat,
};
use rustix::io::Errno;

use crate::host::Ids;

use super::entry::{Entry, Time};
use super::overlay;
use super::owner::{self, Owner};
use crate::store::mapped::Moves;

/// Which owners the kernel can store for us.
#[derive(Debug)]
pub(super) struct Owners {
    /// What a new inode gets by itself.
    born: Owner,
    has_one_id: bool,
    moves: Option<Moves>,
}

impl Owners {
    pub(super) fn new(ids: &Ids) -> Owners {
        let born = Owner {
            uid: rustix::process::geteuid().as_raw().into(),
            gid: rustix::process::getegid().as_raw().into(),
        };
        Owners { born, has_one_id: *ids == Ids::Single, moves: None }
    }

    /// The same where an inode may be born as somebody else's: in a directory that is set-group-id, or of a mapped user.
    pub(super) fn always(ids: &Ids) -> Owners {
        Owners { born: Owner { uid: u64::MAX, gid: u64::MAX }, ..Owners::new(ids) }
    }

    /// The same for a copy in which some owners are others.
    pub(super) fn moved(self, moves: Option<Moves>) -> Owners {
        Owners { moves, ..self }
    }

    /// Gives an inode to its owner with `chown`; false if the owner must be kept out of band.
    pub(super) fn give(
        &self,
        owner: Owner,
        chown: impl FnOnce(Uid, Gid) -> Result<(), Errno>,
    ) -> Result<bool> {
        let owner = match &self.moves {
            Some(moves) => Owner { uid: moves.uid.apply(owner.uid), gid: moves.gid.apply(owner.gid) },
            None => owner,
        };
        if owner == self.born {
            return Ok(true);
        }
        if self.has_one_id {
            return Ok(false);
        }
        let (Some(uid), Some(gid)) = (id(owner.uid), id(owner.gid)) else {
            return Ok(false);
        };
        match chown(Uid::from_raw(uid), Gid::from_raw(gid)) {
            Ok(()) => Ok(true),
            // Not in the map of our user name space, or no right to give files away.
            Err(Errno::INVAL | Errno::PERM) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot chown to {}:{}", owner.uid, owner.gid)),
        }
    }
}

/// All ones means "leave it" to chown(2).
fn id(wide: u64) -> Option<u32> {
    u32::try_from(wide).ok().filter(|id| *id != u32::MAX)
}

/// Keeps an owner out of band where the file system can; where it cannot, the file is root's.
pub(super) fn keep_owner(fd: impl AsFd, owner: Owner) -> Result<()> {
    match owner::set(fd, owner) {
        Ok(()) | Err(Errno::NOTSUP) => Ok(()),
        Err(error) => Err(error).context("cannot keep the owner"),
    }
}

/// Sets all attributes of a regular file.
pub(super) fn set_file(fd: impl AsFd, entry: &Entry, owners: &Owners) -> Result<()> {
    let owner = Owner { uid: entry.uid, gid: entry.gid };
    if !owners.give(owner, |uid, gid| fchown(&fd, Some(uid), Some(gid)))? {
        keep_owner(&fd, owner)?;
    }
    fchmod(&fd, Mode::from_raw_mode(entry.mode)).context("cannot chmod")?;
    for (name, value) in &entry.xattrs {
        set_xattr(name, || fsetxattr(&fd, &name[..], value, XattrFlags::empty()))?;
    }
    futimens(&fd, &timestamps(entry.mtime)).context("cannot set the time")
}

/// Sets the attributes of a symlink or special file, which must not be opened.
pub(super) fn set_special(parent: impl AsFd, name: &[u8], entry: &Entry, owners: &Owners) -> Result<()> {
    let owner = Owner { uid: entry.uid, gid: entry.gid };
    // The kernel allows no `user.` attributes here: an owner that it cannot store is only in the archive.
    owners.give(owner, |uid, gid| chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW))?;
    if !matches!(entry.kind, super::entry::Kind::Symlink(_)) {
        chmodat(&parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty()).context("cannot chmod")?;
    }
    if !entry.xattrs.is_empty() {
        let mut path = format!("/proc/self/fd/{}/", parent.as_fd().as_raw_fd()).into_bytes();
        path.extend_from_slice(name);
        for (name, value) in &entry.xattrs {
            set_xattr(name, || lsetxattr(&path[..], &name[..], value, XattrFlags::empty()))?;
        }
    }
    utimensat(&parent, name, &timestamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
        .context("cannot set the time")
}

/// Sets one extended attribute. One that this file system does not have, or that takes more rights than we have (SELinux
/// labels, `trusted.` in a user name space), is passed over: the layer is usable without, and the archive keeps it.
pub(super) fn set_xattr(name: &[u8], set: impl FnOnce() -> Result<(), Errno>) -> Result<()> {
    match set() {
        Ok(()) | Err(Errno::NOTSUP | Errno::PERM) => Ok(()),
        // An access control list that names ids outside our map.
        Err(Errno::INVAL) if name.starts_with(b"system.") => Ok(()),
        Err(error) => {
            let name = String::from_utf8_lossy(name).into_owned();
            Err(error).with_context(|| format!("cannot set extended attribute {name}"))
        }
    }
}

/// Modification time as given, access time the same: what tar(1) cannot know, it should not invent.
pub(super) fn timestamps(mtime: Time) -> Timestamps {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// XATTR_LIST_MAX and XATTR_SIZE_MAX of linux/limits.h.
const MAX_XATTR: usize = 64 * 1024;
/// What is said where [`xattr_names`] fails.
pub const CANNOT_LIST: &str = "cannot list extended attributes";
/// What is said where [`xattr_value`] fails.
pub const CANNOT_READ: &str = "cannot read an extended attribute";

/// The names of extended attributes that `list` (listxattr(2)) finds, without overlay's own marks; none where the file
/// system has no such thing.
pub fn xattr_names(list: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<CString>, Errno> {
    let mut short = [0; 512];
    let long;
    let bytes = match list(&mut short) {
        Ok(n) => &short[..n],
        Err(Errno::RANGE) => {
            let mut buffer = vec![0; MAX_XATTR];
            let n = list(&mut buffer)?;
            buffer.truncate(n);
            long = buffer;
            &long[..]
        }
        Err(Errno::NOTSUP | Errno::NOSYS) => &[],
        Err(error) => return Err(error),
    };
    let whole =
        bytes.split_inclusive(|byte| *byte == 0).filter_map(|name| CStr::from_bytes_with_nul(name).ok());
    Ok(whole.filter(|name| !overlay::is_mark(name.to_bytes())).map(CStr::to_owned).collect())
}

/// The value that `read` (getxattr(2)) finds.
pub fn xattr_value(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; MAX_XATTR];
    let n = read(&mut buffer)?;
    buffer.truncate(n);
    Ok(buffer)
}
