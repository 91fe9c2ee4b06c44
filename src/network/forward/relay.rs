//! One connection: two sockets, and what one says told to the other, without its ever being in our memory (splice(2)).
//!
//! Half-closed is passed on as half-closed, a reset as a reset, an urgent byte as an urgent byte: splice(2) never goes past
//! one, so that it is read by itself. A pipe is only had while something is on its way, so that a connection that says
//! nothing is two descriptors and no more; where there is no pipe to be had, what one says is looked at, sent, and only then
//! taken, so that nothing is ever ours to keep.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown, sockopt};
use rustix::pipe::{SpliceFlags, splice};

use super::pipes::{Pipe, Pipes, ROOM};
use crate::sys::inet::is_at_mark;

/// So much is passed on before others have their turn.
const TURN: usize = 4 << 20;
/// Without a pipe, so much at once.
const PIECE: usize = 32 << 10;
/// When one who says nothing is asked whether it is still there, and how often: often enough that what lies between (a
/// router that forgets) does not take the connection for over; a container cannot ask for it itself, since it is we who
/// would answer.
const KEEP_IDLE: Duration = Duration::from_secs(120);
const KEEP_INTERVAL: Duration = Duration::from_secs(30);

/// One direction.
#[derive(Debug, Default)]
struct Way {
    pipe: Option<Pipe>,
    /// Bytes in the pipe.
    held: usize,
    /// The source said its last.
    ended: bool,
    /// And the sink has heard it.
    told: bool,
    /// The source has said something urgent at some time.
    has_marks: bool,
    /// An urgent byte that the sink has no room for.
    urgent: Option<u8>,
}

/// See the module.
#[derive(Debug)]
pub struct Relay {
    ends: [OwnedFd; 2],
    ways: [Way; 2],
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// To be called again when something changes.
    Waits,
    /// To be called again when others had their turn.
    GoesOn,
    /// It ended, one way or the other.
    Over,
}

impl Relay {
    /// Joins two sockets that are [`prepared`].
    pub fn new(a: OwnedFd, b: OwnedFd) -> Relay {
        Relay { ends: [a, b], ways: [Way::default(), Way::default()] }
    }

    /// Both ends.
    pub fn ends(&self) -> &[OwnedFd; 2] {
        &self.ends
    }

    /// One end has something urgent to say.
    pub fn mark(&mut self) {
        self.ways.iter_mut().for_each(|way| way.has_marks = true);
    }

    /// Gives back what was had for what was on its way.
    pub fn end(self, pipes: &mut Pipes) {
        for way in self.ways {
            way.pipe.into_iter().for_each(|pipe| pipes.give_back(pipe, way.held == 0));
        }
    }

    /// Passes on what there is. `failed`: one end was reset.
    pub fn step(&mut self, pipes: &mut Pipes, failed: bool) -> Step {
        let passed = if failed { Err(Errno::CONNRESET.into()) } else { self.pass(pipes) };
        match passed {
            Ok(true) => Step::GoesOn,
            Ok(false) if self.ways.iter().all(|way| way.told) => Step::Over,
            Ok(false) => Step::Waits,
            Err(_) => {
                self.reset();
                Step::Over
            }
        }
    }

    /// Lets both sides see a reset when this is dropped.
    pub fn reset(&self) {
        for end in &self.ends {
            reset_on_close(end);
        }
    }

    /// True if there is more.
    fn pass(&mut self, pipes: &mut Pipes) -> io::Result<bool> {
        let mut goes_on = false;
        for (n, way) in self.ways.iter_mut().enumerate() {
            goes_on |= way.pass(&self.ends[n], &self.ends[1 - n], pipes)?;
        }
        Ok(goes_on)
    }
}

