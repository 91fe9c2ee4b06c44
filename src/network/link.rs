//! Links, addresses, routes and neighbours as messages of rtnetlink(7).

use std::net::IpAddr;

use anyhow::{Context, Result};

use super::netlink::{Attributes, Batch, Socket, attributes, number};
use super::plan::Mac;
use crate::subnet::Subnet;

/// A link as the kernel tells of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number in its name space.
    pub index: u32,
    /// Whether it is up.
    pub is_up: bool,
    /// Bytes a packet.
    pub mtu: u32,
    /// `bridge`, `veth`..., nothing for a device.
    pub kind: String,
}

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_PID: u16 = 19;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const VETH_INFO_PEER: u16 = 1;
const IFLA_INET_CONF: u16 = 1;
/// `net.ipv4.conf.LINK.route_localnet` (linux/ip.h).
const IPV4_DEVCONF_ROUTE_LOCALNET: u16 = 26;
const RTEXT_FILTER_SKIP_STATS: u32 = 8;
const UP: u32 = libc::IFF_UP as u32;

/// struct ifinfomsg.
fn header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..].copy_from_slice(&change.to_ne_bytes());
    bytes
}

fn new_flags() -> i32 {
    libc::NLM_F_CREATE | libc::NLM_F_EXCL
}

/// Makes a bridge that is up. Its hardware address is said, because otherwise it changes with every port that comes and goes.
pub fn add_bridge(batch: &mut Batch, name: &str, mac: Mac, mtu: u32) {
    let about = format!("make the bridge {name}");
    batch.add(libc::RTM_NEWLINK, new_flags(), about, &header(0, UP, UP), |a| {
        a.text(IFLA_IFNAME, name);
        a.number(IFLA_MTU, mtu);
        a.put(IFLA_ADDRESS, &mac.0);
        a.nest(IFLA_LINKINFO, |a| {
            a.put(IFLA_INFO_KIND, b"bridge");
            // Nobody asks for groups on it, and without one who asks, a bridge that listens loses neighbour discovery.
            a.nest(IFLA_INFO_DATA, |a| a.put(IFLA_BR_MCAST_SNOOPING, &[0]));
        });
    });
}

/// A pair of links: one end here on a bridge, the other in the name space of a process.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    /// The end here.
    pub link: &'a str,
    /// The bridge's number.
    pub bridge: u32,
    /// Bytes a packet.
    pub mtu: u32,
    /// The end there.
    pub interface: &'a str,
    /// Its hardware address.
    pub mac: Mac,
    /// The process, as we see it.
    pub pid: i32,
}

/// Makes a pair; the end here is up.
pub fn add_pair(batch: &mut Batch, pair: Pair<'_>) {
    let one_queue = |a: &mut Attributes<'_>| {
        a.number(IFLA_NUM_TX_QUEUES, 1);
        a.number(IFLA_NUM_RX_QUEUES, 1);
    };
    let about = format!("make the link {}", pair.link);
    batch.add(libc::RTM_NEWLINK, new_flags(), about, &header(0, UP, UP), |a| {
        a.text(IFLA_IFNAME, pair.link);
        a.number(IFLA_MTU, pair.mtu);
        a.number(IFLA_MASTER, pair.bridge);
        one_queue(a);
        a.nest(IFLA_LINKINFO, |a| {
            a.put(IFLA_INFO_KIND, b"veth");
            a.nest(IFLA_INFO_DATA, |a| {
                a.nest(VETH_INFO_PEER, |a| {
                    // It cannot be up before both are there (veth_open, ENOTCONN).
                    a.raw(&header(0, 0, 0));
                    a.text(IFLA_IFNAME, pair.interface);
                    a.number(IFLA_MTU, pair.mtu);
                    a.put(IFLA_ADDRESS, &pair.mac.0);
                    a.number(IFLA_NET_NS_PID, pair.pid as u32);
                    one_queue(a);
                });
            });
        });
    });
}

