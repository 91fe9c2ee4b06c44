//! Guests: connections of commands to a supervisor that runs already, through the socket DIR/socket. A guest may ask for
//! something, and may attach to the container's streams.
//!
//! One packet is one message: a [`Control`] as JSON, or, when its first byte is one of [`TYPED`], [`OUT`], [`ERR`], bytes of
//! a stream. The buffer of a guest that does not read is the kernel's, which is bounded; what finds no room there is
//! counted, and told as soon as there is room again. So nothing that a guest does, or does not do, keeps the container
//! or its log waiting.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use super::log::Stream;
use super::{Attach, Control};
use crate::fs;
use crate::runtime::sync::Socket;
use crate::store::container::ContainerDir;

/// First byte of what a guest types; nothing after it: the end of its input.
pub const TYPED: u8 = 0;
/// First byte of what came from stdout, or from the terminal.
pub const OUT: u8 = 1;
/// First byte of what came from stderr.
pub const ERR: u8 = 2;

/// The name of the socket in the container's directory.
pub const NAME: &str = "socket";
/// More at once are turned away.
const MOST: usize = 100;
/// The longest message.
const PACKET: usize = 64 << 10;

/// A connection.
#[derive(Debug)]
struct Guest {
    socket: Socket,
    /// What it is attached to, if it is.
    attached: Option<Attach>,
    /// Bytes of output that found no room.
    missing: u64,
    /// It waits for the result of a health check.
    awaits_check: bool,
    gone: bool,
}

/// What a guest said.
#[derive(Debug)]
pub enum Heard {
    /// Nothing that has to be dealt with.
    Nothing,
    /// It typed this; nothing: its input ended.
    Typed(Vec<u8>),
    /// It asks for something, and waits for an answer.
    Asked(Control),
}

/// The door and who came in.
#[derive(Debug)]
pub struct Guests {
    /// Closed if it could not be opened, and at the end.
    door: Option<OwnedFd>,
    guests: Vec<Guest>,
}

impl Guests {
    /// Opens the door. A container whose door does not open, for want of room on the disk, runs all the same.
    pub fn open(dir: &ContainerDir) -> Guests {
        Guests { door: Guests::open_door(dir).ok(), guests: Vec::new() }
    }

    /// Relative to the directory: a socket's path must fit 108 bytes.
    fn open_door(dir: &ContainerDir) -> Result<OwnedFd> {
        let about = || format!("cannot listen in {}", dir.path.display());
        rustix::process::chdir(&dir.path).with_context(about)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let door = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .with_context(about)?;
        let address = SocketAddrUnix::new(NAME).with_context(about)?;
        match rustix::net::bind(&door, &address) {
            // That of a supervisor before us.
            Err(Errno::ADDRINUSE) => {
                fs::remove_file(&dir.file(NAME))?;
                rustix::net::bind(&door, &address).with_context(about)?;
            }
            other => other.with_context(about)?,
        }
        rustix::net::listen(&door, 128).with_context(about)?;
        Ok(door)
    }

