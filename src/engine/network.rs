//! The verbs for networks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, anyhow, bail};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{Engine, inspect_network};
use crate::endpoint::{self, DEFAULT};
use crate::network::{create, place, pool};
use crate::oci::Digest;
use crate::store::container::{self, ContainerDir, Record};
use crate::store::journal::{self, Event, Kind};
use crate::store::network::{self, Driver, Network, Pool, member};
use crate::subnet::Subnet;

/// What a network is to be.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// How containers are joined.
    pub driver: Driver,
    /// `--subnet`, `--gateway`, `--ip-range`: as typed, in any order.
    pub subnets: Vec<Subnet>,
    /// One for each subnet at most.
    pub gateways: Vec<IpAddr>,
    /// One for each subnet at most.
    pub ranges: Vec<Subnet>,
    /// Addresses that no container gets, by a name.
    pub reserved: BTreeMap<String, IpAddr>,
    /// It has IPv6 as well.
    pub v6: bool,
    /// No way to the outside.
    pub internal: bool,
    /// Containers do not find each other by name.
    pub no_dns: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `-o`.
    pub options: BTreeMap<String, String>,
}

/// Makes a network.
pub fn make(engine: &Engine, wanted: Wanted) -> Result<Network> {
    let about = format!("cannot create network {}", wanted.name);
    if matches!(wanted.name.as_str(), "host" | "none" | "default" | DEFAULT) {
        bail!("{about}: operation is not permitted on predefined {} network", wanted.name);
    }
    let pools = pools(&wanted).context(about)?;
    let made = Network {
        driver: wanted.driver,
        pools,
        internal: wanted.internal,
        dns: !wanted.no_dns,
        labels: wanted.labels,
        options: wanted.options,
        ..Network::new(&wanted.name, create::random_id()?)
    };
    let made = create::create(&engine.store, made, wanted.v6)?;
    journal::note(&engine.store, &Event::of_network(&made, "create"));
    Ok(made)
}

/// Subnets with what belongs to each, in docker's words where it does not.
fn pools(wanted: &Wanted) -> Result<Vec<Pool>> {
    if wanted.subnets.is_empty() && !(wanted.gateways.is_empty() && wanted.ranges.is_empty()) {
        bail!("every ip-range or gateway must have a corresponding subnet");
    }
    for (n, subnet) in wanted.subnets.iter().enumerate() {
        if wanted.subnets[..n].iter().any(|other| other.overlaps(*subnet)) {
            bail!("multiple overlapping subnet configuration is not supported");
        }
        if wanted.subnets[..n].iter().any(|other| other.is_v6() == subnet.is_v6()) {
            bail!("{} driver doesn't support multiple subnets", wanted.driver.word());
        }
    }
    let mut pools = Vec::new();
    for subnet in &wanted.subnets {
        let of_it = |ip: &&IpAddr| subnet.contains(**ip);
        let gateways: Vec<IpAddr> = wanted.gateways.iter().filter(of_it).copied().collect();
        let ranges: Vec<Subnet> =
            wanted.ranges.iter().filter(|range| subnet.contains(range.address())).copied().collect();
        if gateways.len() > 1 {
            bail!("cannot configure multiple gateways for the same subnet ({subnet})");
        }
        if ranges.len() > 1 {
            bail!("cannot configure multiple ranges on the same subnet ({subnet})");
        }
        let mut pool = pool::of_subnet(*subnet, gateways.first().copied(), ranges.first().copied())?;
        pool.reserved = wanted
            .reserved
            .iter()
            .filter(|(_, ip)| subnet.contains(**ip))
            .map(|(n, ip)| (n.clone(), *ip))
            .collect();
        pools.push(pool);
    }
    let is_in = |ip: &IpAddr| pools.iter().any(|pool| pool.subnet.contains(*ip));
    if let Some(ip) = wanted.gateways.iter().find(|ip| !is_in(ip)) {
        bail!("no matching subnet for gateway {ip}");
    }
    if let Some(range) = wanted.ranges.iter().find(|range| !is_in(&range.address())) {
        bail!("no matching subnet for range {range}");
    }
    if let Some(ip) = wanted.reserved.values().find(|ip| !is_in(ip)) {
        bail!("no matching subnet for aux-address {ip}");
    }
    Ok(pools)
}

