//! Opening things beneath a directory descriptor, following no symlink, by paths of any length.
//!
//! Invariant: what is opened lies beneath the descriptor, whatever the path and whatever is on disk (openat2(2)).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

/// PATH_MAX of linux/limits.h, with the terminating NUL.
const PATH_MAX: usize = 4096;
const ROOT: &[u8] = b".";

/// Opens a directory of ours as the root to work beneath.
pub(super) fn root(path: &Path) -> Result<OwnedFd> {
    openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("cannot open {}", path.display()))
}

/// Opens a directory as a handle to work beneath; the empty path is `root` itself.
pub(super) fn directory(root: impl AsFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let (mut fd, mut rest) = (None::<OwnedFd>, path);
    loop {
        let (piece, after) = split(rest);
        let base = fd.as_ref().map_or(root.as_fd(), |fd| fd.as_fd());
        let opened = open_piece(base, piece, OFlags::PATH | OFlags::DIRECTORY)?;
        if after.is_empty() {
            return Ok(opened);
        }
        (fd, rest) = (Some(opened), after);
    }
}

/// Opens anything with these flags; a symlink is never followed. Opening what is no regular file and no directory may
/// block or act on a device, so give `OFlags::PATH` or know what it is.
pub(super) fn open(root: impl AsFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let (parent, name) = parent_and_name(path);
    if path.len() < PATH_MAX {
        return open_piece(root.as_fd(), path, flags);
    }
    open_piece(directory(root, parent)?.as_fd(), name, flags)
}

/// Splits `a/b/c` into `a/b` and `c`.
pub(super) fn parent_and_name(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

fn open_piece(base: BorrowedFd<'_>, piece: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let piece = Path::new(std::ffi::OsStr::from_bytes(if piece.is_empty() { ROOT } else { piece }));
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    loop {
        match openat2(base, piece, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty(), resolve) {
            // A rename elsewhere on the machine made the kernel unsure; it asks for another try (openat2(2)).
            Err(Errno::AGAIN | Errno::INTR) => {}
            opened => return opened,
        }
    }
}

/// The longest part at the front that one call takes, and the rest.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    if path.len() < PATH_MAX {
        return (path, &[]);
    }
    match path[..PATH_MAX - 1].iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        // One component of thousands of bytes: the kernel says ENAMETOOLONG.
        None => (path, &[]),
    }
}
