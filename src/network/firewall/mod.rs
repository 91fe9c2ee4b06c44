//! The firewall: two tables of nf_tables, both called `dhow`, and nothing outside of them. The rules are constant ([`rules`]);
//! networks, containers and ports are elements of sets, added and removed by one transaction each.
//!
//! Whoever flushes or deletes the tables loses connections between networks and ports until the next start, or
//! `network reload`, finds it out ([`is_whole`]) and asserts all anew.

mod expression;
mod rules;

use std::net::IpAddr;

use anyhow::Result;
use rustix::io::Errno;

use self::rules::{BRIDGED, ROUTED, Set, Table};
use super::netlink::{Attributes, Batch, Refused, Socket, attributes, big};
use super::plan::{Bridge, Join, Mac, Plan};
use crate::subnet::Subnet;

const NAME: &str = "dhow";
/// NFNL_SUBSYS_NFTABLES.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const NEW_ELEMENT: u16 = 12;
const GET_ELEMENT: u16 = 13;
const DELETE_ELEMENT: u16 = 14;
/// Linux 6.3: deleting what is not there is no error.
const DESTROY_ELEMENT: u16 = 30;

/// An element of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Element {
    set: &'static str,
    key: Vec<u8>,
    /// The last of a range.
    end: Option<Vec<u8>>,
    data: Option<Vec<u8>>,
}

/// Elements of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Elements {
    routed: Vec<Element>,
    bridged: Vec<Element>,
}

/// What a network takes. Where the outside comes by a link of its own, `outside`, it comes from whom it says, and is told no
/// other addresses either.
pub fn of_network(bridge: &Bridge, outside: Option<&str>) -> Elements {
    let link = name(&bridge.link);
    let plain = |set, key: Vec<u8>| Element { set, key, end: None, data: None };
    let mut routed =
        vec![plain("links", link.clone()), plain("within", [link.clone(), link.clone()].concat())];
    if bridge.internal {
        routed.push(plain("internal", link.clone()));
    } else if let Some(outside) = outside {
        routed.push(plain("within", [name(outside), link.clone()].concat()));
    }
    for (gateway, prefix) in &bridge.addresses {
        let subnet = Subnet::of(*gateway, *prefix);
        let (first, last) = (octets(subnet.address()), octets(subnet.broadcast()));
        let (own, leaving) = if subnet.is_v6() { ("own6", "leaving6") } else { ("own4", "leaving4") };
        let end = Some([link.clone(), last.clone()].concat());
        routed.push(Element { set: own, key: [link.clone(), first.clone()].concat(), end, data: None });
        if !bridge.internal && outside.is_none() {
            routed.push(Element { set: leaving, key: first, end: Some(last), data: None });
        }
    }
    Elements { routed, bridged: Vec::new() }
}

/// What a container takes.
pub fn of_container(plan: &Plan) -> Elements {
    let bridged = plan.joins.iter().filter(|join| !join.is_trusted).flat_map(ends).collect();
    let mut routed = Vec::new();
    for (port, targets) in &plan.ports {
        let protocol = match port.protocol.as_str() {
            "udp" => libc::IPPROTO_UDP,
            "sctp" => libc::IPPROTO_SCTP,
            _ => libc::IPPROTO_TCP,
        };
        let service = |port: u16| [port.to_be_bytes().to_vec(), vec![0; 2]].concat();
        let end = [vec![protocol as u8, 0, 0, 0], service(port.host_port)].concat();
        for target in targets {
            let data = Some([octets(*target), service(port.container_port)].concat());
            let host = port.host_ip.parse::<IpAddr>().ok();
            if host.is_some_and(|host| host.is_ipv6() != target.is_ipv6()) {
                continue;
            }
            let (set, key) = match (port.address(), target.is_ipv6()) {
                (None, false) => ("any4", end.clone()),
                (None, true) => ("any6", end.clone()),
                (Some(host), false) => ("ports4", [octets(host), end.clone()].concat()),
                (Some(host), true) => ("ports6", [octets(host), end.clone()].concat()),
            };
            routed.push(Element { set, key, end: None, data });
        }
    }
    Elements { routed, bridged }
}

