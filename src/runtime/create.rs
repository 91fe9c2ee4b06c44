//! The parent's side of making a container: clone, cgroup, and climbing the sync ladder.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail};

use super::inner::{self, Inner};
use super::inside::Inside;
use super::process::reap;
use super::sync::{self, Message, Socket};
use super::{Bundle, CreateOptions, Isolation, Stdio, init};
use crate::error::ResultExt;
use crate::fs;
use crate::oci::runtime::{LinuxNamespaceType, Spec};
use crate::sys::process::{self, Forked};

/// A container that is set up and waits for `start`, or runs.
#[derive(Debug)]
pub struct Init {
    /// Its pid in our pid name space.
    pub pid: i32,
    /// Its stable handle.
    pub pidfd: OwnedFd,
    /// The master of its pty, if it has a terminal.
    pub console: Option<OwnedFd>,
    /// The listener of its emulation filter, if it has one.
    pub listener: Option<OwnedFd>,
    waiter: Option<Waiter>,
    socket: Socket,
    /// The ids of its inner user name space, if it makes one.
    inner: Option<Inner>,
}

/// The parent of a process that is not our own child; it is our child, and ends with the exit code of the process.
#[derive(Debug)]
pub(super) struct Waiter {
    pub pidfd: OwnedFd,
    /// What tells it, by being closed, that we are gone.
    pub _life: OwnedFd,
}

/// Who joins the container to networks, while its init goes on by itself: gets its pid in our pid name space, and sockets.
pub type Join<'a> = &'a mut dyn FnMut(i32, Inside) -> Result<()>;

