//! Guests: connections of commands to a supervisor that runs already, through the socket DIR/socket. A guest may ask for
//! something, and may attach to the container's streams.
//!
//! One packet is one message: a [`Control`] as JSON, or, when its first byte is one of [`TYPED`], [`OUT`], [`ERR`], bytes of
//! a stream. What a guest does not read at once is kept for it, up to a bound; what finds no room is counted, and told as
//! soon as all before it was read. So nothing that a guest does, or does not do, keeps the container or its log waiting.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

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
/// So much of the output is kept for a guest that does not read.
const ROOM: usize = 1 << 20;
/// The longest message.
const PACKET: usize = 64 << 10;

/// A connection.
#[derive(Debug)]
struct Guest {
    socket: Socket,
    /// What it is attached to, if it is.
    attached: Option<Attach>,
    /// Packets that are on their way to it, and how many bytes they are.
    queue: VecDeque<Vec<u8>>,
    queued: usize,
    /// Bytes of output that found no room, after those of the queue.
    missing: u64,
    /// The container ended: the last that it is to hear.
    end: Option<i32>,
    /// It waits for the end of the run.
    awaits_end: bool,
    /// It waits for the result of a health check.
    awaits_check: bool,
    /// The box is to stay as long as it does.
    stays: bool,
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

    /// Nobody comes in any more. Who knocked before, to be told of the end, is to hear of it.
    pub fn close_door(&mut self) {
        for _ in 0..MOST {
            if !self.admit() {
                break;
            }
        }
        self.door = None;
        for n in 0..self.guests.len() {
            if let Heard::Asked(Control::AwaitEnd) = self.hear(n) {
                self.await_end(n);
            }
        }
    }

    /// What to wait for. Without `hears_typing`, those who type are not heard: what they typed before has not been taken
    /// yet.
    pub fn interest(&self, hears_typing: bool) -> impl Iterator<Item = (usize, BorrowedFd<'_>, PollFlags)> {
        self.guests.iter().enumerate().map(move |(n, guest)| {
            let types = guest.attached.as_ref().is_some_and(|attached| attached.stdin);
            let mut events = PollFlags::empty();
            events.set(PollFlags::IN, hears_typing || !types);
            events.set(PollFlags::OUT, guest.has_to_hear());
            (n, guest.socket.as_fd(), events)
        })
    }

    /// Lets in who knocks; whether somebody did.
    pub fn admit(&mut self) -> bool {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Some(door) = &self.door else { return false };
        let Ok(socket) = rustix::net::accept_with(door, flags) else { return false };
        if self.guests.len() < MOST {
            self.guests.push(Guest::new(socket.into()));
        }
        true
    }

    /// Tells a guest what it has to hear, and hears it, when poll(2) said that one of them can be done.
    pub fn hear(&mut self, n: usize) -> Heard {
        let Some(guest) = self.guests.get_mut(n) else { return Heard::Nothing };
        guest.tell();
        let mut bytes = vec![0; PACKET];
        match guest.receive(&mut bytes) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) | Ok(0) => guest.gone = true,
            Ok(length) if bytes[0] == TYPED => {
                bytes.truncate(length);
                bytes.remove(0);
                if guest.attached.as_ref().is_some_and(|attached| attached.stdin) {
                    return Heard::Typed(bytes);
                }
            }
            Ok(length) => match serde_json::from_slice(&bytes[..length]) {
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

    /// The same with a descriptor.
    pub fn hand(&mut self, n: usize, answer: &Control, fd: BorrowedFd<'_>) {
        if let Some(guest) = self.guests.get_mut(n) {
            guest.gone |= guest.socket.send(answer, Some(fd)).is_err();
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

    /// The box stays as long as this guest does.
    pub fn keep(&mut self, n: usize) {
        if let Some(guest) = self.guests.get_mut(n) {
            guest.stays = true;
        }
    }

    /// Whether a guest is there who stays.
    pub fn is_kept(&self) -> bool {
        self.guests.iter().any(|guest| guest.stays && !guest.gone)
    }

    /// This guest is to hear of the end.
    pub fn await_end(&mut self, n: usize) {
        if let Some(guest) = self.guests.get_mut(n) {
            guest.awaits_end = true;
        }
    }

    /// Tells all who are attached, or wait for it, that the container ended.
    pub fn tell_end(&mut self, code: i32) {
        for guest in self.guests.iter_mut().filter(|guest| guest.attached.is_some() || guest.awaits_end) {
            guest.attached = None;
            guest.awaits_end = false;
            guest.end = Some(code);
            guest.tell();
        }
        self.forget_gone();
    }

    /// Stays until all have heard what they have to hear, as long as one of them still listens.
    pub fn linger(&mut self) {
        const PATIENCE: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };
        loop {
            self.guests.retain(|guest| !guest.gone && guest.has_to_hear());
            let mut fds: Vec<PollFd<'_>> = self
                .guests
                .iter()
                .map(|guest| PollFd::from_borrowed_fd(guest.socket.as_fd(), PollFlags::OUT))
                .collect();
            if fds.is_empty() || !rustix::event::poll(&mut fds, Some(&PATIENCE)).is_ok_and(|n| n > 0) {
                return;
            }
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            for (guest, _) in self.guests.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
                guest.tell();
            }
        }
    }

    /// Forgets who went away: the numbers of the others change.
    pub fn forget_gone(&mut self) {
        self.guests.retain(|guest| !guest.gone);
    }
}

impl Guest {
    fn new(socket: Socket) -> Guest {
        Guest {
            socket,
            attached: None,
            queue: VecDeque::new(),
            queued: 0,
            missing: 0,
            end: None,
            awaits_end: false,
            awaits_check: false,
            stays: false,
            gone: false,
        }
    }

