//! Queries that are put to the machine's resolvers, with the asker's own bytes: EDNS and all else goes there and back as it
//! is. Only the id is ours, and each attempt has a socket of its own: who would forge a reply must guess both it and the port.
//!
//! Nothing here waits: [`Forwarder::interest`] says what to wait for, and until when.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::message::{self, Code};
use super::upstream_stream::UpstreamStream;

/// So many queries are under way at once; further ones are told to try again.
const MAX_PENDING: usize = 128;

/// So long after one server was asked, the next one is asked as well.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Replies that a server says to be failures, and another one might not (RFC 1035, 4.1.1): server failure, not implemented,
/// refused.
const FAILURES: [u8; 3] = [2, 4, 5];

/// Who waits for a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// A datagram came from here.
    Datagram(SocketAddr),
    /// The connection of this number.
    Stream(u64),
}

/// How the servers are to be asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub servers: Vec<SocketAddr>,
    /// So long, after the last one was asked.
    pub timeout: Duration,
    /// So often.
    pub attempts: u32,
}

/// Makes a socket that is connected, or connecting, to a server; whether by TCP.
pub type Open<'a> = &'a mut dyn FnMut(SocketAddr, bool) -> io::Result<Socket>;

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    /// Of datagrams.
    Datagram(UdpSocket),
    /// A connection that may still be under way.
    Stream(std::net::TcpStream),
}

/// The queries that are under way.
#[derive(Debug, Default)]
pub struct Forwarder {
    pending: Vec<Pending>,
}

#[derive(Debug)]
struct Pending {
    asker: Asker,
    /// The asker's id for it.
    id: [u8; 2],
    /// The query with our id.
    query: Vec<u8>,
    /// What is still to be tried: the server, and whether by TCP.
    tries: VecDeque<(SocketAddr, bool)>,
    open: Vec<(SocketAddr, Attempt)>,
    /// When the next one is tried, or, with none left, it is given up.
    due: Instant,
    timeout: Duration,
    /// The best that was said so far.
    failure: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Attempt {
    Datagram(UdpSocket),
    Stream(UpstreamStream),
}

/// A reply, and whom it goes to.
pub type Due = (Asker, Vec<u8>);

impl Forwarder {
    /// Puts a query to the servers of `plan`. What is returned is to be said at once.
    pub fn ask(&mut self, asker: Asker, query: &[u8], plan: &Plan, open: Open<'_>, now: Instant) -> Vec<Due> {
        let refused = || vec![(asker, message::refusal(query, Code::ServerFailure))];
        let Some(&[high, low]) = query.get(..2) else { return Vec::new() };
        // Who has waited too long asks again, with the same id: the first time still counts.
        if self.pending.iter().any(|p| p.asker == asker && p.id == [high, low] && p.query[2..] == query[2..])
        {
            return Vec::new();
        }
        let mut own_id = [0; 2];
        if self.pending.len() >= MAX_PENDING
            || rustix::rand::getrandom(&mut own_id, rustix::rand::GetRandomFlags::empty()).is_err()
        {
            return refused();
        }
        let mut query = query.to_vec();
        query[..2].copy_from_slice(&own_id);
        let mut pending = Pending {
            asker,
            id: [high, low],
            query,
            tries: tries(plan, matches!(asker, Asker::Stream(_))),
            open: Vec::new(),
            due: now,
            timeout: plan.timeout,
            failure: None,
        };
        pending.try_next(open, now);
        self.pending.push(pending);
        self.take_finished()
    }

    /// What to wait for, in the order in which [`Forwarder::step`] wants to hear of it.
    pub fn interest(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        self.pending.iter().flat_map(|pending| &pending.open).map(|(_, attempt)| match attempt {
            Attempt::Datagram(socket) => (socket.as_fd(), PollFlags::IN),
            Attempt::Stream(stream) => stream.interest(),
        })
    }

    /// When the next step is due, whatever comes.
    pub fn due(&self) -> Option<Instant> {
        self.pending.iter().map(|pending| pending.due).min()
    }

    /// Goes on with what poll(2) found, and with what is due. Returns what is to be said.
    pub fn step(&mut self, ready: &[PollFlags], open: Open<'_>, now: Instant) -> Vec<Due> {
        let mut ready = ready.iter();
        for pending in &mut self.pending {
            let n = pending.open.len();
            let woken: Vec<bool> = ready.by_ref().take(n).map(|flags| !flags.is_empty()).collect();
            pending.hear(&woken, now);
            if pending.due <= now {
                pending.try_next(open, now);
            }
        }
        self.take_finished()
    }

