//! Netlink (netlink(7)): messages put together in one buffer, sent by one call, and the answers to them.
//!
//! The kernel works a batch off before sendmsg(2) returns, so every answer is there to be read without waiting. Only the
//! last message asks for an acknowledgement; others answer if they fail.
//!
//! Written by hand because a batch of links, addresses, rules and elements is nothing but attributes in one buffer: the
//! crates for it bring a type for each attribute, still leave nf_tables' expressions to be spelled as bytes, and are larger
//! than all that is said with them here.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Which part of the kernel is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Links, addresses, routes: rtnetlink(7).
    Route,
    /// nf_tables, connections.
    Filter,
}

/// A socket. It belongs to the network name space in which it was made, whoever uses it later.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl From<OwnedFd> for Socket {
    fn from(fd: OwnedFd) -> Socket {
        Socket(fd)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A message that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Which one of the batch.
    pub n: usize,
    /// What was to be done.
    pub about: String,
    /// Why not.
    pub errno: Errno,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot {}: {}", self.about, std::io::Error::from(self.errno))
    }
}

impl std::error::Error for Refused {}

/// Room for what one recv(2) brings; the kernel makes dumps in pieces of at most 32 KiB.
const ROOM: usize = 32 * 1024;

impl Socket {
    /// A socket in our own name space.
    pub fn open(family: Family) -> Result<Socket> {
        let protocol = match family {
            // NETLINK_ROUTE is 0, which is the protocol that is meant where none is named.
            Family::Route => None,
            Family::Filter => Some(rustix::net::netlink::NETFILTER),
        };
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)
            .context("cannot make a netlink socket")?;
        Ok(Socket(socket))
    }

    /// Has a batch done; the first message that was refused, if any was. Messages of rtnetlink are independent of each
    /// other, those of nf_tables are all done or none.
    pub fn run(&self, batch: &Batch) -> Result<std::result::Result<(), Refused>> {
        self.exchange(batch, &mut |_, _| {})
    }

    /// The same, where answers are wanted: `each` gets the number and the content of every one.
    pub fn exchange(
        &self,
        batch: &Batch,
        each: &mut dyn FnMut(u16, &[u8]),
    ) -> Result<std::result::Result<(), Refused>> {
        if batch.abouts.is_empty() {
            return Ok(Ok(()));
        }
        if batch.bytes.len() > 64 * 1024 {
            // The kernel's default is some 200 KiB; who may, asks for what is needed.
            let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(&self.0, batch.bytes.len() * 2);
        }
        rustix::net::send(&self.0, &batch.bytes, SendFlags::empty()).context("cannot send to the kernel")?;
        let mut room = vec![0; ROOM];
        let mut refused: Option<Refused> = None;
        loop {
            let received = match rustix::net::recv(&self.0, &mut room, RecvFlags::DONTWAIT) {
                Ok((_, received)) => received,
                Err(Errno::INTR) => continue,
                // All is said. (ENOBUFS: there was no room for some of the answers, and those to come are whole again.)
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error).context("cannot hear from the kernel"),
            };
            let mut rest = &room[..received.min(ROOM)];
            let mut is_last = false;
            while let Some((kind, sequence, body, after)) = split(rest) {
                rest = after;
                match i32::from(kind) {
                    libc::NLMSG_ERROR => {
                        let code = body.get(..4).map_or(0, |b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
                        let n = sequence as usize;
                        if code != 0 && refused.is_none() {
                            let about = batch.abouts.get(n).cloned().unwrap_or_default();
                            refused = Some(Refused { n, about, errno: Errno::from_raw_os_error(-code) });
                        }
                        is_last |= n + 1 == batch.abouts.len();
                    }
                    libc::NLMSG_DONE => is_last |= sequence as usize + 1 == batch.abouts.len(),
                    libc::NLMSG_NOOP => {}
                    _ => each(kind, body),
                }
            }
            if is_last {
                break;
            }
        }
        Ok(refused.map_or(Ok(()), Err))
    }
}

/// The first message: its kind, its number, its content, and what comes after it.
fn split(bytes: &[u8]) -> Option<(u16, u32, &[u8], &[u8])> {
    let header = bytes.get(..16)?;
    let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let length = word(0) as usize;
    let body = bytes.get(16..length)?;
    let after = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((u16::from_ne_bytes([header[4], header[5]]), word(8), body, after))
}

