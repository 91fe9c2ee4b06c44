//! The process that outlives the command: it mounts the root, starts the container, relays streams, keeps the log, notes
//! the exit code and clears away. This file is the command's side; `serve` is the process itself.
//!
//! The protocol on the control socket (one packet a message):
//! ```text
//! command                supervisor
//!   Preserved* -->                       descriptors of the command that the program gets
//!   Begin      -->
//!              <--  Warning*                something works less well than asked for
//!              <--  Started | Failed
//!   Signal, Resize, Detach  -->
//!              <--  Exited
//! ```
//! If the command vanishes without `Detach`, a foreground container ends.
//!
//! Later commands are `guests`, through the socket DIR/socket:
//! ```text
//! command                supervisor
//!   Pause, Resume, StayDown, ...  -->
//!              <--  Done | Failed
//!   Attach     -->
//!              <--  Done | Failed
//!   Resize, Leave, bytes  -->
//!              <--  bytes, Missing          as they come
//!              <--  Exited
//! ```
//!
//! A supervisor may run its container more than once: `again`.

mod again;
pub mod check;
mod command;
mod emulation;
mod gate;
mod guests;
mod health;
mod identity;
mod joined;
mod links;
pub mod log;
mod names;
mod network;
mod own;
mod passage;
mod pause;
mod person;
mod port_owner;
pub mod ports;
mod relay;
mod request;
mod requests;
mod rewire;
mod secrets;
pub mod serve;
mod shared;
mod shift;
mod start;
mod timers;
mod visit;
mod zone;

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

pub use emulation::hand_over as hand_over_listener;
pub use guests::{ERR, OUT, TYPED};
pub use identity::{KEEP_GROUPS, apply_user, extra_groups, keep_groups, moves_of, users_of_image};
pub use person::{become_person, runtime_dir};
pub use request::{Wanted, request};
pub use start::{read_spec, shares_pids};
pub use visit::{Answer, ask, ask_now, connect, stay};

use crate::error::ResultExt;
use crate::event::{Event, Sink};
use crate::oci::runtime::LinuxResources;
use crate::runtime::preserved::Preserved;
use crate::runtime::sealed::Executable;
use crate::runtime::sync::{self, Failure, Socket};
use crate::runtime::{Isolation, chroot, role};

/// What goes over the control socket.
#[derive(Debug, Serialize, Deserialize)]
pub enum Control {
    /// Command: how to begin; the container's lock comes along.
    Begin(Begin),
    /// Command, before `Begin`: a descriptor that the program is to have at this number comes along.
    Preserved(i32),
    /// Supervisor: a line for the user.
    Warning(String),
    /// Supervisor: the program runs; its pid, 0 where that cannot be told.
    Started(i32),
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
    /// Supervisor, to a guest: what it asked for is done.
    Done,
    /// Guest: stop all processes.
    Pause,
    /// Guest: let them go on.
    Resume,
    /// Guest: this run is the last; between two runs, there is no next one.
    StayDown,
    /// Supervisor, to a guest: what it asked for does not fit what the container does now.
    NotNow,
    /// Guest: when this run ends, begin the next one at once.
    RunAgain,
    /// Guest: begin the next run now.
    Hurry,
    /// Guest: the record was changed.
    ReadAgain,
    /// Guest: what the record asks of networks is to be so.
    Rewire,
    /// Guest: these limits are to hold.
    Limit(Box<LinuxResources>),
    /// Guest: show me this, and take what I type.
    Attach(Attach),
    /// Guest: tell me when this run has ended.
    AwaitEnd,
    /// Another supervisor: give me a clone of your mount of this volume.
    Share(String),
    /// Guest: I am in this box; it stays as long as I do.
    Stay,
    /// Guest: run the health check now.
    Check,
    /// Supervisor, to a guest: what that came to.
    Checked {
        /// It succeeded.
        is_healthy: bool,
        /// What the container is now.
        status: String,
    },
    /// Supervisor, to a guest that is attached: so many bytes of output found no room.
    Missing(u64),
}

/// What of the container's streams a guest is attached to.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Attach {
    /// It types.
    pub stdin: bool,
    /// It sees stdout, or the terminal.
    pub stdout: bool,
    /// It sees stderr.
    pub stderr: bool,
    /// Rows and columns of its terminal; 0 where it has none.
    pub size: (u16, u16),
}

/// How a supervisor is to begin.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Begin {
    /// The container lives and dies with the command, which gave its standard streams.
    pub foreground: bool,
    /// stdin of the command is the container's.
    pub stdin: bool,
    /// The command shows its stdout.
    pub stdout: bool,
    /// The command shows its stderr.
    pub stderr: bool,
    /// The command may go away while the container stays: it does not get the command's own descriptors.
    pub may_leave: bool,
    /// Rows and columns of the command's terminal; 0 where it has none.
    pub size: (u16, u16),
    /// How far the container is kept apart: what [`spawn`] could get, whatever is written here.
    pub isolation: Isolation,
}

