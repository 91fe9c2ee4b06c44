//! Removing containers: out of sight in one step, cleared at leisure, finished by a sweep where it was cut short.

use std::path::PathBuf;

use anyhow::Result;

use super::container::{ContainerDir, Record, ephemeral};
use super::draft::Removed;
use super::journal::{Event, Kind, note_all};
use super::secret;
use super::{Store, name, volume};
use crate::fs;

impl ContainerDir {
    /// Removes container and name. The caller holds the lock or knows that nobody does.
    pub fn remove(&self, store: &Store) -> Result<()> {
        self.bury(store)?.clear()
    }

    /// Takes the container out of sight, and frees its name: what takes time is left to [`Grave::clear`]. The caller
    /// holds the lock or knows that nobody does.
    pub fn bury(&self, store: &Store) -> Result<Grave> {
        let id = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Out of sight in one step, before anything else goes: a removal that is cut short is finished by a sweep, and
        // never leaves a container without its name.
        let grave = store.data.join("tmp").join(format!("{GRAVE}{id}"));
        if fs::metadata(&self.path)?.is_some() {
            fs::rename(&self.path, &grave)?;
        }
        let mut volumes = Vec::new();
        // Now, and not before: from here on it cannot be renamed.
        match (ContainerDir { path: grave.clone() }).record() {
            Ok(record) => {
                name::bury(store, &record.name, &record.id, &grave)?;
                if record
                    .options
                    .get("secrets")
                    .is_some_and(|all| all.as_array().is_some_and(|a| !a.is_empty()))
                {
                    secret::forget(store, &record.id)?;
                }
                if record.auto_remove {
                    volumes = bury_volumes(store, &record)?;
                }
            }
            Err(_) => name::release_all_of(store, &id)?,
        }
        Ok(Grave { path: grave, marker: ephemeral(store, &id), volumes })
    }
}

/// Takes away the anonymous volumes of a container that is gone, as far as no other uses them.
fn bury_volumes(store: &Store, record: &Record) -> Result<Vec<Removed>> {
    let anonymous: Vec<&str> =
        record.volumes.iter().filter(|v| v.anonymous).map(|v| v.name.as_str()).collect();
    if anonymous.is_empty() {
        return Ok(Vec::new());
    }
    let (taken, kept) = volume::take_away(store, &anonymous)?;
    let gone = anonymous.iter().filter(|name| kept.iter().all(|(other, _)| other != *name));
    let event = |name: &&str| Event::now(Kind::Volume, "destroy", *name).with("driver", "local");
    note_all(store, &gone.map(event).collect::<Vec<_>>());
    Ok(taken)
}

/// [`bury_volumes`] at once: what `rm -v` does after the container is gone.
pub fn remove_volumes(store: &Store, record: &Record) -> Result<()> {
    bury_volumes(store, record).map(drop)
}

/// What is left of a container that is gone: files that only take room. A draft, so that a sweep clears one that nobody
/// does.
#[derive(Debug)]
pub struct Grave {
    path: PathBuf,
    /// That it was to go when it ends; means nothing any more.
    marker: PathBuf,
    /// Its anonymous volumes.
    volumes: Vec<Removed>,
}

impl Grave {
    /// Removes the files.
    pub fn clear(self) -> Result<()> {
        fs::remove_file(&self.marker)?;
        drop(self.volumes);
        if fs::metadata(&self.path)?.is_some() {
            super::draft::remove(&self.path)?;
        }
        Ok(())
    }
}

/// How names in `tmp/` begin that were containers.
const GRAVE: &str = "removed-";

/// Frees the names of containers whose removal was cut short; what is left of them are drafts, for the sweep of those.
pub fn sweep(store: &Store) -> Result<()> {
    let tmp = store.data.join("tmp");
    for name in fs::read_dir(&tmp)? {
        if !name.to_string_lossy().starts_with(GRAVE) {
            continue;
        }
        let dir = ContainerDir { path: tmp.join(name) };
        // Without a record the name was freed before; with the lock held somebody is at it.
        if let Ok(record) = dir.record()
            && let Ok(Some(_lock)) = dir.try_lock()
        {
            name::release(store, &record.name, &record.id)?;
            if record.auto_remove {
                remove_volumes(store, &record)?;
            }
            fs::remove_file(&ephemeral(store, &record.id))?;
        }
    }
    Ok(())
}
