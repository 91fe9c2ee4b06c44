//! Names of containers: `names/NAME`, a symlink to the id, whose making is the claim.
//!
//! Invariant: a claim counts only while its container exists or is being made; one that does not is anybody's to take.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use super::Store;
use super::container::{ContainerDir, Record, read_json};
use crate::error::ResultExt;
use crate::fs;
use crate::sys::lock::{self, Kind};

fn link(store: &Store, name: &str) -> PathBuf {
    store.data.join("names").join(name)
}

/// symlink(2) is the claim. A claim whose container is neither there nor being made is left over from a crash.
pub(super) fn claim(store: &Store, name: &str, id: &str) -> Result<()> {
    match fs::symlink(Path::new(id), &link(store, name)) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        other => return other.with_context(|| format!("cannot claim the name {name}")),
    }
    let _names = lock_all(store)?;
    claim_locked(store, name, id)
}

/// The same with the lock on the names held.
fn claim_locked(store: &Store, name: &str, id: &str) -> Result<()> {
    let path = link(store, name);
    let taken = || -> Result<()> {
        let owner = owner_of(store, name)?.unwrap_or_default();
        Err(anyhow!("the name {name} is in use by container {}", &owner[..owner.len().min(12)]))
            .hint(format!("remove it with dhow rm -f {name}, or choose another name"))
    };
    if let Some(owner) = owner_of(store, name)? {
        // A rename that was cut short leaves a second name; with the lock held, none is under way.
        let is_called_so =
            || ContainerDir::of(store, &owner).record().map_or(true, |record| record.name == name);
        if is_alive_or_kept(store, &owner)? && is_called_so() {
            return taken();
        }
        fs::remove_file(&path)?;
    }
    match fs::symlink(Path::new(id), &path) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => taken(),
        other => other.with_context(|| format!("cannot claim the name {name}")),
    }
}

impl ContainerDir {
    /// Gives the container another name, and returns the old one. With the lock on the names: of two who rename it at once,
    /// the second finds what the first one left. The new name is claimed first and the old one freed last, so that at each
    /// moment it is found by the name that its record has.
    pub fn rename(&self, store: &Store, name: &str) -> Result<String> {
        let _names = lock_all(store)?;
        let mut record = self.record().map_err(|error| self.gone_or(error))?;
        claim_locked(store, name, &record.id)?;
        let old = std::mem::replace(&mut record.name, name.to_owned());
        // Removed meanwhile, or the disk is full.
        let written = self.write_record(&record).map_err(|error| self.gone_or(error));
        let stale = if written.is_ok() { old.as_str() } else { name };
        if owner_of(store, stale)?.as_deref() == Some(&*record.id) {
            fs::remove_file(&link(store, stale))?;
        }
        written.map(|()| old)
    }

    /// Changes the record. Of two who change it at once, none undoes what the other did.
    pub fn change_record(
        &self,
        store: &Store,
        change: impl FnOnce(&mut Record) -> Result<()>,
    ) -> Result<Record> {
        let _names = lock_all(store)?;
        let mut record = self.record().map_err(|error| self.gone_or(error))?;
        change(&mut record)?;
        self.write_record(&record).map_err(|error| self.gone_or(error))?;
        Ok(record)
    }

    fn gone_or(&self, error: anyhow::Error) -> anyhow::Error {
        match fs::metadata(&self.path) {
            Ok(None) => self.not_found(),
            _ => error,
        }
    }
}

/// Claims are removed by one at a time: two at once would each remove what the other has just claimed.
fn lock_all(store: &Store) -> Result<File> {
    let names = fs::open_or_create(&store.data.join("names.lock"), 0o600)?;
    lock::acquire(&names, Kind::Exclusive).context("cannot lock the names")?;
    Ok(names)
}

/// Whether a name is claimed, for choosing one that is not.
pub fn is_taken(store: &Store, name: &str) -> Result<bool> {
    Ok(owner_of(store, name)?.is_some())
}

/// Whether somebody is making a container of this name at this moment, or was a moment ago.
pub fn is_being_made(store: &Store, name: &str) -> Result<bool> {
    let Some(owner) = owner_of(store, name)? else { return Ok(false) };
    Ok(fs::metadata(&ContainerDir::of(store, &owner).file("record.json"))?.is_none()
        && is_alive_or_kept(store, &owner)?)
}

/// Whether the claim of this id counts: the container exists, or somebody is making it at this moment.
pub(super) fn is_alive_or_kept(store: &Store, id: &str) -> Result<bool> {
    let record_path = ContainerDir::of(store, id).file("record.json");
    let is_there = || Ok::<_, anyhow::Error>(fs::metadata(&record_path)?.is_some());
    if is_there()? {
        return Ok(true);
    }
    let is_being_made = super::draft::any_held(store, |dir| {
        let record: Option<Record> = read_json(&dir.join("container/record.json")).ok().flatten();
        record.is_some_and(|r| r.id == id)
    })?;
    // It may have moved from the one place to the other between the two looks.
    Ok(is_being_made || is_there()?)
}

pub(super) fn owner_of(store: &Store, name: &str) -> Result<Option<String>> {
    Ok(fs::read_link(&link(store, name))?.map(|t| t.to_string_lossy().into_owned()))
}

/// Frees a name. The claim is moved into `grave`, a directory that is to be removed: an id is too long for an inode, so
/// that removing the link frees a block, and that takes longer than all else for which somebody waits here.
pub(super) fn bury(store: &Store, name: &str, id: &str, grave: &Path) -> Result<()> {
    let _names = lock_all(store)?;
    if owner_of(store, name)?.as_deref() == Some(id) {
        let path = link(store, name);
        fs::rename(&path, &grave.join("claim")).or_else(|_| fs::remove_file(&path))?;
    }
    Ok(())
}

pub(super) fn release(store: &Store, name: &str, id: &str) -> Result<()> {
    let _names = lock_all(store)?;
    if owner_of(store, name)?.as_deref() == Some(id) {
        fs::remove_file(&link(store, name))?;
    }
    Ok(())
}

/// Frees what a container is called when its record does not tell.
pub(super) fn release_all_of(store: &Store, id: &str) -> Result<()> {
    for name in fs::read_dir(&store.data.join("names"))? {
        release(store, &name.to_string_lossy(), id)?;
    }
    Ok(())
}

/// The names that stand for no container, and for none that is being made; frees them if asked to.
pub fn sweep_names(store: &Store, is_serious: bool) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for name in fs::read_dir(&store.data.join("names"))? {
        let name = name.to_string_lossy().into_owned();
        let Some(id) = owner_of(store, &name)? else { continue };
        if is_alive_or_kept(store, &id)? || ContainerDir::of(store, &id).path.exists() {
            continue;
        }
        if is_serious {
            release(store, &name, &id)?;
        }
        found.push(name);
    }
    Ok(found)
}

/// Whether a text may be a container's name (`[a-zA-Z0-9][a-zA-Z0-9_.-]*`: docker's rule, and one letter is enough).
pub fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    (1..=200).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(b))
}