impl Way {
    /// True if there is more.
    fn pass(&mut self, from: &OwnedFd, to: &OwnedFd, pipes: &mut Pipes) -> io::Result<bool> {
        let mut passed = 0;
        while !self.told {
            if let Some(byte) = self.urgent {
                match again(send(to, &[byte], SendFlags::OOB | SendFlags::DONTWAIT | SendFlags::NOSIGNAL))? {
                    Some(_) => self.urgent = None,
                    None => break,
                }
            }
            let moved = match self.pipe.take().or_else(|| pipes.take()) {
                Some(pipe) => {
                    let moved = self.splice(from, to, &pipe);
                    self.pipe = Some(pipe);
                    moved?
                }
                None => self.copy(from, to)?,
            };
            if self.ended && self.held == 0 {
                // It may have gone away meanwhile, which its own way will tell.
                let _ = shutdown(to, Shutdown::Write);
                self.told = true;
            } else if moved == 0 {
                if self.has_marks && self.held == 0 && self.take_urgent(from)? {
                    continue;
                }
                break;
            }
            passed += moved;
            if passed > TURN {
                return Ok(true);
            }
        }
        if self.held == 0
            && let Some(pipe) = self.pipe.take()
        {
            pipes.give_back(pipe, true);
        }
        Ok(false)
    }

    fn splice(&mut self, from: &OwnedFd, to: &OwnedFd, pipe: &Pipe) -> io::Result<usize> {
        let mut moved = 0;
        if !self.ended {
            match moves(from, &pipe.write, ROOM)? {
                // An urgent byte stops it as an end does, if the end is known already.
                Some(0) if is_at_mark(from)? => self.has_marks = true,
                Some(0) => self.ended = true,
                Some(count) => {
                    self.held += count;
                    moved += count;
                }
                None => {}
            }
        }
        if self.held > 0
            && let Some(count) = moves(&pipe.read, to, self.held)?
        {
            self.held -= count;
            moved += count;
        }
        Ok(moved)
    }

    /// The same without a pipe.
    fn copy(&mut self, from: &OwnedFd, to: &OwnedFd) -> io::Result<usize> {
        if self.ended || self.has_marks && is_at_mark(from)? {
            return Ok(0);
        }
        let mut bytes = [0; PIECE];
        let Some((count, _)) = again(recv(from, &mut bytes, RecvFlags::PEEK | RecvFlags::DONTWAIT))? else {
            return Ok(0);
        };
        if count == 0 {
            self.ended = true;
            return Ok(0);
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let Some(sent) = again(send(to, &bytes[..count], flags))? else { return Ok(0) };
        // What was sent is there: this takes all of it.
        recv(from, &mut bytes[..sent], RecvFlags::DONTWAIT)?;
        Ok(sent)
    }

    /// Takes an urgent byte, if it is what comes next.
    fn take_urgent(&mut self, from: &OwnedFd) -> io::Result<bool> {
        let mut byte = [0];
        // By itself: it is in its place among the others (SO_OOBINLINE).
        if is_at_mark(from)? && matches!(again(recv(from, &mut byte, RecvFlags::DONTWAIT))?, Some((1, _))) {
            self.urgent = Some(byte[0]);
        }
        Ok(self.urgent.is_some())
    }
}

/// Makes a socket ready to be one end, or a listening one for all that it accepts.
pub fn prepared(socket: &OwnedFd) {
    // What one says is told at once; who vanishes without a word is missed in the end.
    let _ = sockopt::set_tcp_nodelay(socket, true);
    let _ = sockopt::set_socket_oobinline(socket, true);
    let _ = sockopt::set_socket_keepalive(socket, true);
    let _ = sockopt::set_tcp_keepidle(socket, KEEP_IDLE);
    let _ = sockopt::set_tcp_keepintvl(socket, KEEP_INTERVAL);
}

/// Lets the socket end with a reset when it is closed (SO_LINGER with no time).
pub fn reset_on_close(socket: impl AsFd) {
    let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

/// `None`: there is nothing to be had, or no room for it.
fn moves(from: impl AsFd, to: impl AsFd, most: usize) -> io::Result<Option<usize>> {
    again(splice(from, None, to, None, most, SpliceFlags::MOVE | SpliceFlags::NONBLOCK))
}

fn again<T>(done: rustix::io::Result<T>) -> io::Result<Option<T>> {
    match done {
        Ok(value) => Ok(Some(value)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
