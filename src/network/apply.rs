//! Bringing a plan about, and undoing it. All in one [`Place`]; what lies inside the container is done by a socket that was
//! made there.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use rustix::io::Errno;

use super::firewall;
use super::link::{self, Pair};
use super::netlink::{Batch, Family, Refused, Socket};
use super::plan::{Bridge, Mac, OnDevice, Plan};
use crate::error::ResultExt;
use crate::fs;

/// The name space in which bridges join containers.
#[derive(Debug)]
pub struct Place {
    /// For links and addresses.
    pub route: Socket,
    /// For the firewall.
    pub filter: Socket,
    /// In a name space that the containers of a user share: the link by which the outside comes, from whom it comes and
    /// for whom it is. Otherwise the name space is our own, whose sysctls are ours to set.
    pub outside: Option<&'static str>,
}

impl Place {
    /// The name space that we are in.
    pub fn ours() -> Result<Place> {
        Ok(Place {
            route: Socket::open(Family::Route)?,
            filter: Socket::open(Family::Filter)?,
            outside: None,
        })
    }
}

/// The MTU where nothing says another.
const USUAL_MTU: u32 = 1500;

/// What [`apply`] met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    /// All was as it should be.
    Whole,
    /// Bridges or rules had to be made: others may miss theirs.
    Missing,
}

/// Joins the container whose init is `pid`, as we see it; `inside` is a socket for links in its name space. What is there
/// already of its links is kept, and set right.
pub fn apply(place: &Place, plan: &Plan, pid: i32, inside: &Socket) -> Result<Met> {
    let mut made = Vec::new();
    for join in &plan.joins {
        let (bridge, mtu) = ensure_bridge(place, &join.bridge, &mut made)?;
        let mut batch = Batch::new();
        if link::find(inside, &join.interface)?.is_some() {
            link::enslave(&mut batch, &join.link, bridge);
        } else {
            let pair = Pair { link: &join.link, bridge, mtu, interface: &join.interface, mac: join.mac, pid };
            link::add_pair(&mut batch, pair);
            batch.acknowledge();
            match place.route.run(&batch)? {
                Ok(()) => batch = Batch::new(),
                // That of the run before is on its way out with its name space.
                Err(Refused { errno: Errno::EXIST, .. }) => {
                    batch = Batch::new();
                    link::remove(&mut batch, &join.link);
                    place.route.run(&batch)?.or_else(unless_gone)?;
                    batch = Batch::new();
                    link::add_pair(&mut batch, pair);
                }
                Err(refused) => return Err(refused.into()),
            }
        }
        open_for_ports(&mut batch, plan, &join.link, bridge);
        batch.acknowledge();
        place.route.run(&batch)??;
    }
    plan.devices.iter().try_for_each(|device| add_device(place, device, pid, inside))?;
    set_inside(plan, inside)?;
    allow(place, plan, !made.is_empty())
}

/// Makes a link on a device of the machine, unless it is there.
fn add_device(place: &Place, device: &OnDevice, pid: i32, inside: &Socket) -> Result<()> {
    let OnDevice { join, kind, mode, parent } = device;
    if link::find(inside, &join.interface)?.is_some() {
        return Ok(());
    }
    let about = || format!("cannot use the device {parent}");
    let found = link::find(&place.route, parent)?;
    let found = found.context("this machine has none of that name").with_context(about)?;
    let mtu = join.bridge.mtu.unwrap_or(found.mtu);
    let pair = Pair { link: "", bridge: 0, mtu, interface: &join.interface, mac: join.mac, pid };
    let mut batch = Batch::new();
    link::add_on_device(&mut batch, kind, *mode, found.index, pair);
    batch.acknowledge();
    place
        .route
        .run(&batch)?
        .with_context(about)
        .hint(format!("the kernel needs {kind}, and the device may carry only one kind of such links"))
}

/// What published ports need of bridge and link, and nothing else does.
fn open_for_ports(batch: &mut Batch, plan: &Plan, link: &str, bridge: u32) {
    if !plan.ports.is_empty() {
        link::let_return(batch, link);
    }
    if plan.ports.iter().any(|(port, _)| port.address().is_none_or(|ip| ip.is_loopback())) {
        link::allow_loopback_addresses(batch, bridge);
    }
}

fn unless_gone(refused: Refused) -> std::result::Result<(), Refused> {
    if refused.errno == Errno::NODEV { Ok(()) } else { Err(refused) }
}

