//! Connections that containers make: held back until the outside has answered.
//!
//! ```text
//! container            here                       outside
//!   SYN   --> heard, and dropped; connect(2)  -->
//!         <-- RST, or ICMP                    <--  refused, unreachable
//!             nothing                              no answer: the container gives up as it would without us
//!             the SYN put back: our listener  <--  connected
//!             accepts it; both are joined
//! ```

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use super::BACK;
use super::is_outside;
use super::packet::{Syn, Unreachable, unreachable};
use super::poll::{Kind, both_ways};
use super::relay::{Relay, prepared, reset_on_close};
use super::role::Forwarder;
use super::slab::{Key, Slab};

/// A container has so long to go on with a connection that the outside has answered.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who wants to reach whom.
type Pair = (SocketAddr, SocketAddr);

/// A connection on its way.
#[derive(Debug)]
pub struct Pending {
    syn: Syn,
    outside: OwnedFd,
    is_answered: bool,
}

/// All that are on their way.
#[derive(Debug, Default)]
pub struct Connecting {
    pending: Slab<Pending>,
    by_pair: HashMap<Pair, Key>,
    of_one: HashMap<IpAddr, usize>,
    /// Those that the outside has answered, the longest ago first.
    answered: VecDeque<(Instant, Key)>,
}

impl Connecting {
    fn has_room(&self, source: IpAddr, (most_of_one, most): (usize, usize)) -> bool {
        self.pending.len() < most && self.of_one.get(&source).is_none_or(|n| *n < most_of_one)
    }

    fn insert(&mut self, pending: Pending) -> Key {
        let pair = (pending.syn.source, pending.syn.target);
        *self.of_one.entry(pair.0.ip()).or_default() += 1;
        let key = self.pending.insert(pending);
        self.by_pair.insert(pair, key);
        key
    }

    fn remove(&mut self, key: Key) -> Option<Pending> {
        let pending = self.pending.remove(key)?;
        let source = pending.syn.source;
        self.by_pair.remove(&(source, pending.syn.target));
        if let Some(n) = self.of_one.get_mut(&source.ip()) {
            *n -= 1;
            if *n == 0 {
                self.of_one.remove(&source.ip());
            }
        }
        Some(pending)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// When the first of them is given up.
    pub fn due(&self) -> Option<Instant> {
        self.answered.front().map(|(at, _)| *at + PATIENCE)
    }

    /// Gives up those whose container did not go on.
    pub fn give_up(&mut self, now: Instant) {
        while self.due().is_some_and(|due| due <= now) {
            let late = self.answered.pop_front().and_then(|(_, key)| self.remove(key));
            late.iter().for_each(|late| reset_on_close(&late.outside));
        }
        if self.answered.is_empty() && self.pending.is_empty() {
            *self = Connecting::default();
        }
    }
}

/// A TCP socket of the host's network, on its way to `target`.
pub fn connect_outside(target: SocketAddr) -> std::io::Result<OwnedFd> {
    let family = if target.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    prepared(&socket);
    match rustix::net::connect(&socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

impl Forwarder {
    /// Hears the first packets of connections.
    pub fn hear_first_packets(&mut self) {
        let mut frame = [0; 4096];
        // As many as there are, but others have their turn.
        for _ in 0..256 {
            let Ok((length, _)) = rustix::net::recv(&self.made.syn, &mut frame[..], RecvFlags::DONTWAIT)
            else {
                return;
            };
            if let Some(syn) = Syn::read(&frame[..length]) {
                self.begin(syn);
            }
        }
    }

    fn begin(&mut self, syn: Syn) {
        if let Some(key) = self.connecting.by_pair.get(&(syn.source, syn.target)).copied() {
            // It asks again. What we put back may have been lost; a new attempt by the same name has a new number.
            if let Some(pending) = self.connecting.pending.get_mut(key) {
                pending.syn = syn;
                if pending.is_answered {
                    self.put_back(key);
                }
            }
            return;
        }
        if !is_outside(syn.target.ip()) {
            return self.send_packet(&syn.refusal(), syn.source.ip());
        }
        // It will ask again.
        if !self.connecting.has_room(syn.source.ip(), self.shares()) || !self.has_descriptors() {
            return;
        }
        let outside = match connect_outside(syn.target) {
            Ok(outside) => outside,
            Err(error) => return self.refuse(&syn, &error),
        };
        let key = self.connecting.insert(Pending { syn, outside, is_answered: false });
        if let Some(pending) = self.connecting.pending.get_mut(key)
            && self.poll.add(&pending.outside, (Kind::Pending, key), both_ways()).is_err()
        {
            self.connecting.remove(key);
        }
    }

    /// The outside has answered, or has not.
    pub fn outside_answered(&mut self, key: Key) {
        let Some(pending) = self.connecting.pending.get_mut(key) else { return };
        if pending.is_answered {
            return;
        }
        match sockopt::socket_error(&pending.outside) {
            Ok(Ok(())) if rustix::net::getpeername(&pending.outside).is_ok() => {
                pending.is_answered = true;
                self.connecting.answered.push_back((Instant::now(), key));
                self.put_back(key);
            }
            // The kernel tells of a new socket before anything happened to it.
            Ok(Ok(())) => {}
            Ok(Err(error)) | Err(error) => {
                if let Some(pending) = self.connecting.remove(key) {
                    self.refuse(&pending.syn, &error.into());
                }
            }
        }
    }

    fn put_back(&mut self, key: Key) {
        if let Some(pending) = self.connecting.pending.get_mut(key) {
            // Where there is no room now the container asks again.
            let _ = rustix::net::send(&self.made.back, &pending.syn.frame_from(BACK), SendFlags::DONTWAIT);
        }
    }

    fn refuse(&self, syn: &Syn, error: &std::io::Error) {
        let packet = match Unreachable::of(error) {
            Some(Unreachable::Port) => Some(syn.refusal()),
            Some(why) => unreachable(syn.packet(), why),
            // Above all a time-out, and too few descriptors: nothing is what was heard from there.
            None => None,
        };
        if let Some(packet) = packet {
            self.send_packet(&packet, syn.source.ip());
        }
    }

    /// Accepts what was put back, and joins it to its other half.
    pub fn accept_inside(&mut self, n: usize) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        for _ in 0..256 {
            let Some(listener) = self.made.listeners.get(n) else { return };
            let Ok((inside, source)) = rustix::net::acceptfrom_with(listener, flags) else { return };
            let pair = source
                .and_then(|source| SocketAddr::try_from(source).ok())
                .zip(rustix::net::getsockname(&inside).ok().and_then(|name| SocketAddr::try_from(name).ok()));
            let pending = pair.and_then(|(source, target)| {
                let key = self.connecting.by_pair.get(&(plain(source), plain(target))).copied()?;
                self.connecting.remove(key)
            });
            match pending {
                Some(pending) => self.join(inside, pending.outside),
                None => reset_on_close(&inside),
            }
        }
    }

    /// From now on what one says is told to the other. Both are known to epoll or not, as it comes.
    pub fn join(&mut self, inside: OwnedFd, outside: OwnedFd) {
        let relay = Relay::new(inside, outside);
        let key = self.relays.next_key();
        let word = (Kind::Relay, key);
        for end in relay.ends() {
            let waits = self.poll.change(end, word, both_ways());
            if waits.or_else(|_| self.poll.add(end.as_fd(), word, both_ways())).is_err() {
                return relay.reset();
            }
        }
        self.relays.insert(relay);
    }
}

/// Without what only makes two addresses of IPv6 look different.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}
