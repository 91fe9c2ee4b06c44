//! A container's own connection to us: queries and replies by TCP, as many as come (RFC 7766), none waiting for another.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::MAX_QUERY;
use super::upstream_stream::whole_message;

/// Who says nothing for so long is left.
const IDLE: Duration = Duration::from_secs(10);

/// With so many bytes that the other side does not take, nothing more is read from it.
const MAX_UNREAD: usize = 64 * 1024;

/// A connection. Never waits.
#[derive(Debug)]
pub struct AskerStream {
    /// Tells it from others.
    pub number: u64,
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    n_awaited: usize,
    is_over: bool,
    until: Instant,
}

impl AskerStream {
    /// For a socket that does not block.
    pub fn new(number: u64, stream: TcpStream, now: Instant) -> AskerStream {
        let (input, output) = (Vec::new(), Vec::new());
        AskerStream { number, stream, input, output, n_awaited: 0, is_over: false, until: now + IDLE }
    }

    /// What to wait for.
    pub fn interest(&self) -> (BorrowedFd<'_>, PollFlags) {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.output.len() < MAX_UNREAD && !self.is_over);
        flags.set(PollFlags::OUT, !self.output.is_empty());
        (self.stream.as_fd(), flags)
    }

    /// When it is left.
    pub fn until(&self) -> Instant {
        self.until
    }

    /// Whether nothing more will come of it.
    pub fn is_gone(&self, now: Instant) -> bool {
        self.until <= now || (self.is_over && self.n_awaited == 0 && self.output.is_empty())
    }

    /// Reads what is there; the whole queries among it. Each is to be answered by [`AskerStream::say`].
    pub fn hear(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(0) => self.is_over = true,
            Ok(n) => {
                self.until = now + IDLE;
                self.input.extend_from_slice(&bytes[..n]);
            }
            Err(e) if is_passing(&e) => {}
            Err(_) => self.end(now),
        }
        let mut queries = Vec::new();
        while let Some(query) = whole_message(&self.input).map(<[u8]>::to_vec) {
            self.input.drain(..2 + query.len());
            self.n_awaited += 1;
            queries.push(query);
        }
        // What is longer than any query is none: the rest of this is not to be told from it.
        if self.input.len() > 2 + MAX_QUERY {
            self.end(now);
        }
        queries
    }

    /// Sends the reply to one query; an empty one is none.
    pub fn say(&mut self, reply: &[u8], now: Instant) {
        self.n_awaited = self.n_awaited.saturating_sub(1);
        if let Ok(length @ 1..) = u16::try_from(reply.len()) {
            self.output.extend_from_slice(&length.to_be_bytes());
            self.output.extend_from_slice(reply);
            self.until = now + IDLE;
        }
        self.flush(now);
    }

    /// Sends what can be sent.
    pub fn flush(&mut self, now: Instant) {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(n) if n > 0 => drop(self.output.drain(..n)),
                Err(e) if is_passing(&e) => return,
                _ => return self.end(now),
            }
        }
    }

    fn end(&mut self, now: Instant) {
        self.until = now;
        self.is_over = true;
        self.output.clear();
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
