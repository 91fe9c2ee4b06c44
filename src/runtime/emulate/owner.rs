//! Owners and devices that the file system cannot hold: they are written beside the file, in extended attributes.
//!
//! `user.dhow.owner` is `UID:GID` on regular files and directories, absent for 0:0; `user.dhow.node` is `c:MAJOR:MINOR`
//! or `b:MAJOR:MINOR` on the empty regular file that stands for a device. `store::layer` reads and writes the same.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::belief::{Belief, CHOWN, MKNOD, UNCHANGED};
use super::process;

/// The attribute of the owner.
pub const OWNER: &CStr = c"user.dhow.owner";
/// The attribute of a device.
pub const NODE: &CStr = c"user.dhow.node";

/// chown(2) by somebody of this belief. What cannot hold an attribute (a symlink, a pipe, procfs, another's file) is
/// left as it is and the caller told that all is well, as fakeroot does.
pub fn chown(file: &OwnedFd, uid: u32, gid: u32, belief: &Belief) -> Result<(), Errno> {
    let about = process::stat(file)?;
    let kind = FileType::from_raw_mode(about.st_mode);
    if !belief.may(CHOWN) {
        // Files that it has made itself are not marked as its own, so who owns this one cannot be asked.
        let may_user = uid == UNCHANGED || uid == belief.user.file;
        let may_group = gid == UNCHANGED || belief.is_in(gid);
        if !(may_user && may_group) {
            return Err(Errno::PERM);
        }
    }
    if !matches!(kind, FileType::RegularFile | FileType::Directory) {
        return Ok(());
    }
    let path = link(file);
    let old = owner(file);
    let new = (if uid == UNCHANGED { old.0 } else { uid }, if gid == UNCHANGED { old.1 } else { gid });
    if new != old {
        let written = if new == (0, 0) {
            rustix::fs::removexattr(&path, OWNER)
        } else {
            rustix::fs::setxattr(&path, OWNER, format!("{}:{}", new.0, new.1).as_bytes(), XattrFlags::empty())
        };
        if let Err(e @ (Errno::ROFS | Errno::NOSPC | Errno::DQUOT | Errno::IO)) = written {
            return Err(e);
        }
    }
    if kind == FileType::RegularFile {
        drop_privileges(&path, about.st_mode);
    }
    Ok(())
}

/// Who is written down as the owner; root where nobody is.
pub fn owner(file: &OwnedFd) -> (u32, u32) {
    let mut text = [0; 32];
    let Ok(n) = rustix::fs::getxattr(link(file), OWNER, &mut text) else { return (0, 0) };
    parse(&text[..n]).unwrap_or((0, 0))
}

/// Writes down who owns a new file or directory, as far as it can hold that.
pub fn mark(file: impl AsFd, owner: (u32, u32)) {
    let text = format!("{}:{}", owner.0, owner.1);
    let _ = rustix::fs::setxattr(link(file), OWNER, text.as_bytes(), XattrFlags::empty());
}

/// The device that a file stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// S_IFCHR or S_IFBLK.
    pub kind: u32,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// The device that this file stands for, if any.
pub fn node(file: &OwnedFd) -> Option<Node> {
    let mut text = [0; 32];
    let n = rustix::fs::getxattr(link(file), NODE, &mut text).ok()?;
    parse_node(&text[..n])
}

fn parse_node(text: &[u8]) -> Option<Node> {
    let (kind, numbers) = std::str::from_utf8(text).ok()?.split_once(':')?;
    let kind = match kind {
        "c" => libc::S_IFCHR,
        "b" => libc::S_IFBLK,
        _ => return None,
    };
    let (major, minor) = numbers.split_once(':')?;
    Some(Node { kind, major: major.parse().ok()?, minor: minor.parse().ok()? })
}

fn parse(text: &[u8]) -> Option<(u32, u32)> {
    let (uid, gid) = std::str::from_utf8(text).ok()?.split_once(':')?;
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

/// A change of owner takes the set-id bits and capabilities off a file, for root as well.
fn drop_privileges(path: &str, mode: u32) {
    let mut keep = mode & !libc::S_IFMT & !libc::S_ISUID;
    // Without group execution, set-group-id used to mean mandatory locking, and stays.
    if mode & libc::S_IXGRP != 0 {
        keep &= !libc::S_ISGID;
    }
    if keep != mode & !libc::S_IFMT {
        let _ = rustix::fs::chmod(path, Mode::from_raw_mode(keep));
    }
    let _ = rustix::fs::removexattr(path, c"security.capability");
}

/// mknod(2) of a device: an empty file that is marked. `mode` has the umask taken off.
pub fn make_node(dir: &OwnedFd, name: &CStr, mode: u32, device: u32, belief: &Belief) -> Result<(), Errno> {
    if !belief.may(MKNOD) {
        // The kernel finds out first whether the name is free.
        return Err(match rustix::fs::statat(dir, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Errno::EXIST,
            Err(_) => Errno::PERM,
        });
    }
    let kind = if mode & libc::S_IFMT == libc::S_IFBLK { 'b' } else { 'c' };
    let device = u64::from(device);
    let node = format!("{kind}:{}:{}", libc::major(device), libc::minor(device));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))?;
    let made = rustix::fs::fsetxattr(&file, NODE, node.as_bytes(), XattrFlags::CREATE)
        .and_then(|()| rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777)));
    if let Err(e) = made {
        let _ = rustix::fs::unlinkat(dir, name, rustix::fs::AtFlags::empty());
        // The file system has no such attributes: then there can be no devices on it.
        return Err(if e == Errno::NOTSUP { Errno::PERM } else { e });
    }
    Ok(())
}

/// A path to an O_PATH descriptor, which the calls for attributes do not take itself.
pub fn link(file: impl AsFd) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_two_numbers() {
        for (text, want) in [
            ("1:2", Some((1, 2))),
            ("4294967294:0", Some((4_294_967_294, 0))),
            ("", None),
            ("1", None),
            ("1:", None),
            ("1:2:3", None),
            ("-1:2", None),
            ("4294967296:0", None),
        ] {
            assert_eq!(parse(text.as_bytes()), want, "{text:?}");
        }
    }

    #[test]
    fn a_node_is_a_letter_and_two_numbers() {
        let node = |kind, major, minor| Some(Node { kind, major, minor });
        for (text, want) in [
            ("c:1:3", node(libc::S_IFCHR, 1, 3)),
            ("b:259:70000", node(libc::S_IFBLK, 259, 70000)),
            ("c:0:0", node(libc::S_IFCHR, 0, 0)),
            ("", None),
            ("d:1:3", None),
            ("c:1", None),
            ("c:1:3:5", None),
            ("c:-1:3", None),
        ] {
            assert_eq!(parse_node(text.as_bytes()), want, "{text:?}");
        }
    }
}