    fn show(&mut self, stream: Stream, bytes: &[u8]) {
        let kind = match stream {
            Stream::Out => OUT,
            Stream::Err => ERR,
        };
        if self.missing > 0 || self.queued + bytes.len() > ROOM {
            self.missing += bytes.len() as u64;
        } else {
            self.queued += bytes.len();
            match self.queue.back_mut() {
                // Fewer packets for one who lags.
                Some(last) if last[0] == kind && last.len() + bytes.len() < PACKET => {
                    last.extend_from_slice(bytes);
                }
                _ => self.queue.push_back([&[kind], bytes].concat()),
            }
        }
        self.tell();
    }

    fn has_to_hear(&self) -> bool {
        !self.queue.is_empty() || self.missing > 0 || self.end.is_some()
    }

    /// Tells it what there is room for.
    fn tell(&mut self) {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        while let Some(first) = self.queue.front() {
            match rustix::net::send(self.socket.as_fd(), first, flags) {
                Ok(_) => self.queued -= self.queue.pop_front().map_or(0, |sent| sent.len() - 1),
                Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => return,
                Err(error) => return self.cannot_be_told(error),
            }
        }
        // The room is given back: one that lagged once costs nothing from then on.
        self.queue = VecDeque::new();
        if self.missing > 0 && self.takes(&Control::Missing(self.missing)) {
            self.missing = 0;
        }
        if self.missing == 0
            && let Some(code) = self.end
            && self.takes(&Control::Exited(code))
        {
            self.end = None;
            self.gone = true;
        }
    }

    /// Whether it takes this message now. One that is not there any more is gone: poll(2) would say for ever that it can be
    /// told.
    fn takes(&mut self, message: &Control) -> bool {
        let Err(error) = self.socket.send(message, None) else { return true };
        match error.downcast_ref().copied() {
            Some(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => {}
            Some(error) => self.cannot_be_told(error),
            None => self.gone = true,
        }
        false
    }

    /// One that has closed its end may have said something before, such as that it detaches: it is heard to its end.
    fn cannot_be_told(&mut self, error: Errno) {
        self.queue = VecDeque::new();
        (self.queued, self.missing, self.end) = (0, 0, None);
        self.gone |= !matches!(error, Errno::PIPE | Errno::CONNRESET);
    }

    fn receive(&self, bytes: &mut [u8]) -> rustix::io::Result<usize> {
        loop {
            match rustix::net::recv(self.socket.as_fd(), &mut *bytes, RecvFlags::DONTWAIT) {
                // It closed with something unread: said once, in front of what it sent before (unix(7)).
                Err(Errno::CONNRESET) => {}
                other => return other.map(|(length, _)| length),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::sync;

    #[test]
    fn one_that_is_killed_keeps_nobody_at_the_end() {
        let (socket, peer) = sync::pair().unwrap();
        let mut guests = Guests { door: None, guests: vec![Guest::new(socket)] };
        guests.await_end(0);
        drop(peer);
        guests.tell_end(0);
        guests.linger();
        assert!(guests.guests.is_empty());
    }

    #[test]
    fn one_that_leaves_with_output_unread_is_heard_to_its_end() {
        let (socket, peer) = sync::pair().unwrap();
        let mut guests = Guests { door: None, guests: vec![Guest::new(socket)] };
        guests.attach(0, Attach { stdout: true, ..Attach::default() });
        guests.show(Stream::Out, b"unread");
        peer.send(&Control::Detach, None).unwrap();
        drop(peer);
        guests.show(Stream::Out, b"too late");
        guests.forget_gone();
        assert!(matches!(guests.hear(0), Heard::Asked(Control::Detach)));
        assert!(matches!(guests.hear(0), Heard::Nothing));
        guests.forget_gone();
        assert!(guests.guests.is_empty());
    }

    #[test]
    fn one_that_came_in_the_last_moment_hears_of_the_end() {
        let (socket, peer) = sync::pair().unwrap();
        let mut guests = Guests { door: None, guests: vec![Guest::new(socket)] };
        peer.send(&Control::AwaitEnd, None).unwrap();
        guests.close_door();
        guests.tell_end(7);
        assert!(matches!(peer.receive::<Control>().unwrap(), Some((Control::Exited(7), _))));
    }

    #[test]
    fn one_that_lags_hears_the_end_last() {
        let (socket, peer) = sync::pair().unwrap();
        rustix::io::ioctl_fionbio(&socket, true).unwrap();
        let mut guests = Guests { door: None, guests: vec![Guest::new(socket)] };
        guests.attach(0, Attach { stdout: true, ..Attach::default() });
        for _ in 0..3000 {
            guests.show(Stream::Out, &[b'x'; 1000]);
        }
        guests.tell_end(7);
        assert_eq!(guests.guests.len(), 1, "what it has not read is kept for it");
        let reader = std::thread::spawn(move || {
            let mut bytes = vec![0; PACKET];
            let mut last = Vec::new();
            while let Ok((length @ 1.., _)) = rustix::net::recv(peer.as_fd(), &mut bytes, RecvFlags::empty())
            {
                last = bytes[..length].to_vec();
            }
            last
        });
        guests.linger();
        drop(guests);
        assert!(String::from_utf8(reader.join().unwrap()).unwrap().contains("Exited"));
    }
}
