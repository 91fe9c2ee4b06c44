//! What a container is told of those that it is linked to (`--link`): variables when it starts, and lines of /etc/hosts that
//! follow them while it runs.

use std::net::IpAddr;

use anyhow::Result;

use crate::endpoint::{Endpoint, Link, Wiring};
use crate::fs;
use crate::network::linked::{self, Target};
use crate::oci::runtime::Spec;
use crate::store::Store;
use crate::store::container::{self, ContainerDir, Record};
use crate::store::network::member::{self, Member};
use crate::store::network::{self, wired};

/// Variables that we give every container of our own accord: they say nothing of the one at the other end.
const OURS: [&str; 2] = ["HOSTNAME=", "TERM="];

/// All links of a container.
pub(super) fn of(wiring: &Wiring) -> Vec<Link> {
    wiring.links.iter().chain(wiring.endpoints.iter().flat_map(|end| &end.links)).cloned().collect()
}

/// Adds the variables of its links to those that a process in a container gets; what it has of its own counts more.
pub fn add_variables(env: &mut Vec<String>, store: &Store, record: &Record) -> Result<()> {
    for link in of(&record.wiring) {
        for variable in variables(store, record, &link)? {
            let key = variable.split_once('=').map_or(&*variable, |(key, _)| key);
            let is_own = |other: &String| other.strip_prefix(key).is_some_and(|rest| rest.starts_with('='));
            if !env.iter().any(is_own) {
                env.push(variable);
            }
        }
    }
    Ok(())
}

/// The same, for its program. Who does not run is told to `warn`.
pub(super) fn add(
    spec: &mut Spec,
    store: &Store,
    record: &Record,
    warn: &mut dyn FnMut(String),
) -> Result<()> {
    for Link { target, alias } in of(&record.wiring) {
        let is_alive = |dir: ContainerDir| member::is_alive(store, &dir.id());
        let why = if find(store, &record.wiring, &target)?.is_some_and(is_alive) {
            continue;
        } else if container::named(store, &target)?.is_some_and(is_alive) {
            "is on none of its networks: it is found when it joins one"
        } else {
            "does not run: it is found when it does"
        };
        warn(format!("{target}, which it is linked to as {alias}, {why}"));
    }
    match spec.process_mut().as_mut().and_then(|process| process.env_mut().as_mut()) {
        Some(env) => add_variables(env, store, record),
        None => Ok(()),
    }
}

/// Whom the resolver would find: who is called so on one of our networks. If nobody there is alive, who bears the name; one that
/// is on other networks only is a stranger, of whom nothing is told.
fn find(store: &Store, own: &Wiring, target: &str) -> Result<Option<ContainerDir>> {
    for end in &own.endpoints {
        let Some(network) = network::look_up(store, &end.network)? else { continue };
        let is_called_so = |member: &Member| {
            let mut names = member.end.aliases.iter().chain([&member.name]);
            names.any(|name| name.eq_ignore_ascii_case(target)) && member::is_alive(store, &member.id)
        };
        if let Some(member) = members(store, &network.id)?.into_iter().find(is_called_so) {
            return Ok(Some(ContainerDir::of(store, &member.id)));
        }
    }
    let Some(dir) = container::named(store, target)? else { return Ok(None) };
    let Ok(record) = dir.record() else { return Ok(None) };
    let is_shared = |end: &Endpoint| own.endpoints.iter().any(|own| own.network == end.network);
    Ok(record.wiring.endpoints.iter().any(is_shared).then_some(dir))
}

/// Nobody, where nobody was ever on it.
fn members(store: &Store, network_id: &str) -> Result<Vec<Member>> {
    match fs::metadata(&member::place(store, network_id))? {
        Some(_) => member::members(store, network_id),
        None => Ok(Vec::new()),
    }
}

fn variables(store: &Store, record: &Record, link: &Link) -> Result<Vec<String>> {
    let nobody = Target { address: None, ports: &[], env: &[] };
    let Some(dir) = find(store, &record.wiring, &link.target)? else {
        return Ok(linked::variables(&record.name, &link.alias, &nobody));
    };
    let Ok(target) = dir.record() else {
        return Ok(linked::variables(&record.name, &link.alias, &nobody));
    };
    let env = super::read_spec(&dir)?.process().as_ref().and_then(|p| p.env().clone()).unwrap_or_default();
    let env: Vec<String> = env.into_iter().filter(|v| !OURS.iter().any(|ours| v.starts_with(ours))).collect();
    let mut ports: Vec<String> = target.config.exposed_ports.iter().cloned().collect();
    ports.extend(target.wiring.ports.iter().map(|port| format!("{}/{}", port.container_port, port.protocol)));
    let address = address(store, &dir, &record.wiring)?;
    Ok(linked::variables(&record.name, &link.alias, &Target { address, ports: &ports, env: &env }))
}

/// Where a running container is to be reached: on a network that both are on.
fn address(store: &Store, dir: &ContainerDir, own: &Wiring) -> Result<Option<IpAddr>> {
    if !member::is_alive(store, &dir.id()) {
        return Ok(None);
    }
    let Some(wired) = wired::read(dir)? else { return Ok(None) };
    let is_shared = |end: &&wired::End| own.endpoints.iter().any(|own| own.network == end.network);
    Ok(wired.ends.iter().filter(is_shared).flat_map(wired::End::addresses).next())
}
