//! The side of those who need the forwarder: commands that start a container, and supervisors.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags, inotify};
use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::{Lead, Word};
use crate::error::ResultExt;
use crate::fs;
use crate::runtime::exec::null_stdio;
use crate::runtime::sync::{self, Socket};
use crate::runtime::{role, sealed};
use crate::sys::lock::{self, Kind as Lock};

pub use super::exchange::OUT as OUTSIDE;

/// The name of the socket in the directory.
pub(super) const SOCKET: &str = "socket";
/// What it is called until somebody listens there.
pub(super) const NEW_SOCKET: &str = "socket.new";
/// How long the forwarder may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the forwarder's files are.
pub(super) fn dir(data: &Path) -> PathBuf {
    data.join("forward")
}

/// While it lives so does the forwarder.
#[derive(Debug)]
pub struct Hold {
    data: PathBuf,
    socket: Option<Socket>,
    /// The shared network name space: it stays while we have it, whatever becomes of the forwarder.
    shared: OwnedFd,
    /// Where our ports lead.
    leads: Vec<(OwnedFd, Lead)>,
    /// Tells a forwarder after this one that we have the name space.
    _held: Option<OwnedFd>,
    /// When the forwarder is gone: what tells of the next one.
    watch: Option<OwnedFd>,
}

/// What the forwarder gives, besides the hold.
#[derive(Debug)]
pub struct Given {
    /// A netlink socket in the shared name space, for links, addresses and routes.
    pub route: OwnedFd,
    /// A netlink socket there, for rules.
    pub netfilter: OwnedFd,
    /// The forwarder, for joining its user name space.
    pub process: OwnedFd,
}

/// The user's forwarder; it is started if there is none, and `warn` hears if one was ended that containers still need. To
/// be called before a user name space is entered.
pub fn ensure(data: &Path, warn: &mut dyn FnMut(&str)) -> Result<(Hold, Given)> {
    let deadline = Instant::now() + PATIENCE;
    let mut is_told = false;
    loop {
        let started = match connect(&dir(data)).context(ABOUT)? {
            Some(socket) => join(data, socket, None, Keeps::No)?,
            None => {
                if !is_told && is_missed(data)? {
                    warn(ENDED);
                    is_told = true;
                }
                join(data, start(data)?, None, Keeps::No)?
            }
        };
        if let Some(started) = started {
            return Ok(started);
        }
        // It ended at this moment, or another command starts one.
        anyhow::ensure!(Instant::now() < deadline, "{ABOUT}: it does not answer");
        crate::sys::process::pause(Duration::from_millis(2));
    }
}

/// Starts the user's forwarder again if it was killed and somebody still needs it; what is asked here costs next to nothing
/// where it was not. To be called before a user name space is entered.
pub fn heal(data: &Path, warn: &mut dyn FnMut(&str)) -> Result<Option<(Hold, Given)>> {
    // A store that cannot be looked into is told of by whoever opens it.
    let is_needed = is_missed(data).unwrap_or(false) && !is_there(data)?;
    if is_needed { ensure(data, warn).map(Some) } else { Ok(None) }
}

/// The user's forwarder, if there is one.
pub fn look(data: &Path) -> Result<Option<(Hold, Given)>> {
    let socket = connect(&dir(data)).context(ABOUT)?;
    Ok(socket.map(|socket| join(data, socket, None, Keeps::No)).transpose()?.flatten())
}

/// The user's forwarder, which the command before us has seen to; for supervisors.
pub fn find(data: &Path) -> Result<(Hold, Given)> {
    let socket = connect(&dir(data)).context(ABOUT)?;
    let found = socket.map(|socket| join(data, socket, None, Keeps::Yes)).transpose()?.flatten();
    found
        .context("the process that leads a user's containers to the outside was ended")
        .hint("try again: the next one that needs it starts another one")
}

/// What is said when it was killed.
const ENDED: &str = "the process that leads containers to the outside was ended; it is started again, and connections that went through it are lost";
const ABOUT: &str = "cannot reach the process that leads a user's containers to the outside";

/// `None` if nobody listens.
fn connect(dir: &Path) -> Result<Option<Socket>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir_fd = match rustix::fs::open(dir, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        other => other?,
    };
    // Through the descriptor: a socket's path must fit 108 bytes.
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET}", dir_fd.as_raw_fd()))?;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    for which in [Timeout::Send, Timeout::Recv] {
        sockopt::set_socket_timeout(&socket, which, Some(PATIENCE))?;
    }
    match rustix::net::connect(&socket, &address) {
        Ok(()) => Ok(Some(socket.into())),
        Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn start(data: &Path) -> Result<Socket> {
    let (ours, theirs) = sync::pair()?;
    for which in [Timeout::Send, Timeout::Recv] {
        sockopt::set_socket_timeout(&ours, which, Some(PATIENCE)).context(ABOUT)?;
    }
    let path = CString::new(data.as_os_str().as_bytes()).context("the store's path holds a NUL byte")?;
    let null = null_stdio()?;
    let stdio = [null[0].as_fd(), null[1].as_fd(), null[2].as_fd()];
    let executable = sealed::own()?;
    role::start(executable.as_fd(), 0, &[c"dhow", c"forward", &path], Some(stdio), &[(theirs.as_fd(), 3)])?;
    Ok(ours)
}

/// Whether one who joins keeps the name space for a forwarder after this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeps {
    Yes,
    No,
}

