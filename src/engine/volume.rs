//! The verbs for volumes.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Engine;
use crate::store::journal::{Event, Kind, note};
use crate::store::volume::{self, Kept, User, Volume};

/// Makes a volume; one that exists is fine, as it is.
pub fn create(engine: &Engine, wanted: &Volume) -> Result<Volume> {
    volume::check_name(&wanted.name).context("cannot create the volume")?;
    volume::check_options(&wanted.options)?;
    let (volume, is_new) = volume::ensure(&engine.store, wanted)?;
    if is_new {
        note(&engine.store, &event("create", &volume.name));
    }
    Ok(volume)
}

fn event(action: &str, name: &str) -> Event {
    Event::now(Kind::Volume, action, name).with("driver", "local")
}

/// A volume and who uses it.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The volume.
    pub volume: Volume,
    /// Containers that use it.
    pub users: Vec<User>,
}

/// All volumes, by name.
pub fn list(engine: &Engine) -> Result<Vec<Listed>> {
    // First the volumes: what is made meanwhile is not listed, rather than listed without its container.
    let volumes = volume::list(&engine.store)?;
    let mut users = volume::users(&engine.store)?;
    let with_users =
        |volume: Volume| Listed { users: users.remove(&volume.name).unwrap_or_default(), volume };
    Ok(volumes.into_iter().map(with_users).collect())
}

/// Everything about one volume, in docker's fields.
pub fn inspect(engine: &Engine, wanted: &str) -> Result<Value> {
    let volume = volume::find(&engine.store, wanted)?;
    let or_null = |map: &BTreeMap<String, String>| if map.is_empty() { Value::Null } else { json!(map) };
    let mut labels = volume.labels.clone();
    if volume.anonymous {
        labels.insert(ANONYMOUS.into(), String::new());
    }
    Ok(json!({
        "CreatedAt": volume.created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "Driver": "local",
        "Labels": or_null(&labels),
        "Mountpoint": volume::data(&engine.store, &volume.name).display().to_string(),
        "Name": volume.name,
        "Options": or_null(&volume.options),
        "Scope": "local",
    }))
}

/// Docker's label of a volume that nobody named.
pub const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// Removes a volume that no container uses.
pub fn remove(engine: &Engine, wanted: &str) -> Result<()> {
    let volume = volume::find(&engine.store, wanted)?;
    let (taken, kept) = volume::take_away(&engine.store, &[&volume.name])?;
    match kept.into_iter().next() {
        Some((name, Kept::InUse(users))) => Err(volume::in_use(name, &users)),
        Some((_, Kept::Absent)) => volume::find(&engine.store, wanted).map(drop),
        None => {
            drop(taken);
            note(&engine.store, &event("destroy", &volume.name));
            Ok(())
        }
    }
}

/// What a prune removed.
#[derive(Debug, Default)]
pub struct Pruned {
    /// Names.
    pub names: Vec<String>,
    /// What they took on disk.
    pub bytes: u64,
}

/// Removes the volumes that no container uses and that `fits` takes; without `all` only such as nobody named.
pub fn prune(engine: &Engine, all: bool, fits: impl Fn(&Volume) -> bool) -> Result<Pruned> {
    let store = &engine.store;
    let is_chosen =
        |listed: &Listed| listed.users.is_empty() && (all || listed.volume.anonymous) && fits(&listed.volume);
    let mut pruned = Pruned::default();
    for Listed { volume, .. } in list(engine)?.into_iter().filter(is_chosen) {
        // One that cannot be counted can still be removed.
        let bytes = volume::size(store, &volume.name).unwrap_or(0);
        let (taken, _) = volume::take_away(store, &[&volume.name])?;
        if !taken.is_empty() {
            note(store, &event("destroy", &volume.name));
            pruned.names.push(volume.name);
            pruned.bytes += bytes;
        }
    }
    if !pruned.names.is_empty() {
        note(
            store,
            &Event { time: Timestamp::now(), ..event("prune", "") }
                .with("reclaimed", pruned.bytes.to_string()),
        );
    }
    Ok(pruned)
}
