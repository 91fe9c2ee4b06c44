//! Finding what a crash left, by whoever meets it: containers whose supervisor vanished, drafts nobody makes any more.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;

use crate::fs;
use crate::network::heal;
use crate::runtime::cgroup::Cgroup;
use crate::runtime::kin;
use crate::spec::options::Share;
use crate::store::container::{self, ContainerDir, Exit, State, Status};
use crate::store::journal::{self, Event};
use crate::store::network::wired;
use crate::store::{Store, draft};

/// The container's status with the dead settled: one whose supervisor was killed gets its end written down (137), or is
/// removed if it was to be (`NotFound` then).
pub fn settled(store: &Store, dir: &ContainerDir) -> Result<Status> {
    let status = dir.status()?;
    // A supervisor that was killed while it started or cleared away leaves no more than its cgroup.
    let is_left =
        || matches!(status, Status::Dead(_)) || dir.noted_cgroup().is_some() || wired::is_noted(dir);
    if status.is_alive() || !is_left() {
        return Ok(status);
    }
    // The lock is ours while we tidy, so that a start at this moment waits for its turn.
    let Some(_lock) = dir.try_lock()? else { return dir.status() };
    // What looked dead was perhaps a start at that very moment, whose run has ended by itself since.
    let status = dir.noted(false);
    let is_dead = matches!(status, Status::Dead(_));
    if let Status::Dead(state) = &status {
        thaw(state);
    }
    clear_processes(dir);
    clear_cgroup(dir);
    heal::heal(store, dir)?;
    if is_dead && dir.record().is_ok_and(|record| record.auto_remove) {
        let record = dir.record();
        dir.remove(store)?;
        if let Ok(record) = record {
            let die = Event::of_container(&record, "die").with("exitCode", "137");
            journal::note_all(store, &[die, Event::of_container(&record, "destroy")]);
        }
        return Err(dir.not_found());
    }
    if let Status::Dead(state) = status {
        // One that was killed between two runs had ended before.
        let (code, finished_at) =
            state.restarting.map_or((137, Timestamp::now()), |exit| (exit.code, exit.finished_at));
        let error = "its supervisor was killed".into();
        dir.write_exit(&Exit { code, finished_at, oom_killed: false, error })?;
        if let Ok(record) = dir.record() {
            let die = Event::of_container(&record, "die").with("exitCode", code.to_string());
            journal::note(store, &die);
        }
    }
    drop(_lock);
    dir.status()
}

/// How long a start that others wait for may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The settled status once it is decided: waits for a start that is under way, whose supervisor cannot be told anything
/// yet. `Starting` only if that takes too long.
pub fn decided(store: &Store, dir: &ContainerDir) -> Result<Status> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = settled(store, dir)?;
        if !matches!(status, Status::Starting(_)) || Instant::now() > deadline {
            return Ok(status);
        }
        pause();
    }
}

/// Gives a container that has this name, and was killed a moment ago, the time to be dead: its processes are gone before
/// the kernel has closed their files, and with them the lock.
pub fn settle_name(store: &Store, name: &str) -> Result<()> {
    if let_die(store, name)? { sweep(store) } else { Ok(()) }
}

/// The waiting of [`settle_name`], which changes nothing. Returns whether there was anything to wait for.
pub fn let_die(store: &Store, name: &str) -> Result<bool> {
    let deadline = Instant::now() + Duration::from_secs(1);
    let may_be_dying = || match container::find(store, name).and_then(|dir| dir.status()) {
        Ok(Status::Starting(_)) => true,
        Ok(Status::Running(state) | Status::Paused(state) | Status::Restarting(state, _)) => {
            container::open_process(state.supervisor).is_none_or(|s| has_ended(&s))
        }
        Ok(_) => false,
        Err(_) => container::is_being_made(store, name).unwrap_or(false),
    };
    if !may_be_dying() {
        return Ok(false);
    }
    while may_be_dying() && Instant::now() < deadline {
        pause();
    }
    Ok(true)
}

/// A pidfd can be read once its process has ended (pidfd_open(2)).
pub(super) fn has_ended(pidfd: &std::os::fd::OwnedFd) -> bool {
    let mut fds = [rustix::event::PollFd::new(pidfd, rustix::event::PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|n| n > 0)
}

/// Whether a container's init has ended, or is ending: then its files are let go of first, and its pidfd can be read last.
pub(super) fn is_ending(state: &State) -> bool {
    let Some(init) = container::open_process(state.init) else { return true };
    let root = Path::new("/proc").join(state.init.pid.to_string()).join("root");
    has_ended(&init) || matches!(fs::read_link(&root), Ok(None))
}

/// Between two looks at what nobody announces.
pub(super) fn pause() {
    let moment = rustix::event::Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
    let _ = rustix::event::poll(&mut [], Some(&moment));
}

/// What was frozen when its supervisor was killed cannot die before it is let go on (cgroup v1).
fn thaw(state: &State) {
    if let (true, Some(cgroup)) = (state.paused, &state.cgroup)
        && let Ok(cgroup) = serde_json::from_value::<Cgroup>(cgroup.clone())
    {
        let _ = cgroup.freeze(false);
    }
}

/// A container that has no pid name space of its own loses its init with its supervisor, and maybe no more than that.
fn clear_processes(dir: &ContainerDir) {
    let Ok(record) = dir.record() else { return };
    let pid = record.options.get("pid").cloned().map(serde_json::from_value::<Share>);
    if pid.is_some_and(|pid| pid.is_ok_and(|pid| !pid.is_own())) {
        let _ = kin::end_all(&record.id);
    }
}

/// The processes are dead (they ended with the supervisor's pid name space); only the empty cgroup is left.
fn clear_cgroup(dir: &ContainerDir) {
    let Some(noted) = dir.noted_cgroup() else { return };
    // One that cannot be removed now stays noted, for the next who comes by.
    if serde_json::from_value::<Cgroup>(noted).is_ok_and(|cgroup| cgroup.remove().is_ok()) {
        let _ = dir.forget_cgroup();
    }
}

/// Clears what crashes left behind as far as it costs nothing to look: drafts and ended `--rm` containers.
pub fn sweep(store: &Store) -> Result<()> {
    container::sweep(store)?;
    draft::sweep(store)?;
    for id in container::ephemeral_ids(store)? {
        let dir = ContainerDir::of(store, &id);
        if dir.record().is_err() {
            if dir.is_half_written()
                && let Some(_lock) = dir.try_lock()?
            {
                dir.remove(store)?;
            }
            container::forget_ephemeral(store, &id)?;
            continue;
        }
        match settled(store, &dir) {
            Ok(Status::Exited(_) | Status::Created) => {
                // Ended, or never started because its command was killed in between.
                if let Some(_lock) = dir.try_lock()? {
                    dir.remove(store)?;
                }
            }
            Ok(_) => {}
            Err(_) if dir.record().is_err() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
