//! Published ports: a listener in the host's network, and for each who comes a connection to the container, from the
//! client's own address.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, anyhow};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::exchange::INNER;
use super::poll::{Kind, both_ways};
use super::role::Forwarder;
use super::slab::Key;
use super::{Publish, taken};
use crate::endpoint::Published;
use crate::error::ResultExt;
use crate::sys::inet::{reset_on_close, set_option};

/// A listener.
#[derive(Debug)]
pub struct Port {
    /// Whose it is.
    pub client: Key,
    /// The container's name.
    pub container: String,
    /// What was asked for.
    pub published: Published,
    /// Where it leads: at most one address of each family, with the port.
    pub to: Vec<SocketAddr>,
    /// The host's end.
    pub socket: OwnedFd,
}

/// A connection on its way into a container.
#[derive(Debug)]
pub struct Arriving {
    inside: OwnedFd,
    outside: OwnedFd,
}

impl Forwarder {
    /// The ports of a client are to be these; with the host's ports that were found. If one cannot be had, all stays as it
    /// was.
    pub fn publish(&mut self, client: Key, wanted: &Publish) -> Result<Vec<Published>> {
        let mut found = Vec::new();
        let mut new = Vec::new();
        let mut kept = Vec::new();
        for (published, to) in &wanted.ports {
            let to: Vec<SocketAddr> =
                to.iter().map(|ip| SocketAddr::new(*ip, published.container_port)).collect();
            let own =
                self.ports.iter().filter(|(_, port)| port.client == client && port.published == *published);
            let own: Vec<Key> = own.map(|(key, _)| key).collect();
            if published.host_port != 0 && !own.is_empty() {
                kept.extend(own.into_iter().map(|key| (key, to.clone())));
                found.push(published.clone());
                continue;
            }
            let mut published = published.clone();
            for socket in self.listen(&mut published)? {
                let container = wanted.container.clone();
                new.push(Port { client, container, published: published.clone(), to: to.clone(), socket });
            }
            found.push(published);
        }
        for (key, to) in &kept {
            self.ports.get_mut(*key).into_iter().for_each(|port| port.to.clone_from(to));
        }
        let is_kept = |key: Key| kept.iter().any(|(other, _)| *other == key);
        let gone: Vec<Key> = self
            .ports
            .iter()
            .filter(|(key, port)| port.client == client && !is_kept(*key))
            .map(|(key, _)| key)
            .collect();
        gone.into_iter().for_each(|key| drop(self.ports.remove(key)));
        for port in new {
            let key = self.ports.next_key();
            self.poll.add(&port.socket, (Kind::Port, key), EventFlags::IN)?;
            self.ports.insert(port);
        }
        Ok(found)
    }

    /// Listens on one address, or on all of both families; port 0 becomes one that is free.
    fn listen(&self, published: &mut Published) -> Result<Vec<OwnedFd>> {
        let addresses: Vec<IpAddr> = match published.address() {
            Some(address) => vec![address],
            None if published.host_ip.is_empty() => {
                vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
            }
            None if published.host_ip.contains(':') => vec![Ipv6Addr::UNSPECIFIED.into()],
            None => vec![Ipv4Addr::UNSPECIFIED.into()],
        };
        let kind = match published.protocol.as_str() {
            "udp" => SocketType::DGRAM,
            "tcp" => SocketType::STREAM,
            other => {
                return Err(anyhow!("cannot publish {other} ports as a user"))
                    .hint("the kernel forwards them for root only; tcp and udp work");
            }
        };
        let mut sockets = Vec::new();
        for address in &addresses {
            match listener(SocketAddr::new(*address, published.host_port), kind) {
                Ok(socket) => {
                    let name = rustix::net::getsockname(&socket).context("cannot find our port")?;
                    published.host_port = SocketAddr::try_from(name).context("cannot find our port")?.port();
                    sockets.push(socket);
                }
                // A machine without IPv6.
                Err(error)
                    if address.is_ipv6()
                        && !sockets.is_empty()
                        && matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => {
                }
                Err(error) => return Err(self.about(error, published, *address)),
            }
        }
        Ok(sockets)
    }

    /// Why a port cannot be had, and what to do.
    fn about(&self, error: io::Error, published: &Published, address: IpAddr) -> anyhow::Error {
        let Published { host_port: port, protocol, .. } = published;
        match error.raw_os_error() {
            Some(libc::EADDRINUSE) => {
                let same = |p: &&super::publish::Port| {
                    p.published.host_port == *port && p.published.protocol == *protocol
                };
                let holder = self.ports.iter().map(|(_, p)| p).find(same);
                let holder = holder.map(|p| format!("container {}", p.container));
                match holder.or_else(|| taken::process_of(*port, protocol == "udp")) {
                    Some(holder) => anyhow!("port {port}/{protocol} is taken by {holder}"),
                    None => anyhow!("port {port}/{protocol} is taken"),
                }
            }
            Some(libc::EACCES) => {
                let free = taken::free_port(*port, protocol == "udp");
                let start = "run sysctl -w net.ipv4.ip_unprivileged_port_start";
                let hint = format!("{start}={port} as root, or publish {free}, which is free");
                match Err::<(), _>(anyhow!("port {port}/{protocol} is root's alone")).hint(hint) {
                    Err(error) => error,
                    Ok(()) => anyhow!("port {port}/{protocol} is root's alone"),
                }
            }
            Some(libc::EADDRNOTAVAIL) => anyhow!("{address} is no address of this machine"),
            _ => anyhow::Error::from(error).context(format!("cannot listen on port {port}/{protocol}")),
        }
    }

