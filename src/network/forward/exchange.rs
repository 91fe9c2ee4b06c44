//! The two network name spaces between a user's containers and the outside, and the pair of links that joins them.
//!
//! ```text
//! containers -- bridges [ shared ] out0 ===== x0 [ exchange ] sockets -- this process -- sockets [ the host ]
//! ```
//! The shared one is, for all that deals with containers, what the machine's own is for root: its default routes lead to
//! `out0`, as they would lead to a network card. In the exchange every address of the world is local, so that our sockets
//! there speak for whoever a container wants to reach; what the exchange itself sends goes back to the shared one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};

use super::datagrams::PIECE;
use super::netlink::{
    Family, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, ask, ask_all, attribute, message, nest, number, socket, text,
};
use super::{INDEX, MARK_LONG, MTU, rules};
use crate::error::ResultExt;
use crate::fs;
use crate::sys::process;

/// The end of the pair in the shared name space.
pub const OUT: &str = "out0";
const IN: &str = "x0";
/// Addresses of the pair: of the exchange, and of the shared name space. Of a block that no network has (RFC 7335), and a
/// private one of ours.
pub const INNER: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfd64, 0x686f, 0x7700, 0, 0, 0, 0, 1)),
];
const OUTER: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 2)),
    IpAddr::V6(Ipv6Addr::new(0xfd64, 0x686f, 0x7700, 0, 0, 0, 0, 2)),
];
/// Lengths of the prefixes.
const PREFIX: [u8; 2] = [29, 125];
/// The table in which the whole world is local.
const WORLD: u32 = 100;
/// The table by which long packets leave.
const DIVIDED: u32 = 101;
const LOOPBACK: u32 = 1;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_NEWRULE: u16 = 32;
const NEW: u16 = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
const UP: u32 = libc::IFF_UP as u32;

/// The two name spaces.
#[derive(Debug)]
pub struct Spaces {
    /// With the bridges.
    pub shared: OwnedFd,
    /// Ours alone.
    pub exchange: OwnedFd,
    /// IPv6 is there.
    pub has_v6: bool,
}

/// Makes the exchange, and the shared name space too where `shared` is none that lives already. The calling thread ends up
/// in the exchange; other threads stay where they are.
pub fn make(shared: Option<OwnedFd>) -> Result<Spaces> {
    let is_new = shared.is_none();
    let shared = shared.map_or_else(unshare, Ok)?;
    let exchange = unshare()?;
    if !is_new {
        // The link of the exchange before us may still be there: that dies in its own time.
        process::join_namespaces(&shared, libc::CLONE_NEWNET).context("cannot join the shared network")?;
        let route = socket(Family::Route)?;
        let gone = message(RTM_DELLINK, NLM_F_ACK, &link_head(0, 0), &[text(3, OUT)]);
        let _ = ask(&route, &[gone])?;
        process::join_namespaces(&exchange, libc::CLONE_NEWNET).context("cannot join the exchange")?;
    }
    let route = socket(Family::Route)?;
    ask_all(&route, &[pair(&shared), up(LOOPBACK), up(INDEX)])
        .context("cannot make links to the outside")
        .hint("root has none in a container without CAP_NET_ADMIN: use --network host")?;
    ask_all(&route, &ways_in(4)).context("cannot set the routes of the exchange")?;
    let has_v6 = ask_all(&route, &[of_link(INDEX, 1)]).and_then(|()| ask_all(&route, &ways_in(6))).is_ok();
    rules::set()?;
    process::join_namespaces(&shared, libc::CLONE_NEWNET).context("cannot join the shared network")?;
    let route = socket(Family::Route)?;
    let out = rustix::net::netdevice::name_to_index(&route, OUT).context("cannot find our link")?;
    ask_all(&route, &[up(LOOPBACK), up(out)]).context("cannot bring links up")?;
    ask_all(&route, &ways_out(4, out)).context("cannot set the routes to the outside")?;
    let has_v6 = has_v6
        && ask_all(&route, &[of_link(out, 2)]).and_then(|()| ask_all(&route, &ways_out(6, out))).is_ok();
    forward_packets();
    process::join_namespaces(&exchange, libc::CLONE_NEWNET).context("cannot join the exchange")?;
    Ok(Spaces { shared, exchange, has_v6 })
}

/// A new network name space for this thread; a descriptor of it.
fn unshare() -> Result<OwnedFd> {
    process::unshare(libc::CLONE_NEWNET)
        .context("cannot make a network name space")
        .hint("root has none in a container without CAP_SYS_ADMIN and CAP_NET_ADMIN: use --network host")?;
    Ok(fs::open(Path::new("/proc/thread-self/ns/net"))?.into())
}