/// A network as a listing has it.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// 64 hex digits.
    pub id: String,
    /// bridge, macvlan, ipvlan, host or null.
    pub driver: &'static str,
    /// When it was made; nothing of one that was always there.
    pub created: Option<Timestamp>,
    /// Whether it has addresses of IPv4 and of IPv6.
    pub families: (bool, bool),
    /// No way to the outside.
    pub internal: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// A container is made to be in it.
    pub is_used: bool,
}

impl Listed {
    /// Whether it is always there.
    pub fn is_builtin(&self) -> bool {
        is_builtin(&self.name)
    }
}

/// Whether a network of this name is always there.
pub fn is_builtin(name: &str) -> bool {
    matches!(name, "host" | "none" | DEFAULT)
}

/// The id of a network that is no network of ours.
pub fn builtin_id(name: &str) -> String {
    Digest::of(format!("dhow network {name}").as_bytes()).hex().to_owned()
}

/// All networks, with those that are always there.
pub fn list(engine: &Engine) -> Result<Vec<Listed>> {
    // The default one is made by the first who needs it; where it cannot be made, there is nothing to tell of it.
    let _ = create::ensure(&engine.store, DEFAULT);
    let records = records(engine)?;
    let is_used = |name: &str| records.iter().any(|record| names_of(record).any(|n| n == name));
    let of_ours = network::list(&engine.store)?.into_iter().map(|network| Listed {
        is_used: is_used(&network.name),
        driver: network.driver.word(),
        created: Some(network.created),
        families: (network.pool(false).is_some(), network.pool(true).is_some()),
        internal: network.internal,
        name: network.name,
        id: network.id,
        labels: network.labels,
    });
    let mut all: Vec<Listed> = of_ours.collect();
    for (name, driver) in [("host", "host"), ("none", "null")] {
        all.push(Listed {
            name: name.to_owned(),
            id: builtin_id(name),
            driver,
            created: None,
            families: (true, false),
            internal: false,
            labels: BTreeMap::new(),
            is_used: is_used(name),
        });
    }
    Ok(all)
}

fn records(engine: &Engine) -> Result<Vec<Record>> {
    let ids = container::ids(&engine.store)?.into_iter();
    Ok(ids.filter_map(|id| ContainerDir::of(&engine.store, &id).record().ok()).collect())
}

/// The networks that a container is made to be in.
fn names_of(record: &Record) -> impl Iterator<Item = String> {
    let wiring = inspect_network::wiring(record);
    match wiring.network {
        endpoint::Network::Host => vec!["host".to_owned()],
        endpoint::Network::None => vec!["none".to_owned()],
        endpoint::Network::Container(_) => Vec::new(),
        endpoint::Network::Own => wiring.endpoints.into_iter().map(|end| end.network).collect(),
    }
    .into_iter()
}

/// The network that a person named.
pub fn find(engine: &Engine, wanted: &str) -> Result<Network> {
    if wanted == DEFAULT {
        create::ensure(&engine.store, DEFAULT)
    } else {
        network::find(&engine.store, wanted)
    }
}

/// Whether there is one of that name or id.
pub fn exists(engine: &Engine, wanted: &str) -> Result<bool> {
    match network::find(&engine.store, wanted) {
        Ok(_) => Ok(true),
        Err(error) if super::is_not_found(&error) => Ok(is_builtin(wanted)),
        Err(error) => Err(error),
    }
}

