//! What a tree takes on disk, and what it holds.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, Dir, FileType, OFlags, Stat, fstat, statat};
use rustix::io::Errno;

use super::beneath;

/// The bytes that a tree takes on disk, as du(1) counts them: by blocks, a file with several names once.
pub fn of(path: &Path) -> Result<u64> {
    let mut counted = Counted::default();
    let mut bytes = 0;
    walk(path, |stat| {
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_dir || counted.is_new(stat) {
            // In units of 512 bytes whatever the block size (stat(2)).
            bytes += stat.st_blocks as u64 * 512;
        }
    })?;
    Ok(bytes)
}

/// The bytes that the files of a tree hold, whatever they take on disk; a file with several names once, a directory none.
/// 0 where there is no such tree.
pub fn apparent_if_exists(path: &Path) -> Result<u64> {
    if crate::fs::symlink_metadata(path)?.is_none() {
        return Ok(0);
    }
    let mut counted = Counted::default();
    let mut bytes = 0;
    walk(path, |stat| {
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if !is_dir && counted.is_new(stat) {
            bytes += u64::try_from(stat.st_size).unwrap_or(0);
        }
    })?;
    Ok(bytes)
}

/// Calls `each` for everything in a tree, its root too.
fn walk(path: &Path, mut each: impl FnMut(&Stat)) -> Result<()> {
    let root = beneath::root(path)?;
    // Paths, not descriptors: a tree may be deeper than we may have files open.
    let mut todo: Vec<Vec<u8>> = vec![Vec::new()];
    while let Some(path) = todo.pop() {
        let about = || format!("cannot look into {}", String::from_utf8_lossy(&path));
        let dir = match beneath::open(&root, &path, OFlags::RDONLY | OFlags::DIRECTORY) {
            // Removed since its name was read: what is counted may be in use.
            Err(Errno::NOENT) => continue,
            dir => dir.with_context(about)?,
        };
        each(&fstat(&dir).with_context(about)?);
        for entry in Dir::read_from(&dir).with_context(about)? {
            let entry = entry.with_context(about)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let stat = match statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                stat => stat.with_context(about)?,
            };
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                each(&stat);
            } else if path.is_empty() {
                todo.push(name.to_vec());
            } else {
                todo.push([&path, &b"/"[..], name].concat());
            }
        }
    }
    Ok(())
}

/// Inodes of files with several names.
#[derive(Default)]
struct Counted(HashSet<u64>);

impl Counted {
    fn is_new(&mut self, stat: &Stat) -> bool {
        stat.st_nlink == 1 || self.0.insert(stat.st_ino)
    }
}
