//! Making and removing networks: the record, with addresses that nobody else uses, and what the kernel has of it.

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::netlink::{Family, Socket};
use super::plan;
use super::pool;
use super::{apply, link};
use crate::endpoint::DEFAULT;
use crate::error::ResultExt;
use crate::store::Store;
use crate::store::container;
use crate::store::network::{self, Driver, Network};
use crate::subnet::Subnet;
use crate::sys::lock::Kind;
use apply::Place;

/// Makes a network: with a subnet of IPv4 if it has none, and one of IPv6 if `v6` and it has none. Fails if there is one of
/// this name, or one that overlaps.
pub fn create(store: &Store, mut network: Network, v6: bool) -> Result<Network> {
    let about = format!("cannot create network {}", network.name);
    if !container::is_name(&network.name) || matches!(network.name.as_str(), "host" | "none" | "default") {
        return Err(anyhow!("it cannot be called so"))
            .context(about)
            .hint("a name is made of a-z A-Z 0-9 _ . - and begins with a letter or digit");
    }
    let _alone = network::hold(store, Kind::Exclusive)?;
    ensure!(network::look_up(store, &network.name)?.is_none(), "{about}: there is one of that name");
    fill(store, &mut network, v6).context(about)?;
    network::write(store, &network)?;
    Ok(network)
}

/// The network of this name; the default one is made by the first who needs it.
pub fn ensure(store: &Store, name: &str) -> Result<Network> {
    if let Some(network) = network::look_up(store, name)? {
        return Ok(network);
    }
    if name != DEFAULT {
        return network::find(store, name).hint(format!("make it first: dhow network create {name}"));
    }
    let _alone = network::hold(store, Kind::Exclusive)?;
    if let Some(network) = network::look_up(store, name)? {
        return Ok(network);
    }
    let mut network = Network::new(name, random_id()?);
    fill(store, &mut network, false).context("cannot create the network bridge")?;
    network::write(store, &network)?;
    Ok(network)
}

fn fill(store: &Store, network: &mut Network, v6: bool) -> Result<()> {
    let others = network::list(store)?;
    let of_others = || others.iter().flat_map(|other| &other.pools).map(|pool| pool.subnet);
    for pool in &network.pools {
        let clash = others.iter().find(|other| other.pools.iter().any(|p| p.subnet.overlaps(pool.subnet)));
        if let Some(other) = clash {
            bail!("its subnet {} overlaps {} of network {}", pool.subnet, first_of(other), other.name);
        }
    }
    if network.driver != Driver::Bridge {
        return fill_on_device(network);
    }
    let routed = link::routed(&Socket::open(Family::Route)?)?;
    for pool in &network.pools {
        if let Some(route) = routed.iter().find(|route| route.overlaps(pool.subnet)) {
            return Err(anyhow!(
                "its subnet {} overlaps {route}, which this machine has a route to",
                pool.subnet
            ))
            .hint("choose another, or let dhow choose: leave --subnet away");
        }
    }
    if network.pool(false).is_none() {
        let used: Vec<Subnet> = of_others().chain(routed.iter().copied()).collect();
        let subnet = pool::choose(&used, network.is_default())?;
        network.pools.insert(0, pool::of_subnet(subnet, None, None)?);
    }
    if v6 && network.pool(true).is_none() {
        network.pools.push(pool::of_subnet(pool::choose_v6(&network.id), None, None)?);
    }
    let bridge = network.bridge();
    ensure!(
        !bridge.is_empty() && bridge.len() < 16 && !bridge.contains(['/', ' ', ':']),
        "its bridge cannot be called {bridge:?}"
    );
    if let Some(other) = others.iter().find(|other| other.bridge() == bridge) {
        bail!("network {} has the bridge {bridge}", other.name);
    }
    Ok(())
}

fn first_of(network: &Network) -> String {
    network.pools.iter().map(|pool| pool.subnet.to_string()).collect::<Vec<_>>().join(" and ")
}

/// The addresses of such a network are the device's surroundings: only a person knows them.
fn fill_on_device(network: &mut Network) -> Result<()> {
    let driver = network.driver.word();
    if network.pools.is_empty() {
        return Err(anyhow!("{driver} needs a subnet")).hint("add --subnet, and --gateway for the way out");
    }
    if network.options.get("parent").is_none_or(String::is_empty) {
        return Err(anyhow!("{driver} needs a device")).hint("add -o parent=eth0, the device to share");
    }
    Ok(())
}

/// Removes a network that nobody uses, and its bridge; `place` is where that is, if it is there.
pub fn remove(store: &Store, name: &str, place: Option<&Place>) -> Result<Network> {
    let about = || format!("cannot remove network {name}");
    ensure!(!matches!(name, "host" | "none"), "{}: it is always there", about());
    let _alone = network::hold(store, Kind::Exclusive)?;
    let found = network::find(store, name).with_context(about)?;
    let users = network::users(store, &found.name)?;
    if !users.is_empty() {
        let names: Vec<&str> = users.iter().map(|(_, name)| name.as_str()).collect();
        return Err(anyhow!("it is in use by container {}", names.join(", ")))
            .with_context(about)
            .hint(format!("remove the container first: dhow rm -f {}", names.join(" ")));
    }
    if let Some(place) = place.filter(|_| found.driver == Driver::Bridge) {
        apply::remove_network(place, &plan::bridge(&found)).with_context(about)?;
    }
    network::forget(store, &found)?;
    Ok(found)
}

/// An id for a new network: 64 hex digits.
pub fn random_id() -> Result<String> {
    let mut bytes = [0; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .context("cannot read random bytes")?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}
