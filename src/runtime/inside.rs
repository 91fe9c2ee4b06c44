//! Sockets of a container's network name space, made there by init as the first thing it does. A socket stays in the name
//! space that it was made in: whoever has them sets links and rules there, and listens and asks there, without going in,
//! which a user's process could not come back from (setns(2) wants rights over where it goes).

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, socket_with};

use super::sync::{Message, Socket};

/// See the module.
#[derive(Debug)]
pub struct Inside {
    /// rtnetlink(7).
    pub route: OwnedFd,
    /// Netfilter's netlink.
    pub filter: OwnedFd,
    /// UDP, IPv4, not bound, non-blocking.
    pub datagram: OwnedFd,
    /// TCP, IPv4, not bound, non-blocking.
    pub stream: OwnedFd,
}

impl Inside {
    pub(super) fn of(fds: Vec<OwnedFd>) -> Result<Inside> {
        let mut fds = fds.into_iter();
        let mut next = || fds.next().context("cannot start: sockets of the container are missing");
        Ok(Inside { route: next()?, filter: next()?, datagram: next()?, stream: next()? })
    }
}

/// Init's part.
pub(super) fn send(to: &Socket) -> Result<()> {
    let make = |family, kind, protocol: Option<Protocol>, flags| {
        socket_with(family, kind, flags | SocketFlags::CLOEXEC, protocol)
            .context("cannot make a socket in the container")
    };
    let netlink = |protocol| make(AddressFamily::NETLINK, SocketType::RAW, protocol, SocketFlags::empty());
    let inet = |kind| make(AddressFamily::INET, kind, None, SocketFlags::NONBLOCK);
    let all = [
        netlink(None)?,
        netlink(Some(rustix::net::netlink::NETFILTER))?,
        inet(SocketType::DGRAM)?,
        inet(SocketType::STREAM)?,
    ];
    to.send_all(&Message::Inside, &all.each_ref().map(AsFd::as_fd))
}
