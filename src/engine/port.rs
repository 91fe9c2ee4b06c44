//! port: which ports of a container are published where, as its supervisor found them.

use anyhow::Result;

use super::{Engine, inspect_network};
use crate::endpoint::Network;
pub use crate::endpoint::Published;
use crate::store::Store;
use crate::store::container::{ContainerDir, Record};
use crate::store::network::wired;

/// What is published of a container, in order. Nothing of one that does not run.
pub fn port(engine: &Engine, wanted: &str) -> Result<Vec<Published>> {
    let dir = engine.find(wanted)?;
    // A container that is not there is told of before one that does not run.
    dir.record()?;
    if super::reap::settled(&engine.store, &dir)?.run().is_none() {
        return Ok(Vec::new());
    }
    let mut all = wired::read(&dir)?.unwrap_or_default().ports;
    all.sort();
    Ok(all)
}

/// The addresses of a port as docker shows them: a port of all addresses has one line for IPv4 and one for IPv6.
pub fn shown(port: &Published) -> Vec<(String, u16)> {
    match port.host_ip.as_str() {
        "" => vec![("0.0.0.0".to_owned(), port.host_port), ("::".to_owned(), port.host_port)],
        ip => vec![(ip.to_owned(), port.host_port)],
    }
}

/// A port as a listing has it: in the container, and where on the host it is published, if it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// In the container.
    pub container_port: u16,
    /// tcp, udp or sctp.
    pub protocol: String,
    /// Address and port of the host.
    pub host: Option<(String, u16)>,
}

/// The ports of a container that runs and has a network of its own, as `ps` shows them: those that are published, and those
/// that are exposed and are not.
pub fn listed(store: &Store, record: &Record) -> Vec<Listed> {
    if inspect_network::wiring(record).network != Network::Own {
        return Vec::new();
    }
    let wired = wired::read(&ContainerDir::of(store, &record.id)).ok().flatten().unwrap_or_default();
    let mut all: Vec<Listed> = Vec::new();
    for port in &wired.ports {
        let one = |host| Listed {
            container_port: port.container_port,
            protocol: port.protocol.clone(),
            host: Some(host),
        };
        all.extend(shown(port).into_iter().map(one));
    }
    let exposed = record.config.exposed_ports.iter().filter_map(|text| {
        let (port, protocol) = text.split_once('/')?;
        Some(Listed { container_port: port.parse().ok()?, protocol: protocol.to_owned(), host: None })
    });
    for port in exposed {
        let is_there = |p: &Listed| p.container_port == port.container_port && p.protocol == port.protocol;
        if !all.iter().any(is_there) {
            all.push(port);
        }
    }
    all
}