    fn take_finished(&mut self) -> Vec<Due> {
        let mut due = Vec::new();
        self.pending.retain_mut(|pending| {
            let Some(reply) = pending.finished() else { return true };
            due.push((pending.asker, reply));
            false
        });
        due
    }

    /// Forgets what nobody waits for any more.
    pub fn forget(&mut self, asker: Asker) {
        self.pending.retain(|pending| pending.asker != asker);
    }
}

/// In which order the servers are tried. Who came by TCP wants what does not fit into a datagram; a server that cannot be
/// reached so is asked by datagrams in the end.
fn tries(plan: &Plan, by_stream: bool) -> VecDeque<(SocketAddr, bool)> {
    let once = |by_stream| plan.servers.iter().map(move |server| (*server, by_stream));
    let mut tries: VecDeque<_> = once(by_stream).collect();
    for _ in 1..plan.attempts.max(1) {
        tries.extend(once(false));
    }
    tries
}

impl Pending {
    /// Asks the next server there is that can be asked.
    fn try_next(&mut self, open: Open<'_>, now: Instant) {
        while let Some((server, by_stream)) = self.tries.pop_front() {
            let attempt = match open(server, by_stream) {
                Ok(Socket::Datagram(socket)) => match socket.send(&self.query) {
                    Ok(_) => Attempt::Datagram(socket),
                    Err(_) => continue,
                },
                Ok(Socket::Stream(stream)) => Attempt::Stream(UpstreamStream::new(stream, &self.query)),
                Err(_) => continue,
            };
            self.open.push((server, attempt));
            self.due = now + if self.tries.is_empty() { self.timeout } else { PATIENCE.min(self.timeout) };
            return;
        }
        // Nothing left to try: those who were asked last have had their time.
        self.open.clear();
    }

    /// Reads what came.
    fn hear(&mut self, woken: &[bool], now: Instant) {
        let mut answered = None;
        let mut failed = Vec::new();
        let (query, failure) = (&self.query, &mut self.failure);
        let mut woken = woken.iter();
        self.open.retain_mut(|(server, attempt)| {
            if answered.is_some() || !woken.next().copied().unwrap_or(false) {
                return true;
            }
            match attempt.read(query) {
                Ok(None) => return true,
                Ok(Some(reply)) if FAILURES.contains(&message::code_of(&reply)) => {
                    // One that answers and cannot need not be asked again.
                    failed.push(*server);
                    *failure = Some(reply);
                }
                Ok(Some(reply)) => answered = Some(reply),
                // Nobody listens there, or the connection broke.
                Err(_) => {}
            }
            false
        });
        self.tries.retain(|(server, _)| !failed.contains(server));
        if let Some(reply) = answered {
            self.failure = Some(reply);
            self.tries.clear();
            self.open.clear();
        } else if self.open.is_empty() {
            self.due = now;
        }
    }

    /// The reply, if there will be no better one.
    fn finished(&mut self) -> Option<Vec<u8>> {
        if !self.open.is_empty() || !self.tries.is_empty() {
            return None;
        }
        let mut reply =
            self.failure.take().unwrap_or_else(|| message::refusal(&self.query, Code::ServerFailure));
        reply[..2].copy_from_slice(&self.id);
        Some(reply)
    }
}

impl Attempt {
    /// The reply to `query` once it is there. An error is the end of this attempt.
    fn read(&mut self, query: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let socket = match self {
            Attempt::Datagram(socket) => socket,
            Attempt::Stream(stream) => {
                let reply = stream.step()?;
                return match reply {
                    Some(reply) if !message::is_reply_to(&reply, query) => {
                        Err(io::ErrorKind::InvalidData.into())
                    }
                    reply => Ok(reply),
                };
            }
        };
        // Who said that it takes longer datagrams gets them.
        let room = message::room(query).max(message::LARGEST_DATAGRAM);
        let mut bytes = vec![0; room + 1];
        loop {
            match socket.recv(&mut bytes) {
                Ok(n) if n <= room && message::is_reply_to(&bytes[..n], query) => {
                    return Ok(Some(bytes[..n].to_vec()));
                }
                // A forgery, or a stray: the right one may yet come.
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}
