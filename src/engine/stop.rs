//! stop and kill.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags};

use super::{Engine, reap};
use crate::error::ResultExt;
use crate::store::container::{self, ContainerDir, Record, State, Status};
use crate::store::journal::{self, Event};
use crate::supervisor::{self, Control};
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

/// Sends a signal to a container's init. One that means the end is the end: no restart policy overrides it.
pub fn kill(engine: &Engine, wanted: &str, signal: i32) -> Result<()> {
    let about = || format!("cannot kill {wanted}");
    let (dir, status) = engine.alive(wanted).with_context(about)?;
    let Some(state) = status.run() else { return Ok(()) };
    let record = dir.record()?;
    let is_meant_to_end = [libc::SIGKILL, libc::SIGTERM, record.stop_signal].contains(&signal);
    if is_meant_to_end {
        stay_down(&dir, &record).with_context(about)?;
    }
    let Some(init) = container::open_process(state.init) else { return Ok(()) };
    // Told before: the supervisor tells of the end at once.
    let killed = Event::of_container(&record, "kill").with("signal", signal.to_string());
    journal::note(&engine.store, &killed);
    send(&init, signal).with_context(about)?;
    if is_meant_to_end && matches!(status, Status::Paused(_)) {
        // What is stopped cannot end.
        supervisor::ask_now(&dir, &Control::Resume).with_context(about)?;
    }
    Ok(())
}

/// How a container is ended.
#[derive(Debug, Clone, Copy, Default)]
pub struct StopOptions {
    /// Seconds until it is killed; its own, if not given; -1 waits for ever.
    pub timeout: Option<i64>,
    /// The signal that asks it; its own, if not given.
    pub signal: Option<i32>,
    /// It is to be removed: that it was stopped is not told.
    pub is_removal: bool,
}

/// Asks a container to end, and ends it when its time is over. Returns when all is cleared away. One that does not run is
/// fine.
pub fn stop(engine: &Engine, wanted: &str, options: StopOptions) -> Result<()> {
    let dir = engine.find(wanted)?;
    let about = || format!("cannot stop {wanted}");
    match end(engine, &dir, options) {
        // It was to be removed at its end, and is.
        Err(error) if super::is_not_found(&error) => Ok(()),
        other => other.with_context(about),
    }
}

fn end(engine: &Engine, dir: &ContainerDir, options: StopOptions) -> Result<()> {
    let mut status = reap::decided(&engine.store, dir)?;
    if !status.is_alive() {
        return Ok(());
    }
    let record = dir.record()?;
    if stay_down(dir, &record)? {
        // From here on its supervisor starts it no more; but it may have done so since we looked.
        status = reap::decided(&engine.store, dir)?;
    }
    if let Status::Starting(_) = status {
        return Err(anyhow!("it does not get through its start"));
    }
    end_run(engine, dir, &status, options, &record)?;
    await_end(engine, dir, &status, !record.restart.is_no())?;
    if !options.is_removal {
        journal::note(&engine.store, &Event::of_container(&record, "stop"));
    }
    Ok(())
}

/// Asks init to end, and ends it when its time is over.
pub(super) fn end_run(
    engine: &Engine,
    dir: &ContainerDir,
    status: &Status,
    options: StopOptions,
    record: &Record,
) -> Result<()> {
    let Some(state) = status.run() else { return Ok(()) };
    let timeout = options.timeout.unwrap_or(record.stop_timeout as i64);
    // The owner of a user name space may signal all in it from outside (user_namespaces(7)); nothing is to be joined.
    let Some(init) = container::open_process(state.init) else { return Ok(()) };
    let patience = u64::try_from(timeout).ok().map(Duration::from_secs);
    // Told before: the supervisor tells of the end at once.
    let tell = |signal: i32| {
        let event = Event::of_container(record, "kill").with("signal", signal.to_string());
        journal::note(&engine.store, &event);
    };
    if timeout != 0 {
        let signal = options.signal.unwrap_or(record.stop_signal);
        tell(signal);
        send(&init, signal)?;
        if matches!(status, Status::Paused(_)) {
            // What is stopped cannot end.
            supervisor::ask_now(dir, &Control::Resume)?;
        }
        if ends_within(&init, patience)? {
            return Ok(());
        }
    }
    tell(libc::SIGKILL);
    send(&init, libc::SIGKILL)?;
    // A frozen one does not even end by that, and one may be paused at any moment.
    while !ends_within(&init, Some(MOMENT))? {
        supervisor::ask_now(dir, &Control::Resume)?;
    }
    Ok(())
}

/// Between two looks at what nobody announces.
const MOMENT: Duration = Duration::from_millis(100);

/// Returns when the supervisor of this run is gone, or when somebody has begun another run meanwhile, or will: what
/// `is_marked` as ended by a person is not any more.
fn await_end(engine: &Engine, dir: &ContainerDir, status: &Status, is_marked: bool) -> Result<()> {
    let (Status::Running(state) | Status::Paused(state) | Status::Restarting(state, _)) = status else {
        return Ok(());
    };
    let Some(supervisor) = container::open_process(state.supervisor) else { return Ok(()) };
    while !ends_within(&supervisor, Some(MOMENT))? {
        // Also when that run is over already: one that fails at once is mostly between two runs.
        let is_another = match reap::settled(&engine.store, dir) {
            Ok(Status::Running(now) | Status::Paused(now) | Status::Restarting(now, _)) => {
                now.init != state.init
            }
            _ => false,
        };
        if is_another || (is_marked && !dir.is_marked_stopped()) {
            return Ok(());
        }
    }
    Ok(())
}

/// Sees to it that a container is not run again when it ends. Returns whether its supervisor had to be told; one that was
/// between two runs is ending then.
fn stay_down(dir: &ContainerDir, record: &Record) -> Result<bool> {
    if record.restart.is_no() {
        return Ok(false);
    }
    dir.mark_stopped()?;
    supervisor::ask(dir, &Control::StayDown)
}

/// The container's init, whose user name space we join where we are not root.
pub(super) fn open_init(engine: &Engine, state: &State) -> Result<OwnedFd> {
    let ended = "it has just ended";
    let init = container::open_process(state.init).context(ended)?;
    // The supervisor's name space: a person's programs live in an inner one, from which nothing else can be joined.
    let supervisor = container::open_process(state.supervisor).context(ended)?;
    userns::join(&engine.host, &supervisor)?;
    Ok(init)
}

fn send(pidfd: &OwnedFd, signal: i32) -> Result<()> {
    match crate::sys::process::signal(pidfd, signal) {
        // It is dead already: what was wanted.
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => Ok(other?),
    }
}

/// Whether a process ends in this time; `None` waits for ever.
fn ends_within(pidfd: &OwnedFd, limit: Option<Duration>) -> Result<bool> {
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
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
