//! Secrets: `secrets/stored/NAME/` holds `secret.json`, what may be told, and `value`, what may not; `secrets/of/ID/N` is
//! the N-th secret of a container, its own copy from the time when it was made.
//!
//! Invariant: a value lies nowhere else in the store, not even for a moment: drafts are made beside it, in `secrets/new.*`.
//! All is the caller's alone: directories 0700, files 0600.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Store;
use super::name::is_alive_or_kept;
use crate::error::{NotFound, ResultExt};
use crate::fs;
use crate::sys::lock::{self, Kind};

/// podman's limit.
const MAX_SIZE: u64 = 512_000;

/// A value. Never shown, not by `Debug` either.
#[derive(Clone, PartialEq, Eq)]
pub struct Value(pub Vec<u8>);

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Value(..)")
    }
}

impl Value {
    /// Reads one, to the end of `from`.
    pub fn read(from: impl Read) -> Result<Value> {
        let mut bytes = Vec::new();
        from.take(MAX_SIZE + 1).read_to_end(&mut bytes).context("cannot read the secret")?;
        Value(bytes).checked()
    }

    /// Refuses what is no secret: nothing, or too much.
    pub fn checked(self) -> Result<Value> {
        anyhow::ensure!(
            (1..=MAX_SIZE as usize).contains(&self.0.len()),
            "cannot use the secret: it has 1 to {MAX_SIZE} bytes"
        );
        Ok(self)
    }
}

/// What may be told of a secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Secret {
    /// 25 hex digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// When its value was replaced.
    pub updated: Timestamp,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

fn home(store: &Store) -> PathBuf {
    store.data.join("secrets")
}

fn stored(store: &Store) -> PathBuf {
    home(store).join("stored")
}

/// Where the secrets of a container lie.
pub fn dir_of(store: &Store, container: &str) -> PathBuf {
    home(store).join("of").join(container)
}

/// Makers hold it shared, who sweeps and replaces holds it alone.
fn locked(store: &Store, kind: Kind) -> Result<File> {
    for dir in [home(store), stored(store), home(store).join("of")] {
        fs::create_dir_all(&dir, 0o700)?;
    }
    let file = fs::open_or_create(&home(store).join("lock"), 0o600)?;
    lock::acquire(&file, kind).context("cannot lock the secrets")?;
    Ok(file)
}

/// Whether a text may be a secret's name: podman's rule.
fn check_name(name: &str) -> Result<()> {
    let is_inner = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let is_name = (1..=253).contains(&name.len())
        && name.as_bytes()[0].is_ascii_alphanumeric()
        && name.bytes().all(is_inner);
    if is_name {
        return Ok(());
    }
    Err(anyhow!("cannot use {name:?} as a secret's name"))
        .hint("a name is made of a-z A-Z 0-9 _ . - and begins with a letter or digit")
}

fn draft(store: &Store) -> Result<PathBuf> {
    let path = home(store).join(format!("new.{}", random_hex(16)?));
    fs::create_dir(&path, 0o700)?;
    Ok(path)
}

fn random_hex(n: usize) -> Result<String> {
    let mut bytes = vec![0; n.div_ceil(2)];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .context("cannot get random numbers")?;
    let mut hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.truncate(n);
    Ok(hex)
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = fs::create_new(path, 0o600)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_data())
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Stores a secret. One of its name is an error, or, with `replace`, gets the new value.
pub fn create(
    store: &Store,
    name: &str,
    labels: BTreeMap<String, String>,
    value: &Value,
    replace: bool,
) -> Result<Secret> {
    check_name(name)?;
    let _lock = locked(store, Kind::Exclusive)?;
    sweep(store)?;
    let target = stored(store).join(name);
    let old = read(&target)?;
    if old.is_some() && !replace {
        return Err(anyhow!("cannot create secret {name}: the name is in use"))
            .hint("remove it first, or replace it with --replace");
    }
    let now = Timestamp::now();
    let created = old.as_ref().map_or(now, |old| old.created);
    let secret = Secret { id: random_hex(25)?, name: name.to_owned(), created, updated: now, labels };
    let draft = draft(store)?;
    let text = serde_json::to_vec(&secret).context("cannot encode the secret")?;
    let made = write_private(&draft.join("value"), &value.0)
        .and_then(|()| write_private(&draft.join("secret.json"), &text))
        .and_then(|()| fs::remove_tree(&target))
        .and_then(|()| fs::rename(&draft, &target));
    if made.is_err() {
        let _ = fs::remove_tree(&draft);
    }
    made.map(|()| secret)
}

