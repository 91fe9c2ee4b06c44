//! The expressions of nf_tables (linux/netfilter/nf_tables.h) that our rules are made of. Registers are numbered from 0 in
//! words of four bytes; what is looked up lies in successive words, each part beginning a word.

use crate::network::netlink::Attributes;

/// What a rule does, step by step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// Loads what is known of a packet (`NFT_META_*`) into a word.
    Meta(u32, u32),
    /// Loads bytes of a packet into a word: base (`LINK`, `NETWORK`, `TRANSPORT`), offset, length.
    Payload(u32, u32, u32, u32),
    /// Goes on if the word's bytes are these.
    Is(u32, Vec<u8>),
    /// Goes on if they are not.
    IsNot(u32, Vec<u8>),
    /// Keeps only these bits of the word.
    And(u32, Vec<u8>),
    /// Loads what is known of a connection (`STATE`, `STATUS`) into a word.
    Connection(u32, u32),
    /// Loads the type of the destination address (`RTN_*`) into a word.
    DestinationType(u32),
    /// Goes on if what begins in the word is in the set.
    In(u32, &'static str),
    /// Goes on if it is not.
    NotIn(u32, &'static str),
    /// Goes on if it is in the map, with what it is mapped to in words from 0.
    Map(u32, &'static str),
    /// Loads the segment size that fits the route into a word, in the network's order.
    RouteSegment(u32),
    /// Makes the word the largest segment that a SYN asks for.
    SetSegment(u32),
    /// Sends it to the address in the word and the port in the other.
    Redirect(u32, u32, u32),
    /// Makes it come from our own address.
    Masquerade,
    /// Ends with a verdict (`ACCEPT`, `DROP`, `RETURN`).
    Verdict(i32),
    /// Goes to a chain.
    Jump(&'static str),
}

pub const LINK: u32 = 0;
pub const NETWORK: u32 = 1;
pub const TRANSPORT: u32 = 2;
pub const META_IIFNAME: u32 = 6;
pub const META_OIFNAME: u32 = 7;
pub const META_NFPROTO: u32 = 15;
pub const META_L4PROTO: u32 = 16;
pub const STATE: u32 = 0;
pub const STATUS: u32 = 2;
pub const ACCEPT: i32 = 1;
pub const DROP: i32 = 0;
pub const RETURN: i32 = -5;
const JUMP: i32 = -3;

/// NFT_REG32_00 is 8.
fn register(word: u32) -> u32 {
    8 + word
}

fn value(a: &mut Attributes<'_>, kind: u16, bytes: &[u8]) {
    a.nest(kind, |a| a.put(1, bytes));
}

fn expression(a: &mut Attributes<'_>, name: &str, body: impl FnOnce(&mut Attributes<'_>)) {
    a.nest(1, |a| {
        a.text(1, name);
        a.nest(2, body);
    });
}

fn verdict(a: &mut Attributes<'_>, code: i32, chain: Option<&str>) {
    expression(a, "immediate", |a| {
        a.big(1, 0);
        a.nest(2, |a| {
            a.nest(2, |a| {
                a.big(1, code as u32);
                if let Some(chain) = chain {
                    a.text(2, chain);
                }
            });
        });
    });
}

fn compare(a: &mut Attributes<'_>, word: u32, operation: u32, bytes: &[u8]) {
    expression(a, "cmp", |a| {
        a.big(1, register(word));
        a.big(2, operation);
        value(a, 3, bytes);
    });
}

fn lookup(a: &mut Attributes<'_>, word: u32, set: &str, result: Option<u32>, is_inverted: bool) {
    expression(a, "lookup", |a| {
        a.text(1, set);
        a.big(2, register(word));
        if let Some(result) = result {
            a.big(3, register(result));
        }
        if is_inverted {
            a.big(5, 1);
        }
    });
}

impl Expression {
    /// Writes it as an element of `NFTA_RULE_EXPRESSIONS`.
    pub fn write(&self, a: &mut Attributes<'_>) {
        match self {
            Expression::Meta(word, key) => expression(a, "meta", |a| {
                a.big(1, register(*word));
                a.big(2, *key);
            }),
            Expression::Payload(word, base, offset, length) => expression(a, "payload", |a| {
                a.big(1, register(*word));
                a.big(2, *base);
                a.big(3, *offset);
                a.big(4, *length);
            }),
            Expression::Is(word, bytes) => compare(a, *word, 0, bytes),
            Expression::IsNot(word, bytes) => compare(a, *word, 1, bytes),
            Expression::And(word, bytes) => expression(a, "bitwise", |a| {
                a.big(1, register(*word));
                a.big(2, register(*word));
                a.big(3, bytes.len() as u32);
                value(a, 4, bytes);
                value(a, 5, &vec![0; bytes.len()]);
            }),
            Expression::Connection(word, key) => expression(a, "ct", |a| {
                a.big(1, register(*word));
                a.big(2, *key);
            }),
            // NFT_FIB_RESULT_ADDRTYPE of NFTA_FIB_F_DADDR.
            Expression::DestinationType(word) => expression(a, "fib", |a| {
                a.big(1, register(*word));
                a.big(2, 3);
                a.big(3, 2);
            }),
            Expression::In(word, set) => lookup(a, *word, set, None, false),
            Expression::NotIn(word, set) => lookup(a, *word, set, None, true),
            Expression::Map(word, set) => lookup(a, *word, set, Some(0), false),
            // NFT_RT_TCPMSS, which the kernel has in its own order: NFT_BYTEORDER_HTON of two bytes.
            Expression::RouteSegment(word) => {
                expression(a, "rt", |a| {
                    a.big(1, register(*word));
                    a.big(2, 3);
                });
                expression(a, "byteorder", |a| {
                    a.big(1, register(*word));
                    a.big(2, register(*word));
                    a.big(3, 1);
                    a.big(4, 2);
                    a.big(5, 2);
                });
            }
            // TCPOPT_MAXSEG, two bytes at offset 2, NFT_EXTHDR_OP_TCPOPT.
            Expression::SetSegment(word) => expression(a, "exthdr", |a| {
                a.put(2, &[2]);
                a.big(3, 2);
                a.big(4, 2);
                a.big(6, 1);
                a.big(7, register(*word));
            }),
            // NFT_NAT_DNAT.
            Expression::Redirect(family, address, port) => expression(a, "nat", |a| {
                a.big(1, 1);
                a.big(2, *family);
                a.big(3, register(*address));
                a.big(5, register(*port));
            }),
            Expression::Masquerade => expression(a, "masq", |_| {}),
            Expression::Verdict(code) => verdict(a, *code, None),
            Expression::Jump(chain) => verdict(a, JUMP, Some(chain)),
        }
    }
}
