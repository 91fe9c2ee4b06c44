//! How a container is joined to networks while it runs: `network.json` in its directory. Its supervisor writes it when it
//! has all its addresses and before the program runs, changes it on `network connect`, and removes it at the end.
//!
//! Invariant: it counts only while the container's lock is held. Of a dead one it says what is to be undone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::member;
use crate::endpoint::Published;
use crate::fs;
use crate::store::Store;
use crate::store::container::{self, ContainerDir};

/// How a container is joined.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Wired {
    /// The container's id.
    pub container: String,
    /// Its name.
    pub name: String,
    /// Its host name, where it was given one: it is found by that as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// One for each network, in the order of its wiring.
    pub ends: Vec<End>,
    /// It waits for its next run: nobody is there to be found.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_resting: bool,
    /// Its ports, with the host's that were found.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Published>,
}

/// Its end of one network.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct End {
    /// The network's name.
    pub network: String,
    /// The network's id.
    pub network_id: String,
    /// The bridge, or the parent device.
    pub bridge: String,
    /// The host's end of the pair; empty where there is none.
    pub link: String,
    /// What it is called inside.
    pub interface: String,
    /// `02:42:...`
    pub mac: String,
    /// Address, and the length of its prefix.
    pub ipv4: Option<(Ipv4Addr, u8)>,
    /// The same of IPv6.
    pub ipv6: Option<(Ipv6Addr, u8)>,
    /// Where the network's gateway is, whether this container uses it or not.
    pub gateway4: Option<Ipv4Addr>,
    /// The same of IPv6.
    pub gateway6: Option<Ipv6Addr>,
    /// The network has no way to the outside.
    pub internal: bool,
    /// Its names are resolved.
    pub dns: bool,
    /// Its names in this network, besides those that it has everywhere (name, short id, hostname).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
}

impl End {
    /// Its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.ipv4.map(|(address, _)| IpAddr::from(address));
        v4.into_iter().chain(self.ipv6.map(|(address, _)| IpAddr::from(address)))
    }
}

const FILE: &str = "network.json";

/// How the container is joined; `None` if it is not, or never said.
pub fn read(dir: &ContainerDir) -> Result<Option<Wired>> {
    container::read_json(&dir.file(FILE))
}

/// Says so, and lets those know who resolve names on its networks.
pub fn write(store: &Store, dir: &ContainerDir, wired: &Wired) -> Result<()> {
    fs::write_atomic(&dir.file(FILE), &serde_json::to_vec(wired).context("cannot encode the network")?)?;
    wired.ends.iter().try_for_each(|end| member::touch(store, &end.network_id))
}

/// Whether there is such a note.
pub fn is_noted(dir: &ContainerDir) -> bool {
    fs::metadata(&dir.file(FILE)).is_ok_and(|meta| meta.is_some())
}

/// It is joined no longer.
pub fn forget(dir: &ContainerDir) -> Result<()> {
    fs::remove_file(&dir.file(FILE))
}
