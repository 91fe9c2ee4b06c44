//! The gate of a box (`dhow shell`): a box goes on when its first shell ends while others are in it, and ends with the last
//! of them. The others are guests that said `Stay`; the first is the program of the container's built-in init, which says
//! through the gate that it ended, and waits there until it is let go (`runtime::reaper`).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

use super::Control;
use super::log::Writer;
use super::relay::{Audience, Relay};
use super::serve::Supervised;
use crate::store::container::Record;
use crate::store::journal;

/// Our end.
#[derive(Debug)]
pub struct Gate {
    socket: OwnedFd,
    /// The first shell is over, and others keep the box.
    is_kept: bool,
}

impl Gate {
    /// Both ends, if the container is a box.
    pub fn of(record: &Record) -> Result<Option<(Gate, OwnedFd)>> {
        if record.person.is_none() || !record.init {
            return Ok(None);
        }
        let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let (socket, inside) = rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None)
            .context("cannot make a socket pair")?;
        Ok(Some((Gate { socket, is_kept: false }, inside)))
    }

    /// What to wait for.
    pub fn interest(&self) -> Option<BorrowedFd<'_>> {
        (!self.is_kept).then_some(self.socket.as_fd())
    }

    /// Passes a signal to the program, and to nobody else in the container.
    fn signal(&self, number: i32) {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let byte = u8::try_from(number).ok();
        let _ = byte.map(|byte| rustix::net::send(&self.socket, &[byte], flags));
    }
}

impl Supervised {
    /// A signal of the command's, for the program that it is in the foreground of.
    pub fn signal_program(&self, number: i32) {
        match self.running.as_ref().and_then(|running| running.gate.as_ref()) {
            Some(gate) => gate.signal(number),
            None => self.signal(number),
        }
    }

    /// Whether one who says `Stay` can: the box will be there as long as they are.
    pub fn can_be_kept(&self) -> bool {
        let is_orphan = self.begin.foreground && self.control.is_none();
        let gate = self.running.as_ref().and_then(|running| running.gate.as_ref());
        gate.is_some_and(|gate| gate.is_kept || !is_orphan)
    }

    /// The first shell ended: if nobody else is there, the box is let go.
    pub fn gate_step(&mut self) {
        let Some(running) = &mut self.running else { return };
        let Some(gate) = &mut running.gate else { return };
        let mut code = [0];
        match rustix::io::read(&gate.socket, &mut code) {
            Ok(1) if self.guests.is_kept() => {
                gate.is_kept = true;
                self.see_command_off(code[0].into());
            }
            _ => running.gate = None,
        }
    }

    /// The command was killed; true if the box goes on for others.
    pub fn outlives_command(&mut self) -> bool {
        let is_kept = self.guests.is_kept();
        let gate = self.running.as_mut().and_then(|running| running.gate.as_mut()).filter(|_| is_kept);
        let Some(gate) = gate else { return false };
        gate.signal(libc::SIGKILL);
        gate.is_kept = true;
        self.part();
        true
    }

    /// Lets a box go that the last has left.
    pub fn close_gate(&mut self) {
        let is_empty = !self.guests.is_kept();
        if let Some(running) = &mut self.running
            && running.gate.as_ref().is_some_and(|gate| gate.is_kept && is_empty)
        {
            running.gate = None;
        }
    }

    /// Tells the command the end of its program, after all that this wrote.
    fn see_command_off(&mut self, code: i32) {
        if let Some(running) = &mut self.running {
            running.relays.retain(|relay| !relay.is_input());
            let mut audience = Audience { log: running.log.as_mut(), guests: &mut self.guests };
            for relay in &mut running.relays {
                empty(relay, &mut audience, self.control.as_ref().map(AsFd::as_fd));
            }
        }
        if let Some(control) = &self.control {
            let _ = control.send(&Control::Exited(code), None);
        }
        self.part();
    }

    /// The command goes, and its terminal with it; what else it left in the box is heard by the log.
    fn part(&mut self) {
        self.begin.foreground = false;
        self.lose_command();
        self.data = None;
        if let Some(running) = &mut self.running {
            if running.terminal.take().is_some() {
                running.input = None;
                running.relays.clear();
            }
            running.relays.iter_mut().for_each(Relay::let_go);
            running.log.iter_mut().for_each(Writer::step);
        }
        journal::note(&self.store, &self.event("detach"));
    }
}

/// So many reads take all that a pipe holds, 1 MiB at most (pipe(7)), also where a terminal gives 4 KiB at a time. Without an
/// end to them a program that goes on writing would keep the command, and us.
const MOST_READS: u32 = 256;

/// Passes on what a stream holds now. Others may go on writing to it: there is no end to wait for.
fn empty(relay: &mut Relay, audience: &mut Audience<'_>, control: Option<BorrowedFd<'_>>) {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut n_reads = 0;
    while let Some((fd, events)) = relay.interest() {
        let is_reading = events.contains(PollFlags::IN);
        n_reads += u32::from(is_reading);
        if n_reads > MOST_READS {
            return;
        }
        let mut fds = vec![PollFd::from_borrowed_fd(fd, events)];
        fds.extend(control.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::empty())));
        let polled = rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, is_reading.then_some(&now)));
        // Nothing more, or nobody who takes it.
        if polled.is_err() || fds[0].revents().is_empty() {
            return;
        }
        relay.step(audience);
    }
}
