//! The command's side of a visit to a supervisor that runs: finding it, asking, hearing the answer.

use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::Control;
use super::guests::NAME;
use crate::error::ResultExt;
use crate::fs;
use crate::runtime::rootfs::Root;
use crate::runtime::sync::Socket;
use crate::store::container::ContainerDir;
use crate::sys::lock;

/// How long a supervisor may take to answer: it does one thing at a time, and freezing a container may take a while.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connects to the supervisor of a container, if it listens by now.
pub(super) fn try_connect(dir: &ContainerDir) -> Result<Option<Socket>> {
    let about = || format!("cannot reach the supervisor of {}", dir.id());
    if fs::metadata(&dir.path)?.is_none() {
        return Ok(None);
    }
    // Through the descriptor: a socket's path must fit 108 bytes.
    let dir_fd = Root::open_host(&dir.path)?;
    let path = format!("/proc/self/fd/{}/{NAME}", dir_fd.as_fd().as_raw_fd());
    let address = SocketAddrUnix::new(path).with_context(about)?;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .with_context(about)?;
    for which in [Timeout::Send, Timeout::Recv] {
        sockopt::set_socket_timeout(&socket, which, Some(PATIENCE)).with_context(about)?;
    }
    match rustix::net::connect(&socket, &address) {
        Ok(()) => Ok(Some(socket.into())),
        Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
        Err(error) => Err(error).with_context(about),
    }
}

/// Connects to the supervisor of a container; `None` if there is none. Waits for one that has just been started.
pub fn connect(dir: &ContainerDir) -> Result<Option<Socket>> {
    let about = || format!("cannot reach the supervisor of {}", dir.id());
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(socket) = try_connect(dir)? {
            return Ok(Some(socket));
        }
        // Nobody listens yet, or any more.
        if fs::metadata(&dir.path)?.is_none() || !lock::is_held(dir.open_lock()?).with_context(about)? {
            return Ok(None);
        }
        if Instant::now() > deadline {
            bail!("{}: it does not listen", about());
        }
        let moment = rustix::event::Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
        let _ = rustix::event::poll(&mut [], Some(&moment));
    }
}

/// What a supervisor said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// It does not fit what the container does now: look again.
    NotNow,
    /// There is no supervisor, or it ended before it answered.
    Gone,
}

/// Asks the supervisor of a container for something, and returns when it is done. False if there is no supervisor, or if
/// it ended before it answered.
pub fn ask(dir: &ContainerDir, what: &Control) -> Result<bool> {
    match ask_now(dir, what)? {
        Answer::Done => Ok(true),
        Answer::Gone => Ok(false),
        Answer::NotNow => bail!("it is doing something else at this moment"),
    }
}

/// The same for what may come at the wrong moment.
pub fn ask_now(dir: &ContainerDir, what: &Control) -> Result<Answer> {
    let Some(socket) = connect(dir)? else { return Ok(Answer::Gone) };
    if socket.send(what, None).is_err() {
        return Ok(Answer::Gone);
    }
    let answer = socket.receive::<Control>().hint("its supervisor may be stuck: dhow rm -f ends it");
    match answer? {
        None => Ok(Answer::Gone),
        Some((Control::Done, _)) => Ok(Answer::Done),
        Some((Control::NotNow, _)) => Ok(Answer::NotNow),
        Some((Control::Failed(failure), _)) => Err(failure.into_refusal()),
        Some((other, _)) => bail!("unexpected {other:?} from its supervisor"),
    }
}

/// Stays in a box: it goes on as long as the socket is held. `None`: it is ending, or has ended.
pub fn stay(dir: &ContainerDir) -> Result<Option<Socket>> {
    let Some(socket) = connect(dir)? else { return Ok(None) };
    if socket.send(&Control::Stay, None).is_err() {
        return Ok(None);
    }
    let answer = socket.receive::<Control>().hint("its supervisor may be stuck: dhow rm -f ends it");
    Ok(matches!(answer?, Some((Control::Done, _))).then_some(socket))
}
