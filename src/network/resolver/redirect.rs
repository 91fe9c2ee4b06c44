//! The rule that leads from 127.0.0.11:53, where programs ask, to the port where we listen, in the container's network name
//! space: port 53 stays free there, also for a program that listens at all addresses.
//!
//! Both directions leave by the loopback device, so each packet is changed on its way out, without connection tracking: it is
//! not switched on for this, has no table that a flood of queries could fill, and costs nothing where others switch it on.

use anyhow::Result;

use super::{ADDRESS, PORT};
use crate::network::netlink::{Attributes, Batch, Refused, Socket};

/// The table, and its chains: what is asked, before connection tracking looks at it, and what is answered, after it.
const TABLE: &str = "dhow-dns";
const ASK: (&str, i32) = ("ask", -300);
const ANSWER: (&str, i32) = ("answer", 300);

// linux/netfilter/nfnetlink.h and nf_tables.h.
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const LOCAL_OUT: u32 = 3;
const REGISTER: u32 = 1;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
const META_L4PROTO: u32 = 16;

/// Protocol, and where its checksum is.
const PROTOCOLS: [(u8, u32); 2] = [(libc::IPPROTO_UDP as u8, 6), (libc::IPPROTO_TCP as u8, 16)];

/// Leads from our port to the one where somebody listens, in the name space of `socket`, which has none of our tables yet.
/// Fails where the kernel, or the sandbox around us, has no nf_tables.
pub fn add(socket: &Socket, port: u16) -> Result<std::result::Result<(), Refused>> {
    let (flags, about) = (libc::NLM_F_CREATE, "lead to the container's resolver");
    let mut batch = Batch::new();
    batch.add(BEGIN, 0, about, &header(0, SUBSYSTEM), |_| {});
    batch.add(NEW_TABLE, flags, about, &header(libc::AF_INET as u8, 0), |a| a.text(1, TABLE));
    for (name, priority) in [ASK, ANSWER] {
        batch.add(NEW_CHAIN, flags, about, &header(libc::AF_INET as u8, 0), |a| {
            a.text(1, TABLE);
            a.text(3, name);
            a.nest(4, |a| {
                a.big(1, LOCAL_OUT);
                a.big(2, priority as u32);
            });
            a.text(7, "filter");
        });
    }
    for protocol in PROTOCOLS {
        // Addresses: where to, and where from (RFC 791, 3.1). Ports: the second, and the first (RFC 768, RFC 9293, 3.1).
        rule(&mut batch, about, ASK.0, protocol, (16, 2), (PORT, port));
        rule(&mut batch, about, ANSWER.0, protocol, (12, 0), (port, PORT));
    }
    batch.add(END, 0, about, &header(0, SUBSYSTEM), |_| {});
    socket.run(&batch)
}

/// struct nfgenmsg.
fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn rule(
    batch: &mut Batch,
    about: &str,
    chain: &str,
    (protocol, checksum_at): (u8, u32),
    (address_at, port_at): (u32, u32),
    (from, to): (u16, u16),
) {
    let flags = libc::NLM_F_CREATE | libc::NLM_F_APPEND;
    batch.add(NEW_RULE, flags, about, &header(libc::AF_INET as u8, 0), |a| {
        a.text(1, TABLE);
        a.text(2, chain);
        a.nest(4, |a| {
            expression(a, "meta", |a| {
                a.big(1, REGISTER);
                a.big(2, META_L4PROTO);
            });
            is(a, &[protocol]);
            load(a, NETWORK, address_at, 4);
            is(a, &ADDRESS.octets());
            load(a, TRANSPORT, port_at, 2);
            is(a, &from.to_be_bytes());
            expression(a, "immediate", |a| {
                a.big(1, REGISTER);
                a.nest(2, |a| a.put(1, &to.to_be_bytes()));
            });
            expression(a, "payload", |a| {
                a.big(5, REGISTER);
                a.big(2, TRANSPORT);
                a.big(3, port_at);
                a.big(4, 2);
                // NFT_PAYLOAD_CSUM_INET.
                a.big(6, 1);
                a.big(7, checksum_at);
            });
        });
    });
}

fn expression(a: &mut Attributes<'_>, name: &str, body: impl FnOnce(&mut Attributes<'_>)) {
    a.nest(1, |a| {
        a.text(1, name);
        a.nest(2, body);
    });
}

/// Goes on if the register has these bytes.
fn is(a: &mut Attributes<'_>, bytes: &[u8]) {
    expression(a, "cmp", |a| {
        a.big(1, REGISTER);
        a.big(2, 0);
        a.nest(3, |a| a.put(1, bytes));
    });
}

/// Loads bytes of the packet.
fn load(a: &mut Attributes<'_>, base: u32, at: u32, length: u32) {
    expression(a, "payload", |a| {
        a.big(1, REGISTER);
        a.big(2, base);
        a.big(3, at);
        a.big(4, length);
    });
}
