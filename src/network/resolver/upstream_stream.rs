//! One query to a server by TCP (RFC 1035, 4.2.2): a length, the query; a length, the reply.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::PollFlags;

/// A connection that takes one query and brings one reply. Never waits.
#[derive(Debug)]
pub struct UpstreamStream {
    stream: TcpStream,
    output: Vec<u8>,
    sent: usize,
    input: Vec<u8>,
}

impl UpstreamStream {
    /// For a socket that does not block, connected or about to be.
    pub fn new(stream: TcpStream, query: &[u8]) -> UpstreamStream {
        // A query that came to us was shorter than this length can say.
        let length = u16::try_from(query.len()).unwrap_or(u16::MAX);
        let output = [&length.to_be_bytes()[..], &query[..usize::from(length)]].concat();
        UpstreamStream { stream, output, sent: 0, input: Vec::new() }
    }

    /// What to wait for.
    pub fn interest(&self) -> (BorrowedFd<'_>, PollFlags) {
        let flags = if self.sent < self.output.len() { PollFlags::OUT } else { PollFlags::IN };
        (self.stream.as_fd(), flags)
    }

    /// Goes on as far as it goes without waiting; the reply once all of it is there.
    pub fn step(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self.exchange() {
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
            other => other,
        }
    }

    fn exchange(&mut self) -> io::Result<Option<Vec<u8>>> {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..])? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => self.sent += n,
            }
        }
        let mut bytes = [0; 4096];
        loop {
            if let Some(reply) = whole_message(&self.input) {
                return Ok(Some(reply.to_vec()));
            }
            match self.stream.read(&mut bytes)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                // A message is no longer than its length can say, and nothing is to follow it.
                n if self.input.len() + n > 2 + usize::from(u16::MAX) => {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                n => self.input.extend_from_slice(&bytes[..n]),
            }
        }
    }
}

/// The message that `bytes` begin with, after its length, if all of it is there.
pub fn whole_message(bytes: &[u8]) -> Option<&[u8]> {
    let length = usize::from(u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]));
    bytes.get(2..2 + length)
}