/// Addresses and routes inside.
fn set_inside(plan: &Plan, inside: &Socket) -> Result<()> {
    let mut batch = Batch::new();
    for join in plan.joins.iter().chain(plan.devices.iter().map(|device| &device.join)) {
        let found = link::find(inside, &join.interface)?;
        let index = found.with_context(|| format!("cannot find {} in the container", join.interface))?.index;
        link::set_up(&mut batch, index);
        join.addresses.iter().for_each(|address| link::add_address(&mut batch, index, *address));
        join.gateways.iter().for_each(|gateway| link::add_default_route(&mut batch, index, *gateway));
    }
    batch.acknowledge();
    Ok(inside.run(&batch)??)
}

/// The firewall's part. Most starts find all in place, and add their own.
fn allow(place: &Place, plan: &Plan, is_new: bool) -> Result<Met> {
    let bridges: Vec<&str> = plan.joins.iter().map(|join| join.bridge.link.as_str()).collect();
    if bridges.is_empty() {
        return Ok(Met::Whole);
    }
    let own = firewall::of_container(plan);
    if !is_new && firewall::is_whole(&place.filter, &bridges)? {
        match firewall::add(&place.filter, &own) {
            Ok(()) => return Ok(Met::Whole),
            // Somebody deleted it a moment ago.
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    let mut all: Vec<_> =
        plan.joins.iter().map(|join| firewall::of_network(&join.bridge, place.outside)).collect();
    all.push(own.clone());
    assert_firewall(place, &all).map(|()| Met::Missing)
}

fn is_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.errno == Errno::NOENT)
}

/// Asserts the firewall with these elements.
pub fn assert_firewall(place: &Place, elements: &[firewall::Elements]) -> Result<()> {
    firewall::assert(&place.filter, &[])
        .hint("the kernel needs nf_tables with nat, masquerading and bridges (modules nf_tables, nft_chain_nat, nft_masq)")?;
    elements.iter().try_for_each(|one| firewall::add(&place.filter, one))
}

/// The number and MTU of a bridge; it is made where it is not there, and named in `made`.
fn ensure_bridge(place: &Place, bridge: &Bridge, made: &mut Vec<String>) -> Result<(u32, u32)> {
    let about = || format!("cannot use the bridge {}", bridge.link);
    for _ in 0..2 {
        if let Some(found) = link::find(&place.route, &bridge.link)? {
            if found.kind != "bridge" {
                return Err(anyhow!("there is another link of that name")).with_context(about);
            }
            if !found.is_up {
                let mut batch = Batch::new();
                set_bridge_up(&mut batch, bridge, found.index);
                place.route.run(&batch)??;
            }
            return Ok((found.index, found.mtu));
        }
        make_bridge(place, bridge)?;
        made.push(bridge.link.clone());
    }
    Err(anyhow!("it vanishes")).with_context(about)
}

fn set_bridge_up(batch: &mut Batch, bridge: &Bridge, index: u32) {
    link::set_up(batch, index);
    bridge.addresses.iter().for_each(|address| link::add_address(batch, index, *address));
    batch.acknowledge();
}

fn make_bridge(place: &Place, bridge: &Bridge) -> Result<()> {
    let mtu = match bridge.mtu {
        Some(mtu) => mtu,
        None => link::mtu_of_way_out(&place.route)?.unwrap_or(USUAL_MTU),
    };
    if place.outside.is_none() {
        forward_packets(bridge)?;
    }
    let mut batch = Batch::new();
    link::add_bridge(&mut batch, &bridge.link, bridge_mac(bridge), mtu);
    batch.acknowledge();
    match place.route.run(&batch)? {
        // Another start was faster.
        Err(Refused { errno: Errno::EXIST, .. }) => {}
        other => other.hint("root has it not in a container without CAP_NET_ADMIN: use --network host")?,
    }
    let found = link::find(&place.route, &bridge.link)?;
    let index = found.with_context(|| format!("cannot find the bridge {}", bridge.link))?.index;
    let mut batch = Batch::new();
    set_bridge_up(&mut batch, bridge, index);
    Ok(place.route.run(&batch)??)
}

/// A hardware address that is the same whenever the bridge is made.
fn bridge_mac(bridge: &Bridge) -> Mac {
    let sum = bridge
        .link
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let [a, b, c, d, e, ..] = sum.to_be_bytes();
    Mac([0x02, a, b, c, d, e])
}