/// The addresses that a container's frames may bear.
fn ends(join: &Join) -> Vec<Element> {
    let start = [name(&join.link), join.mac.0.to_vec(), vec![0; 2]].concat();
    let end = |set, address: IpAddr| Element {
        set,
        key: [start.clone(), octets(address)].concat(),
        end: None,
        data: None,
    };
    let of = |address: &IpAddr| end(if address.is_ipv6() { "ends6" } else { "ends4" }, *address);
    let mut ends: Vec<Element> = join.addresses.iter().map(|(address, _)| of(address)).collect();
    if join.addresses.iter().any(|(address, _)| address.is_ipv6()) {
        // Asking whether an address is taken comes from none.
        ends.push(end("ends6", IpAddr::from([0; 16])));
        ends.push(end("ends6", link_local(join.mac)));
    }
    ends
}

/// The address that the kernel makes of a hardware address (RFC 4291, appendix A).
fn link_local(Mac([a, b, c, d, e, f]): Mac) -> IpAddr {
    IpAddr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

fn name(link: &str) -> Vec<u8> {
    let mut bytes = link.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// struct nfgenmsg.
fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// A transaction: all of it is done or nothing.
struct Transaction(Batch);

impl Transaction {
    fn new() -> Transaction {
        let mut batch = Batch::new();
        batch.add(BATCH_BEGIN, 0, "change the firewall", &header(0, SUBSYSTEM), |_| {});
        Transaction(batch)
    }

    fn add(
        &mut self,
        table: &Table,
        kind: u16,
        flags: i32,
        about: &str,
        body: impl FnOnce(&mut Attributes<'_>),
    ) {
        self.0.add(SUBSYSTEM << 8 | kind, flags, about, &header(table.family, 0), body);
    }

    /// Adds or removes elements.
    fn elements(&mut self, table: &'static Table, kind: u16, elements: &[Element]) {
        let (flags, about) = match kind {
            NEW_ELEMENT => (libc::NLM_F_CREATE, "add to the firewall"),
            _ => (0, "remove from the firewall"),
        };
        // An attribute's length has sixteen bits.
        for part in elements.chunk_by(|a, b| a.set == b.set).flat_map(|same| same.chunks(256)) {
            let Some(set) = table.sets.iter().find(|set| set.name == part[0].set) else { continue };
            self.add(table, kind, flags, about, |a| {
                a.text(1, NAME);
                a.text(2, set.name);
                a.nest(3, |a| part.iter().for_each(|element| element.write(a, set, kind)));
            });
        }
    }

    fn run(mut self, socket: &Socket) -> Result<std::result::Result<(), Refused>> {
        self.0.acknowledge();
        self.0.add(BATCH_END, 0, "change the firewall", &header(0, SUBSYSTEM), |_| {});
        socket.run(&self.0)
    }
}

impl Element {
    fn write(&self, a: &mut Attributes<'_>, set: &Set, kind: u16) {
        let value = |a: &mut Attributes<'_>, n, bytes: &[u8]| a.nest(n, |a| a.put(1, bytes));
        let is_plain_range = set.is_interval && set.key.len() == 1;
        a.nest(1, |a| {
            value(a, 1, &self.key);
            if let Some(end) = self.end.as_ref().filter(|_| !is_plain_range) {
                value(a, 10, end);
            }
            if let Some(data) = self.data.as_ref().filter(|_| kind == NEW_ELEMENT) {
                value(a, 2, data);
            }
        });
        // A range of one part ends with an element of its own, the first that is not in it.
        if let Some(after) = self.end.as_ref().filter(|_| is_plain_range).and_then(|end| successor(end)) {
            a.nest(1, |a| {
                value(a, 1, &after);
                a.big(3, 1);
            });
        }
    }
}

/// The next number, of bytes in the network's order.
fn successor(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut next = bytes.to_vec();
    for byte in next.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(next);
        }
    }
    None
}

/// Makes tables, chains, sets and rules what they should be, whatever is there of them; and adds `elements`.
pub fn assert(socket: &Socket, elements: &[Elements]) -> Result<()> {
    let mut all = Transaction::new();
    for table in [&ROUTED, &BRIDGED] {
        all.add(table, NEW_TABLE, libc::NLM_F_CREATE, "make table dhow", |a| a.text(1, NAME));
        for set in table.sets {
            all.add(table, NEW_SET, libc::NLM_F_CREATE, "make a set of table dhow", |a| describe(a, set));
        }
        for chain in table.chains {
            all.add(table, NEW_CHAIN, libc::NLM_F_CREATE, "make a chain of table dhow", |a| {
                a.text(1, NAME);
                a.text(3, chain.name);
                if let Some((kind, hook, priority)) = chain.hook {
                    a.nest(4, |a| {
                        a.big(1, hook);
                        a.big(2, priority as u32);
                    });
                    a.text(7, kind);
                }
            });
        }
        all.add(table, DELETE_RULE, 0, "empty table dhow", |a| a.text(1, NAME));
    }
    for (table, chain, rule) in rules::rules() {
        all.add(table, NEW_RULE, libc::NLM_F_CREATE | libc::NLM_F_APPEND, "add a rule to table dhow", |a| {
            a.text(1, NAME);
            a.text(2, chain);
            a.nest(4, |a| rule.iter().for_each(|expression| expression.write(a)));
        });
    }
    for part in elements {
        all.elements(&ROUTED, NEW_ELEMENT, &part.routed);
        all.elements(&BRIDGED, NEW_ELEMENT, &part.bridged);
    }
    Ok(all.run(socket)??)
}

fn describe(a: &mut Attributes<'_>, set: &Set) {
    const INTERVAL: u32 = 4;
    const MAP: u32 = 8;
    const CONCATENATED: u32 = 128;
    let length = |parts: &[u8]| parts.iter().map(|part| u32::from(part.next_multiple_of(4))).sum::<u32>();
    let exact = |parts: &[u8]| if let [one] = parts { u32::from(*one) } else { length(parts) };
    // As nft(8) numbers concatenated types: six bits each.
    let kind = |types: &[u32]| types.iter().fold(0, |all, one| all << 6 | one);
    let flags = if set.is_interval { INTERVAL } else { 0 }
        | if set.data.is_empty() { 0 } else { MAP }
        | if set.key.len() > 1 { CONCATENATED } else { 0 };
    a.text(1, NAME);
    a.text(2, set.name);
    a.big(3, flags);
    a.big(4, kind(set.types));
    a.big(5, exact(set.key));
    if !set.data.is_empty() {
        a.big(6, kind(set.data_types));
        a.big(7, length(set.data));
    }
    if set.key.len() > 1 {
        a.nest(9, |a| {
            a.nest(2, |a| set.key.iter().for_each(|part| a.nest(1, |a| a.big(1, u32::from(*part)))))
        });
    }
    // Sets of one transaction are told apart by this number.
    a.big(10, 1);
    if set.types == [rules::IFNAME] {
        // For nft(8), which prints names of links as numbers otherwise: the byte order (0, in 4 bytes) is the machine's (1).
        a.put(13, &[[0, 4].as_slice(), &1_u32.to_ne_bytes()].concat());
    }
}

/// Whether all is there that [`assert()`] makes, and the bridge is in it.
pub fn is_whole(socket: &Socket, bridges: &[&str]) -> Result<bool> {
    let rules = rules::rules();
    let mut batch = Batch::new();
    let mut wanted = Vec::new();
    for table in [&ROUTED, &BRIDGED] {
        for chain in table.chains {
            let jumps = |rule: &Vec<expression::Expression>| {
                rule.iter().filter(|e| **e == expression::Expression::Jump(chain.name)).count()
            };
            let own = rules.iter().filter(|(t, c, _)| t.family == table.family && *c == chain.name).count();
            wanted.push(own + rules.iter().map(|(.., rule)| jumps(rule)).sum::<usize>());
            batch.add(SUBSYSTEM << 8 | GET_CHAIN, 0, "look at table dhow", &header(table.family, 0), |a| {
                a.text(1, NAME);
                a.text(3, chain.name);
            });
        }
    }
    for bridge in bridges {
        batch.add(SUBSYSTEM << 8 | GET_ELEMENT, 0, "look at table dhow", &header(ROUTED.family, 0), |a| {
            a.text(1, NAME);
            a.text(2, "links");
            a.nest(3, |a| a.nest(1, |a| a.nest(1, |a| a.put(1, &name(bridge)))));
        });
    }
    batch.acknowledge();
    let mut found = Vec::new();
    let answer = socket.exchange(&batch, &mut |kind, body| {
        if kind == SUBSYSTEM << 8 | NEW_CHAIN {
            let uses = attributes(body.get(4..).unwrap_or_default()).find(|(kind, _)| *kind == 6);
            found.push(uses.map_or(0, |(_, content)| big(content) as usize));
        }
    })?;
    Ok(answer.is_ok() && found == wanted)
}

/// Adds what is not there. What is there with other data is of somebody dead: the port is ours, we hold its socket.
pub fn add(socket: &Socket, elements: &Elements) -> Result<()> {
    let attempt = |removes_first: bool| {
        let mut all = Transaction::new();
        if removes_first {
            all.elements(&ROUTED, DESTROY_ELEMENT, &elements.routed);
        }
        all.elements(&ROUTED, NEW_ELEMENT, &elements.routed);
        all.elements(&BRIDGED, NEW_ELEMENT, &elements.bridged);
        all.run(socket)
    };
    if elements.routed.is_empty() && elements.bridged.is_empty() {
        return Ok(());
    }
    match attempt(false)? {
        Err(Refused { errno: Errno::EXIST | Errno::BUSY, .. }) => {}
        other => return Ok(other?),
    }
    match attempt(true)? {
        Err(Refused { errno: Errno::INVAL | Errno::OPNOTSUPP, .. }) => {}
        other => return Ok(other?),
    }
    // A kernel that cannot remove what may not be there.
    remove(socket, elements)?;
    Ok(attempt(false)??)
}

/// Deletes the tables if no network is in them. A start that comes in between finds its part missing, and asserts all anew.
pub fn delete_if_idle(socket: &Socket) -> Result<()> {
    let mut batch = Batch::new();
    let links = &header(ROUTED.family, 0);
    batch.add(SUBSYSTEM << 8 | GET_ELEMENT, libc::NLM_F_DUMP, "look at table dhow", links, |a| {
        a.text(1, NAME);
        a.text(2, "links");
    });
    let mut is_idle = true;
    let answer = socket.exchange(&batch, &mut |_, body| {
        let lists = attributes(body.get(4..).unwrap_or_default()).filter(|(kind, _)| *kind == 3);
        is_idle &= lists.map(|(_, list)| attributes(list).count()).sum::<usize>() == 0;
    })?;
    if answer.is_err() || !is_idle {
        return Ok(());
    }
    for table in [&ROUTED, &BRIDGED] {
        let mut all = Transaction::new();
        all.add(table, DELETE_TABLE, 0, "delete table dhow", |a| a.text(1, NAME));
        match all.run(socket)? {
            Ok(()) | Err(Refused { errno: Errno::NOENT, .. }) => {}
            Err(refused) => return Err(refused.into()),
        }
    }
    Ok(())
}

/// Removes what is there of it.
pub fn remove(socket: &Socket, elements: &Elements) -> Result<()> {
    if elements.routed.is_empty() && elements.bridged.is_empty() {
        return Ok(());
    }
    let mut all = Transaction::new();
    all.elements(&ROUTED, DESTROY_ELEMENT, &elements.routed);
    all.elements(&BRIDGED, DESTROY_ELEMENT, &elements.bridged);
    let one_by_one = match all.run(socket)? {
        Ok(()) => return Ok(()),
        // The table is gone, and all with it.
        Err(Refused { errno: Errno::NOENT, .. }) => return Ok(()),
        Err(refused) => matches!(refused.errno, Errno::INVAL | Errno::OPNOTSUPP).then_some(()).ok_or(refused),
    };
    one_by_one?;
    for (table, elements) in [(&ROUTED, &elements.routed), (&BRIDGED, &elements.bridged)] {
        for element in elements {
            let mut one = Transaction::new();
            one.elements(table, DELETE_ELEMENT, std::slice::from_ref(element));
            match one.run(socket)? {
                Ok(()) | Err(Refused { errno: Errno::NOENT, .. }) => {}
                Err(refused) => return Err(refused.into()),
            }
        }
    }
    Ok(())
}
