//! One connection: two sockets, and what one says told to the other, without its ever being in our memory (splice(2)).
//!
//! Half-closed is passed on as half-closed, a reset as a reset. A pipe is only had while something is on its way, so that
//! a connection that says nothing is two descriptors and no more.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

/// A pipe and how much it holds at most.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// Empty pipes.
#[derive(Debug, Default)]
pub struct Pipes(Vec<Pipe>);

/// So many are kept.
const KEPT: usize = 16;
/// What a pipe is to hold. A user's pipes hold no more than 64 MiB together (fs.pipe-user-pages-soft): the kernel makes
/// smaller ones then.
const ROOM: usize = 512 << 10;
/// So much is passed on before others have their turn.
const TURN: usize = 4 << 20;

impl Pipes {
    fn take(&mut self) -> io::Result<Pipe> {
        if let Some(pipe) = self.0.pop() {
            return Ok(pipe);
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let _ = rustix::pipe::fcntl_setpipe_size(&write, ROOM);
        Ok(Pipe { read, write })
    }

    fn give_back(&mut self, pipe: Pipe) {
        if self.0.len() < KEPT {
            self.0.push(pipe);
        }
    }

    /// Nobody says anything any more: what was kept for speed goes.
    pub fn clear(&mut self) {
        self.0 = Vec::new();
    }
}

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
    /// Joins two sockets, neither of which waits.
    pub fn new(a: OwnedFd, b: OwnedFd) -> Relay {
        for end in [&a, &b] {
            // What one says is told at once; who vanishes without a word is missed in the end.
            let _ = rustix::net::sockopt::set_tcp_nodelay(end, true);
            let _ = rustix::net::sockopt::set_socket_keepalive(end, true);
        }
        Relay { ends: [a, b], ways: [Way::default(), Way::default()] }
    }

    /// Both ends.
    pub fn ends(&self) -> &[OwnedFd; 2] {
        &self.ends
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
    fn pass(&mut self, from: &OwnedFd, to: &OwnedFd, pipes: &mut Pipes) -> io::Result<bool> {
        let mut passed = 0;
        while !self.told {
            let pipe = match &self.pipe {
                Some(pipe) => pipe,
                None => self.pipe.insert(pipes.take()?),
            };
            let mut moved = 0;
            if !self.ended {
                match moves(from, &pipe.write, ROOM)? {
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
            if self.ended && self.held == 0 {
                // It may have gone away meanwhile, which its own way will tell.
                let _ = shutdown(to, Shutdown::Write);
                self.told = true;
            } else if moved == 0 {
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
            pipes.give_back(pipe);
        }
        Ok(false)
    }
}

/// Lets the socket end with a reset when it is closed (SO_LINGER with no time).
pub fn reset_on_close(socket: impl AsFd) {
    let _ = rustix::net::sockopt::set_socket_linger(socket, Some(std::time::Duration::ZERO));
}

/// `None`: there is nothing to be had, or no room for it.
fn moves(from: impl AsFd, to: impl AsFd, most: usize) -> io::Result<Option<usize>> {
    match splice(from, None, to, None, most, SpliceFlags::MOVE | SpliceFlags::NONBLOCK) {
        Ok(count) => Ok(Some(count)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
