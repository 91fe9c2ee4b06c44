//! Volumes: directories that outlive containers. `volumes/NAME/` holds
//!
//! | file | what |
//! | --- | --- |
//! | `volume.json` | what was asked for when it was made |
//! | `_data/` | what is mounted (docker's and podman's name for it) |
//! | `lock` | held by who fills or mounts it |
//! | `content/` | what an image brings for `_data/`, on its way there: see [`copy_up`] |
//!
//! Who uses a volume is not written down anywhere: the records of the containers say it.
//!
//! Invariant: a volume in its place is whole; it is made as a draft and taken away by a rename. Between looking whether a
//! container uses a volume and taking it away nobody makes one that does: [`hold_off`].

pub mod copy_up;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Store;
use super::container::{self, ContainerDir};
use super::draft::{self, Draft, Removed};
use crate::error::{NotFound, ResultExt};
use crate::fs;
use crate::sys::lock::{self, Kind};

/// A volume, as it was asked for.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Volume {
    /// Its name, which is the directory's.
    #[serde(skip)]
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// `-o`: `type`, `device` and `o` of docker's local driver.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Whether nobody gave it a name: then it goes with the container that it was made for.
    #[serde(default)]
    pub anonymous: bool,
    /// Whom its root belongs to, where that was said: then no image says otherwise.
    #[serde(default)]
    pub owner: Option<(u32, u32)>,
}

impl Volume {
    /// A volume without options, made now.
    pub fn new(name: &str) -> Volume {
        Volume {
            name: name.to_owned(),
            created: Timestamp::now(),
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            anonymous: false,
            owner: None,
        }
    }

    /// Whether its content lies in its own directory, and not on what `device` names.
    pub fn is_plain(&self) -> bool {
        !self.options.contains_key("type") && !self.options.contains_key("device")
    }
}

/// The directory of the volume `name`, whether there is one or not. The name was checked.
fn dir(store: &Store, name: &str) -> PathBuf {
    store.data.join("volumes").join(name)
}

/// Where the content of the volume `name` lies.
pub fn data(store: &Store, name: &str) -> PathBuf {
    dir(store, name).join("_data")
}

