//! One more process in a container that runs.
//!
//! The command starts our sealed executable in the role `dhow enter`; that forks the process into the container and stays
//! as its parent, outside: of the container it has nothing but the pid name space of its child. Inside the container only
//! the sealed copy is ever seen (CVE-2019-5736).
//!
//! Invariant: whatever becomes of the command, somebody reaps the process. Were it left to the init around us, and that
//! one does not reap (`sleep` as pid 1 of a CI step), its zombie would keep the container's init from ending for ever
//! (zap_pid_ns_processes in the kernel).
//!
//! ```text
//! command ---- sync ladder ------------------ process      stdio and ladder are the process's alone,
//!    `--child-- enter --------child------------'           so their ends of file mean what they say
//!                 |  life: ends when the command does; the process is killed then (foreground only)
//! ```

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags};
use serde::{Deserialize, Serialize};

use super::create::{Init, Waiter};
use super::preserved::Preserved;
use super::process::{self, Program};
use super::rootfs::Root;
use super::sealed::Executable;
use super::sync::{self, Message, Socket};
use super::{Outside, Stdio, apparmor, cgroup, seccomp, tend, terminal};
use crate::error::ResultExt;
use crate::host::Host;
use crate::oci::runtime::{LinuxSeccomp, Process};
use crate::sys;
use crate::sys::process::{Forked, exit_now, fork};

/// What is to run, and where.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// The process.
    pub process: Process,
    /// The name spaces to join, CLONE_NEW*.
    pub namespaces: i32,
    /// The filter of the container.
    pub seccomp: Option<LinuxSeccomp>,
    /// The container's cgroup.
    pub cgroup: Option<cgroup::Cgroup>,
    /// Rows and columns, if it gets a terminal.
    pub terminal: Option<(u16, u16)>,
    /// The user has one id only.
    pub emulate: bool,
    /// The container's root, where it is a chroot and nothing else.
    pub chroot: Option<PathBuf>,
    /// It joins the container's inner user name space.
    pub is_inner: bool,
    /// How many descriptors besides the standard streams it gets; they come over the ladder.
    #[serde(default)]
    pub n_preserved: usize,
    /// Whose its terminal is to be, where that is not ours.
    #[serde(default)]
    pub outside: Option<Outside>,
    /// It and all that it starts is ended after so long.
    #[serde(default)]
    pub limit: Option<Duration>,
}

/// Descriptor numbers that `enter` is started with, above stdio.
const SYNC_FD: i32 = 3;
const TARGET_FD: i32 = 4;
const REQUEST_FD: i32 = 5;
/// The reading end of a pipe whose writing end only the command has; in the foreground only.
const LIFE_FD: i32 = 6;

/// `dhow enter`, started and waiting to hear what it is to do.
#[derive(Debug)]
pub struct Entering {
    socket: Socket,
    waiter: Waiter,
    request: OwnedFd,
    executable: Executable,
}

/// Starts `enter` for the container whose init is behind `target`. Early: its start-up and the caller's finding out what
/// to ask for go side by side. If `Entering` is dropped, it ends.
pub fn begin(
    host: &Host,
    target: &OwnedFd,
    foreground: bool,
    stdio: Option<[OwnedFd; 3]>,
) -> Result<Entering> {
    begin_from(super::sealed::executable(host)?, target, foreground, stdio)
}

/// The same from an executable that is sealed already.
pub fn begin_from(
    executable: Executable,
    target: &OwnedFd,
    foreground: bool,
    stdio: Option<[OwnedFd; 3]>,
) -> Result<Entering> {
    let (socket, theirs) = sync::pair()?;
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("cannot make a pipe");
    let (body, request) = pipe()?;
    let (life, held) = pipe()?;
    let stdio = stdio.as_ref().map(|fds| [fds[0].as_fd(), fds[1].as_fd(), fds[2].as_fd()]);
    let mut keep = vec![(theirs.as_fd(), SYNC_FD), (target.as_fd(), TARGET_FD), (body.as_fd(), REQUEST_FD)];
    if foreground {
        keep.push((life.as_fd(), LIFE_FD));
    }
    let (_, pidfd) = super::role::start(executable.as_fd(), 0, &[c"dhow", c"enter"], stdio, &keep)?;
    Ok(Entering { socket, waiter: Waiter { pidfd, _life: held }, request, executable })
}

