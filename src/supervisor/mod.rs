//! The process that outlives the command: it mounts the root, starts the container, relays streams, keeps the log, notes
//! the exit code and clears away. This file is the command's side; `serve` is the process itself.
//!
//! The protocol on the control socket (one packet a message):
//! ```text
//! command                supervisor
//!   Begin      -->
//!              <--  Warning*                something works less well than asked for
//!              <--  Started | Failed
//!   Signal, Resize, Detach  -->
//!              <--  Exited
//! ```
//! If the command vanishes without `Detach`, a foreground container ends.

mod emulation;
pub mod log;
mod relay;
pub mod serve;
mod start;

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

pub use emulation::hand_over as hand_over_listener;
pub use start::apply_user;

use crate::error::ResultExt;
use crate::event::{Event, Sink};
use crate::runtime::sync::{self, Failure, Socket};
use crate::runtime::{Isolation, chroot, role, sealed};
use crate::store::container::ContainerDir;

/// What goes over the control socket.
#[derive(Debug, Serialize, Deserialize)]
pub enum Control {
    /// Command: how to begin.
    Begin(Begin),
    /// Supervisor: a line for the user.
    Warning(String),
    /// Supervisor: the program runs.
    Started,
    /// Supervisor: it cannot.
    Failed(Failure),
    /// Command: pass this signal on.
    Signal(i32),
    /// Command: the terminal has these rows and columns now.
    Resize(u16, u16),
    /// Command: goes away, the container stays.
    Detach,
    /// Supervisor: the container ended, and its name is free if it was to go; its exit code.
    Exited(i32),
}

/// How a supervisor is to begin.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Begin {
    /// The container lives and dies with the command, which gave its standard streams.
    pub foreground: bool,
    /// stdin of the command is the container's.
    pub stdin: bool,
    /// Rows and columns of the command's terminal; 0 where it has none.
    pub size: (u16, u16),
    /// How far the container is kept apart.
    pub isolation: Isolation,
    /// Whether `spawn` may take less where the machine gives less.
    pub may_downgrade: bool,
}

/// Descriptor numbers of the supervisor, above stdio.
const CONTROL_FD: i32 = 3;
const LOCK_FD: i32 = 4;
const DATA_FD: i32 = 5;

/// The command's hold on a supervisor.
#[derive(Debug)]
pub struct Client {
    /// Messages.
    pub control: Socket,
    /// The terminal's bytes, both ways, if the container has one and is in the foreground.
    pub data: Option<OwnedFd>,
}

/// Starts a supervisor for this container, whose lock is handed over, and returns when the program runs.
/// Without `stdio` it gets /dev/null.
pub fn spawn(
    dir: &ContainerDir,
    lock: OwnedFd,
    begin: &Begin,
    terminal: bool,
    stdio: Option<[BorrowedFd<'_>; 3]>,
    events: Sink<'_>,
) -> Result<Client> {
    let mut begin = begin.clone();
    let executable = sealed::executable()?;
    let (ours, theirs) = sync::pair()?;
    let null = crate::runtime::exec::null_stdio()?;
    let stdio = stdio.unwrap_or([null[0].as_fd(), null[1].as_fd(), null[2].as_fd()]);
    let data = if terminal && begin.foreground { Some(stream_pair()?) } else { None };
    let mut keep = vec![(theirs.as_fd(), CONTROL_FD), (lock.as_fd(), LOCK_FD)];
    if let Some((_, theirs)) = &data {
        keep.push((theirs.as_fd(), DATA_FD));
    }
    let path = CString::new(dir.path.as_os_str().as_bytes()).context("the store's path holds a NUL byte")?;
    let words = [c"dhow", c"supervise", path.as_c_str()];
    // Pid 1 of a name space of its own: when it ends, however it ends, the kernel ends the container nested in it.
    match role::start(&executable, libc::CLONE_NEWPID as u64, &words, Some(stdio), &keep) {
        Err(error) if begin.may_downgrade && chroot::is_refusal(&error) => {
            events(Event::Warning(format!(
                "this sandbox allows no name spaces, so the container is a chroot: only its files are its own; {}",
                chroot::HINT
            )));
            begin.isolation = Isolation::Chroot;
            role::start(&executable, 0, &words, Some(stdio), &keep)?;
        }
        other => drop(other.hint(chroot::HINT)?),
    }
    drop((theirs, lock));
    let client = Client { control: ours, data: data.map(|(ours, _)| ours) };
    client.control.send(&Control::Begin(begin), None)?;
    client.await_start(events)?;
    Ok(client)
}

fn stream_pair() -> Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .context("cannot make a socket pair")
}

impl Client {
    fn await_start(&self, events: Sink<'_>) -> Result<()> {
        loop {
            match self.control.receive::<Control>()? {
                Some((Control::Warning(text), _)) => events(Event::Warning(text)),
                Some((Control::Started, _)) => return Ok(()),
                Some((Control::Failed(failure), _)) => return Err(failure.into_error()),
                Some((other, _)) => {
                    bail!("cannot start the container: unexpected {other:?} from its supervisor")
                }
                None => bail!("cannot start the container: its supervisor was killed"),
            }
        }
    }
}
