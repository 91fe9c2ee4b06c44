//! UDP: a flow is a container's address and port, and whom it talks with. What a container sends comes to one socket in the
//! exchange, and leaves by a socket of the flow's own in the host's network; answers go in as packets that we make. Flows of
//! published ports are the same the other way round, with the port's socket as the outside half.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::is_outside;
use super::maker::Made;
use super::packet::{Unreachable, datagram, udp_head, unreachable};
use super::poll::{Kind, Poll};
use super::publish::seen_as;
use super::role::Forwarder;
use super::slab::{Key, Slab};
use crate::sys::datagram::{Inbox, send_all, send_from};

/// So many flows at most; the one that was silent for longest makes room.
const MOST: usize = 4096;
/// How often silent flows are looked for, while there are any.
const SWEEP: Duration = Duration::from_secs(15);
/// How long one may be silent: one that was never answered, one that was, one that asked a name server.
const UNANSWERED: Duration = Duration::from_secs(30);
const ANSWERED: Duration = Duration::from_secs(180);
const NAMES: Duration = Duration::from_secs(15);
/// What every network of IPv6 takes in one packet.
pub const PIECE: usize = 1280;
/// Datagrams in one call, and calls in one turn.
const BATCH: usize = 64;
const TURN: usize = 8;

/// The outside half.
#[derive(Debug)]
enum Outside {
    /// A container began it.
    Own(OwnedFd),
    /// A client of a published port did: the port, the client, the address that it talks to.
    Port(Key, SocketAddr, IpAddr),
}

#[derive(Debug)]
struct Flow {
    inside: SocketAddr,
    /// As the container sees it.
    peer: SocketAddr,
    outside: Outside,
    used: Instant,
    is_answered: bool,
}

/// All flows.
#[derive(Debug, Default)]
pub struct Flows {
    flows: Slab<Flow>,
    by_pair: HashMap<(SocketAddr, SocketAddr), Key>,
    of_one: HashMap<IpAddr, usize>,
    swept: Option<Instant>,
    inbox: Option<Inbox>,
}

impl Flows {
    fn inbox(&mut self) -> Inbox {
        self.inbox.take().unwrap_or_else(|| Inbox::new(BATCH, 64 << 10))
    }

    fn insert(&mut self, flow: Flow) -> Key {
        if self.flows.len() >= MOST {
            let oldest = self.flows.iter().min_by_key(|(_, flow)| flow.used).map(|(key, _)| key);
            oldest.into_iter().for_each(|key| self.remove(key));
        }
        self.swept.get_or_insert_with(Instant::now);
        let (pair, source) = ((flow.inside, flow.peer), flow.inside.ip());
        *self.of_one.entry(source).or_default() += 1;
        let key = self.flows.insert(flow);
        self.by_pair.insert(pair, key);
        key
    }

