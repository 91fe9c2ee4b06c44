//! Connections that the kernel cannot lead to the container by itself, passed on by hand: bytes go from socket to socket
//! through pipes (splice(2)), and are not looked at. The container sees them come from its gateway.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, sockopt};
use rustix::pipe::{PipeFlags, SpliceFlags};

/// So much is moved at once, which is what a pipe holds.
const PIECE: usize = 64 * 1024;
/// So often before others have their turn.
const ROUNDS: usize = 16;
/// Passages of connections have tokens from here on, two each.
const FIRST: u64 = 1 << 20;
/// More are not taken on.
const MAX_PASSAGES: usize = 512;

/// One direction of a connection.
#[derive(Debug)]
struct Flow {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
    has_ended: bool,
    is_over: bool,
}

#[derive(Debug)]
struct Passage {
    ends: [OwnedFd; 2],
    /// From the first end to the second, and back.
    flows: [Flow; 2],
    number: u64,
}

/// All connections that are passed on.
#[derive(Debug, Default)]
pub struct Passages {
    all: Vec<Passage>,
    next: u64,
}

fn flow() -> Result<Flow, Errno> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    Ok(Flow { read, write, held: 0, has_ended: false, is_over: false })
}

fn connect(target: SocketAddr, kind: SocketType) -> Result<OwnedFd, Errno> {
    let family = if target.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    match rustix::net::connect(&socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// Closes a connection so that its other end sees a reset.
fn reset(socket: &OwnedFd) {
    let _ = sockopt::set_socket_linger(socket, Some(std::time::Duration::ZERO));
}

impl Passages {
    /// Passes a connection on; one that cannot be is reset.
    pub fn begin(&mut self, epoll: &OwnedFd, client: OwnedFd, target: SocketAddr) {
        let made = || -> Result<Passage, Errno> {
            let server = connect(target, SocketType::STREAM)?;
            let flows = [flow()?, flow()?];
            Ok(Passage {
                ends: [client.try_clone().map_err(|_| Errno::MFILE)?, server],
                flows,
                number: FIRST + self.next * 2,
            })
        };
        let passage = match made() {
            Ok(passage) if self.all.len() < MAX_PASSAGES => passage,
            _ => return reset(&client),
        };
        drop(client);
        self.next = (self.next + 1) % FIRST;
        for (n, end) in passage.ends.iter().enumerate() {
            let _ = sockopt::set_tcp_nodelay(end, true);
            let data = EventData::new_u64(passage.number + n as u64);
            let _ = epoll::add(epoll, end, data, passage.interest(n));
        }
        self.all.push(passage);
    }

    /// Something can be done at one of its ends.
    pub fn step(&mut self, epoll: &OwnedFd, token: u64) {
        let Some(at) = self.all.iter().position(|passage| passage.number == token & !1) else { return };
        let passage = &mut self.all[at];
        let done = passage.flow(0).and_then(|()| passage.flow(1));
        if done.is_err() {
            passage.ends.iter().for_each(reset);
        }
        if done.is_err() || passage.flows.iter().all(|flow| flow.is_over) {
            self.all.swap_remove(at);
            return;
        }
        for (n, end) in passage.ends.iter().enumerate() {
            let data = EventData::new_u64(passage.number + n as u64);
            let _ = epoll::modify(epoll, end, data, passage.interest(n));
        }
    }
}

impl Passage {
    /// What to wait for at this end: room for what is held for it, or more from it.
    fn interest(&self, n: usize) -> EventFlags {
        let (from, to) = (&self.flows[n], &self.flows[1 - n]);
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, from.held == 0 && !from.has_ended);
        flags.set(EventFlags::OUT, to.held > 0);
        // That it is over is told unasked, and again and again but for this.
        flags.set(EventFlags::ET, flags.is_empty());
        flags
    }

    /// Moves what there is from end `n` to the other.
    fn flow(&mut self, n: usize) -> Result<(), Errno> {
        let (from, to) = (&self.ends[n], &self.ends[1 - n]);
        let flow = &mut self.flows[n];
        for _ in 0..ROUNDS {
            if flow.is_over {
                return Ok(());
            }
            if flow.held == 0 && !flow.has_ended {
                match splice(from, &flow.write) {
                    Ok(0) => flow.has_ended = true,
                    Ok(n) => flow.held = n,
                    Err(Errno::AGAIN) => return Ok(()),
                    // It is still being connected.
                    Err(Errno::NOTCONN) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            while flow.held > 0 {
                match splice(&flow.read, to) {
                    Ok(n) => flow.held = flow.held.saturating_sub(n.max(1)),
                    Err(Errno::AGAIN | Errno::NOTCONN) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            if flow.has_ended {
                flow.is_over = true;
                match rustix::net::shutdown(to, Shutdown::Write) {
                    Ok(()) | Err(Errno::NOTCONN) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

fn splice(from: impl AsFd, to: impl AsFd) -> Result<usize, Errno> {
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    rustix::io::retry_on_intr(|| rustix::pipe::splice(from.as_fd(), None, to.as_fd(), None, PIECE, flags))
}

/// Who sends datagrams to a port, each with a socket of its own by which the answers come back. The one that was silent for
/// longest goes when there are too many.
#[derive(Debug, Default)]
pub struct Datagrams {
    all: Vec<(SocketAddr, OwnedFd, u64)>,
    next: u64,
}

const MAX_CLIENTS: usize = 128;

impl Datagrams {
    /// Their tokens begin here.
    pub const FIRST: u64 = 1 << 40;

    /// Which door a token belongs to.
    pub fn door_of(token: u64) -> usize {
        ((token - Datagrams::FIRST) >> 20) as usize
    }

    /// Passes on what came to the door `n`; whether anything came.
    pub fn pass_on(&mut self, epoll: &OwnedFd, door: &OwnedFd, target: Option<SocketAddr>, n: usize) -> bool {
        let mut bytes = vec![0; 65536];
        let mut came = false;
        for _ in 0..ROUNDS {
            let Ok((length, _, Some(from))) =
                rustix::net::recvfrom(door, &mut bytes[..], RecvFlags::DONTWAIT)
            else {
                return came;
            };
            came = true;
            let (Ok(from), Some(target)) = (SocketAddr::try_from(from), target) else { continue };
            let known = self.all.iter().position(|(client, ..)| *client == from);
            if let Some(at) = known {
                // At the end are those who spoke last.
                let client = self.all.remove(at);
                self.all.push(client);
            } else {
                let Ok(socket) = connect(target, SocketType::DGRAM) else { continue };
                let token = Datagrams::FIRST + ((n as u64) << 20) + self.next;
                self.next = (self.next + 1) % (1 << 20);
                let _ = epoll::add(epoll, &socket, EventData::new_u64(token), EventFlags::IN);
                if self.all.len() >= MAX_CLIENTS {
                    self.all.remove(0);
                }
                self.all.push((from, socket, token));
            }
            if let Some((_, socket, _)) = self.all.last() {
                let _ = rustix::net::send(socket, &bytes[..length], SendFlags::DONTWAIT);
            }
        }
        came
    }

    /// Passes answers back.
    pub fn answer(&mut self, door: &OwnedFd, token: u64) {
        let Some((client, socket, _)) = self.all.iter().find(|(.., t)| *t == token) else { return };
        let mut bytes = vec![0; 65536];
        for _ in 0..ROUNDS {
            match rustix::net::recv(socket, &mut bytes[..], RecvFlags::DONTWAIT) {
                Ok((_, length)) => {
                    let _ = rustix::net::sendto(door, &bytes[..length], SendFlags::DONTWAIT, client);
                }
                // A refusal is read like anything else, and then there may be more.
                Err(Errno::CONNREFUSED) => {}
                Err(_) => return,
            }
        }
    }
}
