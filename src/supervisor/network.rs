//! A container's part of networks: what it has for as long as its supervisor lives (addresses, ports), and what each run gets
//! anew (links). All of it is undone by whoever finds us dead: `network::heal`.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use anyhow::{Context, Result, anyhow, bail};

use super::ports::Ports;
use super::rewire::free_name;
use crate::endpoint::{Endpoint, Network as Mode};
use crate::error::ResultExt;
use crate::network::apply::{self, Met, Place};
use crate::network::forward::hold::Hold;
use crate::network::netlink::Socket;
use crate::network::plan::{self, Plan};
use crate::network::{create, heal, place};
use crate::runtime::Inside;
use crate::store::Store;
use crate::store::container::{ContainerDir, Record};
use crate::store::journal::Event;
use crate::store::network::wired::{self, End, Wired};
use crate::store::network::{Network, claim};

/// See the module.
#[derive(Debug)]
pub struct Joined {
    pub(super) place: Place,
    /// For a user: keeps the place, and the way to the outside.
    hold: Option<Hold>,
    pub(super) networks: Vec<Network>,
    pub(super) wired: Wired,
    is_trusted: bool,
    ports: Ports,
    pub(super) inside: Option<Inside>,
}

impl Joined {
    /// Claims addresses and ports for a container that asks for networks, and notes them. Nothing of the kernel's is changed
    /// yet, but that the ports are taken.
    pub fn claim(store: &Store, dir: &ContainerDir, record: &Record) -> Result<Option<Joined>> {
        if record.wiring.network != Mode::Own {
            return Ok(None);
        }
        // Of a run before us that was cut short.
        heal::heal(store, dir)?;
        let (place, hold) = place::of(store)?;
        if let Some(port) = record.wiring.ports.iter().find(|port| hold.is_some() && port.protocol == "sctp")
        {
            return Err(anyhow!("cannot publish port {}/sctp: that is root's", port.container_port))
                .hint("a user can publish tcp and udp");
        }
        let ports = Ports::bind(store, &record.wiring.ports)?;
        let mut wired = Wired {
            container: record.id.clone(),
            name: record.name.clone(),
            hostname: record.options.get("hostname").and_then(|name| name.as_str()).map(str::to_owned),
            ports: ports.published().to_vec(),
            ..Wired::default()
        };
        let mut networks = Vec::new();
        let claimed = record.wiring.endpoints.iter().try_for_each(|endpoint| {
            let network = create::ensure(store, &endpoint.network)?;
            let names: Vec<&str> = wired.ends.iter().map(|end| end.interface.as_str()).collect();
            let name = free_name(&names);
            let end = claim_end(store, record, endpoint, &network, name, &wired)?;
            wired.ends.push(end);
            networks.push(network);
            Ok(())
        });
        if let Err(error) = claimed.and_then(|()| wired::write(store, dir, &wired)) {
            let _ = heal::free(store, &wired);
            return Err(error);
        }
        let is_trusted = record.wiring.is_trusted;
        Ok(Some(Joined { place, hold, networks, wired, is_trusted, ports, inside: None }))
    }

    /// What it comes to.
    pub(super) fn plan(&self) -> Plan {
        plan::plan(&self.wired, &self.networks, self.is_trusted)
    }

    /// Joins the run whose init has this pid.
    pub fn join(&mut self, store: &Store, pid: i32, inside: Inside) -> Result<()> {
        let route = Socket::from(inside.route.try_clone().context("cannot copy a socket")?);
        let plan = self.plan();
        // Those of the run before: our sockets have kept its name space.
        if let Some(before) = self.inside.take() {
            apply::remove_links(&self.place, &plan)?;
            apply::remove_inside(&plan, &Socket::from(before.route))?;
        }
        let met = apply::apply(&self.place, &plan, pid, &route)
            .context("cannot join the container to its networks")?;
        if met == Met::Missing {
            heal::restore(store, &self.place, &self.wired.container)?;
        }
        self.lead(&plan)?;
        self.inside = Some(inside);
        Ok(())
    }

    /// Lets the ports lead where the plan has them lead.
    pub(super) fn lead(&mut self, plan: &Plan) -> Result<()> {
        self.ports.lead_to(plan);
        match &mut self.hold {
            Some(hold) => hold.lead(self.ports.leads()?).context("cannot publish ports"),
            None => Ok(()),
        }
    }

