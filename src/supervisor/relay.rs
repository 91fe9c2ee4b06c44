//! Bytes from one descriptor to another and into the log, in the supervisor's poll loop. Never blocks: it reads only when
//! what it read before is gone, and writes only when poll(2) says there is room, in pieces that a pipe takes whole.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;

use super::guests::Guests;
use super::log::{Stream, Writer};

/// POLLOUT on a pipe promises room for PIPE_BUF bytes; a blocking descriptor (it is the user's) takes that much at once.
const PIECE: usize = 4096;
const BUFFER: usize = 32 * 1024;

/// Who hears what a container says, besides the command that it is in the foreground of. None of them keeps it waiting.
#[derive(Debug)]
pub struct Audience<'a> {
    /// The log, if there is one.
    pub log: Option<&'a mut Writer>,
    /// Those who are attached.
    pub guests: &'a mut Guests,
}

/// One direction.
#[derive(Debug)]
pub struct Relay {
    from: OwnedFd,
    to: Option<OwnedFd>,
    heard: Option<Stream>,
    pending: Vec<u8>,
    done: usize,
    ended: bool,
    input: bool,
    terminal: bool,
}

impl Relay {
    /// From `from` to `to` (nowhere if `None`), heard by all as `heard`.
    pub fn new(from: OwnedFd, to: Option<OwnedFd>, heard: Option<Stream>) -> Relay {
        Relay { from, to, heard, pending: Vec::new(), done: 0, ended: false, input: false, terminal: false }
    }

    /// Marks it as the output of a terminal, which goes on when its reader is gone.
    pub fn of_terminal(mut self) -> Relay {
        self.terminal = true;
        self
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

    /// The command is gone, and the container stays: what comes out is for the others, and nothing more goes in.
    pub fn let_go(&mut self) {
        self.to = None;
        self.pending.clear();
        self.done = 0;
        self.ended |= self.input;
    }

    /// Goes one step, when poll(2) said that the step will not block.
    pub fn step(&mut self, audience: &mut Audience<'_>) {
        if self.pending.is_empty() {
            return self.fill(audience);
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
                self.ended |= self.heard.is_none() || (audience.log.is_none() && !self.terminal);
                self.done = self.pending.len();
            }
        }
        if self.done == self.pending.len() {
            self.pending.clear();
            self.done = 0;
        }
    }

    fn fill(&mut self, audience: &mut Audience<'_>) {
        let mut buffer = [0; BUFFER];
        match rustix::io::read(&self.from, &mut buffer) {
            Ok(0) => self.ended = true,
            Ok(n) => {
                if let Some(stream) = self.heard {
                    if let Some(log) = &mut audience.log {
                        log.write(stream, &buffer[..n]);
                    }
                    audience.guests.show(stream, &buffer[..n]);
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

/// The container's input as those type it who are attached: its stdin, or its terminal. Holds at most what one of them
/// said at once; they are heard again when that is taken.
#[derive(Debug)]
pub struct Input {
    /// Never blocks.
    to: Option<OwnedFd>,
    pending: Vec<u8>,
    is_terminal: bool,
    ends: bool,
}

impl Input {
    /// The writing end of the container's stdin, or its terminal.
    pub fn new(to: OwnedFd, is_terminal: bool) -> rustix::io::Result<Input> {
        set_nonblocking(&to)?;
        Ok(Input { to: Some(to), pending: Vec::new(), is_terminal, ends: false })
    }

    /// Whether more can be typed.
    pub fn has_room(&self) -> bool {
        self.pending.is_empty()
    }

    /// Takes what was typed; nothing: the input ends.
    pub fn type_in(&mut self, bytes: &[u8]) {
        match (bytes, self.is_terminal) {
            // Ctrl-D (VEOF, termios(3)): the terminal stays.
            ([], true) => self.pending.push(4),
            ([], false) => self.ends = true,
            _ => self.pending.extend_from_slice(bytes),
        }
        self.step();
    }

    /// What to wait for.
    pub fn interest(&self) -> Option<BorrowedFd<'_>> {
        self.to.as_ref().filter(|_| !self.pending.is_empty()).map(AsFd::as_fd)
    }

    /// Passes on what there is room for.
    pub fn step(&mut self) {
        while let Some(to) = &self.to
            && !self.pending.is_empty()
        {
            match rustix::io::write(to, &self.pending) {
                Ok(n) => drop(self.pending.drain(..n)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // The program has closed its stdin.
                Err(_) => self.to = None,
            }
        }
        if self.to.is_none() {
            self.pending.clear();
        } else if self.ends {
            self.to = None;
        }
    }
}

/// Writing to it returns at once, also where there is no room for all.
pub fn set_nonblocking(fd: &OwnedFd) -> rustix::io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)
}
