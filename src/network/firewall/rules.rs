//! The chains, sets and rules of our tables: constant, whatever runs. What changes with networks and containers are
//! elements of the sets, so that a packet meets as many rules with two hundred containers as with one.
//!
//! ```text
//! table inet dhow
//!   raw          what comes from a container for 127.0.0.0/8: dropped
//!   prerouting   for an address of ours: publish
//!   output       the same, for what begins here
//!   publish      port -> address and port of a container; ::1 is left to the listener of the supervisor
//!   postrouting  a container reaches its own network by a published port, or we from 127.0.0.1: masqueraded;
//!                so is what leaves a network
//!   forwarding   segment sizes; answers; within a network; then: from internal ones nothing, into ours only what was
//!                published
//! table bridge dhow
//!   guard        a container's frames bear its own hardware and IP addresses, also in ARP and neighbour advertisements
//! ```
//!
//! A verdict `accept` here ends only these chains: a firewall of the machine that drops has the last word.

use super::expression::Expression::{self, *};
use super::expression::*;
use crate::network::plan::GUARDED;

/// A hooked chain (`Some`: type, hook, priority) or one that is jumped to.
#[derive(Debug, Clone, Copy)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// Its type, the hook's number and the priority.
    pub hook: Option<(&'static str, u32, i32)>,
}

/// A set, or a map if there is data.
#[derive(Debug, Clone, Copy)]
pub struct Set {
    /// Its name.
    pub name: &'static str,
    /// The lengths of the parts of a key, in bytes.
    pub key: &'static [u8],
    /// nft's numbers for the types of these parts, so that it prints them readably.
    pub types: &'static [u32],
    /// The same of what is mapped to: addresses and a port.
    pub data: &'static [u8],
    /// And their types.
    pub data_types: &'static [u32],
    /// Elements are ranges.
    pub is_interval: bool,
}

const IPV4: u32 = 7;
const IPV6: u32 = 8;
const ETHER: u32 = 9;
const INET_PROTO: u32 = 12;
const SERVICE: u32 = 13;
/// A link's name.
pub const IFNAME: u32 = 41;

const PLAIN: Set = Set { name: "", key: &[], types: &[], data: &[], data_types: &[], is_interval: false };

/// A table.
#[derive(Debug, Clone)]
pub struct Table {
    /// `NFPROTO_*`.
    pub family: u8,
    /// Its sets.
    pub sets: &'static [Set],
    /// Its chains.
    pub chains: &'static [Chain],
}

const INET: u8 = 1;
const BRIDGE: u8 = 7;
const IP: u8 = 2;
const IP6: u8 = 10;

const PREROUTING: u32 = 0;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;

/// For routed packets.
pub const ROUTED: Table = Table {
    family: INET,
    sets: &[
        Set { name: "links", key: &[16], types: &[IFNAME], ..PLAIN },
        Set { name: "internal", key: &[16], types: &[IFNAME], ..PLAIN },
        Set { name: "within", key: &[16, 16], types: &[IFNAME, IFNAME], ..PLAIN },
        Set { name: "own4", key: &[16, 4], types: &[IFNAME, IPV4], is_interval: true, ..PLAIN },
        Set { name: "own6", key: &[16, 16], types: &[IFNAME, IPV6], is_interval: true, ..PLAIN },
        Set { name: "leaving4", key: &[4], types: &[IPV4], is_interval: true, ..PLAIN },
        Set { name: "leaving6", key: &[16], types: &[IPV6], is_interval: true, ..PLAIN },
        Set {
            name: "ports4",
            key: &[4, 1, 2],
            types: &[IPV4, INET_PROTO, SERVICE],
            data: &[4, 2],
            data_types: &[IPV4, SERVICE],
            ..PLAIN
        },
        Set {
            name: "ports6",
            key: &[16, 1, 2],
            types: &[IPV6, INET_PROTO, SERVICE],
            data: &[16, 2],
            data_types: &[IPV6, SERVICE],
            ..PLAIN
        },
        Set {
            name: "any4",
            key: &[1, 2],
            types: &[INET_PROTO, SERVICE],
            data: &[4, 2],
            data_types: &[IPV4, SERVICE],
            ..PLAIN
        },
        Set {
            name: "any6",
            key: &[1, 2],
            types: &[INET_PROTO, SERVICE],
            data: &[16, 2],
            data_types: &[IPV6, SERVICE],
            ..PLAIN
        },
    ],
    chains: &[
        Chain { name: "publish", hook: None },
        Chain { name: "raw", hook: Some(("filter", PREROUTING, -300)) },
        Chain { name: "prerouting", hook: Some(("nat", PREROUTING, -100)) },
        Chain { name: "output", hook: Some(("nat", OUTPUT, -100)) },
        Chain { name: "postrouting", hook: Some(("nat", POSTROUTING, 100)) },
        Chain { name: "forwarding", hook: Some(("filter", FORWARD, 0)) },
    ],
};

