//! The file of a manifest list, and the lock under which lists are changed.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::fs;
use crate::oci::Reference;
use crate::store::Store;
use crate::store::draft::Draft;
use crate::store::image::listed;
use crate::sys::lock;

use super::List;

pub(super) fn full(name: &Reference) -> String {
    name.clone().with_default_tag().to_string()
}

pub(super) fn path(store: &Store, name: &Reference) -> PathBuf {
    listed::file(store, &full(name))
}

pub(super) fn lock(store: &Store) -> Result<File> {
    fs::create_dir_all(&listed::dir(store), 0o700)?;
    let path = listed::dir(store).join(".lock");
    let file = fs::open_or_create(&path, 0o600)?;
    lock::acquire(&file, lock::Kind::Exclusive).with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

pub(super) fn read(store: &Store, name: &Reference) -> Result<Option<List>> {
    let path = path(store, name);
    let Some(text) = fs::read_to_string_if_exists(&path)? else { return Ok(None) };
    serde_json::from_str(&text).with_context(|| format!("cannot read {}", path.display())).map(Some)
}

/// Replaces the file, durably.
pub(super) fn write(store: &Store, name: &Reference, list: &List) -> Result<()> {
    let path = path(store, name);
    let about = || format!("cannot write {}", path.display());
    let draft = Draft::new(store)?;
    let made = draft.path().join("list");
    let mut file = fs::create_new(&made, 0o600)?;
    file.write_all(&serde_json::to_vec(list).with_context(about)?).with_context(about)?;
    file.sync_data().with_context(about)?;
    fs::rename(&made, &path)
}
