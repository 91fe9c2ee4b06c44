//! Options -> what a container asks of networks: names looked up, ports of --publish-all added.

use anyhow::{Context, Result, anyhow};

use super::Engine;
use crate::endpoint::{DEFAULT, Endpoint, Network, Port, Wiring};
use crate::error::ResultExt;
use crate::spec::Options;
use crate::store::container::{self, ContainerDir};
use crate::store::network;

/// Whether a container is where it is because nothing was said: then another place will do.
pub fn is_by_default(options: &Options) -> bool {
    options.network == Network::Own && options.networks.is_empty()
}

/// What the options come to; `exposed` are the ports of image and flags, `PORT/PROTOCOL`.
pub(super) fn plan(engine: &Engine, options: &mut Options, exposed: &[String]) -> Result<Wiring> {
    if let Network::Container(wanted) = &options.network {
        options.network = Network::Container(engine.find(wanted)?.id());
    }
    if options.network == Network::Own && options.networks.is_empty() {
        options.networks.push(Endpoint::on(DEFAULT));
    }
    for end in &mut options.networks {
        // The default one is made when it is first used.
        if end.network != DEFAULT {
            end.network = network::find(&engine.store, &end.network)
                .hint(format!("make it first: dhow network create {}", end.network))?
                .name;
        }
    }
    if let Some(n) = (1..options.networks.len())
        .find(|n| options.networks[..*n].iter().any(|end| end.network == options.networks[*n].network))
    {
        return Err(anyhow!("cannot join network {} twice", options.networks[n].network));
    }
    name_links(engine, options)?;
    let mut ports = options.publish.clone();
    if options.publish_all {
        let wanted = exposed.iter().filter_map(|text| {
            let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
            let container_port = port.parse().ok()?;
            Some(Port { address: String::new(), host: None, container_port, protocol: protocol.to_owned() })
        });
        for port in wanted {
            let is_there = |p: &Port| p.container_port == port.container_port && p.protocol == port.protocol;
            if !ports.iter().any(is_there) {
                ports.push(port);
            }
        }
    }
    Ok(Wiring {
        network: options.network.clone(),
        endpoints: options.networks.clone(),
        is_trusted: options.privileged || options.cap_add.iter().any(|cap| is_net_admin(cap)),
        ports: if options.network == Network::Own { ports } else { Vec::new() },
        links: options.links.clone(),
        dns: options.dns.clone(),
        dns_search: options.dns_search.clone(),
        dns_options: options.dns_options.clone(),
    })
}

/// A link follows a name: one that was typed as an id becomes the name of its bearer.
fn name_links(engine: &Engine, options: &mut Options) -> Result<()> {
    let networks: Vec<String> = options.networks.iter().map(|end| end.network.clone()).collect();
    let links = options.links.iter_mut().chain(options.networks.iter_mut().flat_map(|end| &mut end.links));
    for link in links {
        if options.network != Network::Own {
            return Err(anyhow!(
                "cannot link to {}: links need a network of the container's own",
                link.target
            ));
        }
        // A name of a network may mean another one every day; and its first letters may be those of somebody's id.
        if container::named(&engine.store, &link.target)?.is_some()
            || is_alias(engine, &networks, &link.target)?
        {
            continue;
        }
        let about = || format!("cannot link to {}", link.target);
        link.target = engine.find(&link.target).and_then(|dir| dir.record()).with_context(about)?.name;
    }
    Ok(())
}

fn is_net_admin(cap: &str) -> bool {
    let cap = cap.to_ascii_uppercase();
    matches!(cap.strip_prefix("CAP_").unwrap_or(&cap), "NET_ADMIN" | "ALL")
}

/// Whether a container on one of these networks is called so there.
fn is_alias(engine: &Engine, networks: &[String], name: &str) -> Result<bool> {
    for network in networks {
        for (id, _) in network::users(&engine.store, network)? {
            let Ok(record) = ContainerDir::of(&engine.store, &id).record() else { continue };
            let mut ends = record.wiring.endpoints.iter().filter(|end| end.network == *network);
            if ends.any(|end| end.aliases.iter().any(|alias| alias.eq_ignore_ascii_case(name))) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// What `inspect` calls it.
pub fn mode(options: &Options) -> String {
    match &options.network {
        Network::Host => "host".to_owned(),
        Network::None => "none".to_owned(),
        Network::Own => options.networks.first().map_or(DEFAULT, |end| end.network.as_str()).to_owned(),
        Network::Container(id) => format!("container:{id}"),
    }
}
