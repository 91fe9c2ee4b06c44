//! The resolver of a container, at 127.0.0.11 in its network name space, served by its supervisor's poll loop.
//!
//! 1. [`answer`] says what we know ourselves: the names on the container's networks ([`Records`]). Pure.
//! 2. All else goes to the machine's resolvers ([`upstream`]), from the machine's own network, where 127.0.0.53 and
//!    `fe80::1%eth0` are what the machine means by them ([`forward`]).
//! 3. Inside, port 53 stays free for the container's own use: we listen at another one, to which a rule leads
//!    ([`redirect`]).
//!
//! Nothing here waits, and nothing wakes up by itself but for a query that is under way.

mod answer;
mod asker_stream;
mod forward;
mod message;
mod records;
mod redirect;
#[cfg(test)]
mod tests;
mod upstream;
mod upstream_stream;
mod view;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::event::PollFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::netlink;
use crate::sys;

pub use records::{Entry, Known, Records, key};
pub use view::View;

use answer::{Answer, Asked};
use asker_stream::AskerStream;
use forward::{Asker, Due, Forwarder, Plan, Socket};
use upstream::Upstreams;

/// Where a container finds us.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The port that its programs ask.
const PORT: u16 = 53;

/// Where we may listen, in a name space in which nobody else does yet: above the ports that the kernel gives out by itself
/// (ip(7), ip_local_port_range).
const FREE_PORTS: std::ops::Range<u16> = 61_000..65_535;

/// Longer queries are not looked at. The longest name with EDNS and all that goes with it is well below.
const MAX_QUERY: usize = 4096;

/// So many connections are kept; a further one takes the place of the one that has been silent for longest.
const MAX_STREAMS: usize = 16;

/// So many connections may wait to be taken.
const BACKLOG: i32 = 64;

/// So many datagrams are dealt with before the supervisor does something else.
const BATCH: usize = 64;

/// Sockets that were made in a container's network name space, and belong to it whoever uses them.
#[derive(Debug)]
pub struct Sockets {
    /// UDP, not bound.
    pub datagram: OwnedFd,
    /// TCP, not bound.
    pub stream: OwnedFd,
    /// Netfilter's netlink.
    pub filter: netlink::Socket,
}

/// How a resolver is set up.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Servers in place of the machine's.
    pub servers: Vec<String>,
    /// Options of resolv.conf.
    pub options: Vec<String>,
}

/// The resolver of one container.
#[derive(Debug)]
pub struct Resolver {
    datagrams: UdpSocket,
    door: TcpListener,
    streams: Vec<AskerStream>,
    forwarder: Forwarder,
    upstreams: Upstreams,
    turn: usize,
    n_streams_ever: u64,
}

/// Whether a container is to be counted.
pub type IsAlive<'a> = &'a mut dyn FnMut(&Entry) -> bool;

impl Resolver {
    /// Listens with sockets of the container's network name space, which is new.
    pub fn open(sockets: Sockets, settings: &Settings) -> Result<Resolver> {
        let (datagrams, door) = listen(sockets).context("cannot listen for the container's resolver")?;
        Ok(Resolver {
            datagrams,
            door,
            streams: Vec::new(),
            forwarder: Forwarder::default(),
            upstreams: Upstreams::new(&settings.servers, &settings.options),
            turn: 0,
            n_streams_ever: 0,
        })
    }

    /// What to wait for, in the order in which [`Resolver::step`] wants to hear of it.
    pub fn interest(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        [(self.datagrams.as_fd(), PollFlags::IN), (self.door.as_fd(), PollFlags::IN)]
            .into_iter()
            .chain(self.streams.iter().map(AskerStream::interest))
            .chain(self.forwarder.interest())
    }

    /// When the next step is due, whatever comes.
    pub fn due(&self) -> Option<Instant> {
        self.streams.iter().map(AskerStream::until).chain(self.forwarder.due()).min()
    }

