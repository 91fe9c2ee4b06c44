//! Published ports: a socket in the host's network, and for each who comes a connection to the container, from the
//! client's own address.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, sockopt};

use super::Lead;
use super::exchange::INNER;
use super::poll::{Kind, both_ways};
use super::relay::{prepared, reset_on_close};
use super::role::Forwarder;
use super::slab::Key;
use crate::sys::inet::set_option;

/// A port. Its socket is the supervisor's too, which has bound it and keeps it while we are replaced.
#[derive(Debug)]
pub struct Port {
    /// Whose it is.
    pub client: Key,
    /// Where it leads.
    pub lead: Lead,
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
    /// One more port of a client.
    pub fn lead(&mut self, client: Key, lead: Lead, socket: OwnedFd) -> Result<()> {
        if lead.is_udp {
            // Answers are to come from the address that was asked.
            let about = "cannot set an option of a socket";
            let is_v6 = rustix::net::sockopt::socket_domain(&socket).context(about)? == AddressFamily::INET6;
            let (level, name) = if is_v6 {
                (libc::SOL_IPV6, libc::IPV6_RECVORIGDSTADDR)
            } else {
                (libc::SOL_IP, libc::IP_RECVORIGDSTADDR)
            };
            set_option(&socket, level, name, 1).context(about)?;
            let _ = sockopt::set_socket_recv_buffer_size(&socket, 4 << 20);
        } else {
            prepared(&socket);
            rustix::net::listen(&socket, 4096).context("cannot listen")?;
        }
        let key = self.ports.next_key();
        self.poll.add(&socket, (Kind::Port, key), EventFlags::IN)?;
        self.ports.insert(Port { client, lead, socket });
        Ok(())
    }

    /// No port of this client leads anywhere.
    pub fn clear_ports(&mut self, client: Key) {
        let ports = self.ports.iter().filter(|(_, port)| port.client == client);
        let ports: Vec<Key> = ports.map(|(key, _)| key).collect();
        for key in ports {
            if let Some(port) = self.ports.remove(key) {
                // The supervisor has it too, so that closing it would not be enough.
                self.poll.remove(&port.socket);
            }
        }
    }

    /// Somebody comes to a published port.
    pub fn arrive(&mut self, key: Key) {
        let Some(port) = self.ports.get_mut(key) else { return };
        if port.lead.is_udp {
            return self.datagrams_arrive(key);
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        for _ in 0..64 {
            let Some(port) = self.ports.get_mut(key) else { return };
            let Ok((outside, client)) = rustix::net::acceptfrom_with(&port.socket, flags) else { return };
            let Some(client) = client.and_then(|client| SocketAddr::try_from(client).ok()) else { continue };
            let Some((source, target)) = seen_as(client, &port.lead.to) else {
                reset_on_close(&outside);
                continue;
            };
            if !self.has_descriptors() {
                reset_on_close(&outside);
                continue;
            }
            match self.connect_inside(source, target) {
                Ok(inside) => {
                    let key = self.arriving.next_key();
                    if self.poll.add(&inside, (Kind::Arriving, key), both_ways()).is_ok() {
                        self.arriving.insert(Arriving { inside, outside });
                    }
                }
                Err(_) => reset_on_close(&outside),
            }
        }
    }

    fn connect_inside(&mut self, source: SocketAddr, target: SocketAddr) -> Result<OwnedFd> {
        let socket = self.maker.stream(target.is_ipv6())?;
        prepared(&socket);
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
                    reset_on_close(&arriving.outside);
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
