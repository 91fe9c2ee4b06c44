//! Networks as inspect of a container shows them: `NetworkSettings`, and `PortBindings` of `HostConfig`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::network::builtin_id;
use super::port;
use crate::endpoint::{DEFAULT, Endpoint, Network, Port, Wiring};
use crate::oci::Digest;
use crate::store::Store;
use crate::store::container::{ContainerDir, Record, State};
use crate::store::network::wired::{self, End, Wired};
use crate::store::network::{self};

/// `NetworkSettings` of a container; `run` is the run that it is in, if it has processes.
pub(super) fn settings(store: &Store, dir: &ContainerDir, record: &Record, run: Option<&State>) -> Value {
    // What is noted of networks holds only while it runs.
    let wired = run.and_then(|_| wired::read(dir).ok().flatten()).unwrap_or_default();
    let wiring = wiring(record);
    let run_id = run.map(|state| Digest::of(format!("{} {}", record.id, state.started_at).as_bytes()));
    let sandbox = match (&run_id, &wiring.network) {
        (Some(id), Network::Host | Network::None | Network::Own) => id.hex().to_owned(),
        _ => String::new(),
    };
    // What nsenter(1) and ip-netns(8) can open.
    let key = run.map_or_else(String::new, |state| format!("/proc/{}/ns/net", state.init.pid));
    let networks = networks(store, record, &wiring, &wired, run.is_some());
    let mut shown = json!({
        "Bridge": "",
        "SandboxID": sandbox,
        "SandboxKey": key,
        "Ports": if run.is_some() && wiring.network == Network::Own { ports(record, &wired) } else { json!({}) },
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null,
    });
    // Docker's oldest fields are about the default network alone.
    let default = networks.get(DEFAULT).cloned().unwrap_or_else(|| endpoint(None, "", None, ""));
    for key in [
        "EndpointID",
        "Gateway",
        "GlobalIPv6Address",
        "GlobalIPv6PrefixLen",
        "IPAddress",
        "IPPrefixLen",
        "IPv6Gateway",
        "MacAddress",
    ] {
        shown[key] = default[key].clone();
    }
    shown["Networks"] = networks.into();
    shown
}

/// What it asks of networks; records of older versions say it in the options alone.
pub(super) fn wiring(record: &Record) -> Wiring {
    if record.wiring != Wiring::default() {
        return record.wiring.clone();
    }
    let network = record.options.get("network").cloned().unwrap_or_default();
    Wiring { network: serde_json::from_value(network).unwrap_or_default(), ..Wiring::default() }
}

fn networks(
    store: &Store,
    record: &Record,
    wiring: &Wiring,
    wired: &Wired,
    runs: bool,
) -> Map<String, Value> {
    let builtin = |name: &str| {
        let id = builtin_id(name);
        let end_id = if runs { endpoint_id(record, &id) } else { String::new() };
        [(name.to_owned(), endpoint(None, &id, None, &end_id))].into_iter().collect()
    };
    match &wiring.network {
        Network::Host => builtin("host"),
        Network::None => builtin("none"),
        Network::Container(_) => Map::new(),
        Network::Own => {
            let one = |asked: &Endpoint| {
                let end = wired.ends.iter().find(|end| end.network == asked.network);
                // One that is gone, or was never used, has no id.
                let known =
                    || network::look_up(store, &asked.network).ok().flatten().map(|network| network.id);
                let id = end.map(|end| end.network_id.clone()).or_else(known).unwrap_or_default();
                let end_id = end.map_or_else(String::new, |_| endpoint_id(record, &id));
                let mut shown = endpoint(Some(asked), &id, end, &end_id);
                if end.is_some() {
                    shown["DNSNames"] = json!(names(record, asked));
                }
                (asked.network.clone(), shown)
            };
            wiring.endpoints.iter().map(one).collect()
        }
    }
}