    /// What is told of the container's coming and going: connect, disconnect.
    pub fn events(&self, record: &Record, action: &str) -> Vec<Event> {
        let one = |network: &Network| Event::of_network(network, action).with("container", &record.id);
        self.networks.iter().map(one).collect()
    }

    /// Changes what is told of it to those who look for it.
    pub fn tell(&mut self, store: &Store, dir: &ContainerDir, change: impl FnOnce(&mut Wired)) -> Result<()> {
        let before = self.wired.clone();
        change(&mut self.wired);
        if self.wired == before { Ok(()) } else { wired::write(store, dir, &self.wired) }
    }

    /// How it is joined.
    pub fn wired(&self) -> &Wired {
        &self.wired
    }

    /// Sockets in its name space.
    pub fn inside(&self) -> Option<&Inside> {
        self.inside.as_ref()
    }

    /// What to wait for.
    pub fn interest(&self) -> Option<BorrowedFd<'_>> {
        // A user's ports are the forwarder's to open.
        self.hold.as_ref().map_or_else(|| self.ports.interest(), Hold::interest)
    }

    /// Deals with what came.
    pub fn step(&mut self) {
        if let Some(hold) = &mut self.hold {
            return hold.step();
        }
        if self.ports.step() {
            // What the firewall should have led past us came to us: somebody emptied it.
            let _ = apply::reassert(&self.place, &self.plan());
        }
    }

    /// Frees the ports, for whoever hears next that we are gone.
    pub fn unpublish(&mut self) {
        if !self.wired.ports.is_empty() {
            let _ = apply::unpublish(&self.place, &self.plan());
        }
        if let Some(hold) = &mut self.hold {
            let _ = hold.lead(Vec::new());
        }
        self.ports = Ports::default();
    }

    /// Frees all. What fails is done by whoever needs it.
    pub fn leave(mut self, store: &Store, dir: &ContainerDir) {
        self.unpublish();
        let _ = apply::undo(&self.place, &self.plan());
        let _ = heal::free(store, &self.wired);
        let _ = wired::forget(dir);
    }
}

/// The container's end of one network, with addresses that are its own; `name` is what it is called inside where nobody said
/// so. `wired` says whose it is.
pub(super) fn claim_end(
    store: &Store,
    record: &Record,
    endpoint: &Endpoint,
    network: &Network,
    name: String,
    wired: &Wired,
) -> Result<End> {
    let mut end = End {
        network: network.name.clone(),
        network_id: network.id.clone(),
        bridge: network.bridge(),
        link: plan::link_of(&record.id, &network.id, record.wiring.is_trusted),
        interface: endpoint.interface.clone().unwrap_or(name),
        internal: network.internal,
        dns: network.dns,
        aliases: endpoint.aliases.clone(),
        ..End::default()
    };
    let wanted = [endpoint.ip.map(IpAddr::from), endpoint.ip6.map(IpAddr::from)];
    for (is_v6, wanted) in [false, true].into_iter().zip(wanted) {
        let Some(pool) = network.pool(is_v6) else {
            if let Some(address) = wanted {
                bail!("cannot use the address {address}: network {} has none of its kind", network.name);
            }
            continue;
        };
        let taken = claim::take(store, network, pool, wanted, &record.id);
        let address = taken
            .inspect_err(|_| drop(heal::free(store, &Wired { ends: vec![end.clone()], ..wired.clone() })))?;
        match (address, pool.gateway) {
            (IpAddr::V4(address), gateway) => {
                end.ipv4 = Some((address, pool.subnet.prefix()));
                end.gateway4 = gateway.and_then(|g| if let IpAddr::V4(g) = g { Some(g) } else { None });
            }
            (IpAddr::V6(address), gateway) => {
                end.ipv6 = Some((address, pool.subnet.prefix()));
                end.gateway6 = gateway.and_then(|g| if let IpAddr::V6(g) = g { Some(g) } else { None });
            }
        }
    }
    let of_address = || plan::mac_of(end.ipv4.map_or([0; 4].into(), |(address, _)| address)).to_string();
    end.mac = endpoint.mac.clone().unwrap_or_else(of_address);
    Ok(end)
}