impl Entering {
    /// Prepares the process; `Init::start` lets it run.
    pub fn request(self, request: &Request, preserved: &Preserved) -> Result<Init> {
        let text = serde_json::to_vec(request).context("cannot write the request")?;
        // If `enter` is gone already, its last words on the socket say more than a broken pipe.
        let _ = std::fs::File::from(self.request).write_all(&text);
        // After the request, which is read first: the socket holds some hundreds of them only.
        let _ = preserved
            .all()
            .try_for_each(|(number, fd)| self.socket.send(&Message::Preserved(number), Some(fd)));
        // Now there is time: the answer is on its way.
        drop(self.executable);
        Init::from_exec(self.socket, self.waiter)
    }
}

/// The role: forks, and returns in the intermediate process only, with the exit code of the process.
pub fn enter() -> Result<u8> {
    let fd = |n| sys::process::inherited_fd(n).context("cannot enter: not started by dhow exec");
    let socket = Socket::from(fd(SYNC_FD)?);
    let target = fd(TARGET_FD)?;
    let body = fd(REQUEST_FD)?;
    let life = sys::process::inherited_fd(LIFE_FD);
    let (told, tell) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("cannot make a pipe")?;
    let null = null_stdio()?;
    let request = read_request(body).and_then(|request| Ok((receive_preserved(&socket, &request)?, request)));
    let (socket, forked) = match request {
        Ok((preserved, request)) => {
            let socket = socket.clear_of(&preserved)?;
            (socket, fork_inside(&target, &request).map(|forked| (forked, request, preserved)))
        }
        Err(error) => (socket, Err(error)),
    };
    match forked {
        Ok((Forked::Parent { pid, pidfd }, request, preserved)) => {
            let sent = socket.send(&Message::Forked(pid), Some(pidfd.as_fd()));
            if sent.and_then(|()| step_aside(&null)).is_err() {
                let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
            }
            drop((told, tell, socket, target, request, null, preserved));
            stay(&pidfd, life.as_ref())
        }
        Ok((Forked::Child, request, preserved)) => {
            // Its rungs come after the one that tells of it.
            drop(tell);
            let _ = rustix::io::read(&told, &mut [0]);
            let error = match set_up(&target, &request, &socket)
                .and_then(|program| become_it(&program, &request, &socket, &preserved))
            {
                Ok((program, limit)) => {
                    // The other end hears that the program runs.
                    drop((told, socket, target));
                    exit_now(tend::stay(&program, limit));
                }
                Err(error) => error,
            };
            socket.send_error(&error);
            exit_now(super::create::error_code(&error));
        }
        Err(error) => {
            socket.send_error(&error);
            Err(error)
        }
    }
}

fn receive_preserved(socket: &Socket, request: &Request) -> Result<Preserved> {
    let mut preserved = Preserved::default();
    for _ in 0..request.n_preserved {
        match socket.receive()? {
            Some((Message::Preserved(number), Some(fd))) => preserved.push(number, fd),
            other => bail!("cannot enter: {other:?} came in place of a descriptor"),
        }
    }
    Ok(preserved)
}

fn read_request(body: OwnedFd) -> Result<Request> {
    let mut text = Vec::new();
    std::fs::File::from(body).read_to_end(&mut text).context("cannot read the request")?;
    serde_json::from_slice(&text).context("cannot read the request")
}

/// Forks into the container's cgroup and pid name space. The other name spaces the child joins on its own: so we neither
/// count in the container, nor are frozen with it, nor keep its mounts alive.
fn fork_inside(target: &OwnedFd, request: &Request) -> Result<Forked> {
    let v2 = request.cgroup.as_ref().map(cgroup::Cgroup::v2_dir).transpose()?.flatten();
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    join(target, request, libc::CLONE_NEWPID)?;
    fork(0, v2.as_ref().map(AsFd::as_fd)).context("cannot fork into the container").hint(GONE)
}

const GONE: &str = "it may have ended just now: look at dhow ps -a";

/// Joins those of the request's name spaces that are in `which`.
fn join(target: &OwnedFd, request: &Request, which: i32) -> Result<()> {
    let flags = request.namespaces & which;
    if request.chroot.is_some() || flags == 0 {
        return Ok(());
    }
    sys::process::join_namespaces(target, flags).context("cannot enter the container").hint(GONE)
}

