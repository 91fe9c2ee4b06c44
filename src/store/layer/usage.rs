//! What a tree takes on disk.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, Dir, FileType, OFlags, Stat, fstat, statat};
use rustix::io::Errno;

use super::beneath;

/// The bytes that a tree takes on disk, as du(1) counts them: by blocks, a file with several names once.
pub fn of(path: &Path) -> Result<u64> {
    let root = beneath::root(path)?;
    let mut usage = Usage::default();
    // Paths, not descriptors: a tree may be deeper than we may have files open.
    let mut todo: Vec<Vec<u8>> = vec![Vec::new()];
    while let Some(path) = todo.pop() {
        let about = || format!("cannot look into {}", String::from_utf8_lossy(&path));
        let dir = match beneath::open(&root, &path, OFlags::RDONLY | OFlags::DIRECTORY) {
            // Removed since its name was read: what is counted may be in use.
            Err(Errno::NOENT) => continue,
            dir => dir.with_context(about)?,
        };
        usage.add(&fstat(&dir).with_context(about)?);
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
                usage.add(&stat);
            } else if path.is_empty() {
                todo.push(name.to_vec());
            } else {
                todo.push([&path, &b"/"[..], name].concat());
            }
        }
    }
    Ok(usage.bytes)
}

#[derive(Default)]
struct Usage {
    bytes: u64,
    /// Inodes of files with several names.
    counted: HashSet<u64>,
}

impl Usage {
    fn add(&mut self, stat: &Stat) {
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_dir || stat.st_nlink == 1 || self.counted.insert(stat.st_ino) {
            // In units of 512 bytes whatever the block size (stat(2)).
            self.bytes += stat.st_blocks as u64 * 512;
        }
    }
}