/// A link with an address of its own on a device of the machine: `macvlan` or `ipvlan`, with the mode's number.
pub fn add_on_device(batch: &mut Batch, kind: &str, mode: u32, parent: u32, pair: Pair<'_>) {
    let about = format!("make a {kind} link");
    batch.add(libc::RTM_NEWLINK, new_flags(), about, &header(0, 0, 0), |a| {
        a.text(IFLA_IFNAME, pair.interface);
        a.number(IFLA_MTU, pair.mtu);
        a.number(IFLA_LINK, parent);
        if kind == "macvlan" {
            a.put(IFLA_ADDRESS, &pair.mac.0);
        }
        a.number(IFLA_NET_NS_PID, pair.pid as u32);
        a.nest(IFLA_LINKINFO, |a| {
            a.put(IFLA_INFO_KIND, kind.as_bytes());
            a.nest(IFLA_INFO_DATA, |a| match kind {
                "macvlan" => a.number(1, mode),
                _ => a.put(1, &(mode as u16).to_ne_bytes()),
            });
        });
    });
}

/// Puts a link on a bridge, and brings it up.
pub fn enslave(batch: &mut Batch, name: &str, bridge: u32) {
    let about = format!("put the link {name} on its bridge");
    batch.add(libc::RTM_NEWLINK, 0, about, &header(0, UP, UP), |a| {
        a.text(IFLA_IFNAME, name);
        a.number(IFLA_MASTER, bridge);
    });
}

/// Lets a bridge send frames back where they came from: a container that reaches itself by a published port does so where
/// the bridge's frames go through the firewall (br_netfilter), which then leads them on below the routing.
pub fn let_return(batch: &mut Batch, name: &str) {
    const IFLA_INFO_SLAVE_KIND: u16 = 4;
    const IFLA_INFO_SLAVE_DATA: u16 = 5;
    const IFLA_BRPORT_MODE: u16 = 4;
    batch.add(libc::RTM_NEWLINK, 0, "set up a port of the bridge", &header(0, 0, 0), |a| {
        a.text(IFLA_IFNAME, name);
        a.nest(IFLA_LINKINFO, |a| {
            a.put(IFLA_INFO_SLAVE_KIND, b"bridge");
            a.nest(IFLA_INFO_SLAVE_DATA, |a| a.put(IFLA_BRPORT_MODE, &[1]));
        });
    });
}

/// Removes a link, and with it the other end.
pub fn remove(batch: &mut Batch, name: &str) {
    batch.add(libc::RTM_DELLINK, 0, format!("remove the link {name}"), &header(0, 0, 0), |a| {
        a.text(IFLA_IFNAME, name);
    });
}

/// Brings a link up.
pub fn set_up(batch: &mut Batch, index: u32) {
    batch.add(libc::RTM_NEWLINK, 0, "bring a link up", &header(index, UP, UP), |_| {});
}

/// Lets what comes from 127.0.0.0/8, and answers to it, go over this link (ip-sysctl, route_localnet).
pub fn allow_loopback_addresses(batch: &mut Batch, index: u32) {
    let about = "allow loopback addresses on the bridge";
    batch.add(libc::RTM_SETLINK, 0, about, &header(index, 0, 0), |a| {
        a.nest(IFLA_AF_SPEC, |a| {
            a.nest(libc::AF_INET as u16, |a| {
                a.nest(IFLA_INET_CONF, |a| a.number(IPV4_DEVCONF_ROUTE_LOCALNET, 1));
            });
        });
    });
}

/// Adds an address to a link.
pub fn add_address(batch: &mut Batch, index: u32, (address, prefix): (IpAddr, u8)) {
    let mut header = [family(address), prefix, 0, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&index.to_ne_bytes());
    let about = format!("add the address {address}/{prefix}");
    batch.add(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, about, &header, |a| {
        put_address(a, libc::IFA_LOCAL, address);
        put_address(a, libc::IFA_ADDRESS, address);
        if address.is_ipv6() {
            // We give each address to one only: nobody needs to be asked for a second.
            a.number(libc::IFA_FLAGS, libc::IFA_F_NODAD);
        } else if prefix < 31 {
            put_address(a, libc::IFA_BROADCAST, Subnet::of(address, prefix).broadcast());
        }
    });
}

/// Makes `gateway` on this link the way to everywhere.
pub fn add_default_route(batch: &mut Batch, index: u32, gateway: IpAddr) {
    let header = [
        family(gateway),
        0,
        0,
        0,
        libc::RT_TABLE_MAIN,
        libc::RTPROT_STATIC,
        0,
        libc::RTN_UNICAST,
        0,
        0,
        0,
        0,
    ];
    let about = format!("route over {gateway}");
    batch.add(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, about, &header, |a| {
        put_address(a, libc::RTA_GATEWAY, gateway);
        a.number(libc::RTA_OIF, index);
    });
}