/// Descriptor numbers of the supervisor, above stdio.
const CONTROL_FD: i32 = 3;
const DATA_FD: i32 = 4;

/// The command's hold on a supervisor.
#[derive(Debug)]
pub struct Client {
    /// Messages.
    pub control: Socket,
    /// The terminal's bytes, both ways, if the container has one and is in the foreground.
    pub data: Option<OwnedFd>,
    /// The pid of the container's init once it runs, 0 where that cannot be told.
    pub pid: i32,
}

/// How a supervisor is started.
#[derive(Debug, Clone, Copy, Default)]
pub struct SpawnOptions<'a> {
    /// The bytes of the container's terminal come to the command.
    pub terminal: bool,
    /// Its standard streams; /dev/null without.
    pub stdio: Option<[BorrowedFd<'a>; 3]>,
    /// Whether less isolation will do where the machine gives less.
    pub may_downgrade: bool,
    /// The container's processes are among the host's, or another container's, and so the supervisor cannot have a pid
    /// name space of its own around them.
    pub shares_pids: bool,
}

/// A supervisor that has started and waits to hear how to begin. It ends if this is dropped.
#[derive(Debug)]
pub struct Waiting {
    client: Client,
    isolation: Isolation,
    executable: Option<Executable>,
}

/// Starts a supervisor for a container that is, or is yet to be made, in the directory `path`: from `executable`, or
/// without one as a copy of the command. The copy is quicker there, and lasting; it may be started before our ids are mapped.
pub fn spawn(
    path: &Path,
    executable: Option<Executable>,
    options: SpawnOptions<'_>,
    events: Sink<'_>,
) -> Result<Waiting> {
    let (ours, theirs) = sync::pair()?;
    let null = crate::runtime::exec::null_stdio()?;
    let stdio = options.stdio.unwrap_or([null[0].as_fd(), null[1].as_fd(), null[2].as_fd()]);
    let data = if options.terminal { Some(stream_pair()?) } else { None };
    let mut keep = vec![(theirs.as_fd(), CONTROL_FD)];
    if let Some((_, theirs)) = &data {
        keep.push((theirs.as_fd(), DATA_FD));
    }
    let words = CString::new(path.as_os_str().as_bytes()).context("the store's path holds a NUL byte")?;
    let words = [c"dhow", c"supervise", words.as_c_str()];
    let start = |flags| match &executable {
        Some(executable) => role::start(executable.as_fd(), flags, &words, Some(stdio), &keep),
        None => role::copy(flags, Some(stdio), &keep, &mut || serve::run(path).map_or(125, |()| 0)),
    };
    let mut isolation = Isolation::Full;
    // Pid 1 of a name space of its own: when it ends, however it ends, the kernel ends the container nested in it.
    match start(if options.shares_pids { 0 } else { libc::CLONE_NEWPID }) {
        Err(error) if options.may_downgrade && chroot::is_refusal(&error) => {
            events(Event::Warning(format!(
                "this sandbox allows no name spaces, so the container is a chroot: only its files are its own; {}",
                chroot::HINT
            )));
            isolation = Isolation::Chroot;
            start(0)?;
        }
        other => drop(other.hint(chroot::HINT)?),
    }
    let client = Client { control: ours, data: data.map(|(ours, _)| ours), pid: 0 };
    Ok(Waiting { client, isolation, executable })
}

impl Waiting {
    /// Whether its container is kept apart by its files alone.
    pub fn is_chroot(&self) -> bool {
        self.isolation == Isolation::Chroot
    }

    /// Hands over descriptors that the program is to have, before [`Waiting::begin`].
    pub fn preserve(&self, preserved: &Preserved) -> Result<()> {
        preserved
            .all()
            .try_for_each(|(number, fd)| self.client.control.send(&Control::Preserved(number), Some(fd)))
    }

    /// Hands the container over, by its lock, and returns when its program runs.
    pub fn begin(self, lock: &OwnedFd, begin: Begin, events: Sink<'_>) -> Result<Client> {
        let Waiting { mut client, isolation, executable } = self;
        let begin = Control::Begin(Begin { isolation, ..begin });
        client.control.send(&begin, Some(lock.as_fd()))?;
        // Now there is time: the answer takes a while.
        drop(executable);
        client.pid = client.await_start(events)?;
        Ok(client)
    }
}

fn stream_pair() -> Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .context("cannot make a socket pair")
}

impl Client {
    /// The pid of the program that runs.
    fn await_start(&self, events: Sink<'_>) -> Result<i32> {
        loop {
            match self.control.receive::<Control>()? {
                Some((Control::Warning(text), _)) => events(Event::Warning(text)),
                Some((Control::Started(pid), _)) => return Ok(pid),
                Some((Control::Failed(failure), _)) => return Err(failure.into_error()),
                Some((other, _)) => {
                    bail!("cannot start the container: unexpected {other:?} from its supervisor")
                }
                None => bail!("cannot start the container: its supervisor was killed"),
            }
        }
    }
}
