//! `dhow check`: runs one health check in a container for its supervisor, which must not wait for anything. A process of
//! its own, outside of the container, that climbs the ladder of `exec` and gathers what the check writes.
//!
//! ```text
//! supervisor             check
//!   Order, init's pidfd -->
//!                      <--  Outcome
//! ```

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::hand_over_listener;
use super::request::{Wanted, request};
use crate::runtime::exec::{self, Request, null_stdio};
use crate::runtime::preserved::Preserved;
use crate::runtime::sync::{self, Socket};
use crate::runtime::{role, sealed};
use crate::store::container::ContainerDir;
use crate::sys;

/// What is to be run.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    dir: PathBuf,
    command: Vec<String>,
    limit: Duration,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// The exit code; `None`: its time was over, or it could not be run.
    pub code: Option<i32>,
    /// What it wrote, or why it could not be run; the beginning.
    pub output: String,
}

/// As many bytes of what it writes are kept.
const MAX_OUTPUT: usize = 4096;
/// How much longer than its time a check may take to end.
const GRACE: Duration = Duration::from_secs(3);
/// The role's descriptor.
const ORDER_FD: i32 = 3;

/// A check that is under way.
#[derive(Debug)]
pub struct Check {
    socket: Socket,
    pidfd: OwnedFd,
}

impl Check {
    /// Starts one in the container of `dir`, whose init is behind `init`.
    pub fn start(dir: &ContainerDir, init: &OwnedFd, command: Vec<String>, limit: Duration) -> Result<Check> {
        let (socket, theirs) = sync::pair()?;
        let null = null_stdio()?;
        let stdio = [null[0].as_fd(), null[1].as_fd(), null[2].as_fd()];
        let executable = sealed::own()?;
        let words = [c"dhow", c"check"];
        let (_, pidfd) =
            role::start(executable.as_fd(), 0, &words, Some(stdio), &[(theirs.as_fd(), ORDER_FD)])?;
        let check = Check { socket, pidfd };
        let order = Order { dir: dir.path.clone(), command, limit };
        if let Err(error) = check.socket.send(&order, Some(init.as_fd())) {
            check.abandon();
            return Err(error);
        }
        Ok(check)
    }

    /// What to wait for: there is something to read when it ended.
    pub fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// What came of it, when there is something to read.
    pub fn finish(self) -> Outcome {
        let outcome = match self.socket.receive::<Outcome>() {
            Ok(Some((outcome, _))) => outcome,
            _ => Outcome { code: None, output: "the check was killed".into() },
        };
        // It has nothing more to do.
        let _ = crate::runtime::reap(self.pidfd.as_fd());
        outcome
    }

    /// Its container ended, and with that the check: gives it a moment to clear up after itself.
    pub fn see_off(self) {
        let mut fds = [PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN)];
        let moment = Timespec { tv_sec: 1, tv_nsec: 0 };
        match rustix::event::poll(&mut fds, Some(&moment)) {
            Ok(n) if n > 0 => drop(self.finish()),
            _ => self.abandon(),
        }
    }

    /// Ends it without hearing what came of it.
    pub fn abandon(self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        let _ = crate::runtime::reap(self.pidfd.as_fd());
    }
}

/// The role.
pub fn run() -> Result<u8> {
    let socket = sys::process::inherited_fd(ORDER_FD).context("cannot check: not started by dhow")?;
    let socket = Socket::from(socket);
    sys::process::set_close_on_exec(ORDER_FD);
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let Some((order, Some(init))) = socket.receive::<Order>()? else {
        anyhow::bail!("cannot check: the supervisor went away");
    };
    let outcome = check(&order, &init).unwrap_or_else(|error| {
        let mut text = crate::error::chain(&error);
        text.truncate(text.floor_char_boundary(MAX_OUTPUT));
        Outcome { code: None, output: text }
    });
    socket.send(&outcome, None)?;
    Ok(0)
}

