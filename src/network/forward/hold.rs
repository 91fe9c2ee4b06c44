//! The side of those who need the forwarder: commands that start a container, and supervisors.

use std::ffi::CString;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags, inotify};
use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::{Publish, Word};
use crate::endpoint::Published;
use crate::error::ResultExt;
use crate::fs;
use crate::runtime::exec::null_stdio;
use crate::runtime::sync::{self, Socket};
use crate::runtime::{role, sealed};
use crate::sys::lock::{self, Kind as Lock};

/// The name of the socket in the directory.
pub(super) const SOCKET: &str = "socket";
/// How long the forwarder may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the forwarder's files are.
pub(super) fn dir(data: &Path) -> PathBuf {
    data.join("forward")
}

/// What whoever holds it can do in the shared name space; while it lives so does the forwarder.
#[derive(Debug)]
pub struct Hold {
    dir: PathBuf,
    socket: Option<Socket>,
    /// The shared network name space.
    pub shared: OwnedFd,
    /// A netlink socket there, for links, addresses and routes.
    pub route: OwnedFd,
    /// A netlink socket there, for rules.
    pub netfilter: OwnedFd,
    /// The forwarder, for joining its user name space.
    pub process: OwnedFd,
    published: Publish,
    /// Tells a forwarder after us that we have the name space.
    _held: OwnedFd,
    /// When the forwarder is gone: what tells of the next one.
    watch: Option<OwnedFd>,
}

/// The user's forwarder; it is started if there is none. To be called before a user name space is entered.
pub fn ensure(data: &Path) -> Result<Hold> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let started = match connect(&dir(data)).context(ABOUT)? {
            Some(socket) => join(data, socket, None)?,
            None => join(data, start(data)?, None)?,
        };
        if let Some(hold) = started {
            return Ok(hold);
        }
        // It ended at this moment, or another command starts one.
        anyhow::ensure!(Instant::now() < deadline, "{ABOUT}: it does not answer");
        crate::sys::process::pause(Duration::from_millis(2));
    }
}

/// The user's forwarder, which the command before us has seen to; for supervisors.
pub fn find(data: &Path) -> Result<Hold> {
    let socket = connect(&dir(data)).context(ABOUT)?;
    let hold = socket.map(|socket| join(data, socket, None)).transpose()?.flatten();
    hold.context("the process that leads a user's containers to the outside was ended").hint("try again")
}

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

/// Takes what the forwarder gives; `None` if it ends before it did.
fn join(data: &Path, socket: Socket, shared: Option<BorrowedFd<'_>>) -> Result<Option<Hold>> {
    // First, so that no forwarder after this one can miss us.
    let held = hold_on(&dir(data))?;
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
    Ok(Some(Hold {
        dir: dir(data),
        socket: Some(socket),
        shared,
        route,
        netfilter,
        process,
        published: Publish::default(),
        _held: held,
        watch: None,
    }))
}

fn hold_on(dir: &Path) -> Result<OwnedFd> {
    fs::create_dir_all(dir, 0o700)?;
    let held = fs::open_or_create(&dir.join("held"), 0o600)?;
    lock::acquire(&held, Lock::Shared).context("cannot lock")?;
    Ok(held.into())
}

impl Hold {
    /// The container's ports are to be these and no others; with the host's ports that were found where any would do.
    pub fn publish(&mut self, container: &str, ports: &[(Published, Vec<IpAddr>)]) -> Result<Vec<Published>> {
        if ports.is_empty() && self.published.ports.is_empty() {
            return Ok(Vec::new());
        }
        let wanted = Publish { container: container.to_owned(), ports: ports.to_vec() };
        let found = self.ask(&wanted)?;
        let leads = wanted.ports.into_iter().map(|(_, to)| to);
        self.published = Publish { ports: found.iter().cloned().zip(leads).collect(), ..wanted };
        Ok(found)
    }

    fn ask(&self, wanted: &Publish) -> Result<Vec<Published>> {
        let socket = self.socket.as_ref().context(ABOUT)?;
        socket.send(&Word::Publish(wanted.clone()), None)?;
        match socket.receive::<Word>()? {
            Some((Word::Published(found), _)) => Ok(found),
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
            self.watch = watch(&self.dir).ok();
        }
        // Also at once: it may have come before we watched.
        if self.come_again().is_ok_and(|is_back| is_back) {
            self.watch = None;
        }
    }

    fn come_again(&mut self) -> Result<bool> {
        let Some(data) = self.dir.parent().map(Path::to_owned) else { return Ok(false) };
        let Some(socket) = connect(&self.dir)? else { return Ok(false) };
        let Some(again) = join(&data, socket, Some(self.shared.as_fd()))? else { return Ok(false) };
        let published = std::mem::take(&mut self.published);
        *self = again;
        if !published.ports.is_empty() {
            // A port that somebody took meanwhile is lost; all others are there again.
            self.published = published;
            if self.ask(&self.published).is_err() {
                self.publish_each();
            }
        }
        Ok(true)
    }

    fn publish_each(&mut self) {
        let mut had = Publish { container: self.published.container.clone(), ports: Vec::new() };
        for port in std::mem::take(&mut self.published.ports) {
            had.ports.push(port);
            if self.ask(&had).is_err() {
                had.ports.pop();
            }
        }
        self.published = had;
    }
}

fn watch(dir: &Path) -> Result<OwnedFd> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&watch, dir, inotify::WatchFlags::CREATE)?;
    Ok(watch)
}
