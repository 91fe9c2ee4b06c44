//! The process: `dhow forward DATA`, with the end of its first client's socket at descriptor 3. Not a word is said on its
//! standard streams; why it could not begin it tells its first client.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::epoll::EventFlags;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, getrlimit, pidfd_open};

use super::connect::Connecting;
use super::datagrams::Flows;
use super::maker::{Made, Maker};
use super::ping::Pings;
use super::pipes::Pipes;
use super::poll::{Happened, Kind, Poll};
use super::publish::{Arriving, Port};
use super::relay::{Relay, Step};
use super::slab::{Key, Slab};
use super::{Word, hold};
use crate::fs;
use crate::host::Host;
use crate::runtime::sync::{Failure, Socket};
use crate::sys::datagram::send_all;
use crate::sys::lock::{self, Kind as Lock};
use crate::sys::process;
use crate::userns;

/// How long one who outlived the forwarder before us may take to come.
const PATIENCE: Duration = Duration::from_secs(5);

/// All that the process has.
pub struct Forwarder {
    pub(super) poll: Poll,
    pub(super) maker: Maker,
    pub(super) made: Made,
    pub(super) connecting: Connecting,
    pub(super) arriving: Slab<Arriving>,
    pub(super) relays: Slab<Relay>,
    pub(super) ports: Slab<Port>,
    pub(super) flows: Flows,
    pub(super) pings: Pings,
    pipes: Pipes,
    /// Relays that have more to pass on.
    busy: VecDeque<Key>,
    clients: Slab<Socket>,
    door: OwnedFd,
    /// How many descriptors we may have.
    most: usize,
}

/// So many descriptors are kept for what is not counted, and for turning away those for whom there is none.
const RESERVE: usize = 128;

/// Runs until nobody needs it.
pub fn main(args: &[OsString]) -> Result<u8> {
    let first = Socket::from(process::inherited_fd(3).context("cannot forward: there is no socket")?);
    process::set_close_on_exec(3);
    match begin(args.first(), first) {
        Ok(Some(mut forwarder)) => forwarder.serve().map(|()| 0),
        // Another one lives: our client finds it.
        Ok(None) => Ok(0),
        Err((error, first)) => {
            first.send(&Word::Failed(Failure::of(&error)), None)?;
            Ok(1)
        }
    }
}

type Begun = std::result::Result<Option<Forwarder>, (anyhow::Error, Socket)>;

fn begin(data: Option<&OsString>, first: Socket) -> Begun {
    let prepared =
        data.context("cannot forward: no directory was given").and_then(|data| prepare(Path::new(data)));
    match prepared {
        Ok(None) => Ok(None),
        Ok(Some(prepared)) => {
            let Prepared { poll, maker, made, door, clients: early } = prepared;
            let mut forwarder = Forwarder {
                poll,
                maker,
                made,
                connecting: Connecting::default(),
                arriving: Slab::default(),
                relays: Slab::default(),
                ports: Slab::default(),
                flows: Flows::default(),
                pings: Pings::default(),
                pipes: Pipes::default(),
                busy: VecDeque::new(),
                clients: Slab::default(),
                door,
                most: getrlimit(Resource::Nofile).current.map_or(usize::MAX, |most| most as usize),
            };
            let all = std::iter::once(first).chain(early);
            all.for_each(|client| forwarder.admit(client));
            Ok(Some(forwarder))
        }
        Err(error) => Err((error, first)),
    }
}

struct Prepared {
    poll: Poll,
    maker: Maker,
    made: Made,
    door: OwnedFd,
    /// Who came before there was anybody to answer.
    clients: Vec<Socket>,
}

