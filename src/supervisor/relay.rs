//! Bytes from one descriptor to another and into the log, in the supervisor's poll loop. Never blocks: it reads only when
//! what it read before is gone, and writes only when poll(2) says there is room, in pieces that a pipe takes whole.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;

use super::log::{Stream, Writer};

/// POLLOUT on a pipe promises room for PIPE_BUF bytes; a blocking descriptor (it is the user's) takes that much at once.
const PIECE: usize = 4096;
const BUFFER: usize = 32 * 1024;

/// One direction.
#[derive(Debug)]
pub struct Relay {
    from: OwnedFd,
    to: Option<OwnedFd>,
    log: Option<Stream>,
    pending: Vec<u8>,
    done: usize,
    ended: bool,
    input: bool,
}

impl Relay {
    /// From `from` to `to` (nowhere if `None`), logged as `log`.
    pub fn new(from: OwnedFd, to: Option<OwnedFd>, log: Option<Stream>) -> Relay {
        Relay { from, to, log, pending: Vec::new(), done: 0, ended: false, input: false }
    }

    /// Marks it as the container's input: of no use once the container ended.
    pub fn for_input(mut self) -> Relay {
        self.input = true;
        self
    }

    /// Whether it feeds the container.
    pub fn is_input(&self) -> bool {
        self.input
    }

    /// Whether nothing more will come.
    pub fn is_over(&self) -> bool {
        self.ended && self.pending.is_empty()
    }

    /// What to wait for.
    pub fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match (&self.to, self.pending.is_empty(), self.ended) {
            (Some(to), false, _) => Some((to.as_fd(), PollFlags::OUT)),
            (_, true, false) => Some((self.from.as_fd(), PollFlags::IN)),
            _ => None,
        }
    }

    /// Goes one step, when poll(2) said that the step will not block.
    pub fn step(&mut self, log: Option<&mut Writer>) {
        if self.pending.is_empty() {
            return self.fill(log);
        }
        let Some(to) = &self.to else {
            self.pending.clear();
            return;
        };
        let end = self.pending.len().min(self.done + PIECE);
        match rustix::io::write(to, &self.pending[self.done..end]) {
            Ok(n) => self.done += n,
            Err(Errno::AGAIN | Errno::INTR) => {}
            // The reader is gone: the writer is to notice, as it would in a pipe line, unless there is a log to keep.
            Err(_) => {
                self.to = None;
                self.ended |= self.log.is_none();
                self.done = self.pending.len();
            }
        }
        if self.done == self.pending.len() {
            self.pending.clear();
            self.done = 0;
        }
    }

    fn fill(&mut self, log: Option<&mut Writer>) {
        let mut buffer = [0; BUFFER];
        match rustix::io::read(&self.from, &mut buffer) {
            Ok(0) => self.ended = true,
            Ok(n) => {
                if let (Some(stream), Some(log)) = (self.log, log) {
                    log.write(stream, &buffer[..n]);
                }
                if self.to.is_some() {
                    self.pending.extend_from_slice(&buffer[..n]);
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            // A pty's master says EIO when the last program on it is gone (pty(7)).
            Err(_) => self.ended = true,
        }
    }
}
