//! The marks that overlay reads in a lower directory: whiteouts and opaque directories
//! (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories").
//!
//! `trusted.` attributes take privilege over the whole machine; in a user name space overlay is mounted with `userxattr`
//! and reads `user.` ones.

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, XattrFlags, fgetxattr, fsetxattr, makedev, mknodat, openat,
    statat, unlinkat,
};
use rustix::io::Errno;

use crate::error::ResultExt;
use crate::host::Ids;

/// Whether an extended attribute is a mark of overlay's.
pub(super) fn is_mark(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// How marks are written here.
#[derive(Debug)]
pub struct Overlay {
    space: &'static str,
    /// Set once a character device 0:0 was refused, which a kernel before 5.8 does in a user name space.
    uses_attributes: Cell<bool>,
}

impl Overlay {
    pub(super) fn new(ids: &Ids) -> Overlay {
        let space = if *ids == Ids::Root { "trusted" } else { "user" };
        Overlay { space, uses_attributes: Cell::new(false) }
    }

    /// Makes a directory hide what lies beneath it.
    pub(super) fn set_opaque(&self, parent: impl AsFd, name: &[u8]) -> Result<()> {
        self.mark(&open_dir(parent, name)?, "opaque", b"y")
    }

    /// Whether a directory hides what lies beneath it.
    pub(super) fn is_opaque(&self, dir: impl AsFd) -> Result<bool, Errno> {
        let mut value = [0; 8];
        match fgetxattr(dir, self.name("opaque"), &mut value[..]) {
            Ok(n) => Ok(&value[..n] == b"y"),
            Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Hides what lies beneath at `name`, where this layer has nothing; EEXIST where it has something.
    pub(super) fn add_whiteout(&self, parent: impl AsFd, name: &[u8]) -> Result<Result<(), Errno>> {
        if !self.uses_attributes.get() {
            match mknodat(&parent, name, FileType::CharacterDevice, Mode::empty(), makedev(0, 0)) {
                Err(Errno::PERM) => self.uses_attributes.set(true),
                Ok(()) if self.is_imitation(&parent, name)? => {
                    unlinkat(&parent, name, AtFlags::empty()).context("cannot make a whiteout")?;
                    self.uses_attributes.set(true);
                }
                made => return Ok(made),
            }
        }
        // The other spelling, since 6.7: an empty file with an attribute, in a directory that says that it has such.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match openat(&parent, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(error) => return Ok(Err(error)),
        };
        self.mark(&file, "whiteout", b"")?;
        let dir = open_dir(parent, b".")?;
        if !self.is_opaque(&dir)? {
            self.mark(&dir, "opaque", b"x")?;
        }
        Ok(Ok(()))
    }

    /// Whether the device that was made is a file only: the emulation of a dhow around us answered mknod(2).
    fn is_imitation(&self, parent: impl AsFd, name: &[u8]) -> Result<bool> {
        if self.space == "trusted" {
            return Ok(false);
        }
        let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).context("cannot look at a whiteout")?;
        Ok(FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice)
    }

    /// Whether what is at `name`, beneath no symlink, is a whiteout.
    pub(super) fn is_whiteout(&self, parent: impl AsFd, name: &[u8]) -> Result<bool, Errno> {
        let stat = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        self.is_whiteout_as(&stat, parent, name)
    }

    /// The same for who knows already what lstat(2) says.
    pub(super) fn is_whiteout_as(&self, stat: &Stat, parent: impl AsFd, name: &[u8]) -> Result<bool, Errno> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice => Ok(stat.st_rdev == 0),
            FileType::RegularFile if stat.st_size == 0 => {
                // Not to wait for a FIFO that has its name by now.
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = openat(&parent, name, flags, Mode::empty())?;
                match fgetxattr(file, self.name("whiteout"), &mut [0; 8][..]) {
                    Ok(_) => Ok(true),
                    Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(false),
                    Err(error) => Err(error),
                }
            }
            _ => Ok(false),
        }
    }

    fn mark(&self, fd: &OwnedFd, name: &str, value: &[u8]) -> Result<()> {
        let name = self.name(name);
        fsetxattr(fd, &name, value, XattrFlags::empty())
            .with_context(|| format!("cannot set {name}"))
            // Before Linux 6.7 overlay keeps such marks to itself.
            .hint("inside another container the store must lie on a volume: give the outer one -v DIR:/var/lib/dhow")
    }

    fn name(&self, name: &str) -> String {
        format!("{}.overlay.{name}", self.space)
    }
}

fn open_dir(parent: impl AsFd, name: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty()).context("cannot open the directory")
}