/// Between the bridges and our link. Where /proc/sys cannot be written, each link is told by itself as it is made.
fn forward_packets() {
    for path in ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"] {
        let _ = fs::write(Path::new(path), b"1");
    }
}

/// struct ifinfomsg.
fn link_head(index: u32, flags: u32) -> Vec<u8> {
    [&[0; 4], &index.to_ne_bytes()[..], &flags.to_ne_bytes(), &flags.to_ne_bytes()].concat()
}

fn up(index: u32) -> Vec<u8> {
    message(RTM_NEWLINK, NLM_F_ACK, &link_head(index, UP), &[])
}

/// The pair of links, its other end in `shared`.
fn pair(shared: impl AsFd) -> Vec<u8> {
    use std::os::fd::AsRawFd;
    let fd = shared.as_fd().as_raw_fd() as u32;
    let names = |name: &str, mac: u8| {
        vec![text(3, name), number(4, MTU), attribute(1, &[2, b'd', b'h', b'o', b'w', mac])]
    };
    let peer = [link_head(0, 0), [names(OUT, 2), vec![number(28, fd)]].concat().concat()].concat();
    let info = nest(18, &[text(1, "veth"), nest(2, &[attribute(1, &peer)])]);
    let attributes = [names(IN, 1), vec![info]].concat();
    message(RTM_NEWLINK, NEW, &link_head(INDEX, 0), &attributes)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn family(version: u8) -> u8 {
    if version == 4 { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
}

/// struct ifaddrmsg; with no duplicate to be looked for (IFA_F_NODAD).
fn address(version: u8, index: u32, own: [IpAddr; 2]) -> Vec<u8> {
    let n = usize::from(version == 6);
    new_address(index, own[n], PREFIX[n])
}

fn new_address(index: u32, address: IpAddr, prefix: u8) -> Vec<u8> {
    const NODAD: u8 = 2;
    let family = family(if address.is_ipv6() { 6 } else { 4 });
    let head = [&[family, prefix, NODAD, 0][..], &index.to_ne_bytes()].concat();
    let own = octets(address);
    message(RTM_NEWADDR, NEW, &head, &[attribute(1, &own), attribute(2, &own)])
}

/// An address of IPv6 for the link alone, at once: neighbours are asked for packets that pass through from such a one, and
/// the one that the kernel makes cannot be used for two seconds.
fn of_link(index: u32, number: u16) -> Vec<u8> {
    new_address(index, Ipv6Addr::new(0xfe80, 0, 0, 0, 0x6468, 0x6f77, 0, number).into(), 64)
}

/// struct rtmsg of a default route.
fn default_route(version: u8, (table, scope, kind): (u32, u8, u8), attributes: &[Vec<u8>]) -> Vec<u8> {
    const STATIC: u8 = 4;
    let head = [family(version), 0, 0, 0, table as u8, STATIC, scope, kind, 0, 0, 0, 0];
    message(RTM_NEWROUTE, NEW, &head, attributes)
}

fn default_by(version: u8, index: u32, gateways: [IpAddr; 2]) -> Vec<u8> {
    let gateway = octets(gateways[usize::from(version == 6)]);
    // Main table, the whole universe, unicast.
    default_route(version, (254, 0, 1), &[number(4, index), attribute(5, &gateway)])
}

/// Of the exchange: what comes by the link is for us, whatever its address; what we send goes there.
fn ways_in(version: u8) -> Vec<Vec<u8>> {
    let world = default_route(version, (WORLD, 254, 2), &[number(4, LOOPBACK)]);
    // struct fib_rule_hdr: to a table.
    let head = [family(version), 0, 0, 0, WORLD as u8, 0, 0, 1, 0, 0, 0, 0];
    let rule = message(RTM_NEWRULE, NEW, &head, &[text(3, IN), number(6, WORLD), number(15, WORLD)]);
    let mut ways = vec![address(version, INDEX, INNER), world, rule, default_by(version, INDEX, OUTER)];
    if version == 6 {
        // No router divides packets of IPv6: what may be longer than a network takes is marked, and divided as it leaves.
        let metrics = nest(8, &[number(2, PIECE as u32)]);
        let by = [number(4, INDEX), attribute(5, &octets(OUTER[1])), number(15, DIVIDED), metrics];
        ways.push(default_route(version, (DIVIDED, 0, 1), &by));
        let head = [family(version), 0, 0, 0, DIVIDED as u8, 0, 0, 1, 0, 0, 0, 0];
        ways.push(message(RTM_NEWRULE, NEW, &head, &[number(10, MARK_LONG), number(15, DIVIDED)]));
    }
    ways
}

/// Of the shared name space: to the exchange.
fn ways_out(version: u8, out: u32) -> Vec<Vec<u8>> {
    vec![address(version, out, OUTER), default_by(version, out, INNER)]
}