/// Everything about one network, in docker's fields.
pub fn inspect(engine: &Engine, wanted: &str) -> Result<Value> {
    for (name, driver) in [("host", "host"), ("none", "null")] {
        let id = builtin_id(name);
        if wanted == name || (wanted.len() >= 4 && id.starts_with(wanted)) {
            return of_builtin(engine, name, driver, &id);
        }
    }
    let network = find(engine, wanted)?;
    let config: Vec<Value> = network.pools.iter().map(config).collect();
    let mut containers = Map::new();
    for member in member::members(&engine.store, &network.id)? {
        if !member::is_alive(&engine.store, &member.id) {
            continue;
        }
        let text = |address: Option<String>| address.unwrap_or_default();
        let end_id = Digest::of(format!("{} {}", member.id, network.id).as_bytes());
        let shown = json!({
            "Name": member.name,
            "EndpointID": end_id.hex(),
            "MacAddress": member.end.mac,
            "IPv4Address": text(member.end.ipv4.map(|(ip, prefix)| format!("{ip}/{prefix}"))),
            "IPv6Address": text(member.end.ipv6.map(|(ip, prefix)| format!("{ip}/{prefix}"))),
        });
        containers.insert(member.id, shown);
    }
    let mut options = network.options.clone();
    if network.is_default() {
        options.entry("com.docker.network.bridge.name".into()).or_insert_with(|| network.bridge());
        options.entry("com.docker.network.bridge.default_bridge".into()).or_insert_with(|| "true".into());
    }
    Ok(json!({
        "Name": network.name,
        "Id": network.id,
        "Created": network.created.to_string(),
        "Scope": "local",
        "Driver": network.driver.word(),
        "EnableIPv4": network.pool(false).is_some(),
        "EnableIPv6": network.pool(true).is_some(),
        "IPAM": { "Driver": "default", "Options": {}, "Config": config },
        "Internal": network.internal,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": containers,
        "Options": options,
        "Labels": network.labels,
    }))
}

fn config(pool: &Pool) -> Value {
    let mut shown = json!({ "Subnet": pool.subnet.to_string() });
    if let Some(range) = pool.range {
        shown["IPRange"] = range.to_string().into();
    }
    if let Some(gateway) = pool.gateway {
        shown["Gateway"] = gateway.to_string().into();
    }
    if !pool.reserved.is_empty() {
        shown["AuxiliaryAddresses"] = json!(pool.reserved);
    }
    shown
}

/// The network `host` or `none`, with the containers that run in it.
fn of_builtin(engine: &Engine, name: &str, driver: &str, id: &str) -> Result<Value> {
    let inside = super::list::list(engine)?
        .into_iter()
        .filter(|c| c.runs() && names_of(&c.record).any(|network| network == name));
    let containers: Map<String, Value> = inside
        .map(|c| {
            let end_id = inspect_network::endpoint_id(&c.record, id);
            let shown = json!({
                "Name": c.record.name, "EndpointID": end_id, "MacAddress": "", "IPv4Address": "", "IPv6Address": "",
            });
            (c.record.id, shown)
        })
        .collect();
    Ok(json!({
        "Name": name,
        "Id": id,
        "Created": super::inspect::ZERO_TIME,
        "Scope": "local",
        "Driver": driver,
        "EnableIPv4": true,
        "EnableIPv6": false,
        "IPAM": { "Driver": "default", "Options": null, "Config": null },
        "Internal": false,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": containers,
        "Options": {},
        "Labels": {},
    }))
}

/// Removes a network that no container is made to be in; with `force` such containers are removed first.
pub fn remove(engine: &Engine, wanted: &str) -> Result<()> {
    if is_builtin(wanted) {
        return Err(anyhow!(
            "cannot remove network {wanted}: it is a pre-defined network and cannot be removed"
        ));
    }
    // Where that is not there, there is nothing of it to remove.
    let place = place::if_any(&engine.store)?;
    let removed = create::remove(&engine.store, wanted, place.as_ref().map(|(place, _)| place))?;
    journal::note(&engine.store, &Event::of_network(&removed, "destroy"));
    Ok(())
}

/// Removes the networks that no container is made to be in and that `fits` takes; their names.
pub fn prune(engine: &Engine, fits: impl Fn(&Listed) -> bool) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for listed in list(engine)?.into_iter().filter(|l| !l.is_builtin() && !l.is_used && fits(l)) {
        match remove(engine, &listed.name) {
            Ok(()) => names.push(listed.name),
            // A container came meanwhile, or somebody else removed it.
            Err(_)
                if network::users(&engine.store, &listed.name)?.is_empty()
                    && exists(engine, &listed.name)? =>
            {
                bail!("cannot remove network {}", listed.name);
            }
            Err(_) => {}
        }
    }
    if !names.is_empty() {
        journal::note(&engine.store, &Event::now(Kind::Network, "prune", "").with("reclaimed", "0"));
    }
    Ok(names)
}
