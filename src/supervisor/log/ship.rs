//! Messages on their way to another program: a socket that never blocks, and a bounded queue for what it does not take.
//! What finds no room there is counted and told, as a message of its own, as soon as there is room.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use super::Stream;
use super::journald;
use super::syslog;

/// Bytes that wait at most.
const MAX_QUEUE: usize = 1 << 20;
/// How long the first connection may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two attempts to connect again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the end of a run waits for what is still queued.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// UDP.
    Udp(SocketAddr),
    /// TCP.
    Tcp(SocketAddr),
    /// A stream socket.
    Unix(PathBuf),
    /// A datagram socket.
    UnixDatagram(PathBuf),
}

/// What a message looks like.
#[derive(Debug)]
pub enum Form {
    /// RFC 3164 or 5424.
    Syslog(syslog::Form),
    /// systemd's native protocol.
    Journald(journald::Form),
}

impl Form {
    fn message(&self, time: Timestamp, stream: Stream, is_whole: bool, line: &[u8]) -> Vec<u8> {
        match self {
            Form::Syslog(form) => form.message(time, stream, line),
            Form::Journald(form) => form.message(stream, is_whole, line),
        }
    }
}

/// The queue and its socket.
#[derive(Debug)]
pub struct Ship {
    peer: Peer,
    form: Form,
    socket: Option<OwnedFd>,
    /// When to connect again, after a connection was lost.
    next_attempt: Instant,
    queue: VecDeque<Vec<u8>>,
    queued: usize,
    /// Bytes of the first message that a stream has taken already.
    taken: usize,
    lost: u64,
}

impl Ship {
    /// Connects. Waits for that, but not for ever.
    pub fn open(peer: Peer, form: Form) -> Result<Ship> {
        let socket = connect(&peer)?;
        let mut fds = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::OUT)];
        if matches!(peer, Peer::Tcp(_)) {
            let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
            let n = rustix::event::poll(&mut fds, Some(&patience)).context("cannot wait for a connection")?;
            anyhow::ensure!(n > 0, "it does not answer");
            rustix::net::sockopt::socket_error(&socket).context("cannot connect")??;
        }
        let (queue, next_attempt) = (VecDeque::new(), Instant::now());
        Ok(Ship { peer, form, socket: Some(socket), next_attempt, queue, queued: 0, taken: 0, lost: 0 })
    }

    /// Queues a line.
    pub fn push(&mut self, time: Timestamp, stream: Stream, is_whole: bool, line: &[u8]) {
        if self.queued + line.len() > MAX_QUEUE {
            self.flush();
        }
        if self.queued + line.len() > MAX_QUEUE {
            self.lost += 1;
            return;
        }
        self.tell_lost(time);
        self.enqueue(self.form.message(time, stream, is_whole, line));
    }

    fn enqueue(&mut self, message: Vec<u8>) {
        self.queued += message.len();
        self.queue.push_back(message);
    }

    fn tell_lost(&mut self, time: Timestamp) {
        if self.lost > 0 {
            let text = format!("[dhow: {} messages are missing here]", self.lost);
            self.lost = 0;
            self.enqueue(self.form.message(time, Stream::Err, true, text.as_bytes()));
        }
    }

    /// Sends what the socket takes without waiting.
    pub fn flush(&mut self) {
        let mut may_retry = true;
        while let Some(message) = self.queue.front() {
            let Some(socket) = &self.socket else {
                if Instant::now() < self.next_attempt {
                    return;
                }
                match connect(&self.peer) {
                    Ok(socket) => self.socket = Some(socket),
                    Err(_) => {
                        self.next_attempt = Instant::now() + PAUSE;
                        return;
                    }
                }
                continue;
            };
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(socket, &message[self.taken..], flags) {
                Ok(n) if self.is_stream() && self.taken + n < message.len() => self.taken += n,
                // A datagram that is too long is nobody's to send.
                Ok(_) | Err(Errno::MSGSIZE) => {
                    self.queued -= message.len();
                    self.taken = 0;
                    self.queue.pop_front();
                }
                Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => return,
                // What an earlier datagram came to is told to the next one (udp(7)).
                Err(Errno::CONNREFUSED) if may_retry && matches!(self.peer, Peer::Udp(_)) => {
                    may_retry = false
                }
                Err(Errno::CONNREFUSED) if matches!(self.peer, Peer::Udp(_)) => return,
                Err(_) => {
                    self.socket = None;
                    self.taken = 0;
                    self.next_attempt = Instant::now() + PAUSE;
                    return;
                }
            }
        }
    }

    fn is_stream(&self) -> bool {
        matches!(self.peer, Peer::Tcp(_) | Peer::Unix(_))
    }

    /// Waits a moment for the queue to empty.
    pub fn finish(&mut self) {
        let deadline = Instant::now() + LAST_WORDS;
        self.tell_lost(Timestamp::now());
        self.flush();
        while let Some((fd, events)) = self.interest() {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            let mut fds = [PollFd::from_borrowed_fd(fd, events)];
            if !rustix::event::poll(&mut fds, Some(&left)).is_ok_and(|n| n > 0) {
                return;
            }
            self.flush();
        }
    }

    /// What to wait for, if something is queued that the socket did not take.
    pub fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let socket = self.socket.as_ref().filter(|_| !self.queue.is_empty())?;
        Some((socket.as_fd(), PollFlags::OUT))
    }
}

fn connect(peer: &Peer) -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (family, kind) = match peer {
        Peer::Udp(address) => (family(address), SocketType::DGRAM),
        Peer::Tcp(address) => (family(address), SocketType::STREAM),
        Peer::Unix(_) => (AddressFamily::UNIX, SocketType::STREAM),
        Peer::UnixDatagram(_) => (AddressFamily::UNIX, SocketType::DGRAM),
    };
    let socket = rustix::net::socket_with(family, kind, flags, None).context("cannot make a socket")?;
    let connected = match peer {
        Peer::Udp(address) | Peer::Tcp(address) => rustix::net::connect(&socket, address),
        Peer::Unix(path) | Peer::UnixDatagram(path) => {
            let address =
                SocketAddrUnix::new(path).with_context(|| format!("cannot use {}", path.display()))?;
            rustix::net::connect(&socket, &address)
        }
    };
    match connected {
        Err(Errno::INPROGRESS) => Ok(socket),
        other => other.map(|()| socket).context("cannot connect"),
    }
}

fn family(address: &SocketAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}
