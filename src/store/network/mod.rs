//! Networks on disk.
//!
//! | path under DATA | what |
//! | --- | --- |
//! | `networks/NAME.json` | a network, as it was made |
//! | `networks/claims/ID/ADDRESS` | symlink to the id of the container that has the address: symlink(2) is the claim |
//! | `networks.lock` | held by who makes or removes a network, shared by who is about to join one |
//! | `containers/ID/network.json` | [`wired`]: how a container is joined while it runs |
//!
//! The default network, `bridge`, is made by the first who needs it. `host` and `none` are no networks of ours.
//!
//! Invariant: a claim holds only while its container's lock is held; whoever needs the address may take it from a dead one.

pub mod claim;
pub mod member;
pub mod wired;

use std::collections::BTreeMap;
use std::fs::File;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Store;
use super::container::{self, ContainerDir};
use crate::endpoint::DEFAULT;
use crate::error::{NotFound, ResultExt};
use crate::fs;
use crate::subnet::Subnet;
use crate::sys::lock::{self, Kind};

/// How containers are joined to a network.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// Through a bridge of the machine.
    #[default]
    Bridge,
    /// Each with a hardware address of its own on a device of the machine; root only.
    Macvlan,
    /// Each with an address of its own on a device of the machine; root only.
    Ipvlan,
}

impl Driver {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Driver::Bridge => "bridge",
            Driver::Macvlan => "macvlan",
            Driver::Ipvlan => "ipvlan",
        }
    }
}

/// The addresses of a network, of IPv4 or of IPv6.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Pool {
    /// All of them.
    pub subnet: Subnet,
    /// The bridge's own, and the way out. None of an --internal network of macvlan or ipvlan.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// Where containers get theirs from; the whole subnet otherwise.
    #[serde(default)]
    pub range: Option<Subnet>,
    /// --aux-address: what no container gets.
    #[serde(default)]
    pub reserved: BTreeMap<String, IpAddr>,
}

/// A network, as it was made.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Network {
    /// Its name, which is the file's.
    #[serde(skip)]
    pub name: String,
    /// 64 hex digits. Names of links are derived from it.
    pub id: String,
    /// When it was made.
    pub created: Timestamp,
    /// How containers are joined.
    #[serde(default)]
    pub driver: Driver,
    /// Its addresses, at most one of IPv4 and one of IPv6.
    pub pools: Vec<Pool>,
    /// No way to the outside, and none in.
    #[serde(default)]
    pub internal: bool,
    /// Its containers find each other by name.
    #[serde(default = "yes")]
    pub dns: bool,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// `-o`: `mtu` (`com.docker.network.driver.mtu`), `isolate`, `com.docker.network.bridge.name`, `parent`, `mode`.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

fn yes() -> bool {
    true
}

impl Network {
    /// A bridge network without addresses and options, made now.
    pub fn new(name: &str, id: String) -> Network {
        Network {
            name: name.to_owned(),
            id,
            created: Timestamp::now(),
            driver: Driver::Bridge,
            pools: Vec::new(),
            internal: false,
            dns: true,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
        }
    }

    /// Its addresses of IPv4, or of IPv6.
    pub fn pool(&self, is_v6: bool) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.subnet.is_v6() == is_v6)
    }

    /// What its bridge is called: what was asked for, or `dhow-` and the first digits of its id.
    pub fn bridge(&self) -> String {
        let asked = self.options.get("com.docker.network.bridge.name").filter(|name| !name.is_empty());
        asked.cloned().unwrap_or_else(|| format!("dhow-{}", self.id.get(..10).unwrap_or(&self.id)))
    }

    /// The MTU that was asked for.
    pub fn mtu(&self) -> Option<u32> {
        let keys = ["mtu", "com.docker.network.driver.mtu"];
        keys.iter().find_map(|key| self.options.get(*key)).and_then(|text| text.parse().ok())
    }

    /// Whether it is the default one.
    pub fn is_default(&self) -> bool {
        self.name == DEFAULT
    }
}

fn dir(store: &Store) -> PathBuf {
    store.data.join("networks")
}

fn path(store: &Store, name: &str) -> PathBuf {
    dir(store).join(format!("{name}.json"))
}

/// The network that has exactly this name, if there is one.
pub fn look_up(store: &Store, name: &str) -> Result<Option<Network>> {
    if !container::is_name(name) {
        return Ok(None);
    }
    let found: Option<Network> = container::read_json(&path(store, name))?;
    Ok(found.map(|network| Network { name: name.to_owned(), ..network }))
}

/// The network that a person named: by its name, its id, or the beginning of an id that fits only one.
pub fn find(store: &Store, wanted: &str) -> Result<Network> {
    if let Some(network) = look_up(store, wanted)? {
        return Ok(network);
    }
    let not_found = || NotFound { kind: "network", name: wanted.to_owned() };
    if wanted.is_empty() || !wanted.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(not_found().into());
    }
    let mut fitting = list(store)?;
    fitting.retain(|network| network.id.starts_with(wanted));
    match fitting.len() {
        0 => Err(not_found().into()),
        1 => Ok(fitting.remove(0)),
        n => Err(anyhow!("cannot tell which network {wanted} is: {n} ids begin so"))
            .hint("type more of the id"),
    }
}

/// All networks, by name.
pub fn list(store: &Store) -> Result<Vec<Network>> {
    let names = fs::read_dir(&dir(store))?.into_iter().filter_map(|n| n.into_string().ok());
    let mut names: Vec<String> = names.filter_map(|n| n.strip_suffix(".json").map(str::to_owned)).collect();
    names.sort();
    let found = names.iter().map(|name| look_up(store, name)).collect::<Result<Vec<_>>>()?;
    // One may have gone since its name was read.
    Ok(found.into_iter().flatten().collect())
}

/// While it lives, no network is made or removed by others.
#[derive(Debug)]
pub struct Hold(#[expect(dead_code, reason = "held for its lock")] File);

/// Keeps others from making or removing networks (`Exclusive`), or from removing those that are about to be used (`Shared`).
pub fn hold(store: &Store, kind: Kind) -> Result<Hold> {
    let path = store.data.join("networks.lock");
    let file = fs::open_or_create(&path, 0o600)?;
    lock::acquire(&file, kind).with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(Hold(file))
}

/// Writes a network that is new or changed; to be called under an exclusive [`hold`].
pub fn write(store: &Store, network: &Network) -> Result<()> {
    fs::create_dir_all(&dir(store), 0o700)?;
    let bytes = serde_json::to_vec(network).context("cannot encode the network")?;
    let path = path(store, &network.name);
    fs::write_atomic(&path, &bytes)?;
    fs::sync(&path)
}

/// Removes the record of a network, and what dead containers left of claims; to be called under an exclusive [`hold`], when
/// nobody uses it.
pub fn forget(store: &Store, network: &Network) -> Result<()> {
    fs::remove_file(&path(store, &network.name))?;
    let claims = claim::dir(store, network);
    if fs::metadata(&claims)?.is_some() { fs::remove_tree(&claims) } else { Ok(()) }
}

/// The containers whose records name the network, running or not: id and name.
pub fn users(store: &Store, name: &str) -> Result<Vec<(String, String)>> {
    let mut users = Vec::new();
    for id in container::ids(store)? {
        // One without a readable record can never be started again.
        let Ok(record) = ContainerDir::of(store, &id).record() else { continue };
        if record.wiring.endpoints.iter().any(|end| end.network == name) {
            users.push((id, record.name));
        }
    }
    Ok(users)
}