/// Messages that are sent together.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// What each message is to do, for the error.
    abouts: Vec<String>,
    last: usize,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch { bytes: Vec::with_capacity(2048), ..Batch::default() }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.abouts.is_empty()
    }

    /// Adds a message: kind, flags (besides `NLM_F_REQUEST`), what its failing is to be called, its fixed header, and its
    /// attributes.
    pub fn add(
        &mut self,
        kind: u16,
        flags: i32,
        about: impl Into<String>,
        header: &[u8],
        body: impl FnOnce(&mut Attributes<'_>),
    ) {
        self.last = self.bytes.len();
        let flags = (flags | libc::NLM_F_REQUEST) as u16;
        let sequence = self.abouts.len() as u32;
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend(header);
        body(&mut Attributes(&mut self.bytes));
        let length = (self.bytes.len() - self.last) as u32;
        self.bytes[self.last..self.last + 4].copy_from_slice(&length.to_ne_bytes());
        self.abouts.push(about.into());
    }

    /// Has the message that was added last answer also if it succeeds.
    pub fn acknowledge(&mut self) {
        if let Some(flags) = self.bytes.get_mut(self.last + 6) {
            *flags |= libc::NLM_F_ACK as u8;
        }
    }
}

/// Attributes on their way into a message.
#[derive(Debug)]
pub struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    /// Bytes.
    pub fn put(&mut self, kind: u16, bytes: &[u8]) {
        self.0.extend((bytes.len() as u16 + 4).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// A number as rtnetlink has it.
    pub fn number(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_ne_bytes());
    }

    /// A number as netfilter has it.
    pub fn big(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    /// A string, with the NUL that ends it.
    pub fn text(&mut self, kind: u16, text: &str) {
        let mut bytes = Vec::with_capacity(text.len() + 1);
        bytes.extend(text.as_bytes());
        bytes.push(0);
        self.put(kind, &bytes);
    }

    /// Bytes without a header of their own, such as the fixed part that some nests begin with.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    /// Attributes within one.
    pub fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend((kind | libc::NLA_F_NESTED as u16).to_ne_bytes());
        body(&mut Attributes(self.0));
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }
}

/// The attributes of an answer: kind and content.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.get(..4)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & libc::NLA_TYPE_MASK as u16;
        let content = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, content))
    })
}

/// A number of an answer of rtnetlink.
pub fn number(content: &[u8]) -> u32 {
    content.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

/// A number of an answer of netfilter.
pub fn big(content: &[u8]) -> u32 {
    content.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_padded_and_read_back() {
        let mut batch = Batch::new();
        batch.add(16, 0, "try", &[7; 4], |a| {
            a.text(3, "abc");
            a.nest(18, |a| a.number(1, 5));
        });
        batch.add(17, 0, "try again", &[], |a| a.put(1, &[9]));
        batch.acknowledge();
        assert!(batch.bytes.len().is_multiple_of(4));
        let (kind, sequence, body, rest) = split(&batch.bytes).unwrap();
        assert_eq!((kind, sequence, &body[..4]), (16, 0, &[7; 4][..]));
        let found: Vec<_> = attributes(&body[4..]).collect();
        assert_eq!(found[0], (3, &b"abc\0"[..]));
        assert_eq!(attributes(found[1].1).map(|(kind, c)| (kind, number(c))).collect::<Vec<_>>(), [(1, 5)]);
        let (kind, sequence, ..) = split(rest).unwrap();
        assert_eq!((kind, sequence), (17, 1));
    }

    #[test]
    fn answers_that_are_cut_off_end() {
        let mut batch = Batch::new();
        batch.add(16, 0, "try", &[7; 16], |a| a.nest(18, |a| a.text(1, "veth")));
        for n in 0..batch.bytes.len() {
            let _ = split(&batch.bytes[..n]);
            attributes(&batch.bytes[..n]).for_each(drop);
            attributes(&batch.bytes[n..]).for_each(drop);
        }
        // A length of nothing must not be read for ever.
        assert_eq!(attributes(&[0; 64]).count(), 0);
        assert_eq!(attributes(&[3, 0, 1, 0, 0, 0, 0, 0]).count(), 0);
    }
}
