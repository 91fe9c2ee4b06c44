//! Netlink messages as bytes (netlink(7)): attributes, messages, and asking the kernel for several things at once.
//!
//! Only what the exchange's few fixed links, routes and rules need; the links of containers are `network::link`'s.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

pub const NLM_F_REQUEST: u16 = 1;
pub const NLM_F_ACK: u16 = 4;
pub const NLM_F_CREATE: u16 = 0x400;
pub const NLM_F_EXCL: u16 = 0x200;
const NLMSG_ERROR: u16 = 2;
const NESTED: u16 = 1 << 15;

/// One attribute, padded to four bytes.
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(value.len() + 8);
    bytes.extend(((value.len() + 4) as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// An attribute that holds others.
pub fn nest(kind: u16, inner: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NESTED, &inner.concat())
}

/// A name, ended by NUL.
pub fn text(kind: u16, text: &str) -> Vec<u8> {
    attribute(kind, &[text.as_bytes(), &[0]].concat())
}

/// A number in the machine's order.
pub fn number(kind: u16, number: u32) -> Vec<u8> {
    attribute(kind, &number.to_ne_bytes())
}

/// A number in the network's order, as nf_tables has them.
pub fn big(kind: u16, number: u32) -> Vec<u8> {
    attribute(kind, &number.to_be_bytes())
}

/// One message; `head` is what its kind starts with.
pub fn message(kind: u16, flags: u16, head: &[u8], attributes: &[Vec<u8>]) -> Vec<u8> {
    let body = [head, &attributes.concat()].concat();
    let mut bytes = Vec::with_capacity(body.len() + 16);
    bytes.extend(((body.len() + 16) as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((flags | NLM_F_REQUEST).to_ne_bytes());
    // Sequence and port, which `ask` and the kernel fill in.
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

/// What a socket's messages are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Links, addresses, routes (rtnetlink(7)).
    Route,
    /// Rules.
    Netfilter,
}

/// A socket of our network name space.
pub fn socket(family: Family) -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let about = "cannot make a netlink socket";
    let protocol = (family == Family::Netfilter).then_some(rustix::net::netlink::NETFILTER);
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol).context(about)?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0)).context(about)?;
    Ok(socket)
}

/// Sends all messages in one packet; for each that wants to be acknowledged, in their order, what became of it.
pub fn ask(socket: impl AsFd, messages: &[Vec<u8>]) -> Result<Vec<io::Result<()>>> {
    let mut packet = Vec::new();
    let mut answers: Vec<Option<io::Result<()>>> = Vec::new();
    for message in messages {
        let at = packet.len();
        packet.extend(message);
        packet[at + 8..at + 12].copy_from_slice(&(answers.len() as u32).to_ne_bytes());
        if u16::from_ne_bytes([message[6], message[7]]) & NLM_F_ACK != 0 {
            answers.push(None);
        }
    }
    rustix::net::send(&socket, &packet, SendFlags::empty()).context("cannot ask the kernel")?;
    let mut bytes = vec![0; 32 << 10];
    while answers.iter().any(Option::is_none) {
        let got = match rustix::net::recv(&socket, &mut bytes[..], RecvFlags::empty()) {
            Err(Errno::INTR) => continue,
            other => other.context("cannot hear the kernel")?.0,
        };
        for (number, error) in acknowledged(&bytes[..got]) {
            let error = if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-error)) };
            // An error of a whole batch comes with the number of its first message.
            if let Some(slot) = answers.get_mut(number as usize).filter(|slot| slot.is_none()) {
                *slot = Some(error);
            }
        }
    }
    Ok(answers.into_iter().flatten().collect())
}

/// Sequence number and errno of each acknowledgement.
fn acknowledged(mut bytes: &[u8]) -> Vec<(u32, i32)> {
    let mut found = Vec::new();
    let word = |bytes: &[u8], at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    while let (Some(length), Some(kind), Some(number)) = (word(bytes, 0), word(bytes, 4), word(bytes, 8)) {
        if kind as u16 == NLMSG_ERROR
            && let Some(error) = word(bytes, 16)
        {
            found.push((number, error as i32));
        }
        let step = (length as usize).next_multiple_of(4).max(16);
        bytes = bytes.get(step..).unwrap_or_default();
    }
    found
}

/// The same where all has to succeed.
pub fn ask_all(socket: impl AsFd, messages: &[Vec<u8>]) -> Result<()> {
    for (n, answer) in ask(socket, messages)?.into_iter().enumerate() {
        answer.with_context(|| format!("cannot set up the network (step {n})"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested() {
        let inner = text(3, "lo");
        assert_eq!(inner, [7, 0, 3, 0, b'l', b'o', 0, 0]);
        let outer = nest(18, &[inner, big(1, 2)]);
        assert_eq!(outer[..4], [20, 0, 18, 0x80]);
        let whole = message(16, NLM_F_ACK, &[1, 2, 3, 4], &[outer]);
        assert_eq!(whole.len(), 40);
        assert_eq!(whole[..8], [40, 0, 0, 0, 16, 0, 5, 0]);
    }

    #[test]
    fn answers_are_told_apart_and_half_ones_are_left() {
        let mut bytes = message(NLMSG_ERROR, 0, &(-17_i32).to_ne_bytes(), &[vec![0; 16]]);
        bytes[8] = 5;
        let two = [bytes.clone(), message(NLMSG_ERROR, 0, &[0; 20], &[])].concat();
        assert_eq!(acknowledged(&two), [(5, -17), (0, 0)]);
        for length in 0..two.len() {
            assert!(acknowledged(&two[..length]).len() <= 2);
        }
    }

    #[test]
    fn the_kernel_says_what_it_does_not_know() {
        let socket = socket(Family::Route).unwrap();
        // RTM_GETLINK of an interface that is not there.
        let head = [0, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0];
        let answers = ask(&socket, &[message(18, NLM_F_ACK, &head, &[])]).unwrap();
        assert_eq!(answers[0].as_ref().unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }
}