/// The names under which others in the network find it.
fn names(record: &Record, asked: &Endpoint) -> Vec<String> {
    let own = [record.name.clone()].into_iter();
    let mut names: Vec<String> =
        own.chain(asked.aliases.iter().cloned()).chain([record.id[..12].to_owned()]).collect();
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// Nobody notes the id of an end: it follows from whose it is.
pub(super) fn endpoint_id(record: &Record, network_id: &str) -> String {
    Digest::of(format!("{} {network_id}", record.id).as_bytes()).hex().to_owned()
}

/// A container's end of a network: what was asked for, and what it has while it runs.
fn endpoint(asked: Option<&Endpoint>, network_id: &str, end: Option<&End>, end_id: &str) -> Value {
    let text = |address: Option<String>| address.unwrap_or_default();
    let list = |names: &[String]| if names.is_empty() { Value::Null } else { json!(names) };
    let links: Vec<String> = asked
        .map(|asked| asked.links.iter().map(|link| format!("{}:{}", link.target, link.alias)).collect())
        .unwrap_or_default();
    let mac = end.map(|end| end.mac.clone()).or_else(|| asked.and_then(|asked| asked.mac.clone()));
    json!({
        "IPAMConfig": asked.map_or(Value::Null, ipam),
        "Links": list(&links),
        "Aliases": asked.map_or(Value::Null, |asked| list(&asked.aliases)),
        "MacAddress": mac.unwrap_or_default(),
        "DriverOpts": null,
        "GwPriority": asked.map_or(0, |asked| asked.gateway_priority),
        "NetworkID": network_id,
        "EndpointID": end_id,
        "Gateway": text(end.and_then(|end| end.gateway4).map(|ip| ip.to_string())),
        "IPAddress": text(end.and_then(|end| end.ipv4).map(|(ip, _)| ip.to_string())),
        "IPPrefixLen": end.and_then(|end| end.ipv4).map_or(0, |(_, prefix)| prefix),
        "IPv6Gateway": text(end.and_then(|end| end.gateway6).map(|ip| ip.to_string())),
        "GlobalIPv6Address": text(end.and_then(|end| end.ipv6).map(|(ip, _)| ip.to_string())),
        "GlobalIPv6PrefixLen": end.and_then(|end| end.ipv6).map_or(0, |(_, prefix)| prefix),
        "DNSNames": null,
    })
}

/// The addresses that were asked for; docker's null where none was.
fn ipam(asked: &Endpoint) -> Value {
    let mut shown = Map::new();
    if let Some(ip) = asked.ip {
        shown.insert("IPv4Address".into(), ip.to_string().into());
    }
    if let Some(ip) = asked.ip6 {
        shown.insert("IPv6Address".into(), ip.to_string().into());
    }
    if shown.is_empty() { Value::Null } else { shown.into() }
}

/// `Ports`: all that are exposed, and where those that are published are.
fn ports(record: &Record, wired: &Wired) -> Value {
    let mut shown: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for exposed in &record.config.exposed_ports {
        shown.entry(exposed.clone()).or_default();
    }
    let mut published = wired.ports.clone();
    published.sort();
    for one in &published {
        let bindings = shown.entry(format!("{}/{}", one.container_port, one.protocol)).or_default();
        for (ip, number) in port::shown(one) {
            bindings.push(json!({ "HostIp": ip, "HostPort": number.to_string() }));
        }
    }
    let or_null = |bindings: Vec<Value>| if bindings.is_empty() { Value::Null } else { bindings.into() };
    shown.into_iter().map(|(port, bindings)| (port, or_null(bindings))).collect::<Map<_, _>>().into()
}

/// `PortBindings` of `HostConfig`: what was asked for.
pub(super) fn bindings(ports: &[Port]) -> Value {
    let mut shown: Map<String, Value> = Map::new();
    for port in ports {
        let host = match port.host {
            None => String::new(),
            Some((first, last)) if first == last => first.to_string(),
            Some((first, last)) => format!("{first}-{last}"),
        };
        let binding = json!({ "HostIp": port.address, "HostPort": host });
        let all = shown
            .entry(format!("{}/{}", port.container_port, port.protocol))
            .or_insert_with(|| Value::Array(Vec::new()));
        if let Some(all) = all.as_array_mut() {
            all.push(binding);
        }
    }
    shown.into()
}
