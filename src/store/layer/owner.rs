//! Ownership out of band: what a user with one id cannot store in an inode is kept in extended attributes beside it.
//!
//! `user.dhow.owner` = `UID:GID`, `user.dhow.node` = `c:MAJOR:MINOR` or `b:MAJOR:MINOR` on an empty file that stands for
//! a device. Symlinks and special files cannot carry `user.` attributes; they belong to root then.
//!
//! Invariant: archives cannot set these (see `entry`), so what they say was said by dhow.

use std::os::fd::AsFd;

use rustix::fs::{XattrFlags, fgetxattr, fremovexattr, fsetxattr};
use rustix::io::Errno;

/// What the names of our attributes begin with.
pub(super) const PREFIX: &str = "user.dhow.";
const OWNER: &str = "user.dhow.owner";
const NODE: &str = "user.dhow.node";

/// Who owns a file. Wider than the kernel's ids, because archives are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u64,
    /// Group id.
    pub gid: u64,
}

/// A device that a file stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Block device, else character device.
    pub is_block: bool,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// Keeps the owner of a file or directory out of band; root's is kept by having none. The descriptor must not be
/// O_PATH.
pub fn set(fd: impl AsFd, owner: Owner) -> Result<(), Errno> {
    if owner == (Owner { uid: 0, gid: 0 }) {
        return match fremovexattr(fd, OWNER) {
            Ok(()) | Err(Errno::NODATA) => Ok(()),
            Err(error) => Err(error),
        };
    }
    let text = format!("{}:{}", owner.uid, owner.gid);
    fsetxattr(fd, OWNER, text.as_bytes(), XattrFlags::empty())
}

/// The owner that was kept out of band, if any.
pub fn read(fd: impl AsFd) -> Result<Option<Owner>, Errno> {
    Ok(value(fd, OWNER)?.and_then(|text| {
        let (uid, gid) = text.split_once(':')?;
        Some(Owner { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
    }))
}

/// Makes an empty file stand for a device. The descriptor must not be O_PATH.
pub fn set_node(fd: impl AsFd, node: Node) -> Result<(), Errno> {
    let letter = if node.is_block { 'b' } else { 'c' };
    let text = format!("{letter}:{}:{}", node.major, node.minor);
    fsetxattr(fd, NODE, text.as_bytes(), XattrFlags::empty())
}

/// The device that a file stands for, if any.
pub fn read_node(fd: impl AsFd) -> Result<Option<Node>, Errno> {
    Ok(value(fd, NODE)?.and_then(|text| {
        let mut fields = text.split(':');
        let is_block = match fields.next()? {
            "b" => true,
            "c" => false,
            _ => return None,
        };
        Some(Node { is_block, major: fields.next()?.parse().ok()?, minor: fields.next()?.parse().ok()? })
    }))
}

fn value(fd: impl AsFd, name: &str) -> Result<Option<String>, Errno> {
    // Longer than anything that we write: two 64-bit numbers and a colon.
    let mut bytes = [0; 64];
    match fgetxattr(fd, name, &mut bytes[..]) {
        Ok(n) => Ok(String::from_utf8(bytes[..n].to_vec()).ok()),
        Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs;
    use crate::host::Ids;
    use crate::store::tests::Scratch;

    #[test]
    fn what_is_set_is_read_back() {
        let scratch = Scratch::new(Ids::Single);
        let file = fs::create_new(&scratch.dir.join("f"), 0o600).unwrap();
        assert_eq!((read(&file), read_node(&file)), (Ok(None), Ok(None)));
        for owner in [Owner { uid: 33, gid: 0 }, Owner { uid: u64::MAX, gid: u64::MAX }] {
            set(&file, owner).unwrap();
            assert_eq!(read(&file), Ok(Some(owner)));
        }
        set(&file, Owner { uid: 0, gid: 0 }).unwrap();
        set(&file, Owner { uid: 0, gid: 0 }).unwrap();
        assert_eq!(read(&file), Ok(None));
        for node in
            [Node { is_block: false, major: 5, minor: 1 }, Node { is_block: true, major: 8, minor: 0 }]
        {
            set_node(&file, node).unwrap();
            assert_eq!(read_node(&file), Ok(Some(node)));
        }
    }
}