    /// Deals with what poll(2) said, in the order of [`Resolver::interest`], and with what is due.
    pub fn step(&mut self, ready: &[PollFlags], records: &Records, is_alive: IsAlive<'_>) {
        let now = Instant::now();
        let (own, rest) = ready.split_at(ready.len().min(2));
        let (of_streams, of_forwarder) = rest.split_at(rest.len().min(self.streams.len()));
        let due = self.forwarder.step(of_forwarder, &mut open, now);
        self.say_all(due, now);
        let mut queries = Vec::new();
        for (stream, flags) in self.streams.iter_mut().zip(of_streams) {
            if flags.contains(PollFlags::OUT) {
                stream.flush(now);
            }
            if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                let number = stream.number;
                queries.extend(stream.hear(now).into_iter().map(|query| (Asker::Stream(number), query)));
            }
        }
        for (asker, query) in queries {
            self.take(asker, &query, records, is_alive, now);
        }
        if own.first().is_some_and(|flags| !flags.is_empty()) {
            self.hear_datagrams(records, is_alive, now);
        }
        if own.get(1).is_some_and(|flags| !flags.is_empty()) {
            self.admit(now);
        }
        self.forget_gone(now);
    }

    fn hear_datagrams(&mut self, records: &Records, is_alive: IsAlive<'_>, now: Instant) {
        let mut bytes = [0; MAX_QUERY + 1];
        for _ in 0..BATCH {
            match self.datagrams.recv_from(&mut bytes) {
                Ok((n, from)) if n <= MAX_QUERY => {
                    self.take(Asker::Datagram(from), &bytes[..n], records, is_alive, now);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // Too long, or word that an earlier reply found nobody there.
                _ => {}
            }
        }
    }

    fn take(&mut self, asker: Asker, query: &[u8], records: &Records, is_alive: IsAlive<'_>, now: Instant) {
        self.turn = self.turn.wrapping_add(1);
        let asked = Asked {
            by_stream: matches!(asker, Asker::Stream(_)),
            may_forward: records.may_forward(),
            turn: self.turn,
        };
        match answer::answer(query, records, asked, is_alive) {
            Answer::Reply(reply) => self.say(asker, &reply, now),
            Answer::Nothing => self.say(asker, &[], now),
            Answer::Forward => {
                let configuration = self.upstreams.now();
                let plan = Plan {
                    servers: configuration.servers.clone(),
                    timeout: configuration.timeout,
                    attempts: configuration.attempts,
                };
                let due = self.forwarder.ask(asker, query, &plan, &mut open, now);
                self.say_all(due, now);
            }
        }
    }

    fn say_all(&mut self, due: Vec<Due>, now: Instant) {
        for (asker, reply) in due {
            self.say(asker, &reply, now);
        }
    }

    /// Sends a reply; an empty one is none.
    fn say(&mut self, asker: Asker, reply: &[u8], now: Instant) {
        match asker {
            // Whoever lost it asks again.
            Asker::Datagram(to) if !reply.is_empty() => drop(self.datagrams.send_to(reply, to)),
            Asker::Datagram(_) => {}
            Asker::Stream(number) => {
                if let Some(stream) = self.streams.iter_mut().find(|stream| stream.number == number) {
                    stream.say(reply, now);
                }
            }
        }
    }

    fn admit(&mut self, now: Instant) {
        for _ in 0..MAX_STREAMS {
            let Ok((stream, _)) = self.door.accept() else { return };
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            if self.streams.len() >= MAX_STREAMS
                && let Some(oldest) = (0..self.streams.len()).min_by_key(|n| self.streams[*n].until())
            {
                self.forget(oldest);
            }
            self.n_streams_ever += 1;
            self.streams.push(AskerStream::new(self.n_streams_ever, stream, now));
        }
    }

    fn forget_gone(&mut self, now: Instant) {
        for n in (0..self.streams.len()).rev() {
            if self.streams[n].is_gone(now) {
                self.forget(n);
            }
        }
    }

    fn forget(&mut self, n: usize) {
        let stream = self.streams.remove(n);
        self.forwarder.forget(Asker::Stream(stream.number));
    }
}

/// Listens at a port to which a rule leads; at the port itself where there are no such rules.
fn listen(sockets: Sockets) -> io::Result<(UdpSocket, TcpListener)> {
    let Sockets { datagram, stream, filter } = sockets;
    let mut random = [0; 2];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    let free = FREE_PORTS.start + u16::from_ne_bytes(random) % (FREE_PORTS.end - FREE_PORTS.start);
    let port = if matches!(redirect::add(&filter, free), Ok(Ok(()))) { free } else { PORT };
    // Whoever is first: without it there is no such address yet.
    sys::net::set_up_of(&datagram, c"lo")?;
    for socket in [&datagram, &stream] {
        rustix::io::ioctl_fionbio(socket, true)?;
        rustix::net::bind(socket, &SocketAddrV4::new(ADDRESS, port))?;
    }
    rustix::net::listen(&stream, BACKLOG)?;
    Ok((datagram.into(), stream.into()))
}

/// A socket that is connected, or connecting, to a server.
fn open(server: SocketAddr, by_stream: bool) -> io::Result<Socket> {
    if by_stream { connecting(server).map(Socket::Stream) } else { datagrams_to(server) }
}

fn datagrams_to(address: SocketAddr) -> io::Result<Socket> {
    let own: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((own, 0))?;
    socket.set_nonblocking(true)?;
    // The kernel drops what comes from elsewhere, and says when nobody listens there.
    socket.connect(address)?;
    Ok(Socket::Datagram(socket))
}

fn connecting(address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket.into()),
        Err(error) => Err(error.into()),
    }
}