/// Nothing of a container leaves a machine that forwards nothing.
fn forward_packets(bridge: &Bridge) -> Result<()> {
    let mut switches = vec![("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward")];
    if bridge.addresses.iter().any(|(address, _)| address.is_ipv6()) {
        switches.push(("net.ipv6.conf.all.forwarding", "/proc/sys/net/ipv6/conf/all/forwarding"));
    }
    for (name, path) in switches {
        let path = Path::new(path);
        let is_on = fs::read_to_string_if_exists(path)?.is_some_and(|text| text.trim() != "0");
        if !is_on && !bridge.internal {
            if name.contains("ipv6") {
                keep_router_advertisements()?;
            }
            fs::write(path, b"1").hint(format!("run sysctl -w {name}=1 on the host"))?;
        }
    }
    Ok(())
}

/// A machine that forwards IPv6 stops listening to the routers around it (ip-sysctl, accept_ra), and would lose its own way
/// out: those links that listen are told to go on.
fn keep_router_advertisements() -> Result<()> {
    let all = Path::new("/proc/sys/net/ipv6/conf");
    for link in fs::read_dir(all)? {
        let path = all.join(&link).join("accept_ra");
        if link != "all"
            && link != "lo"
            && fs::read_to_string_if_exists(&path)?.is_some_and(|text| text.trim() == "1")
        {
            fs::write(&path, b"2")?;
        }
    }
    Ok(())
}

/// Takes away what [`apply`] added for a container, or what is left of it. The bridge stays.
pub fn undo(place: &Place, plan: &Plan) -> Result<()> {
    let removed = firewall::remove(&place.filter, &firewall::of_container(plan));
    remove_links(place, plan)?;
    removed
}

/// Takes those links away that have no other end.
pub fn remove_inside(plan: &Plan, inside: &Socket) -> Result<()> {
    let mut batch = Batch::new();
    plan.devices.iter().for_each(|device| link::remove(&mut batch, &device.join.interface));
    batch.acknowledge();
    Ok(inside.run(&batch)?.or_else(unless_gone)?)
}

/// Takes the ports away, so that they can be given to others.
pub fn unpublish(place: &Place, plan: &Plan) -> Result<()> {
    let ports_only = Plan { ports: plan.ports.clone(), ..Plan::default() };
    firewall::remove(&place.filter, &firewall::of_container(&ports_only))
}

/// Takes the links away; those that are gone are fine.
pub fn remove_links(place: &Place, plan: &Plan) -> Result<()> {
    let mut batch = Batch::new();
    plan.joins.iter().for_each(|join| link::remove(&mut batch, &join.link));
    batch.acknowledge();
    // It may have gone with the name space of the other end.
    Ok(place.route.run(&batch)?.or_else(unless_gone)?)
}

/// Takes a network away: its bridge and what the firewall has of it.
pub fn remove_network(place: &Place, bridge: &Bridge) -> Result<()> {
    firewall::remove(&place.filter, &firewall::of_network(bridge, place.outside))?;
    let mut batch = Batch::new();
    link::remove(&mut batch, &bridge.link);
    batch.acknowledge();
    place.route.run(&batch)?.or_else(unless_gone)?;
    firewall::delete_if_idle(&place.filter)
}

/// Makes whole again what joins a container that is joined already, and moves its way out to where the plan has it.
pub fn rejoin(place: &Place, plan: &Plan, pid: i32, inside: &Socket) -> Result<()> {
    let mut lost = Plan::default();
    for join in &plan.joins {
        if link::find(&place.route, &join.link)?.is_none() {
            lost.joins.push(join.clone());
            continue;
        }
        let (bridge, _) = ensure_bridge(place, &join.bridge, &mut Vec::new())?;
        let mut batch = Batch::new();
        link::enslave(&mut batch, &join.link, bridge);
        batch.acknowledge();
        place.route.run(&batch)??;
    }
    if !lost.joins.is_empty() {
        apply(place, &lost, pid, inside)?;
    }
    set_inside(plan, inside)
}

/// Makes the place's part of a container whole again that is joined already: bridge, link, rules.
pub fn reassert(place: &Place, plan: &Plan) -> Result<()> {
    for join in &plan.joins {
        let (bridge, _) = ensure_bridge(place, &join.bridge, &mut Vec::new())?;
        let mut batch = Batch::new();
        link::enslave(&mut batch, &join.link, bridge);
        open_for_ports(&mut batch, plan, &join.link, bridge);
        batch.acknowledge();
        place.route.run(&batch)?.or_else(unless_gone)?;
    }
    allow(place, plan, false).map(drop)
}
