//! Putting one entry of an archive into the tree.
//!
//! What each kind needs of the kernel, in which order, and what stands in for it where we may not: a device that cannot
//! be made is an empty file that says so (`owner`), an owner that cannot be given is kept beside the file.
//!
//! Invariant: a name is taken by creating (O_EXCL, mkdir, link, ...), never by opening what is there, so nothing is ever
//! written through a hard link or symlink of the same archive.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use anyhow::{Context, Result, bail};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, XattrFlags, chownat, fsetxattr, ftruncate, linkat, makedev, mknodat,
    openat, statat, symlinkat,
};
use rustix::io::Errno;

use super::attributes::{keep_owner, set_file, set_special, set_xattr};
use super::beneath::parent_and_name;
use super::entry::{Entry, Kind, Region};
use super::input::Input;
use super::owner::{self, Node, Owner};
use super::split;
use super::tree::{At, ROOT, Tree, is_list};

/// The payload of one entry: bytes from the input that go into a file or, as they are, into the split.
pub(super) struct Body<'a> {
    pub(super) input: &'a mut Input,
    pub(super) split: &'a mut split::Writer,
    pub(super) left: u64,
}

impl Body<'_> {
    /// Hands up to `most` bytes to `take`, in pieces.
    fn read(
        &mut self,
        most: u64,
        mut take: impl FnMut(&mut split::Writer, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut wanted = most.min(self.left);
        while wanted > 0 {
            let n = (self.input.fill(1)? as u64).min(wanted) as usize;
            if n == 0 {
                bail!("the archive is cut off");
            }
            take(self.split, &self.input.available()[..n])?;
            self.input.consume(n);
            wanted -= n as u64;
            self.left -= n as u64;
        }
        Ok(())
    }

    /// Keeps what is left in the split.
    pub(super) fn keep(&mut self) -> Result<()> {
        self.read(u64::MAX, |split, bytes| split.raw(bytes))
    }
}

/// Puts an entry into the tree. What it leaves of the body belongs into the split.
pub(super) fn place(tree: &mut Tree, entry: &Entry, body: &mut Body<'_>) -> Result<()> {
    if entry.path.is_empty() {
        return match entry.kind {
            Kind::Directory => tree.set_last(ROOT, entry).and_then(|()| root_attributes(tree, entry)),
            Kind::Opaque => {
                tree.is_opaque = true;
                Ok(())
            }
            Kind::Ignored => Ok(()),
            _ => bail!("the root must be a directory"),
        };
    }
    let (parent, name) = parent_and_name(&entry.path);
    let special = |kind, device| Special { kind, device };
    match &entry.kind {
        Kind::Ignored => Ok(()),
        Kind::Opaque => opaque(tree, &entry.path),
        Kind::Whiteout => whiteout(tree, parent, name),
        Kind::Directory => directory(tree, entry),
        Kind::File => file(tree, entry, None, body),
        Kind::Sparse { regions, size } => file(tree, entry, Some((regions, *size)), body),
        Kind::Symlink(target) => {
            let at = tree.parent(parent)?;
            create(tree, &at, name, || symlinkat(&target[..], &*at.fd, name))?;
            set_special(&*at.fd, name, entry, &tree.owners)
        }
        Kind::HardLink(target) => hard_link(tree, parent, name, target),
        Kind::Fifo => node(tree, entry, &special(FileType::Fifo, None)),
        Kind::Device { is_block, major, minor } => {
            let kind = if *is_block { FileType::BlockDevice } else { FileType::CharacterDevice };
            let device = Node { is_block: *is_block, major: *major, minor: *minor };
            node(tree, entry, &special(kind, Some(device)))
        }
    }
}

struct Special {
    kind: FileType,
    device: Option<Node>,
}

/// Takes a name with `make`, removing what has it already.
fn create<T>(tree: &mut Tree, at: &At, name: &[u8], make: impl Fn() -> Result<T, Errno>) -> Result<T> {
    match make() {
        Err(Errno::EXIST) => {
            tree.replace(at, name)?;
            Ok(make()?)
        }
        made => Ok(made?),
    }
}

fn create_file(tree: &mut Tree, at: &At, name: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    create(tree, at, name, || openat(&*at.fd, name, flags, Mode::RUSR | Mode::WUSR))
}

fn file(
    tree: &mut Tree,
    entry: &Entry,
    sparse: Option<(&Vec<Region>, u64)>,
    body: &mut Body<'_>,
) -> Result<()> {
    let (parent, name) = parent_and_name(&entry.path);
    let at = tree.parent(parent)?;
    let mut file = File::from(create_file(tree, &at, name)?);
    match sparse {
        Some((regions, size)) => fill_sparse(&file, regions, size, body)?,
        // Nothing to put together again later, or not by this path.
        None if body.left == 0 || at.is_linked => body.read(u64::MAX, |split, bytes| {
            file.write_all(bytes)?;
            split.raw(bytes)
        })?,
        None => {
            body.split.file(&entry.path, file.metadata()?.ino(), body.left)?;
            body.read(u64::MAX, |_, bytes| Ok(file.write_all(bytes)?))?;
        }
    }
    set_file(&file, entry, &tree.owners)
}

