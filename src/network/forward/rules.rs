//! The rules of the exchange, as nf_tables takes them over netlink (linux/netfilter/nf_tables.h). They never change.
//!
//! 1. TCP that we put back ourselves (known by its hardware address) goes to our listener, whatever its address.
//! 2. The first packet of a connection is dropped: we heard it before, and put it back once the outside has answered.
//! 3. What belongs to a connection goes to its socket, and UDP to the one socket for it.
//! 4. The kernel's own echo replies are dropped: here every address is its own, so it would answer for the whole world.

use anyhow::{Context, Result};

use super::netlink::{Family, NLM_F_ACK, NLM_F_CREATE, ask_all, attribute, big, message, nest, socket, text};
use super::{BACK, INDEX, LISTEN, MARK};

const TABLE: &str = "dhow";
const INET: u8 = 1;
const SUBSYSTEM: u16 = 10 << 8;
/// Type of a verdict register and of the first data register.
const VERDICT: u32 = 0;
const REGISTER: u32 = 1;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
const PREROUTING: u32 = 0;
const OUTPUT: u32 = 3;
/// Keys of `meta`.
const META_MARK: u32 = 3;
const META_IIF: u32 = 4;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
/// Bases of `payload`.
const LINK: u32 = 0;
const TRANSPORT: u32 = 2;

fn expression(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
    nest(1, &[text(1, name), nest(2, data)])
}

fn meta(key: u32) -> Vec<u8> {
    expression("meta", &[big(1, REGISTER), big(2, key)])
}

fn payload(base: u32, offset: u32, length: u32) -> Vec<u8> {
    expression("payload", &[big(1, REGISTER), big(2, base), big(3, offset), big(4, length)])
}

fn value(kind: u16, bytes: &[u8]) -> Vec<u8> {
    nest(kind, &[attribute(1, bytes)])
}

/// Goes on only if the register is `bytes`, or, with `not`, is anything else.
fn compare(not: bool, bytes: &[u8]) -> Vec<u8> {
    expression("cmp", &[big(1, REGISTER), big(2, u32::from(not)), value(3, bytes)])
}

fn mask(bits: u8) -> Vec<u8> {
    let data = [big(1, REGISTER), big(2, REGISTER), big(3, 1), value(4, &[bits]), value(5, &[0])];
    expression("bitwise", &data)
}

fn verdict(code: u32) -> Vec<u8> {
    expression("immediate", &[big(1, VERDICT), nest(2, &[nest(2, &[big(1, code)])])])
}

/// To the socket that has this connection, else to our listener.
fn to_us() -> Vec<Vec<u8>> {
    let port = expression("immediate", &[big(1, REGISTER), value(2, &LISTEN.to_be_bytes())]);
    vec![port, expression("tproxy", &[big(1, 0), big(3, REGISTER)]), verdict(ACCEPT)]
}

fn protocol(number: i32) -> Vec<Vec<u8>> {
    vec![meta(META_L4PROTO), compare(false, &[number as u8])]
}

fn rule(chain: &str, expressions: &[Vec<u8>]) -> Vec<u8> {
    let data = [text(1, TABLE), text(2, chain), nest(4, expressions)];
    part(6, NLM_F_CREATE | 0x800, &data)
}

/// A message of the batch. 0x800: at the end of the chain.
fn part(kind: u16, flags: u16, data: &[Vec<u8>]) -> Vec<u8> {
    message(SUBSYSTEM | kind, flags | NLM_F_ACK, &[INET, 0, 0, 0], data)
}

fn chain(name: &str, hook: u32, priority: i32) -> Vec<u8> {
    let hook = nest(4, &[big(1, hook), big(2, priority as u32)]);
    part(3, NLM_F_CREATE, &[text(1, TABLE), text(3, name), hook, text(7, "filter")])
}

fn batch() -> Vec<Vec<u8>> {
    let coming = || vec![meta(META_IIF), compare(false, &INDEX.to_ne_bytes())];
    let tcp = || [coming(), protocol(libc::IPPROTO_TCP)].concat();
    let udp = [coming(), protocol(libc::IPPROTO_UDP), to_us()].concat();
    let back = vec![payload(LINK, 6, 1), compare(false, &[BACK])];
    // SYN without ACK.
    let first = vec![payload(TRANSPORT, 13, 1), mask(0x12), compare(false, &[0x02]), verdict(DROP)];
    let echo_reply = |family: i32, icmp: i32, kind: u8| {
        let family = vec![meta(META_NFPROTO), compare(false, &[family as u8])];
        let reply = vec![payload(TRANSPORT, 0, 1), compare(false, &[kind])];
        let strange = vec![meta(META_MARK), compare(true, &MARK.to_ne_bytes()), verdict(DROP)];
        [family, protocol(icmp), reply, strange].concat()
    };
    // The generation is not checked; the resource is nf_tables.
    let edge = |kind: u16| message(kind, 0, &[0, 0, 0, 10], &[]);
    vec![
        edge(0x10),
        part(0, NLM_F_CREATE, &[text(1, TABLE)]),
        chain("in", PREROUTING, -150),
        chain("out", OUTPUT, 0),
        rule("in", &[tcp(), back, to_us()].concat()),
        rule("in", &[tcp(), first].concat()),
        rule("in", &[tcp(), to_us()].concat()),
        rule("in", &udp),
        rule("out", &echo_reply(libc::NFPROTO_IPV4, libc::IPPROTO_ICMP, 0)),
        rule("out", &echo_reply(libc::NFPROTO_IPV6, libc::IPPROTO_ICMPV6, 129)),
        edge(0x11),
    ]
}

/// Sets the rules in the network name space that we are in, which has none yet.
pub fn set() -> Result<()> {
    let socket = socket(Family::Netfilter)?;
    ask_all(&socket, &batch())
        .context("cannot set the rules that lead to the outside (is nf_tables with tproxy in the kernel?)")
}
