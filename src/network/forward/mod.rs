//! A user's way to the outside: a process of ours (`dhow forward`) that has a network name space for the bridges of all the
//! user's containers, and passes on what they say to the world and the world to them. No device, no privilege, no helper.
//!
//! The kernel does the protocols: TPROXY gives every connection that a container makes, whatever its address, to a socket of
//! ours, which is joined to one in the host's network by splice(2). The other way, a TCP of our own over a packet socket
//! (smoltcp), would have every byte copied in and out of our memory, and has no urgent data. Three things need care:
//! - A listener would answer before the outside has. So the first packet of a connection is dropped by a rule, but heard by
//!   a packet socket; it is put back on its way when the outside has answered, and refused if that refused (`connect`).
//! - A published port's connection goes in from the client's own address (IP_TRANSPARENT; `publish`).
//! - Datagrams and pings go in as packets made by us (`datagrams`, `ping`).
//!
//! # Life
//!
//! DATA/forward/ has the `lock` of the one process, the `socket` where it listens, and `held`, which all who use it have a
//! shared lock on. It is started by the first command that needs it (`hold::ensure`), in a user name space that all who use
//! it join, and ends with the last connection to it. Supervisors keep descriptors of the shared name space: when the process
//! is killed, the bridges stay, and the next command starts another one, which gets the name space from a supervisor.
//!
//! ```text
//! supervisor, command            forward
//!   Join (+ shared netns)  -->                      the descriptor only from one who outlived another forward
//!             <--  Shared, Route, Netfilter, Process     one descriptor each
//!   Clear     -->                                   no port of ours leads anywhere
//!             <--  Done
//!   Lead      -->                                   one port: a socket that is bound to it, where it leads
//!             <--  Done | Failed
//! ```
//!
//! Bounds: each container address has so many connections on their way at most, so that one that asks for the whole world
//! leaves room for the others; what one is sent and does not read stays in the kernel's buffers.

mod connect;
mod datagrams;
mod exchange;
mod filter;
pub mod hold;
mod maker;
mod netlink;
mod packet;
mod ping;
mod pipes;
mod poll;
mod publish;
mod relay;
pub mod role;
mod rules;
mod slab;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::runtime::sync::Failure;

/// The index of our link in the exchange.
const INDEX: u32 = 100;
/// The port of our sockets in the exchange, to which the rules lead whatever was asked for.
const LISTEN: u16 = 1;
/// The first byte of the hardware address of what we put back on its way.
const BACK: u8 = 0x06;
/// The mark of packets that we made.
const MARK: u32 = 0x6468_6f77;
/// The mark of those among them that are divided.
const MARK_LONG: u32 = 0x6468_6f78;
/// How long a packet between the two name spaces may be: it never leaves the machine's memory.
const MTU: u32 = 65535;

/// What is said on the socket, in the order of the ladder above.
#[derive(Debug, Serialize, Deserialize)]
enum Word {
    Join,
    Shared,
    Route,
    Netfilter,
    Process,
    Clear,
    Lead(Lead),
    Done,
    Failed(Failure),
}

/// Where a socket of the host leads, on which a published port's clients come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lead {
    /// It brings datagrams.
    pub is_udp: bool,
    /// The container, at most one address of each family.
    pub to: Vec<SocketAddr>,
}

/// Whether containers may reach it from here: what is the machine's alone is not theirs.
fn is_outside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            let is_ours = ip.octets()[..3] == [192, 0, 0] && ip.octets()[3] < 8;
            !(ip.is_loopback()
                || ip.is_multicast()
                || ip.octets()[0] == 0
                || ip == Ipv4Addr::BROADCAST
                || is_ours)
        }
        IpAddr::V6(ip) => {
            // An IPv4 address in IPv6's clothes, ::1 and :: among them, is no address of IPv6.
            let is_v4 = ip.to_ipv4().is_some();
            let is_ours = ip.octets()[..15] == [0xfd, 0x64, 0x68, 0x6f, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            !(is_v4 || ip.is_multicast() || ip.is_unicast_link_local() || is_ours)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_machines_alone_is_not_outside() {
        for inside in [
            "127.0.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "192.0.0.1",
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "fe80::1",
            "ff02::1",
            "fd64:686f:7700::1",
        ] {
            assert!(!is_outside(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["1.2.3.4", "10.0.0.1", "192.0.0.9", "192.168.1.1", "2001:db8::1", "fd00::1"] {
            assert!(is_outside(outside.parse().unwrap()), "{outside}");
        }
    }
}
