//! Trees of files in motion: out of a container's root, into one, into archives and out of them.
//!
//! | module | what |
//! | --- | --- |
//! | `inode` | one inode read: an [`Entry`] as archives have it, and its open content |
//! | `source` | walking a tree, or several stacked as overlay stacks them, in the order of names |
//! | `target` | putting entries into a directory, whatever is there and whoever changes it meanwhile |
//! | `name` | what is done to one name in a directory |
//! | `tar` | entries -> the bytes of an archive |
//! | `extract` | an archive -> a target |
//! | `changes` | what a container changed: added, changed, deleted |
//!
//! Invariant: nothing is opened by a path that somebody else could have put a symlink into. Every step goes from a
//! descriptor to a name in it, never through a link, and what is opened was looked at first (a device or a FIFO is never
//! opened): a container that swaps its files while we work gets an error, or its own files (CVE-2018-15664).

pub mod changes;
mod extract;
pub mod inode;
mod name;
pub mod source;
mod tar;
mod target;

use std::collections::HashMap;

pub use super::entry::{Entry, Kind, Time};
pub use super::overlay::Overlay;
pub use extract::extract;
pub use inode::Inode;
pub use source::Source;
pub use tar::Writer;
pub use target::{Content, Ownership, Target};

/// First names of files that have several: by device and inode.
pub type Links = HashMap<(u64, u64), Vec<u8>>;

/// Makes an inode that was seen before a hard link to its first name.
pub fn link(links: &mut Links, inode: &mut Inode) {
    if !inode.has_more_names || matches!(inode.entry.kind, Kind::Directory | Kind::Ignored) {
        return;
    }
    match links.get(&inode.key) {
        Some(first) => {
            inode.entry.kind = Kind::HardLink(first.clone());
            inode.entry.payload = 0;
            inode.entry.xattrs.clear();
            inode.file = None;
        }
        None => _ = links.insert(inode.key, inode.entry.path.clone()),
    }
}