/// Takes what the forwarder gives; `None` if it ends before it did.
fn join(
    data: &Path,
    socket: Socket,
    shared: Option<BorrowedFd<'_>>,
    keeps: Keeps,
) -> Result<Option<(Hold, Given)>> {
    if socket.send(&Word::Join, shared).is_err() {
        return Ok(None);
    }
    let mut given = Vec::with_capacity(4);
    while given.len() < 4 {
        match socket.receive::<Word>().hint("if it hangs, end it: its next user starts another one")? {
            Some((Word::Failed(failure), _)) => return Err(failure.into_refusal()),
            Some((Word::Shared | Word::Route | Word::Netfilter | Word::Process, Some(fd))) => given.push(fd),
            Some((other, _)) => bail!("{ABOUT}: it says {other:?}"),
            None => return Ok(None),
        }
    }
    let Ok([shared, route, netfilter, process]) = <[OwnedFd; 4]>::try_from(given) else { return Ok(None) };
    // Only now: a forwarder that begins would wait for us to bring the name space along.
    let held = if keeps == Keeps::Yes { Some(hold_on(&dir(data))?) } else { None };
    if held.is_some() && has_ended(&socket)? {
        // One after it may have missed us.
        return Ok(None);
    }
    let hold = Hold {
        data: data.to_owned(),
        socket: Some(socket),
        shared,
        leads: Vec::new(),
        _held: held,
        watch: None,
    };
    Ok(Some((hold, Given { route, netfilter, process })))
}

fn hold_on(dir: &Path) -> Result<OwnedFd> {
    fs::create_dir_all(dir, 0o700)?;
    let held = fs::open_or_create(&dir.join("held"), 0o600)?;
    lock::acquire(&held, Lock::Shared).context("cannot lock")?;
    Ok(held.into())
}

/// Whether somebody keeps the name space of a forwarder that is gone.
fn is_missed(data: &Path) -> Result<bool> {
    let path = dir(data).join("held");
    if fs::metadata(&path)?.is_none() {
        return Ok(false);
    }
    lock::is_taken(&fs::open_or_create(&path, 0o600)?).context("cannot see a lock")
}

/// Whether a forwarder lives, or just begins.
fn is_there(data: &Path) -> Result<bool> {
    lock::is_held(&fs::open_or_create(&dir(data).join("lock"), 0o600)?).context("cannot see a lock")
}

fn has_ended(socket: &Socket) -> Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::empty())];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&now)).context("cannot look for the forwarder")?;
    Ok(fds[0].revents().contains(PollFlags::HUP))
}

impl Hold {
    /// Our ports are these and no others: sockets that are bound to them, and where they lead.
    pub fn lead(&mut self, leads: Vec<(OwnedFd, Lead)>) -> Result<()> {
        if leads.is_empty() && self.leads.is_empty() {
            return Ok(());
        }
        self.leads = leads;
        let told = if self.socket.is_some() { self.tell_leads() } else { Ok(()) };
        if told.is_err() && self.socket.as_ref().is_none_or(|socket| has_ended(socket).unwrap_or(true)) {
            // It was killed, which we would have heard in a moment. Without one they are led when the next one comes.
            self.step();
            return Ok(());
        }
        told
    }

    fn tell_leads(&self) -> Result<()> {
        self.ask(&Word::Clear, None)?;
        self.leads.iter().try_for_each(|(fd, lead)| self.ask(&Word::Lead(lead.clone()), Some(fd.as_fd())))
    }

    fn ask(&self, wanted: &Word, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        let socket = self.socket.as_ref().context(ABOUT)?;
        socket.send(wanted, fd)?;
        match socket.receive::<Word>()? {
            Some((Word::Done, _)) => Ok(()),
            Some((Word::Failed(failure), _)) => Err(failure.into_refusal()),
            other => bail!("{ABOUT}: it says {other:?}"),
        }
    }

    /// What to wait for; `None` if there is nothing that could come.
    pub fn interest(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd).or_else(|| self.watch.as_ref().map(AsFd::as_fd))
    }

    /// Something came: the forwarder went, or there is another one. That gets the name space and the ports from us.
    pub fn step(&mut self) {
        if let Some(watch) = &self.watch {
            // What exactly it tells does not matter.
            let _ = rustix::io::read(watch, &mut [0_u8; 4096][..]);
        }
        if self.socket.take().is_some() {
            self.watch = watch(&dir(&self.data)).ok();
        }
        // Also at once: it may have come before we watched.
        if self.come_again().is_ok_and(|is_back| is_back) {
            self.watch = None;
        }
    }

    fn come_again(&mut self) -> Result<bool> {
        let Some(socket) = connect(&dir(&self.data))? else { return Ok(false) };
        let again = join(&self.data, socket, Some(self.shared.as_fd()), Keeps::No)?;
        let Some((again, _)) = again else { return Ok(false) };
        self.socket = again.socket;
        self.tell_leads()?;
        Ok(true)
    }
}

fn watch(dir: &Path) -> Result<OwnedFd> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&watch, dir, inotify::WatchFlags::MOVED_TO)?;
    Ok(watch)
}
