//! A process inside a container that runs a program for a limited time, and, when that is over, ends it with all that it
//! started: what loses its parent in there comes to us, wherever it put itself.
//!
//! Runs as the container's user, with the container's rights: no more than what it tends.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal, WaitOptions};

use super::process::Program;
use super::sync::Socket;
use crate::fs;
use crate::sys::process::{self, Forked};

/// How long ending them may take: who forks faster than we kill is left to the container's end.
const PATIENCE: Duration = Duration::from_secs(2);
/// A child that vanished is listed no more; no list of ours is longer.
const MAX_LIST: usize = 1 << 20;

/// Starts the program; its pidfd. The ladder's other end sees the end of file once it runs and the caller has let go.
pub fn start(program: &Program, socket: &Socket) -> Result<OwnedFd> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .context("cannot become the reaper")?;
    match process::fork(0, None).context("cannot start the program")? {
        Forked::Child => {
            let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            let error = program.exec();
            socket.send_error(&error);
            process::exit_now(super::create::error_code(&error));
        }
        Forked::Parent { pidfd, .. } => Ok(pidfd),
    }
}

/// Waits for the program; its exit code, 137 if its time was over.
pub fn stay(program: &OwnedFd, limit: Duration) -> i32 {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = [PollFd::from_borrowed_fd(program.as_fd(), PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) => {
                end_all(program);
                return 137;
            }
            _ => return super::process::reap(program.as_fd()).unwrap_or(255),
        }
    }
}

fn end_all(program: &OwnedFd) {
    let deadline = Instant::now() + PATIENCE;
    let _ = rustix::process::pidfd_send_signal(program, Signal::KILL);
    loop {
        for child in children() {
            let _ = rustix::process::kill_process(child, Signal::KILL);
        }
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some(_)) => {}
                // Those of the dead are ours by now, and are met by the next round.
                Ok(None) => break,
                Err(_) => return,
            }
        }
        if Instant::now() > deadline {
            return;
        }
        let moment = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        let _ = rustix::event::poll(&mut [], Some(&moment));
    }
}

/// Our children, as /proc of the container has them (proc(5), `children`). A container that shows us others has us end
/// those: it could have done so itself.
fn children() -> Vec<Pid> {
    let text = fs::read(Path::new("/proc/thread-self/children")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[..text.len().min(MAX_LIST)]).into_owned();
    let pids = text.split_whitespace().filter_map(|word| word.parse().ok());
    pids.filter(|pid| *pid > 1).filter_map(Pid::from_raw).collect()
}