    /// The door, which is readable when somebody knocks.
    pub fn door(&self) -> Option<BorrowedFd<'_>> {
        self.door.as_ref().map(AsFd::as_fd)
    }

    /// Nobody comes in any more.
    pub fn close_door(&mut self) {
        self.door = None;
    }

    /// The guests whose words are to be waited for. Without `hears_typing`, those who type are not among them: what they
    /// typed before has not been taken yet.
    pub fn interest(&self, hears_typing: bool) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        let types = |guest: &Guest| guest.attached.as_ref().is_some_and(|attached| attached.stdin);
        self.guests
            .iter()
            .enumerate()
            .filter(move |(_, guest)| hears_typing || !types(guest))
            .map(|(n, guest)| (n, guest.socket.as_fd()))
    }

    /// Lets in who knocks.
    pub fn admit(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Some(door) = &self.door else { return };
        let Ok(socket) = rustix::net::accept_with(door, flags) else { return };
        if self.guests.len() < MOST {
            self.guests.push(Guest {
                socket: socket.into(),
                attached: None,
                missing: 0,
                awaits_check: false,
                gone: false,
            });
        }
    }

    /// Hears a guest, when poll(2) said that there is something.
    pub fn hear(&mut self, n: usize) -> Heard {
        let Some(guest) = self.guests.get_mut(n) else { return Heard::Nothing };
        let mut bytes = vec![0; PACKET];
        match rustix::net::recv(guest.socket.as_fd(), &mut bytes, RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) | Ok((0, _)) => guest.gone = true,
            Ok((length, _)) if bytes[0] == TYPED => {
                bytes.truncate(length);
                bytes.remove(0);
                if guest.attached.as_ref().is_some_and(|attached| attached.stdin) {
                    return Heard::Typed(bytes);
                }
            }
            Ok((length, _)) => match serde_json::from_slice(&bytes[..length]) {
                Ok(control) => return Heard::Asked(control),
                // Another version of ours, which will say that it was not understood.
                Err(_) => guest.gone = true,
            },
        }
        Heard::Nothing
    }

    /// Answers a guest. One that does not listen is none of ours.
    pub fn answer(&mut self, n: usize, answer: &Control) {
        if let Some(guest) = self.guests.get_mut(n) {
            guest.gone |= guest.socket.send(answer, None).is_err();
        }
    }

    /// From now on this guest sees, and types, what it asks for.
    pub fn attach(&mut self, n: usize, attach: Attach) {
        if let Some(guest) = self.guests.get_mut(n) {
            guest.attached = Some(attach);
        }
    }

    /// What a guest is attached to.
    pub fn attached(&mut self, n: usize) -> Option<&mut Attach> {
        self.guests.get_mut(n)?.attached.as_mut()
    }

    /// Shows all who are attached what the container wrote.
    pub fn show(&mut self, stream: Stream, bytes: &[u8]) {
        for guest in &mut self.guests {
            let wants = guest.attached.as_ref().is_some_and(|attached| match stream {
                Stream::Out => attached.stdout,
                Stream::Err => attached.stderr,
            });
            if wants && !guest.gone {
                guest.show(stream, bytes);
            }
        }
    }

    /// Has nothing more to do with this guest.
    pub fn dismiss(&mut self, n: usize) {
        self.guests.iter_mut().skip(n).take(1).for_each(|guest| guest.gone = true);
    }

    /// This guest is to hear what the next health check comes to.
    pub fn await_check(&mut self, n: usize) {
        if let Some(guest) = self.guests.get_mut(n) {
            guest.awaits_check = true;
        }
    }

    /// Tells all who wait for it.
    pub fn tell_checked(&mut self, answer: &Control) {
        for guest in self.guests.iter_mut().filter(|guest| guest.awaits_check) {
            guest.awaits_check = false;
            guest.gone |= guest.socket.send(answer, None).is_err();
        }
    }

    /// Tells all who are attached that the container ended.
    pub fn tell_end(&mut self, code: i32) {
        for guest in self.guests.iter_mut().filter(|guest| guest.attached.is_some()) {
            guest.tell_missing();
            let _ = guest.socket.send(&Control::Exited(code), None);
            guest.gone = true;
        }
        self.forget_gone();
    }

    /// Forgets who went away: the numbers of the others change.
    pub fn forget_gone(&mut self) {
        self.guests.retain(|guest| !guest.gone);
    }
}

impl Guest {
    fn show(&mut self, stream: Stream, bytes: &[u8]) {
        if !self.tell_missing() {
            self.missing += bytes.len() as u64;
            return;
        }
        let kind = match stream {
            Stream::Out => [OUT],
            Stream::Err => [ERR],
        };
        match send_frame(self.socket.as_fd(), kind, bytes) {
            Ok(()) => {}
            Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => self.missing += bytes.len() as u64,
            Err(_) => self.gone = true,
        }
    }

    /// Whether the guest knows of all that it has missed.
    fn tell_missing(&mut self) -> bool {
        if self.missing > 0 && self.socket.send(&Control::Missing(self.missing), None).is_ok() {
            self.missing = 0;
        }
        self.missing == 0
    }
}

/// Sends bytes of a stream, as one packet.
pub fn send_frame(to: BorrowedFd<'_>, kind: [u8; 1], bytes: &[u8]) -> rustix::io::Result<()> {
    let parts = [IoSlice::new(&kind), IoSlice::new(bytes)];
    let sent = rustix::net::sendmsg(to, &parts, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL);
    sent.map(drop)
}