/// `None` if another one lives.
fn prepare(data: &Path) -> Result<Option<Prepared>> {
    let dir = hold::dir(data);
    fs::create_dir_all(&dir, 0o700)?;
    let lock = fs::open_or_create(&dir.join("lock"), 0o600)?;
    if !lock::try_acquire(&lock, Lock::Exclusive).context("cannot lock")? {
        return Ok(None);
    }
    // As long as we live.
    std::mem::forget(lock);
    let _ = rustix::process::setsid();
    let most = getrlimit(Resource::Nofile).maximum;
    let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most });
    let held = fs::open_or_create(&dir.join("held"), 0o600)?;
    let door = open_door(&dir)?;
    let mut clients = Vec::new();
    let is_alone = !lock::is_taken(&held).context("cannot see a lock")?;
    drop(held);
    let survivor = if is_alone { None } else { await_survivor(&door, &mut clients)? };
    let mut host = Host::probe(Some(data))?;
    let shared = match survivor {
        Some((shared, pidfd)) => {
            userns::join(&host, &pidfd)?;
            Some(shared)
        }
        None => {
            userns::enter(&mut host)?;
            None
        }
    };
    let (maker, made) = Maker::start(shared)?;
    let poll = Poll::new()?;
    let all: [(Kind, &[OwnedFd]); 3] =
        [(Kind::Listener, &made.listeners), (Kind::Datagrams, &made.datagrams), (Kind::Echoes, &made.echoes)];
    for (kind, sockets) in all {
        for (n, socket) in sockets.iter().enumerate() {
            poll.add(socket, (kind, Key(n as u64)), EventFlags::IN)?;
        }
    }
    poll.add(&made.syn, (Kind::Syn, Key(0)), EventFlags::IN)?;
    poll.add(&door, (Kind::Door, Key(0)), EventFlags::IN)?;
    Ok(Some(Prepared { poll, maker, made, door, clients }))
}

/// Relative to the directory: a socket's path must fit 108 bytes.
fn open_door(dir: &Path) -> Result<OwnedFd> {
    let about = || format!("cannot listen in {}", dir.display());
    rustix::process::chdir(dir).with_context(about)?;
    let (new, known) = (Path::new(hold::NEW_SOCKET), Path::new(hold::SOCKET));
    fs::remove_file(new)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let door = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .with_context(about)?;
    let address = SocketAddrUnix::new(new).with_context(about)?;
    rustix::net::bind(&door, &address).with_context(about)?;
    rustix::net::listen(&door, 4096).with_context(about)?;
    // Whoever waits for its name to come may knock at once, which is refused before we listen.
    fs::rename(new, known)?;
    Ok(door)
}

/// Waits for one who outlived the forwarder before us, and brings the shared name space along; a handle of it, too, for
/// joining its user name space. Others who come are kept for later.
fn await_survivor(door: &OwnedFd, others: &mut Vec<Socket>) -> Result<Option<(OwnedFd, OwnedFd)>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let time = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut fds = [PollFd::from_borrowed_fd(door.as_fd(), PollFlags::IN)];
        if left.is_zero() || rustix::event::poll(&mut fds, Some(&time)).is_ok_and(|n| n == 0) {
            // One that hangs. What it has stays as it is; all that comes from now on is ours.
            return Ok(None);
        }
        let Ok(fd) = rustix::net::accept_with(door, SocketFlags::CLOEXEC) else { continue };
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(PATIENCE)).context("cannot wait")?;
        let peer = sockopt::socket_peercred(&fd).context("cannot find who connected")?;
        let client = Socket::from(fd);
        let shared = match client.receive::<Word>() {
            Ok(Some((Word::Join, shared))) => shared,
            _ => continue,
        };
        let pidfd = pidfd_open(peer.pid, PidfdFlags::empty());
        others.push(client);
        if let Some((shared, pidfd)) = shared.zip(pidfd.ok()) {
            return Ok(Some((shared, pidfd)));
        }
    }
}

impl Forwarder {
    fn serve(&mut self) -> Result<()> {
        while !self.clients.is_empty() {
            let time = self.time();
            for happened in self.poll.wait(time)? {
                self.turn(happened);
            }
            for _ in 0..self.busy.len() {
                let Some(key) = self.busy.pop_front() else { break };
                self.relay(key, false, false);
            }
            let now = Instant::now();
            self.connecting.give_up(now);
            self.flows.sweep(now);
            self.pings.sweep(now);
        }
        // Who knocks from now on finds nobody, and starts another one of us.
        fs::remove_file(Path::new(hold::SOCKET))
    }

    /// How long to wait: for ever, unless something is under way.
    fn time(&self) -> Option<Duration> {
        if !self.busy.is_empty() {
            return Some(Duration::ZERO);
        }
        let due = [self.connecting.due(), self.flows.due(), self.pings.due()].into_iter().flatten().min()?;
        // A moment later, so that it is due when we wake.
        Some(due.saturating_duration_since(Instant::now()) + Duration::from_millis(1))
    }

