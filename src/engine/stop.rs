//! stop and kill.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags};

use super::{Engine, reap};
use crate::error::ResultExt;
use crate::store::container::{self, ContainerDir, State, Status};
use crate::userns;

/// `TERM`, `SIGTERM`, `15`, `RTMIN+3`.
pub fn parse_signal(word: &str) -> Result<i32> {
    let upper = word.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = match bare.parse::<i32>() {
        Ok(n) => Some(n),
        Err(_) if bare.starts_with("RTMIN") => real_time(bare, "RTMIN", libc::SIGRTMIN(), '+', 1),
        Err(_) if bare.starts_with("RTMAX") => real_time(bare, "RTMAX", libc::SIGRTMAX(), '-', -1),
        Err(_) => format!("SIG{bare}").parse::<Signal>().ok().map(|s| s as i32),
    };
    number
        .filter(|n| (1..=libc::SIGRTMAX()).contains(n))
        .ok_or_else(|| anyhow!("cannot use signal {word:?}: there is no such signal"))
        .hint("signal(7) lists them: TERM, KILL, HUP..., or a number")
}

fn real_time(word: &str, base: &str, number: i32, sign: char, direction: i32) -> Option<i32> {
    let rest = word.strip_prefix(base)?;
    if rest.is_empty() {
        return Some(number);
    }
    let offset: i32 = rest.strip_prefix(sign)?.parse().ok()?;
    Some(number + direction * offset)
}

/// Sends a signal to a container's init.
pub fn kill(engine: &Engine, wanted: &str, signal: i32) -> Result<()> {
    let (_, state) = engine.running(wanted).with_context(|| format!("cannot kill {wanted}"))?;
    let Some(init) = container::open_process(state.init) else { return Ok(()) };
    send(&init, signal).with_context(|| format!("cannot kill {wanted}"))
}

/// Asks a container to end, and ends it after `timeout` seconds (its own, if not given; -1: waits for ever). Returns
/// when all is cleared away. One that does not run is fine.
pub fn stop(engine: &Engine, wanted: &str, timeout: Option<i64>, signal: Option<i32>) -> Result<()> {
    let dir = engine.find(wanted)?;
    let about = || format!("cannot stop {wanted}");
    let state = match reap::decided(&engine.store, &dir) {
        Ok(Status::Running(state)) => state,
        Ok(Status::Starting) => return Err(anyhow!("it does not get through its start")).with_context(about),
        Ok(_) => return Ok(()),
        // It was to be removed at its end, and is.
        Err(error) if super::is_not_found(&error) => return Ok(()),
        Err(error) => return Err(error).with_context(about),
    };
    let record = dir.record()?;
    let timeout = timeout.unwrap_or(record.stop_timeout as i64);
    // The owner of a user name space may signal all in it from outside (user_namespaces(7)); nothing is to be joined.
    let Some(init) = container::open_process(state.init) else { return await_end(&dir) };
    if timeout != 0 {
        send(&init, signal.unwrap_or(record.stop_signal)).with_context(about)?;
    }
    if timeout == 0 || !ends_within(&init, timeout)? {
        send(&init, libc::SIGKILL).with_context(about)?;
    }
    await_end(&dir)
}

/// Returns when the container's supervisor is gone.
fn await_end(dir: &ContainerDir) -> Result<()> {
    dir.wait_unlocked()
}

/// The container's init, whose user name space we join where we are not root.
pub(super) fn open_init(engine: &Engine, state: &State) -> Result<OwnedFd> {
    let init = container::open_process(state.init).context("it has just ended")?;
    userns::join(&engine.host, &init)?;
    Ok(init)
}

fn send(pidfd: &OwnedFd, signal: i32) -> Result<()> {
    match crate::sys::process::signal(pidfd, signal) {
        // It is dead already: what was wanted.
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => Ok(other?),
    }
}

fn ends_within(pidfd: &OwnedFd, seconds: i64) -> Result<bool> {
    let deadline = u64::try_from(seconds).ok().map(|s| Instant::now() + Duration::from_secs(s));
    loop {
        let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        let left = left.map(|l| rustix::event::Timespec {
            tv_sec: l.as_secs() as i64,
            tv_nsec: l.subsec_nanos().into(),
        });
        let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        match rustix::event::poll(&mut fds, left.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(n) => return Ok(n > 0),
            Err(e) => return Err(e).context("cannot wait for the container"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_parse_in_all_spellings() {
        for (word, want) in [
            ("TERM", 15),
            ("sigkill", 9),
            ("2", 2),
            ("SIGRTMIN+3", libc::SIGRTMIN() + 3),
            ("RTMAX-1", libc::SIGRTMAX() - 1),
        ] {
            assert_eq!(parse_signal(word).unwrap(), want, "{word}");
        }
        for word in ["", "NO", "0", "-1", "65", "99", "RTMIN-1"] {
            assert!(parse_signal(word).is_err(), "{word}");
        }
    }
}
