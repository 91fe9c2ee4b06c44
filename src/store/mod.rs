//! All state on disk. One directory (or file) per object, written as a draft beneath `tmp/`, made durable, renamed.
//!
//! There is no database, no index and no lock over the whole store: what is in its place is whole, and what is not yet
//! whole is nowhere but in `tmp/`. The table of files is in the crate documentation.
//!
//! Invariant: DATA is one file system (every publication is a rename) and belongs to us alone (mode 0700).

pub mod additional;
pub mod blob;
pub mod config;
pub mod container;
pub mod draft;
mod format;
pub mod gc;
pub mod grave;
pub mod health;
pub mod image;
pub mod journal;
pub mod layer;
pub mod log_config;
pub mod mapped;
mod name;
pub mod network;
mod old_overlay;
pub mod partial;
pub mod person;
mod piecewise;
pub mod pin;
mod record;
mod restart;
pub mod rootfs;
pub mod rotated;
pub mod secret;
mod shifted;
pub mod shipped;
mod status;
pub mod turn;
pub mod view;
pub mod volume;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::fs;
use crate::host::{Host, Ids};

/// What a store may have in its directory, of all versions.
pub const ENTRIES: &[&str] = &[
    "format",
    "containers",
    "names",
    "names.lock",
    "mapped",
    "volumes",
    "volumes.lock",
    "networks",
    "networks.lock",
    "forward",
    "turns.lock",
    "booted",
    "secrets",
    "ephemeral",
    "events",
    "images",
    "layers",
    "blobs",
    "partial",
    "shipped",
    "manifests",
    "tmp",
];

/// Where the state lies, and how ids are mapped while it is read and written.
#[derive(Debug, Clone)]
pub struct Store {
    /// DATA of the crate documentation.
    pub data: PathBuf,
    /// The id map in force; anything but [`Ids::Root`] means that we are root in a user name space.
    pub ids: Ids,
    /// Other stores whose images and layers are used where ours has none: read, and neither locked nor written to.
    pub additional: Vec<PathBuf>,
}

impl Store {
    /// The store of this host; makes the directories that are missing.
    pub fn open(host: &Host) -> Result<Store> {
        Store::at(&host.data, host.ids.clone())
    }

    /// The store in `data`; makes the directories that are missing. Refused if another version's files are in it.
    pub fn at(data: &Path, ids: Ids) -> Result<Store> {
        let is_noted = format::check(data)?;
        // It alone guards all: so a person who wants others to use the images opens this one directory to them, and
        // still nothing but what images are made of.
        make_missing(data, 0o700)?;
        for dir in ["blobs", "blobs/sha256", "layers", "images"] {
            make_missing(&data.join(dir), 0o755)?;
        }
        for dir in ["partial", "containers", "names", "ephemeral", "tmp"] {
            make_missing(&data.join(dir), 0o700)?;
        }
        if !is_noted {
            format::note(data);
        }
        Ok(Store { data: data.to_owned(), ids, additional: Vec::new() })
    }

    /// The same, by whoever has opened it, for other ids: those of a user name space that was entered since.
    pub fn with_ids(&self, ids: Ids) -> Store {
        Store { ids, ..self.clone() }
    }

    /// Where to look for what is only read: our own store first.
    pub fn places(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.data.as_path()).chain(self.additional.iter().map(PathBuf::as_path))
    }

    /// Makes all that was written so far durable, with one call for however many files.
    ///
    /// To be called before the rename that makes an object visible: after a power cut, a name must not stand for less
    /// than what was written under it.
    pub fn sync(&self) -> Result<()> {
        let dir = fs::open(&self.data)?;
        rustix::fs::syncfs(&dir).with_context(|| format!("cannot sync {}", self.data.display()))
    }
}

/// Looks first: mkdir(2) would take the lock of the directory around it, that of a store which others use at this moment.
fn make_missing(dir: &Path, mode: u32) -> Result<()> {
    match fs::metadata(dir) {
        Ok(Some(meta)) if meta.is_dir() => Ok(()),
        _ => fs::create_dir_all(dir, mode),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A store in a directory of its own, removed when dropped.
    pub(crate) struct Scratch {
        pub(crate) dir: PathBuf,
        pub(crate) store: Store,
    }

    impl Scratch {
        pub(crate) fn new(ids: Ids) -> Scratch {
            let mut random = [0; 8];
            rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).unwrap();
            let dir = std::env::temp_dir().join(format!("dhow-store-{:016x}", u64::from_ne_bytes(random)));
            Scratch { store: Store::at(&dir.join("data"), ids).unwrap(), dir }
        }

        /// Whether no draft is left over.
        pub(crate) fn is_tidy(&self) -> bool {
            fs::read_dir(&self.store.data.join("tmp")).unwrap().is_empty()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_tree(&self.dir);
        }
    }
}