/// A name for a volume that nobody named: 64 hex digits, as docker's.
pub fn anonymous_name() -> Result<String> {
    let mut bytes = [0; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .context("cannot read random bytes")?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// Refuses what cannot be a volume's name.
pub fn check_name(name: &str) -> Result<()> {
    if container::is_name(name) {
        return Ok(());
    }
    Err(anyhow!("cannot use {name:?} as a volume's name")).hint(
        "a name is made of a-z A-Z 0-9 _ . - and begins with a letter or digit; a path begins with / or ./",
    )
}

/// The lock of who fills or mounts the volume `name`, open and not taken.
pub fn open_lock(store: &Store, name: &str) -> Result<File> {
    fs::open_or_create(&dir(store, name).join("lock"), 0o600)
}

/// The volume of this name, if there is one.
pub fn look_up(store: &Store, name: &str) -> Result<Option<Volume>> {
    if !container::is_name(name) {
        return Ok(None);
    }
    let dir = dir(store, name);
    let Some(meta) = fs::metadata(&dir)? else { return Ok(None) };
    // What counts is what it holds: one whose note was lost (the machine lost power) is still there, as a plain one.
    let noted: Option<Volume> = container::read_json(&dir.join("volume.json")).unwrap_or(None);
    let mut volume = noted.unwrap_or_else(|| {
        let modified = meta.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
        Volume { created: modified.unwrap_or(Timestamp::UNIX_EPOCH), ..Volume::new(name) }
    });
    name.clone_into(&mut volume.name);
    Ok(Some(volume))
}

/// The volume that a person named: by its name, or by the beginning of an anonymous one's.
pub fn find(store: &Store, wanted: &str) -> Result<Volume> {
    let not_found = || NotFound { kind: "volume", name: wanted.to_owned() };
    if let Some(volume) = look_up(store, wanted)? {
        return Ok(volume);
    }
    let is_prefix = wanted.len() >= 4 && wanted.bytes().all(|b| b.is_ascii_hexdigit());
    let mut fitting = names(store)?;
    fitting.retain(|name| is_prefix && name.len() == 64 && name.starts_with(wanted));
    match &fitting[..] {
        [one] => look_up(store, one)?.ok_or_else(|| not_found().into()),
        [] => Err(not_found().into()),
        _ => Err(anyhow!("cannot tell which volume {wanted} is: {} names begin so", fitting.len()))
            .hint("type more of the name"),
    }
}

fn names(store: &Store) -> Result<Vec<String>> {
    let names = fs::read_dir(&store.data.join("volumes"))?.into_iter();
    Ok(names.filter_map(|n| n.into_string().ok()).filter(|n| container::is_name(n)).collect())
}

/// All volumes, by name.
pub fn list(store: &Store) -> Result<Vec<Volume>> {
    let mut names = names(store)?;
    names.sort();
    let found = names.iter().map(|name| look_up(store, name)).collect::<Result<Vec<_>>>()?;
    // One may have gone since its name was read.
    Ok(found.into_iter().flatten().collect())
}

/// The volume of this name, made as `wanted` says if there is none; whether it was made.
pub fn ensure(store: &Store, wanted: &Volume) -> Result<(Volume, bool)> {
    let about = || format!("cannot create volume {}", wanted.name);
    loop {
        if let Some(volume) = look_up(store, &wanted.name)? {
            return Ok((volume, false));
        }
        if make(store, wanted).with_context(about)? {
            return Ok((wanted.clone(), true));
        }
    }
}

/// False if there is one by now.
fn make(store: &Store, wanted: &Volume) -> Result<bool> {
    // A store of an older version has no such directory.
    fs::create_dir_all(&store.data.join("volumes"), 0o700)?;
    let draft = Draft::new(store)?;
    let inner = draft.path().join("volume");
    fs::create_dir(&inner, 0o700)?;
    let data = inner.join("_data");
    fs::create_dir(&data, 0o755)?;
    if let Some((uid, gid)) = wanted.owner {
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        rustix::fs::chown(&data, Some(uid), Some(gid))
            .with_context(|| format!("cannot give it to {uid}:{gid}"))
            .hint("ids of a container are needed: give this user subordinate ids in /etc/subuid and /etc/subgid")?;
    }
    rustix::fs::chmod(&data, rustix::fs::Mode::from_raw_mode(0o755)).context("cannot set its mode")?;
    let note = inner.join("volume.json");
    fs::write(&note, &serde_json::to_vec(wanted).context("cannot encode it")?)?;
    // An anonymous one says nothing that is worth waiting for the disk.
    if !wanted.anonymous {
        fs::sync(&note)?;
    }
    draft.publish("volume".as_ref(), &dir(store, &wanted.name))
}

/// While it lives, no volume is removed.
#[derive(Debug)]
pub struct HoldOff {
    _file: File,
}

/// Keeps off who removes volumes, until a record says which are in use.
pub fn hold_off(store: &Store) -> Result<HoldOff> {
    lock_all(store, Kind::Shared).map(|file| HoldOff { _file: file })
}

fn lock_all(store: &Store, kind: Kind) -> Result<File> {
    let path = store.data.join("volumes.lock");
    let file = fs::open_or_create(&path, 0o600)?;
    lock::acquire(&file, kind).with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// A container that uses a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The container's id.
    pub id: String,
    /// The container's name.
    pub name: String,
}

/// Which containers use which volumes, by the volumes' names.
pub fn users(store: &Store) -> Result<BTreeMap<String, Vec<User>>> {
    let mut users: BTreeMap<String, Vec<User>> = BTreeMap::new();
    for id in container::ids(store)? {
        // One without a readable record can never be started again.
        let Ok(record) = ContainerDir::of(store, &id).record() else { continue };
        for used in record.volumes {
            let of_volume = users.entry(used.name).or_default();
            if of_volume.last().is_none_or(|last| last.id != id) {
                of_volume.push(User { id: id.clone(), name: record.name.clone() });
            }
        }
    }
    Ok(users)
}

/// Why a volume stays.
#[derive(Debug)]
pub enum Kept {
    /// There is none of this name.
    Absent,
    /// Containers use it.
    InUse(Vec<User>),
}

/// What was taken, and why each of the others was not.
pub type Taken<'n> = (Vec<Removed>, Vec<(&'n str, Kept)>);