/// For frames from container to container.
pub const BRIDGED: Table = Table {
    family: BRIDGE,
    sets: &[
        Set { name: "ends4", key: &[16, 6, 4], types: &[IFNAME, ETHER, IPV4], ..PLAIN },
        Set { name: "ends6", key: &[16, 6, 16], types: &[IFNAME, ETHER, IPV6], ..PLAIN },
    ],
    chains: &[Chain { name: "guard", hook: Some(("filter", PREROUTING, -300)) }],
};

/// The rules of both tables: which table, which chain, what.
pub fn rules() -> Vec<(&'static Table, &'static str, Vec<Expression>)> {
    let routed = |chain, rule| (&ROUTED, chain, rule);
    let guard = |rule| (&BRIDGED, "guard", rule);
    let name_is = |word, key, set| vec![Meta(word, key), In(word, set)];
    let v4 = || vec![Meta(0, META_NFPROTO), Is(0, vec![IP])];
    let v6 = || vec![Meta(0, META_NFPROTO), Is(0, vec![IP6])];
    let local = || vec![DestinationType(0), Is(0, u32::from(libc::RTN_LOCAL).to_ne_bytes().to_vec())];
    let loopback4 = |offset| vec![Payload(0, NETWORK, offset, 1), Is(0, vec![127])];
    let join = |parts: &[Vec<Expression>]| parts.concat();
    let port = |word| vec![Meta(word, META_L4PROTO), Payload(word + 1, TRANSPORT, 2, 2)];
    // A key of addresses, protocol and port begins in word 8, where no map's answer is.
    let address4 = || vec![Payload(8, NETWORK, 16, 4)];
    let address6 = || vec![Payload(8, NETWORK, 24, 16)];
    let translated = || vec![Connection(0, STATUS), And(0, DNAT.to_vec()), IsNot(0, vec![0; 4])];
    let segments = || {
        vec![
            Meta(0, META_L4PROTO),
            Is(0, vec![libc::IPPROTO_TCP as u8]),
            Payload(0, TRANSPORT, 13, 1),
            And(0, vec![0x06]),
            Is(0, vec![0x02]),
            RouteSegment(0),
            SetSegment(0),
        ]
    };
    let redirect =
        |family, words| vec![Map(8, words), Redirect(u32::from(family), 0, if family == IP { 1 } else { 4 })];
    vec![
        routed("raw", join(&[name_is(0, META_IIFNAME, "links"), v4(), loopback4(16), vec![Verdict(DROP)]])),
        routed("prerouting", join(&[local(), vec![Jump("publish")]])),
        routed("output", join(&[local(), vec![Jump("publish")]])),
        // A connection that began before us (we were flushed, or are new) is not led elsewhere in its midst.
        routed(
            "publish",
            vec![
                Meta(0, META_L4PROTO),
                Is(0, vec![libc::IPPROTO_TCP as u8]),
                Payload(0, TRANSPORT, 13, 1),
                And(0, vec![0x02]),
                Is(0, vec![0]),
                Verdict(RETURN),
            ],
        ),
        routed("publish", join(&[v4(), address4(), port(9), redirect(IP, "ports4")])),
        routed("publish", join(&[v4(), port(8), redirect(IP, "any4")])),
        routed(
            "publish",
            join(&[v6(), vec![Payload(0, NETWORK, 24, 16), Is(0, LOOPBACK6.to_vec()), Verdict(RETURN)]]),
        ),
        routed("publish", join(&[v6(), address6(), port(12), redirect(IP6, "ports6")])),
        routed("publish", join(&[v6(), port(8), redirect(IP6, "any6")])),
        routed(
            "postrouting",
            join(&[
                v4(),
                vec![Meta(8, META_OIFNAME), Payload(12, NETWORK, 12, 4), In(8, "own4")],
                translated(),
                vec![Masquerade],
            ]),
        ),
        routed(
            "postrouting",
            join(&[
                v6(),
                vec![Meta(8, META_OIFNAME), Payload(12, NETWORK, 8, 16), In(8, "own6")],
                translated(),
                vec![Masquerade],
            ]),
        ),
        routed(
            "postrouting",
            join(&[name_is(0, META_OIFNAME, "links"), v4(), loopback4(12), vec![Masquerade]]),
        ),
        routed(
            "postrouting",
            join(&[
                v4(),
                vec![
                    Payload(0, NETWORK, 12, 4),
                    In(0, "leaving4"),
                    Meta(0, META_OIFNAME),
                    NotIn(0, "links"),
                    Masquerade,
                ],
            ]),
        ),
        routed(
            "postrouting",
            join(&[
                v6(),
                vec![
                    Payload(0, NETWORK, 8, 16),
                    In(0, "leaving6"),
                    Meta(0, META_OIFNAME),
                    NotIn(0, "links"),
                    Masquerade,
                ],
            ]),
        ),
        routed("forwarding", join(&[name_is(0, META_IIFNAME, "links"), segments()])),
        routed("forwarding", join(&[name_is(0, META_OIFNAME, "links"), segments()])),
        routed(
            "forwarding",
            vec![Connection(0, STATE), And(0, ANSWERS.to_vec()), IsNot(0, vec![0; 4]), Verdict(ACCEPT)],
        ),
        routed(
            "forwarding",
            vec![Meta(8, META_IIFNAME), Meta(12, META_OIFNAME), In(8, "within"), Verdict(ACCEPT)],
        ),
        routed("forwarding", join(&[name_is(0, META_IIFNAME, "internal"), vec![Verdict(DROP)]])),
        routed("forwarding", join(&[name_is(0, META_OIFNAME, "links"), translated(), vec![Verdict(ACCEPT)]])),
        routed("forwarding", join(&[name_is(0, META_OIFNAME, "links"), vec![Verdict(DROP)]])),
        // Links of containers that are trusted, and of others, do not begin so.
        guard(vec![Meta(0, META_IIFNAME), IsNot(0, GUARDED.as_bytes().to_vec()), Verdict(ACCEPT)]),
        guard(vec![
            Payload(0, LINK, 12, 2),
            Is(0, vec![0x08, 0x00]),
            Meta(8, META_IIFNAME),
            Payload(12, LINK, 6, 6),
            Payload(14, NETWORK, 12, 4),
            In(8, "ends4"),
            Verdict(ACCEPT),
        ]),
        guard(vec![
            Payload(0, LINK, 12, 2),
            Is(0, vec![0x08, 0x06]),
            Meta(8, META_IIFNAME),
            Payload(12, NETWORK, 8, 6),
            Payload(14, NETWORK, 14, 4),
            In(8, "ends4"),
            Verdict(ACCEPT),
        ]),
        // A neighbour advertisement (ICMPv6 136) says 8 bytes into itself whose address it tells of. What is looked up
        // begins in word 0: it would not fit behind word 8.
        guard(vec![
            Payload(0, LINK, 12, 2),
            Is(0, vec![0x86, 0xdd]),
            Payload(0, NETWORK, 6, 1),
            Is(0, vec![libc::IPPROTO_ICMPV6 as u8]),
            Payload(0, NETWORK, 40, 1),
            Is(0, vec![136]),
            Meta(0, META_IIFNAME),
            Payload(4, LINK, 6, 6),
            Payload(6, NETWORK, 48, 16),
            NotIn(0, "ends6"),
            Verdict(DROP),
        ]),
        guard(vec![
            Payload(0, LINK, 12, 2),
            Is(0, vec![0x86, 0xdd]),
            Meta(0, META_IIFNAME),
            Payload(4, LINK, 6, 6),
            Payload(6, NETWORK, 8, 16),
            In(0, "ends6"),
            Verdict(ACCEPT),
        ]),
        guard(vec![Verdict(DROP)]),
    ]
}

const LOOPBACK6: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// IPS_DST_NAT, in this machine's order.
const DNAT: [u8; 4] = 0x20_u32.to_ne_bytes();
/// NF_CT_STATE_BIT of IP_CT_ESTABLISHED and IP_CT_RELATED.
const ANSWERS: [u8; 4] = 0x06_u32.to_ne_bytes();
