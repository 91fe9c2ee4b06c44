//! What the forwarder waits for: descriptors with a word for what each of them is (epoll(7), edge-triggered where said).

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use super::slab::Key;

/// What a descriptor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Where supervisors knock.
    Door,
    /// A supervisor, or a command that starts one.
    Client,
    /// First packets of connections that containers want to make.
    Syn,
    /// Connections of containers; the number is 0 for IPv4, 1 for IPv6.
    Listener,
    /// The outside half of a connection that is being made for a container.
    Pending,
    /// The inside half of a connection that is being made to a container.
    Arriving,
    /// Either half of a connection.
    Relay,
    /// A published port.
    Port,
    /// Datagrams of containers; 0 and 1 as above.
    Datagrams,
    /// The outside half of a flow of datagrams.
    Flow,
    /// Echo requests of containers; 0 and 1 as above.
    Echoes,
    /// The outside half of a ping.
    Ping,
}

const KINDS: [Kind; 12] = [
    Kind::Door,
    Kind::Client,
    Kind::Syn,
    Kind::Listener,
    Kind::Pending,
    Kind::Arriving,
    Kind::Relay,
    Kind::Port,
    Kind::Datagrams,
    Kind::Flow,
    Kind::Echoes,
    Kind::Ping,
];

/// The kind is in the top byte, which keys leave free.
fn data(kind: Kind, key: Key) -> EventData {
    EventData::new_u64(u64::from(kind as u8) << 56 | key.0)
}

/// Something happened to a descriptor.
#[derive(Debug, Clone, Copy)]
pub struct Happened {
    /// What it is.
    pub kind: Kind,
    /// Which one.
    pub key: Key,
    /// It failed, or was reset.
    pub failed: bool,
    /// It has something urgent to say (tcp(7)).
    pub urgent: bool,
}

/// See the module.
pub struct Poll {
    epoll: OwnedFd,
    events: Vec<Event>,
}

/// For connections: both ways, once each time something changes.
pub fn both_ways() -> EventFlags {
    EventFlags::IN | EventFlags::OUT | EventFlags::PRI | EventFlags::RDHUP | EventFlags::ET
}

impl Poll {
    /// Waits for nothing yet.
    pub fn new() -> Result<Poll> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).context("cannot make an epoll descriptor")?;
        Ok(Poll { epoll, events: Vec::with_capacity(256) })
    }

    /// Waits for this too.
    pub fn add(&self, fd: impl AsFd, (kind, key): (Kind, Key), flags: EventFlags) -> Result<()> {
        epoll::add(&self.epoll, fd, data(kind, key), flags).context("cannot wait for a descriptor")
    }

    /// It is something else now. What it has to tell is told again.
    pub fn change(&self, fd: impl AsFd, (kind, key): (Kind, Key), flags: EventFlags) -> Result<()> {
        epoll::modify(&self.epoll, fd, data(kind, key), flags).context("cannot wait for a descriptor")
    }

    /// Waits for it no longer.
    pub fn remove(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits, for ever without a time.
    pub fn wait(&mut self, time: Option<Duration>) -> Result<Vec<Happened>> {
        let time = time.map(|time| rustix::event::Timespec {
            tv_sec: time.as_secs() as i64,
            tv_nsec: time.subsec_nanos().into(),
        });
        self.events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), time.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for packets"),
        }
        let happened = self.events.iter().filter_map(|event| {
            let (data, flags) = (event.data.u64(), event.flags);
            let kind = *KINDS.get((data >> 56) as usize)?;
            let key = Key(data & ((1 << 56) - 1));
            let (failed, urgent) = (flags.contains(EventFlags::ERR), flags.contains(EventFlags::PRI));
            Some(Happened { kind, key, failed, urgent })
        });
        Ok(happened.collect())
    }
}