/// Takes those of `names` that no container uses; what is said of each of the others, by name. What was taken is removed
/// when it is dropped.
pub fn take_away<'n>(store: &Store, names: &[&'n str]) -> Result<Taken<'n>> {
    let _alone = lock_all(store, Kind::Exclusive)?;
    let mut users = users(store)?;
    let (mut taken, mut kept) = (Vec::new(), Vec::new());
    for name in names {
        if let Some(users) = users.remove(*name) {
            kept.push((*name, Kept::InUse(users)));
            continue;
        }
        match draft::take_away(store, &dir(store, name))
            .with_context(|| format!("cannot remove volume {name}"))?
        {
            Some(removed) => taken.push(removed),
            None => kept.push((*name, Kept::Absent)),
        }
    }
    Ok((taken, kept))
}

/// What a volume takes on disk.
pub fn size(store: &Store, name: &str) -> Result<u64> {
    super::layer::usage::of(&dir(store, name))
}

/// Names the users of a volume in an error.
pub fn in_use(name: &str, users: &[User]) -> anyhow::Error {
    let names: Vec<&str> = users.iter().map(|user| user.name.as_str()).collect();
    let hint = format!("remove the container first: dhow rm -f {}", names.join(" "));
    anyhow!("it is in use by container {}", names.join(", "))
        .context(crate::error::Hint(hint))
        .context(format!("cannot remove volume {name}"))
}

/// The mount that shows a volume: type, source, option words, as mount(8) has them. Docker's local driver: without a type
/// or with `bind` among the words it is a directory.
pub fn mount_of(store: &Store, volume: &Volume) -> Result<(String, PathBuf, Vec<String>)> {
    if volume.is_plain() {
        return Ok(("bind".into(), data(store, &volume.name), Vec::new()));
    }
    let option = |key: &str| volume.options.get(key).map(String::as_str).filter(|v| !v.is_empty());
    let words = option("o").unwrap_or_default().split(',').filter(|w| !w.is_empty()).map(str::to_owned);
    let words: Vec<String> = words.collect();
    let is_bind = |w: &String| w == "bind" || w == "rbind";
    let fs_type = option("type").unwrap_or("none");
    if fs_type == "bind" || fs_type == "none" || words.iter().any(is_bind) {
        let device = option("device").context("its options name no device")?;
        let words = words.into_iter().filter(|w| !is_bind(w)).collect();
        return Ok(("bind".into(), PathBuf::from(device), words));
    }
    let device = option("device").unwrap_or(fs_type);
    Ok((fs_type.to_owned(), PathBuf::from(device), words))
}

/// Refuses options that the local driver does not know, before anything is made.
pub fn check_options(options: &BTreeMap<String, String>) -> Result<()> {
    for (key, value) in options {
        if !matches!(key.as_str(), "type" | "device" | "o") {
            return Err(anyhow!("cannot create the volume: invalid option: {key:?}"))
                .hint("the local driver knows type, device and o, as mount(8) has them");
        }
        if key == "device"
            && options.get("type").is_none_or(|t| t == "none")
            && !Path::new(value).is_absolute()
        {
            return Err(anyhow!("cannot create the volume: its device {value:?} is not an absolute path"))
                .hint("with -o type=none the device is a directory of the host");
        }
    }
    if options.contains_key("o") && !options.contains_key("device") && !options.contains_key("type") {
        return Err(anyhow!("cannot create the volume: -o o=... needs a type and a device"))
            .hint("for a directory of the host: -o type=none -o o=bind -o device=/path");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