/// The regions of a sparse file; the rest stays a hole. The regions alone would not give the archive back, so all goes
/// into the split as well.
fn fill_sparse(file: &File, regions: &[Region], size: u64, body: &mut Body<'_>) -> Result<()> {
    ftruncate(file, size)?;
    for region in regions {
        let mut offset = region.offset;
        body.read(region.length, |split, bytes| {
            file.write_all_at(bytes, offset)?;
            offset += bytes.len() as u64;
            split.raw(bytes)
        })?;
    }
    Ok(())
}

fn directory(tree: &mut Tree, entry: &Entry) -> Result<()> {
    let (parent, name) = parent_and_name(&entry.path);
    let at = tree.parent(parent)?;
    let (id, _) = tree.make_dir(&at, name)?;
    tree.set_last(id, entry)?;
    directory_attributes(tree, &at, name, entry)
}

/// The attributes that a directory can have from the start.
fn directory_attributes(tree: &Tree, at: &At, name: &[u8], entry: &Entry) -> Result<()> {
    let open = || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&*at.fd, name, flags, Mode::empty()).context("cannot open the directory")
    };
    let owner = Owner { uid: entry.uid, gid: entry.gid };
    let chown = |uid, gid| chownat(&*at.fd, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
    if !tree.owners.give(owner, chown)? {
        keep_owner(open()?, owner)?;
    }
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| !is_list(name)) {
        let dir = open()?;
        set_xattr(name, || fsetxattr(&dir, &name[..], value, XattrFlags::empty()))?;
    }
    Ok(())
}

fn root_attributes(tree: &mut Tree, entry: &Entry) -> Result<()> {
    let at = tree.parent(b"")?;
    directory_attributes(tree, &at, b".", entry)
}

fn hard_link(tree: &mut Tree, parent: &[u8], name: &[u8], target: &[u8]) -> Result<()> {
    let about = || format!("cannot link to {}", String::from_utf8_lossy(target));
    let at = tree.parent(parent)?;
    let (target_parent, target_name) = parent_and_name(target);
    if target_name.is_empty() {
        bail!("a directory cannot have a second name");
    }
    let from = tree.existing(target_parent).with_context(about)?;
    let inode = |at: &At, name| statat(&*at.fd, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| stat.st_ino);
    let found = inode(&from, target_name).with_context(about)?;
    if inode(&at, name) == Ok(found) {
        // The link is there already; replacing it would remove the file if it has no other name.
        return Ok(());
    }
    let link = || linkat(&*from.fd, target_name, &*at.fd, name, AtFlags::empty());
    create(tree, &at, name, link).with_context(about)
}

fn node(tree: &mut Tree, entry: &Entry, special: &Special) -> Result<()> {
    let (parent, name) = parent_and_name(&entry.path);
    let at = tree.parent(parent)?;
    let device = special.device.map_or(0, |device| makedev(device.major, device.minor));
    let make = || mknodat(&*at.fd, name, special.kind, Mode::RUSR | Mode::WUSR, device);
    let made = match make() {
        Err(Errno::EXIST) => {
            tree.replace(&at, name)?;
            make()
        }
        made => made,
    };
    match made {
        Ok(()) => return set_special(&*at.fd, name, entry, &tree.owners),
        // A device, in a user name space or without CAP_MKNOD: an empty file stands for it.
        Err(Errno::PERM) => {}
        Err(error) => return Err(error).context("cannot make the special file"),
    }
    let file = create_file(tree, &at, name)?;
    if let Some(device) = special.device {
        match owner::set_node(&file, device) {
            Ok(()) | Err(Errno::NOTSUP) => {}
            Err(error) => return Err(error).context("cannot keep the device number"),
        }
    }
    set_file(&file, entry, &tree.owners)
}

fn opaque(tree: &mut Tree, path: &[u8]) -> Result<()> {
    let at = tree.parent(path)?;
    tree.overlay.set_opaque(&*at.fd, b".")
}

/// A whiteout speaks about the layers beneath only: what this layer has by that name stays, whichever comes first.
fn whiteout(tree: &mut Tree, parent: &[u8], name: &[u8]) -> Result<()> {
    let at = tree.parent(parent)?;
    match tree.overlay.add_whiteout(&*at.fd, name)? {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => match tree.dir(&at, name) {
            Some(id) => {
                tree.set_own(id);
                tree.overlay.set_opaque(&*at.fd, name)
            }
            None => Ok(()),
        },
        Err(error) => Err(error).context("cannot make a whiteout"),
    }
}