fn check(order: &Order, init: &OwnedFd) -> Result<Outcome> {
    let (output, write) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK)
            .context("cannot make a pipe")?;
    // The check's end blocks, as programs expect.
    rustix::fs::fcntl_setfl(&write, rustix::fs::OFlags::empty()).context("cannot use a pipe")?;
    let [null, ..] = null_stdio()?;
    let stdio = [null, write.try_clone().context("cannot copy a descriptor")?, write];
    let began = Instant::now();
    let entering = exec::begin_from(sealed::Executable::own()?, init, true, Some(stdio))?;
    let mut process = entering.request(&wanted(order)?, &Preserved::default())?;
    if let Some(listener) = process.listener.take() {
        hand_over_listener(&order.dir, listener.as_fd())?;
    }
    process.start(|_| Ok(()))?;
    let mut gathered = Gathered { bytes: Vec::new(), is_cut: false };
    let is_late = gather(&output, process.child(), began + order.limit + GRACE, &mut gathered)?;
    if is_late {
        let _ = rustix::process::pidfd_send_signal(&process.pidfd, Signal::KILL);
    }
    let code = process.wait()?;
    let is_late = is_late || (code == 137 && began.elapsed() >= order.limit);
    let mut text = gathered.text();
    if is_late {
        text = format!("Health check exceeded timeout ({}): {text}", shown(order.limit));
        text.truncate(text.floor_char_boundary(MAX_OUTPUT));
    }
    Ok(Outcome { code: (!is_late).then_some(code), output: text })
}

/// `1m30s`, `500ms`, `5s`.
fn shown(limit: Duration) -> String {
    let (minutes, seconds) = (limit.as_secs() / 60, limit.as_secs() % 60);
    match (minutes, limit.subsec_millis()) {
        (0, 0) => format!("{seconds}s"),
        (0, ms) if seconds == 0 => format!("{ms}ms"),
        (0, ms) => format!("{seconds}.{ms:03}s"),
        (m, _) => format!("{m}m{seconds}s"),
    }
}

/// The check as the container's user runs it.
fn wanted(order: &Order) -> Result<Request> {
    let dir = ContainerDir { path: order.dir.clone() };
    let (record, state) = (dir.record()?, dir.last_state()?.context("it does not run")?);
    let store = super::serve::store_of(&dir.path)?;
    let wanted = Wanted { command: order.command.clone(), ..Wanted::default() };
    let mut request = request(&store, &dir, &record, &state, wanted)?;
    request.limit = Some(order.limit);
    Ok(request)
}

struct Gathered {
    bytes: Vec<u8>,
    is_cut: bool,
}

impl Gathered {
    /// Takes what is there now; false at the end of file. Bounded: who writes without an end does not keep us here.
    fn read(&mut self, from: &OwnedFd) -> bool {
        let mut buffer = [0; 8192];
        for _ in 0..64 {
            match rustix::io::read(from, &mut buffer) {
                Ok(0) => return false,
                Ok(n) => {
                    let room = MAX_OUTPUT - self.bytes.len();
                    self.is_cut |= n > room;
                    self.bytes.extend_from_slice(&buffer[..n.min(room)]);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
        true
    }

    /// As text of at most `MAX_OUTPUT` bytes.
    fn text(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.bytes).into_owned();
        let most = if self.is_cut { MAX_OUTPUT - 3 } else { MAX_OUTPUT };
        text.truncate(text.floor_char_boundary(most));
        if self.is_cut {
            text.push_str("...");
        }
        text
    }
}

/// Gathers what is written until the process ends; whether that took too long. What it leaves running may go on writing:
/// nobody reads that any more.
fn gather(
    output: &OwnedFd,
    process: std::os::fd::BorrowedFd<'_>,
    deadline: Instant,
    gathered: &mut Gathered,
) -> Result<bool> {
    let mut is_open = true;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
        let left = Timespec { tv_sec: seconds, tv_nsec: left.subsec_nanos().into() };
        let mut fds = vec![PollFd::from_borrowed_fd(process, PollFlags::IN)];
        if is_open {
            fds.push(PollFd::from_borrowed_fd(output.as_fd(), PollFlags::IN));
        }
        match rustix::event::poll(&mut fds, Some(&left)) {
            Err(Errno::INTR) => continue,
            other => other.context("cannot wait for the check")?,
        };
        let has_ended = !fds[0].revents().is_empty();
        if is_open {
            is_open = gathered.read(output);
        }
        if has_ended {
            return Ok(false);
        }
        if Instant::now() >= deadline {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_as_go_shows_them() {
        for (milliseconds, text) in [(500, "500ms"), (1000, "1s"), (1500, "1.500s"), (90_000, "1m30s")] {
            assert_eq!(shown(Duration::from_millis(milliseconds)), text);
        }
    }

    #[test]
    fn what_is_gathered_is_bounded_text() {
        let gathered = Gathered { bytes: vec![0xff; MAX_OUTPUT], is_cut: true };
        let text = gathered.text();
        assert!(text.len() <= MAX_OUTPUT && text.ends_with("..."), "{}", text.len());
    }
}