fn family(address: IpAddr) -> u8 {
    (if address.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET }) as u8
}

fn put_address(a: &mut Attributes<'_>, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(address) => a.put(kind, &address.octets()),
        IpAddr::V6(address) => a.put(kind, &address.octets()),
    }
}

fn read_address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => bytes.first_chunk::<4>().map(|b| IpAddr::from(*b)),
        16 => bytes.first_chunk::<16>().map(|b| IpAddr::from(*b)),
        _ => None,
    }
}

/// The link of this name, if there is one.
pub fn find(socket: &Socket, name: &str) -> Result<Option<Link>> {
    get(socket, &header(0, 0, 0), |a| a.text(IFLA_IFNAME, name))
        .with_context(|| format!("cannot look for {name}"))
}

fn get(socket: &Socket, header: &[u8], body: impl FnOnce(&mut Attributes<'_>)) -> Result<Option<Link>> {
    let mut batch = Batch::new();
    batch.add(libc::RTM_GETLINK, 0, "look at a link", header, |a| {
        body(a);
        a.number(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    });
    let mut found = None;
    let answer = socket.exchange(&batch, &mut |_, body| found = read_link(body))?;
    match answer {
        Err(refused) if refused.errno != rustix::io::Errno::NODEV => Err(refused.into()),
        _ => Ok(found),
    }
}

fn read_link(body: &[u8]) -> Option<Link> {
    let fixed = body.get(..16)?;
    let mut link =
        Link { index: number(&fixed[4..]), is_up: number(&fixed[8..]) & UP != 0, ..Link::default() };
    for (kind, content) in attributes(&body[16..]) {
        match kind {
            IFLA_MTU => link.mtu = number(content),
            IFLA_LINKINFO => {
                let kind = attributes(content).find(|(kind, _)| *kind == IFLA_INFO_KIND);
                let text = kind.map_or(&b""[..], |(_, content)| content);
                link.kind = String::from_utf8_lossy(text).trim_end_matches('\0').to_owned();
            }
            _ => {}
        }
    }
    Some(link)
}

/// Bytes a packet on the way out: of the link that the default route goes over; `None` without one.
pub fn mtu_of_way_out(socket: &Socket) -> Result<Option<u32>> {
    let mut index = None;
    routes(socket, &mut |subnet, oif| {
        if subnet.prefix() == 0 && index.is_none() {
            index = Some(oif);
        }
    })?;
    let Some(index) = index else { return Ok(None) };
    Ok(get(socket, &header(index, 0, 0), |_| {})?.map(|link| link.mtu))
}

/// The subnets that this machine has routes to, but for the default routes.
pub fn routed(socket: &Socket) -> Result<Vec<Subnet>> {
    let mut all = Vec::new();
    routes(socket, &mut |subnet, _| {
        if subnet.prefix() > 0 {
            all.push(subnet);
        }
    })?;
    Ok(all)
}

fn routes(socket: &Socket, each: &mut dyn FnMut(Subnet, u32)) -> Result<()> {
    for family in [libc::AF_INET, libc::AF_INET6] {
        let mut batch = Batch::new();
        let header = [family as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        batch.add(libc::RTM_GETROUTE, libc::NLM_F_DUMP, "read routes", &header, |_| {});
        let answer = socket.exchange(&batch, &mut |_, body| {
            let Some(fixed) = body.get(..12) else { return };
            // Local, broadcast and multicast ones are of addresses that the others cover.
            if fixed[7] != libc::RTN_UNICAST || fixed[4] == libc::RT_TABLE_LOCAL {
                return;
            }
            let (mut to, mut oif) = (None, 0);
            for (kind, content) in attributes(&body[12..]) {
                match kind {
                    libc::RTA_DST => to = read_address(content),
                    libc::RTA_OIF => oif = number(content),
                    _ => {}
                }
            }
            let any: IpAddr = if family == libc::AF_INET6 { [0; 16].into() } else { [0; 4].into() };
            each(Subnet::of(to.unwrap_or(any), fixed[1]), oif);
        })?;
        answer?;
    }
    Ok(())
}