    fn remove(&mut self, key: Key) {
        let Some(flow) = self.flows.remove(key) else { return };
        self.by_pair.remove(&(flow.inside, flow.peer));
        if let Some(n) = self.of_one.get_mut(&flow.inside.ip()) {
            *n -= 1;
            if *n == 0 {
                self.of_one.remove(&flow.inside.ip());
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// When silent ones are looked for.
    pub fn due(&self) -> Option<Instant> {
        self.swept.map(|at| at + SWEEP)
    }

    /// Forgets flows that were silent for too long.
    pub fn sweep(&mut self, now: Instant) {
        if self.due().is_none_or(|due| due > now) {
            return;
        }
        let patience = |flow: &Flow| match flow {
            Flow { peer, .. } if peer.port() == 53 => NAMES,
            Flow { is_answered: true, .. } => ANSWERED,
            _ => UNANSWERED,
        };
        let silent = |(_, flow): &(Key, &Flow)| now.duration_since(flow.used) > patience(flow);
        let silent: Vec<Key> = self.flows.iter().filter(silent).map(|(key, _)| key).collect();
        silent.into_iter().for_each(|key| self.remove(key));
        self.swept = Some(now);
        if self.flows.is_empty() {
            *self = Flows::default();
        }
    }

    /// A new flow that a container began.
    fn begin(&mut self, poll: &Poll, inside: SocketAddr, peer: SocketAddr) -> std::io::Result<Key> {
        let family = if peer.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
        let _ = sockopt::set_socket_recv_buffer_size(&socket, 4 << 20);
        rustix::net::connect(&socket, &peer)?;
        let outside = Outside::Own(socket);
        let key = self.insert(Flow { inside, peer, outside, used: Instant::now(), is_answered: false });
        if let Some(Flow { outside: Outside::Own(socket), .. }) = self.flows.get_mut(key)
            && poll.add(&*socket, (Kind::Flow, key), EventFlags::IN).is_err()
        {
            self.remove(key);
            return Err(std::io::ErrorKind::OutOfMemory.into());
        }
        Ok(key)
    }
}

impl Forwarder {
    /// Containers sent datagrams.
    pub fn datagrams_leave(&mut self, n: usize) {
        let mut inbox = self.flows.inbox();
        for _ in 0..TURN {
            let Some(socket) = self.made.datagrams.get(n) else { break };
            if !inbox.receive(socket).is_ok_and(|count| count > 0) {
                break;
            }
            // Those of one flow that follow each other leave together.
            let mut together: Vec<[&[u8]; 2]> = Vec::with_capacity(BATCH);
            let mut pair = None;
            for datagram in inbox.datagrams() {
                let Some(next) = datagram.source.zip(datagram.target) else { continue };
                if pair != Some(next) {
                    pair.into_iter().for_each(|pair| self.leave(pair, &together));
                    together.clear();
                    pair = Some(next);
                }
                together.push([datagram.bytes, &[]]);
            }
            pair.into_iter().for_each(|pair| self.leave(pair, &together));
        }
        self.flows.inbox = Some(inbox);
    }

    fn leave(&mut self, pair: (SocketAddr, SocketAddr), datagrams: &[[&[u8]; 2]]) {
        let (inside, peer) = pair;
        let known = self.flows.by_pair.get(&pair).copied();
        let refuse = |why: Unreachable| {
            let first = datagrams.first().map_or(&[][..], |parts| parts[0]);
            unreachable(&datagram(inside, peer, first), why)
        };
        let key = match known {
            Some(key) => key,
            None if !is_outside(peer.ip()) => {
                let packet = refuse(Unreachable::Port);
                return packet.iter().for_each(|packet| self.send_packet(packet, inside.ip()));
            }
            None if !self.has_descriptors() => return,
            None if self.flows.of_one.get(&inside.ip()).is_some_and(|n| *n >= self.shares().0) => return,
            None => match self.flows.begin(&self.poll, inside, peer) {
                Ok(key) => key,
                Err(error) => {
                    let packet = Unreachable::of(&error).and_then(refuse);
                    return packet.iter().for_each(|packet| self.send_packet(packet, inside.ip()));
                }
            },
        };
        let Some(flow) = self.flows.flows.get_mut(key) else { return };
        flow.used = Instant::now();
        match &flow.outside {
            Outside::Own(socket) => {
                let mut rest = datagrams;
                while !rest.is_empty() {
                    match send_all(socket, rest, None) {
                        Ok(count) => rest = &rest[count.max(1)..],
                        // What an earlier one came to is told once, and takes this one's place.
                        Err(error) => match Unreachable::of(&error) {
                            Some(why) => {
                                let packet = refuse(why);
                                packet.iter().for_each(|packet| self.send_packet(packet, inside.ip()));
                                return;
                            }
                            None => return,
                        },
                    }
                }
            }
            Outside::Port(port, client, local) => {
                flow.is_answered = true;
                let Some(port) = self.ports.get_mut(*port) else { return self.flows.remove(key) };
                for parts in datagrams {
                    let _ = send_from(&port.socket, parts[0], *local, *client);
                }
            }
        }
    }

    /// Answers came for a flow that a container began.
    pub fn datagrams_come(&mut self, key: Key) {
        let mut inbox = self.flows.inbox();
        for _ in 0..TURN {
            let Some(flow) = self.flows.flows.get_mut(key) else { break };
            let Outside::Own(socket) = &flow.outside else { break };
            let (inside, peer) = (flow.inside, flow.peer);
            match inbox.receive(socket) {
                Ok(0) => break,
                Ok(_) => {
                    flow.used = Instant::now();
                    flow.is_answered = true;
                    self.enter(peer, inside, &inbox);
                }
                Err(error) => {
                    let packet = Unreachable::of(&error)
                        .and_then(|why| unreachable(&datagram(inside, peer, &[]), why));
                    packet.iter().for_each(|packet| self.send_packet(packet, inside.ip()));
                }
            }
        }
        self.flows.inbox = Some(inbox);
    }

    fn enter(&self, source: SocketAddr, target: SocketAddr, inbox: &Inbox) {
        let heads: Vec<Vec<u8>> = inbox.datagrams().map(|d| udp_head(source, target, d.bytes)).collect();
        let parts: Vec<[&[u8]; 2]> =
            heads.iter().zip(inbox.datagrams()).map(|(h, d)| [&h[..], d.bytes]).collect();
        let (long, short): (Vec<_>, Vec<_>) =
            parts.into_iter().partition(|parts| is_long(&self.made, target, parts));
        if let Some(raw) = self.made.raw.get(usize::from(target.is_ipv6()))
            && !short.is_empty()
        {
            let _ = send_all(raw, &short, Some(SocketAddr::new(target.ip(), 0)));
        }
        long.iter().for_each(|parts| enter_in_pieces(&self.made, source, target, parts));
    }

    /// Clients sent datagrams to a published port.
    pub fn datagrams_arrive(&mut self, key: Key) {
        let mut inbox = self.flows.inbox();
        for _ in 0..TURN {
            let Some(port) = self.ports.get_mut(key) else { break };
            if !inbox.receive(&port.socket).is_ok_and(|count| count > 0) {
                break;
            }
            for datagram in inbox.datagrams() {
                let Some((client, local)) = datagram.source.zip(datagram.target) else { continue };
                let Some((peer, inside)) = seen_as(client, &port.lead.to) else { continue };
                let used = Instant::now();
                let known = self.flows.by_pair.get(&(inside, peer)).copied();
                let known = known.and_then(|key| self.flows.flows.get_mut(key));
                match known {
                    Some(flow) => {
                        flow.used = used;
                        flow.outside = match &flow.outside {
                            Outside::Port(..) => Outside::Port(key, client, local.ip()),
                            // The container spoke first, to whom it now hears: the answer may take either way.
                            Outside::Own(_) => continue,
                        };
                    }
                    None => {
                        let outside = Outside::Port(key, client, local.ip());
                        self.flows.insert(Flow { inside, peer, outside, used, is_answered: false });
                    }
                }
                let head = udp_head(peer, inside, datagram.bytes);
                let parts = [&head[..], datagram.bytes];
                if is_long(&self.made, inside, &parts) {
                    enter_in_pieces(&self.made, peer, inside, &parts);
                } else if let Some(raw) = self.made.raw.get(usize::from(inside.is_ipv6())) {
                    let _ = send_all(raw, &[parts], Some(SocketAddr::new(inside.ip(), 0)));
                }
            }
        }
        self.flows.inbox = Some(inbox);
    }
}

/// No router divides packets of IPv6, so that what is longer than every network takes is divided here.
fn is_long(made: &Made, target: SocketAddr, [head, rest]: &[&[u8]; 2]) -> bool {
    target.is_ipv6() && made.pieces.is_some() && head.len() + rest.len() > PIECE
}

fn enter_in_pieces(made: &Made, source: SocketAddr, target: SocketAddr, [head, rest]: &[&[u8]; 2]) {
    // Without the header of IP, which the kernel makes for each piece.
    let datagram = [&head[40..], rest].concat();
    if let Some(pieces) = &made.pieces {
        let _ = send_from(pieces, &datagram, source.ip(), SocketAddr::new(target.ip(), 0));
    }
}