    fn turn(&mut self, Happened { kind, key, failed, urgent }: Happened) {
        match kind {
            Kind::Door => {
                if let Ok(client) = rustix::net::accept_with(&self.door, SocketFlags::CLOEXEC) {
                    self.admit(client.into());
                }
            }
            Kind::Client => self.hear(key),
            Kind::Syn => self.hear_first_packets(),
            Kind::Listener => self.accept_inside(key.0 as usize),
            Kind::Pending => self.outside_answered(key),
            Kind::Arriving => self.inside_answered(key),
            Kind::Relay => self.relay(key, failed, urgent),
            Kind::Port => self.arrive(key),
            Kind::Datagrams => self.datagrams_leave(key.0 as usize),
            Kind::Flow => self.datagrams_come(key),
            Kind::Echoes => self.hear_echoes(key.0 as usize),
            Kind::Ping => self.echo_comes(key),
        }
    }

    fn relay(&mut self, key: Key, failed: bool, urgent: bool) {
        let has_room = self.has_descriptors();
        self.pipes.allow(has_room);
        let Some(relay) = self.relays.get_mut(key) else { return };
        if urgent {
            relay.mark();
        }
        match relay.step(&mut self.pipes, failed) {
            Step::Waits => {}
            Step::GoesOn => self.busy.push_back(key),
            Step::Over => {
                self.relays.remove(key).into_iter().for_each(|relay| relay.end(&mut self.pipes));
                if self.relays.is_empty() {
                    self.pipes.clear();
                }
            }
        }
    }

    /// Lets a client in, and gives it what there is.
    fn admit(&mut self, client: Socket) {
        let given = self.give(&client);
        if let Err(error) = given {
            return drop(client.send(&Word::Failed(Failure::of(&error)), None));
        }
        let key = self.clients.next_key();
        if self.poll.add(&client, (Kind::Client, key), EventFlags::IN).is_ok() {
            self.clients.insert(client);
        }
    }

    fn give(&self, client: &Socket) -> Result<()> {
        let [route, netfilter] = self.maker.place()?;
        let own = Pid::from_raw(std::process::id() as i32).context("we have no pid")?;
        let own = pidfd_open(own, PidfdFlags::empty()).context("cannot make a handle of ourselves")?;
        client.send(&Word::Shared, Some(self.made.shared.as_fd()))?;
        client.send(&Word::Route, Some(route.as_fd()))?;
        client.send(&Word::Netfilter, Some(netfilter.as_fd()))?;
        client.send(&Word::Process, Some(own.as_fd()))
    }

    fn hear(&mut self, key: Key) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let answer = match client.receive::<Word>() {
            Ok(Some((Word::Join, _))) => return,
            Ok(Some((Word::Clear, _))) => {
                self.clear_ports(key);
                Some(Word::Done)
            }
            Ok(Some((Word::Lead(lead), Some(socket)))) => Some(match self.lead(key, lead, socket) {
                Ok(()) => Word::Done,
                Err(error) => Word::Failed(Failure::of(&error)),
            }),
            // It went away, or is none of ours.
            _ => None,
        };
        let is_told = answer.is_some_and(|answer| {
            self.clients.get_mut(key).is_some_and(|client| client.send(&answer, None).is_ok())
        });
        if !is_told {
            self.clear_ports(key);
            self.clients.remove(key);
        }
    }

    /// How many connections, or flows of datagrams, may be on their way for one container and for all: a share of what we
    /// may have, so that who floods does not take others' room.
    pub(super) fn shares(&self) -> (usize, usize) {
        ((self.most / 16).min(1024), (self.most / 4).min(8192))
    }

    /// Whether there are descriptors for one more of anything: without, whoever waits would be told of over and over.
    pub(super) fn has_descriptors(&self) -> bool {
        let pairs = self.relays.len() + self.arriving.len() + self.connecting.len() + self.pipes.len();
        let others = self.flows.len() + self.pings.len() + self.ports.len() + self.clients.len();
        2 * pairs + others + RESERVE < self.most
    }

    /// Sends a packet, header and all, to a container. Where there is no room it is lost, as packets may be.
    pub(super) fn send_packet(&self, packet: &[u8], to: IpAddr) {
        if let Some(raw) = self.made.raw.get(usize::from(to.is_ipv6())) {
            let _ = send_all(raw, &[[packet, &[]]], Some(SocketAddr::new(to, 0)));
        }
    }
}