    /// Somebody comes to a published port.
    pub fn arrive(&mut self, key: Key) {
        let Some(port) = self.ports.get_mut(key) else { return };
        if port.published.protocol == "udp" {
            return self.datagrams_arrive(key);
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        for _ in 0..64 {
            let Some(port) = self.ports.get_mut(key) else { return };
            let Ok((outside, client)) = rustix::net::acceptfrom_with(&port.socket, flags) else { return };
            let Some(client) = client.and_then(|client| SocketAddr::try_from(client).ok()) else { continue };
            let Some((source, target)) = seen_as(client, &port.to) else {
                let _ = reset_on_close(&outside);
                continue;
            };
            match self.connect_inside(source, target) {
                Ok(inside) => {
                    let key = self.arriving.next_key();
                    if self.poll.add(&inside, (Kind::Arriving, key), both_ways()).is_ok() {
                        self.arriving.insert(Arriving { inside, outside });
                    }
                }
                Err(_) => drop(reset_on_close(&outside)),
            }
        }
    }

    fn connect_inside(&mut self, source: SocketAddr, target: SocketAddr) -> Result<OwnedFd> {
        let socket = self.maker.stream(target.is_ipv6())?;
        let bound = rustix::net::bind(&socket, &source);
        if bound.is_err() {
            // The same client's port is in use for another container: at least the address is its own.
            rustix::net::bind(&socket, &SocketAddr::new(source.ip(), 0)).context("cannot bind a socket")?;
        }
        match rustix::net::connect(&socket, &target) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
            Err(error) => Err(error).context("cannot connect to a container"),
        }
    }

    /// The container has answered, or has not.
    pub fn inside_answered(&mut self, key: Key) {
        let Some(arriving) = self.arriving.get_mut(key) else { return };
        match sockopt::socket_error(&arriving.inside) {
            Ok(Ok(())) if rustix::net::getpeername(&arriving.inside).is_err() => {}
            Ok(Ok(())) => {
                if let Some(Arriving { inside, outside }) = self.arriving.remove(key) {
                    self.join(inside, outside);
                }
            }
            _ => {
                if let Some(arriving) = self.arriving.remove(key) {
                    let _ = reset_on_close(&arriving.outside);
                }
            }
        }
    }
}

/// As whom a client is seen inside, and where it goes: its own address, unless that means something else in there.
pub fn seen_as(client: SocketAddr, to: &[SocketAddr]) -> Option<(SocketAddr, SocketAddr)> {
    let own_family = to.iter().find(|to| to.is_ipv6() == client.is_ipv6());
    let target = *own_family.or_else(|| to.first())?;
    let ours = INNER[usize::from(target.is_ipv6())];
    let is_plain = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_loopback(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    };
    let ip = if own_family.is_some() && is_plain(client.ip()) { client.ip() } else { ours };
    Some((SocketAddr::new(ip, client.port()), target))
}

fn listener(address: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, kind, flags, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if kind == SocketType::STREAM {
        // Connections of a listener before us do not stand in the way.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    } else {
        let (level, name) = if address.is_ipv6() {
            (libc::SOL_IPV6, libc::IPV6_RECVORIGDSTADDR)
        } else {
            (libc::SOL_IP, libc::IP_RECVORIGDSTADDR)
        };
        set_option(&socket, level, name, 1)?;
        let _ = sockopt::set_socket_recv_buffer_size(&socket, 4 << 20);
    }
    rustix::net::bind(&socket, &address)?;
    if kind == SocketType::STREAM {
        rustix::net::listen(&socket, 4096)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_seen_as_itself_where_that_means_something() {
        let check = |client: &str, to: &[&str], want: Option<(&str, &str)>| {
            let to: Vec<SocketAddr> = to.iter().map(|to| to.parse().unwrap()).collect();
            let want = want.map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap()));
            assert_eq!(seen_as(client.parse().unwrap(), &to), want, "{client}");
        };
        let both = ["10.1.0.2:80", "[fd00::2]:80"];
        check("1.2.3.4:99", &both, Some(("1.2.3.4:99", "10.1.0.2:80")));
        check("[2001::1]:99", &both, Some(("[2001::1]:99", "[fd00::2]:80")));
        check("[2001::1]:99", &both[..1], Some(("192.0.0.1:99", "10.1.0.2:80")));
        check("127.0.0.1:99", &both, Some(("192.0.0.1:99", "10.1.0.2:80")));
        check("[::1]:99", &both, Some(("[fd64:686f:7700::1]:99", "[fd00::2]:80")));
        check("1.2.3.4:99", &[], None);
    }
}
