//! Filling an empty volume with what an image has at the place where it is mounted, as docker does.
//!
//! The image's directory is copied to a draft, which is renamed to `content/` beside the volume's data; from there each
//! entry is renamed into the data, one by one, since containers may have the data mounted already. Whoever finds a
//! `content/` finds a copy that is whole and whose moving was cut short, and goes on with it. So a copier that is killed,
//! or a disk that is full, leaves a volume that is as empty as before, or one that the next use completes.

use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::{Volume, data, dir};
use crate::fs;
use crate::store::{Store, layer};
use crate::sys::lock::{self, Kind};

/// Whether a volume is empty, or was not completely filled.
pub fn is_wanted(store: &Store, volume: &Volume) -> Result<bool> {
    if !volume.is_plain() {
        return Ok(false);
    }
    let is_half_filled = fs::metadata(&dir(store, &volume.name).join("content"))?.is_some();
    Ok(is_half_filled || fs::read_dir(&data(store, &volume.name))?.is_empty())
}

/// Fills a volume from the directory `source`, unless something is in it by now: content with owners, modes, extended
/// attributes, links and times, and those of the directory itself. Others who want the same wait.
pub fn fill(store: &Store, volume: &Volume, source: &Path) -> Result<()> {
    let home = dir(store, &volume.name);
    let (content, target) = (home.join("content"), data(store, &volume.name));
    let lock = super::open_lock(store, &volume.name)?;
    lock::acquire(&lock, Kind::Exclusive).with_context(|| format!("cannot lock {}", home.display()))?;
    if fs::metadata(&content)?.is_none() {
        if !fs::read_dir(&target)?.is_empty() {
            return Ok(());
        }
        layer::copy(store, &[source.to_owned()], &content)?;
        if !volume.anonymous && !fs::read_dir(&content)?.is_empty() {
            store.sync()?;
        }
    }
    for name in fs::read_dir(&content)? {
        let (from, to) = (content.join(&name), target.join(&name));
        match renameat_with(CWD, &from, CWD, &to, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            // A container that has the volume already was quicker: what it wrote stays.
            Err(Errno::EXIST) => {}
            Err(Errno::INVAL | Errno::NOSYS) if fs::symlink_metadata(&to)?.is_none() => {
                fs::rename(&from, &to)?
            }
            Err(Errno::INVAL | Errno::NOSYS) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot rename {}", from.display()));
            }
        }
    }
    // Last: each rename was a change of the directory.
    if volume.owner.is_none() {
        layer::copy_directory_attributes(store, &content, &target)?;
    }
    fs::remove_tree(&content)
}