/// Makes the container and returns when it waits for `start`. `cgroup_v2` is the cgroup to be born in, where there is one.
/// `join` is called if [`CreateOptions::is_joined`].
pub fn create(
    bundle: &Bundle<'_>,
    stdio: Stdio,
    options: &CreateOptions,
    cgroup_v2: Option<BorrowedFd<'_>>,
    join: Join<'_>,
) -> Result<Init> {
    let (ours, theirs) = sync::pair()?;
    let flags = match options.isolation {
        Isolation::Full => clone_flags(bundle.spec),
        Isolation::Chroot => 0,
    };
    let forked = fork(bundle.spec, flags, cgroup_v2, (&ours, &theirs))?;
    let (pid, pidfd) = match forked {
        Forked::Child => {
            drop(ours);
            let theirs = match theirs.clear_of(&options.preserved) {
                Ok(theirs) => theirs,
                Err(_) => process::exit_now(125),
            };
            let error = init::run(bundle, stdio, options, &theirs);
            theirs.send_error(&error);
            process::exit_now(error_code(&error));
        }
        Forked::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(theirs);
    drop(stdio);
    let inner =
        options.inner.clone().filter(|_| options.isolation == Isolation::Full && options.inner_of.is_none());
    Init { pid, pidfd, console: None, listener: None, waiter: None, socket: ours, inner }.climb(join)
}

/// Forks. Into another container's pid name space, where that is asked for, by way of a second process: setns(2) is for all
/// children of whoever calls it, and a user cannot take it back. The new process is our own child all the same
/// (CLONE_PARENT); its rungs come after the one that tells of it.
fn fork(
    spec: &Spec,
    flags: u64,
    cgroup_v2: Option<BorrowedFd<'_>>,
    (ours, theirs): (&Socket, &Socket),
) -> Result<Forked> {
    let cannot = "cannot make the container's name spaces";
    let hint = "this machine may forbid them: look at /proc/sys/user/max_*_namespaces, or at the sandbox that dhow runs in";
    let namespaces = spec.linux().as_ref().and_then(|l| l.namespaces().as_deref()).unwrap_or_default();
    let of_other =
        namespaces.iter().find(|n| n.typ() == LinuxNamespaceType::Pid).and_then(|n| n.path().as_ref());
    let Some(path) = of_other else { return process::fork(flags, cgroup_v2).context(cannot).hint(hint) };
    let (told, tell) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("cannot make a pipe")?;
    let between = process::fork(0, None).context(cannot)?;
    let Forked::Parent { pidfd, .. } = between else {
        let forked = fs::open(path)
            .and_then(|other| {
                process::join_namespaces(other, libc::CLONE_NEWPID)
                    .context("cannot join the processes of the other container")
            })
            .and_then(|()| {
                process::fork(flags | libc::CLONE_PARENT as u64, cgroup_v2).context(cannot).hint(hint)
            });
        match forked {
            Ok(Forked::Child) => {
                drop(tell);
                let _ = rustix::io::read(&told, &mut [0]);
                return Ok(Forked::Child);
            }
            Ok(Forked::Parent { pid, pidfd }) => {
                let sent = theirs.send(&Message::Forked(pid), Some(pidfd.as_fd()));
                process::exit_now(i32::from(sent.is_err()));
            }
            Err(error) => {
                theirs.send_error(&error);
                process::exit_now(125);
            }
        }
    };
    drop(tell);
    reap(pidfd.as_fd())?;
    match ours.receive()? {
        Some((Message::Forked(pid), Some(pidfd))) => Ok(Forked::Parent { pid, pidfd }),
        Some((Message::Failed(failure), _)) => Err(failure.into_error()),
        other => bail!("cannot start: unexpected {other:?}"),
    }
}

impl Init {
    /// A process that somebody else cloned for us and waits for; returns when it waits for `start`.
    pub(super) fn adopt(pid: i32, pidfd: OwnedFd, waiter: Waiter, socket: Socket) -> Result<Init> {
        Init { pid, pidfd, console: None, listener: None, waiter: Some(waiter), socket, inner: None }
            .climb(&mut |_, _| Ok(()))
    }

    /// Our child that ends with the exit code: the process itself, or who waits for it.
    pub fn child(&self) -> BorrowedFd<'_> {
        self.waiter.as_ref().map_or(&self.pidfd, |w| &w.pidfd).as_fd()
    }

    /// Waits for its end and reaps it; its exit code, 128+n after signal n.
    pub fn wait(&self) -> Result<i32> {
        reap(self.child())
    }

    fn climb(mut self, join: Join<'_>) -> Result<Init> {
        if let Err(error) = self.receive_rungs(join) {
            self.discard();
            return Err(error);
        }
        Ok(self)
    }

    /// Receives up to `Ready`.
    fn receive_rungs(&mut self, join: Join<'_>) -> Result<()> {
        loop {
            let Some((message, fds)) = self.socket.receive_all()? else {
                bail!("cannot start: the container's init ended before it was set up");
            };
            if message == Message::Inside {
                if let Err(error) = join(self.pid, Inside::of(fds)?) {
                    return Err(self.last_words().unwrap_or(error));
                }
                continue;
            }
            match Some((message, fds.into_iter().next())) {
                Some((Message::Console, fd)) => self.console = fd,
                Some((Message::Unshared, _)) => {
                    let ids = self.inner.as_ref().context("cannot start: no ids were to be mapped")?;
                    inner::map(&self.pidfd, ids)?;
                    self.socket.send(&Message::Mapped, None)?;
                }
                Some((Message::Listener, fd)) => self.listener = fd,
                Some((Message::Ready, _)) => return Ok(()),
                Some((Message::Failed(failure), _)) => return Err(failure.into_error()),
                Some((other, _)) => bail!("cannot start: unexpected {other:?}"),
                None => {}
            }
        }
    }

    /// What an init that has ended meanwhile said of why: the reason, too, why nothing could be done with it.
    fn last_words(&self) -> Option<anyhow::Error> {
        let mut fds = [rustix::event::PollFd::new(&self.pidfd, rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        if !rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|n| n > 0) {
            return None;
        }
        // It writes no more, so this ends.
        while let Ok(Some((message, _))) = self.socket.receive_all() {
            if let Message::Failed(failure) = message {
                return Some(failure.into_error());
            }
        }
        None
    }

    /// Lets the program run; returns when it does, or with the reason why it cannot (126, 127).
    ///
    /// Calls that are emulated already come in between, so `serve` must answer the listener, if there is one, until the
    /// descriptor that it is given, our end of the ladder, can be read.
    pub fn start(&self, serve: impl FnOnce(BorrowedFd<'_>) -> Result<()>) -> Result<()> {
        self.socket.send(&Message::Start, None)?;
        serve(self.socket.as_fd())?;
        match self.socket.receive()? {
            None => Ok(()),
            Some((Message::Failed(failure), _)) => {
                self.discard();
                Err(failure.into_error())
            }
            Some((other, _)) => bail!("cannot start: unexpected {other:?}"),
        }
    }

    /// Kills and reaps an init that is not to run.
    fn discard(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
        let _ = self.wait();
    }
}

/// Exit code of a child that failed; the message says more.
pub(super) fn error_code(error: &anyhow::Error) -> i32 {
    i32::from(crate::error::exit_code(error))
}

/// The name spaces to be born in. The cgroup one is entered later, when the cgroup is joined, and those with a path
/// are joined by the child.
fn clone_flags(spec: &Spec) -> u64 {
    let namespaces = spec.linux().as_ref().and_then(|l| l.namespaces().clone()).unwrap_or_default();
    namespaces
        .iter()
        .filter(|n| n.path().is_none() && n.typ() != LinuxNamespaceType::Cgroup)
        .fold(0, |flags, n| flags | n.typ() as u64)
}
