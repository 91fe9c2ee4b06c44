//! What a later entry of the same archive replaced: gone from `diff/`, but its content is still part of the archive.
//!
//! Each file goes to `replaced/INODE`; the number is free of collisions because the file keeps its inode there.
//! Rare, so it is written for being right, not fast.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, FileType, renameat, statat, unlinkat};
use rustix::io::Errno;

use crate::fs;

use super::layout;

/// Where replaced content goes, in a layer directory that is being made.
#[derive(Debug)]
pub(super) struct Replaced {
    files: PathBuf,
    /// Where a replaced directory is taken apart.
    trees: PathBuf,
}

impl Replaced {
    pub(super) fn new(layer: &Path) -> Replaced {
        Replaced { files: layer.join(layout::REPLACED), trees: layer.join("trees") }
    }

    /// Removes what is at `name`, keeping the content of files. True if it was a directory.
    pub(super) fn take(&self, parent: impl AsFd, name: &[u8]) -> Result<bool> {
        let about = "cannot replace what was there";
        let stat = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).context(about)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                fs::create_dir_all(&self.trees, 0o700)?;
                renameat(&parent, name, CWD, self.trees.join("0")).context(about)?;
                self.take_apart()?;
                return Ok(true);
            }
            FileType::RegularFile if stat.st_size > 0 => {
                fs::create_dir_all(&self.files, 0o755)?;
                renameat(&parent, name, CWD, self.path(stat.st_ino)).context(about)?;
                // Where another name of this file was replaced before, rename(2) leaves both names.
                match unlinkat(&parent, name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(error) => return Err(error).context(about),
                }
            }
            _ => unlinkat(&parent, name, AtFlags::empty()).context(about)?,
        }
        Ok(false)
    }

    fn take_apart(&self) -> Result<()> {
        fs::flatten(&self.trees)?;
        fs::create_dir_all(&self.files, 0o755)?;
        for dir in fs::read_dir(&self.trees)? {
            let dir = self.trees.join(dir);
            for name in fs::read_dir(&dir)? {
                let file = dir.join(name);
                let Some(meta) = fs::symlink_metadata(&file)? else { continue };
                if meta.is_file() && meta.len() > 0 {
                    fs::rename(&file, &self.path(meta.ino()))?;
                }
            }
        }
        fs::remove_tree(&self.trees)
    }

    fn path(&self, inode: u64) -> PathBuf {
        self.files.join(OsStr::from_bytes(inode.to_string().as_bytes()))
    }
}