/// Removes what makers that died left, and copies of containers that are gone. The caller holds the lock alone.
fn sweep(store: &Store) -> Result<()> {
    for name in fs::read_dir(&home(store))? {
        if name.to_string_lossy().starts_with("new.") {
            fs::remove_tree(&home(store).join(name))?;
        }
    }
    for id in fs::read_dir(&home(store).join("of"))? {
        if !is_alive_or_kept(store, &id.to_string_lossy())? {
            fs::remove_tree(&home(store).join("of").join(id))?;
        }
    }
    Ok(())
}

fn read(dir: &Path) -> Result<Option<Secret>> {
    super::container::read_json(&dir.join("secret.json"))
}

/// All secrets, by name.
pub fn list(store: &Store) -> Result<Vec<Secret>> {
    let mut all = Vec::new();
    for name in fs::read_dir(&stored(store))? {
        all.extend(read(&stored(store).join(name))?);
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// The secret of this name, id, or beginning of an id that fits only one.
pub fn find(store: &Store, wanted: &str) -> Result<Secret> {
    let not_found = || anyhow::Error::from(NotFound { kind: "secret", name: wanted.to_owned() });
    if check_name(wanted).is_err() {
        return Err(not_found());
    }
    if let Some(secret) = read(&stored(store).join(wanted))? {
        return Ok(secret);
    }
    let mut fitting = list(store)?.into_iter().filter(|secret| secret.id.starts_with(wanted));
    match (fitting.next(), fitting.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(not_found()),
        _ => Err(anyhow!("cannot tell which secret {wanted} is: several ids begin so")),
    }
}

/// The value of a secret.
pub fn value(store: &Store, secret: &Secret) -> Result<Value> {
    fs::read(&stored(store).join(&secret.name).join("value")).map(Value)
}

/// Removes a secret. Containers keep what they have.
pub fn remove(store: &Store, secret: &Secret) -> Result<()> {
    let _lock = locked(store, Kind::Exclusive)?;
    fs::remove_tree(&stored(store).join(&secret.name))?;
    sweep(store)
}

/// A container's secrets on their way: removed again if this is dropped before [`Kept::stay`].
#[derive(Debug)]
pub struct Kept {
    dir: PathBuf,
    stays: bool,
    /// Until the container is there, nobody may take them for left over.
    _lock: File,
}

/// Gives a container its copies.
pub fn keep(store: &Store, container: &str, values: &[Value]) -> Result<Kept> {
    let lock = locked(store, Kind::Shared)?;
    let kept = Kept { dir: dir_of(store, container), stays: false, _lock: lock };
    fs::create_dir(&kept.dir, 0o700)?;
    for (n, value) in values.iter().enumerate() {
        write_private(&kept.dir.join(n.to_string()), &value.0)?;
    }
    Ok(kept)
}

impl Kept {
    /// The container is there.
    pub fn stay(mut self) {
        self.stays = true;
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if !self.stays {
            let _ = fs::remove_tree(&self.dir);
        }
    }
}

/// Removes the secrets of a container that is gone.
pub fn forget(store: &Store, container: &str) -> Result<()> {
    fs::remove_tree(&dir_of(store, container))
}

/// The N-th secret of a container.
pub fn copy_of(store: &Store, container: &str, n: usize) -> Result<Value> {
    fs::read(&dir_of(store, container).join(n.to_string()))
        .map(Value)
        .context("cannot read a secret of the container")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Ids;
    use crate::store::tests::Scratch;

    #[test]
    fn a_secret_is_made_found_replaced_and_removed() {
        let scratch = Scratch::new(Ids::Root);
        let store = &scratch.store;
        let make = |text: &str, replace| {
            create(store, "a", BTreeMap::new(), &Value(text.as_bytes().to_vec()), replace)
        };
        let first = make("one", false).unwrap();
        assert!(make("two", false).is_err());
        let second = make("two", true).unwrap();
        assert!(first.id != second.id && first.created == second.created);
        assert_eq!(value(store, &find(store, &second.id[..9]).unwrap()).unwrap(), Value(b"two".to_vec()));
        // A copy whose container never came is swept by the next who makes one.
        keep(store, &"e".repeat(64), &[Value(b"x".to_vec())]).unwrap().stay();
        remove(store, &second).unwrap();
        assert!(find(store, "a").is_err() && fs::read_dir(&home(store).join("of")).unwrap().is_empty());
        for wrong in ["", "a/b", "../a", ".a", "a=b"] {
            assert!(create(store, wrong, BTreeMap::new(), &Value(vec![1]), false).is_err(), "{wrong}");
        }
        assert!(Value(Vec::new()).checked().is_err() && Value(vec![0; 512_001]).checked().is_err());
        assert_eq!(format!("{:?}", Value(b"hidden".to_vec())), "Value(..)");
    }
}
