//! Pings: an echo request of a container becomes one of a ping socket in the host's network (icmp(7)), and the answer is
//! made again inside. Where the machine gives its users no ping sockets (net.ipv4.ping_group_range), its own addresses are
//! answered for, and of all others it is said that it is forbidden.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::exchange::INNER;
use super::is_outside;
use super::packet::{Echo, Unreachable, unreachable};
use super::poll::Kind;
use super::role::Forwarder;
use super::slab::{Key, Slab};
use crate::sys::datagram::Inbox;

/// So many at once; more are not answered.
const MOST: usize = 256;
/// How long one may be silent.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
struct Ping {
    inside: IpAddr,
    outside: IpAddr,
    /// What was asked last.
    echo: Echo,
    socket: OwnedFd,
    used: Instant,
}

/// All that are under way.
#[derive(Debug, Default)]
pub struct Pings {
    pings: Slab<Ping>,
    by_name: HashMap<(IpAddr, IpAddr, u16), Key>,
    swept: Option<Instant>,
}

impl Pings {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.pings.len()
    }

    /// When silent ones are looked for.
    pub fn due(&self) -> Option<Instant> {
        self.swept.map(|at| at + PATIENCE)
    }

    /// Forgets those that were silent for too long.
    pub fn sweep(&mut self, now: Instant) {
        if self.due().is_none_or(|due| due > now) {
            return;
        }
        let silent = |(_, ping): &(Key, &Ping)| now.duration_since(ping.used) > PATIENCE;
        let silent: Vec<Key> = self.pings.iter().filter(silent).map(|(key, _)| key).collect();
        for key in silent {
            if let Some(ping) = self.pings.remove(key) {
                self.by_name.remove(&(ping.inside, ping.outside, ping.echo.id));
            }
        }
        self.swept = (!self.pings.is_empty()).then_some(now);
    }
}

impl Forwarder {
    /// Containers sent something by ICMP.
    pub fn hear_echoes(&mut self, n: usize) {
        // Seldom, so that the room is not kept.
        let mut inbox = Inbox::new(16, 64 << 10);
        let Some(socket) = self.made.echoes.get(n) else { return };
        if !inbox.receive(socket).is_ok_and(|count| count > 0) {
            return;
        }
        for datagram in inbox.datagrams() {
            let Some(source) = datagram.source.map(|source| source.ip()) else { continue };
            // IPv4 comes with its header.
            let (target, message) = if n == 0 {
                let length = datagram.bytes.first().map_or(0, |first| usize::from(first & 15) * 4);
                let octets = datagram.bytes.get(16..20).and_then(|octets| <[u8; 4]>::try_from(octets).ok());
                (octets.map(|o| Ipv4Addr::from(o).into()), datagram.bytes.get(length..))
            } else {
                (datagram.target.map(|target| target.ip()), Some(datagram.bytes))
            };
            if let Some((target, message)) = target.zip(message)
                && let Some(echo) = Echo::read(message, n == 1)
            {
                self.ping(source, target, echo);
            }
        }
    }

    fn ping(&mut self, inside: IpAddr, outside: IpAddr, echo: Echo) {
        if INNER.contains(&outside) {
            return self.send_packet(&echo.answer(outside, inside), inside);
        }
        if !is_outside(outside) {
            return self.cannot_ping((inside, outside), &echo, Unreachable::Forbidden);
        }
        let name = (inside, outside, echo.id);
        let key = match self.pings.by_name.get(&name).copied() {
            Some(key) => key,
            None if self.pings.pings.len() >= MOST || !self.has_descriptors() => return,
            None => match ping_socket(outside) {
                Ok(socket) => {
                    let used = Instant::now();
                    self.pings.swept.get_or_insert(used);
                    let key = self.pings.pings.next_key();
                    if self.poll.add(&socket, (Kind::Ping, key), EventFlags::IN).is_err() {
                        return;
                    }
                    self.pings.by_name.insert(name, key);
                    self.pings.pings.insert(Ping { inside, outside, echo: echo.clone(), socket, used })
                }
                Err(_) if is_own(outside) => return self.send_packet(&echo.answer(outside, inside), inside),
                Err(error) => {
                    let why = Unreachable::of(&error).unwrap_or(Unreachable::Host);
                    return self.cannot_ping((inside, outside), &echo, why);
                }
            },
        };
        let Some(ping) = self.pings.pings.get_mut(key) else { return };
        ping.used = Instant::now();
        ping.echo = echo;
        let question = ping.echo.question(outside.is_ipv6());
        if let Err(error) = rustix::net::send(&ping.socket, &question, SendFlags::DONTWAIT) {
            let echo = ping.echo.clone();
            let why = Unreachable::of(&error.into());
            why.into_iter().for_each(|why| self.cannot_ping((inside, outside), &echo, why));
        }
    }

    fn cannot_ping(&self, (inside, outside): (IpAddr, IpAddr), echo: &Echo, why: Unreachable) {
        let packet = unreachable(&echo.packet(inside, outside), why);
        packet.iter().for_each(|packet| self.send_packet(packet, inside));
    }

    /// An answer came.
    pub fn echo_comes(&mut self, key: Key) {
        let Some(ping) = self.pings.pings.get_mut(key) else { return };
        let mut message = vec![0; 64 << 10];
        let got = rustix::net::recv(&ping.socket, &mut message[..], RecvFlags::DONTWAIT);
        let (inside, outside) = (ping.inside, ping.outside);
        match got {
            Ok((length, _)) if length >= 8 => {
                ping.used = Instant::now();
                let echo = Echo { id: ping.echo.id, rest: message[6..length].to_vec() };
                self.send_packet(&echo.answer(outside, inside), inside);
            }
            Ok(_) => {}
            Err(error) => {
                let echo = ping.echo.clone();
                let why = Unreachable::of(&error.into());
                why.into_iter().for_each(|why| self.cannot_ping((inside, outside), &echo, why));
            }
        }
    }
}

fn ping_socket(to: IpAddr) -> std::io::Result<OwnedFd> {
    let (family, protocol) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, rustix::net::ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, rustix::net::ipproto::ICMPV6),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, Some(protocol))?;
    rustix::net::connect(&socket, &SocketAddr::new(to, 0))?;
    Ok(socket)
}

/// Whether it is an address of this machine: then the way to it begins there.
fn is_own(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let begins = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((address, 9))?;
        Ok(socket.local_addr()?.ip())
    };
    begins().is_ok_and(|ip| ip == address)
}