/// Lets go of all that belongs to the caller: streams, whose readers wait for their end, the terminal's signals, the
/// working directory.
fn step_aside(null: &[OwnedFd; 3]) -> Result<()> {
    process::set_stdio([null[0].as_fd(), null[1].as_fd(), null[2].as_fd()])?;
    let _ = rustix::process::setsid();
    rustix::process::chdir("/").context("cannot change to /")
}

/// Waits for the process, and kills it if the command ends first; its exit code.
fn stay(process: &OwnedFd, life: Option<&OwnedFd>) -> Result<u8> {
    let mut fds = vec![PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
    fds.extend(life.map(|life| PollFd::from_borrowed_fd(life.as_fd(), PollFlags::empty())));
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None))
        .context("cannot wait for the process")?;
    if fds.get(1).is_some_and(|life| life.revents().contains(PollFlags::HUP)) {
        let _ = rustix::process::pidfd_send_signal(process, rustix::process::Signal::KILL);
    }
    Ok(u8::try_from(process::reap(process.as_fd())?).unwrap_or(255))
}

/// The new process becomes the program, or, where that has a limit, starts it and returns to tend it.
fn become_it(
    program: &Program,
    request: &Request,
    socket: &Socket,
    preserved: &Preserved,
) -> Result<(OwnedFd, Duration)> {
    match request.limit {
        None => {
            preserved.place()?;
            Err(program.exec())
        }
        Some(limit) => Ok((tend::start(program, socket)?, limit)),
    }
}

fn set_up(target: &OwnedFd, request: &Request, socket: &Socket) -> Result<Program> {
    let process = &request.process;
    if let Some(cgroup) = &request.cgroup
        && cgroup.v2_dir()?.is_none()
    {
        cgroup::enter(&cgroup.doors()?).context("cannot join the container's cgroup")?;
    }
    let profile = apparmor::open(process)?;
    join(target, request, !libc::CLONE_NEWPID)?;
    let program = Program::new(
        process.args().as_deref().unwrap_or_default(),
        process.env().as_deref().unwrap_or_default(),
    )?;
    let filter = request.seccomp.as_ref().map(seccomp::compile).transpose()?;
    sys::process::reset_signals();
    let _ = rustix::process::setsid();
    if let Some((rows, columns)) = request.terminal {
        let root = Root::open_host(&PathBuf::from("/"))?;
        let terminal = terminal::open(&root, rows, columns)?;
        terminal.belongs_to(request.outside)?;
        socket.send(&Message::Console, Some(terminal.master.as_fd()))?;
        terminal::make_controlling(&terminal.slave)?;
        process::set_stdio([terminal.slave.as_fd(); 3])?;
    }
    if let Some(root) = &request.chroot {
        super::chroot::enter(&Root::open_host(root)?)?;
    }
    process::seal_descriptors()?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    process::set_rlimits(process.rlimits().as_deref().unwrap_or_default())?;
    process::enter_cwd(process.cwd())?;
    if request.is_inner && request.chroot.is_none() {
        super::inner::join(target.as_fd())?;
    }
    profile.map(apparmor::Profile::apply).transpose()?;
    let listener = process::become_user(process, filter.as_deref(), request.emulate)?;
    if let Some(listener) = listener {
        socket.send(&Message::Listener, Some(listener.as_fd()))?;
    }
    // Without `enter` nobody would reap it.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    socket.send(&Message::Ready, None)?;
    socket.expect(&Message::Start)?;
    if request.emulate {
        process::believe(process)?;
    }
    Ok(program)
}

impl Init {
    /// Receives whom the intermediate process made, then climbs as usual.
    fn from_exec(socket: Socket, waiter: Waiter) -> Result<Init> {
        match socket.receive()? {
            Some((Message::Forked(pid), Some(pidfd))) => Init::adopt(pid, pidfd, waiter, socket),
            Some((Message::Failed(failure), _)) => Err(failure.into_error()),
            other => bail!("cannot enter the container: {other:?} came from the helper"),
        }
    }
}

/// The streams of a process that gets none of ours: /dev/null three times.
pub fn null_stdio() -> Result<[OwnedFd; 3]> {
    let open = || {
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
        rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty()).context("cannot open /dev/null")
    };
    Ok([open()?, open()?, open()?])
}

/// Our own standard streams as a container's.
pub fn own_stdio() -> Result<Stdio> {
    let own =
        |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().context("cannot use our standard streams");
    Ok(Stdio::Fds([
        own(rustix::stdio::stdin())?,
        own(rustix::stdio::stdout())?,
        own(rustix::stdio::stderr())?,
    ]))
}
