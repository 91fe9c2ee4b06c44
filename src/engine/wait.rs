//! wait: until a container ends, runs, is healthy, is gone. Nothing is looked at again and again: the supervisor tells of
//! the end, the kernel of its death and of files that change.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::str::FromStr;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use jiff::Timestamp;

use super::watch::{Also, Watch};
use super::{Engine, reap};
use crate::error::ResultExt;
use crate::fs;
use crate::runtime::sync::Socket;
use crate::store::container::{ContainerDir, Status, open_process};
use crate::store::health::{self, Healthcheck};
use crate::supervisor::{self, Control};

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It does not run, nor is about to again.
    NotRunning,
    /// It ends, from now on.
    NextExit,
    /// It runs.
    Running,
    /// All its processes are stopped.
    Paused,
    /// Its health check succeeded.
    Healthy,
    /// Its health check failed too often.
    Unhealthy,
    /// It is gone.
    Removed,
}

impl FromStr for Condition {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> Result<Condition> {
        Ok(match word {
            "" | "stopped" | "exited" | "not-running" => Condition::NotRunning,
            "next-exit" => Condition::NextExit,
            "running" => Condition::Running,
            "paused" => Condition::Paused,
            "healthy" => Condition::Healthy,
            "unhealthy" => Condition::Unhealthy,
            "removed" => Condition::Removed,
            _ => {
                return Err(anyhow!("cannot wait for the condition {word:?}: there is no such condition")).hint(
                    "it is stopped, running, paused, healthy, unhealthy, removed, next-exit or not-running",
                );
            }
        })
    }
}

/// A container that is waited for. Made before the wait for another begins, so that no end is missed.
#[derive(Debug)]
pub struct Waiter {
    wanted: String,
    dir: ContainerDir,
    conditions: Vec<Condition>,
    /// When it had ended when the wait began, if it had. The clock may be set meanwhile: another moment is another end.
    ended_before: Option<Timestamp>,
    watch: Watch,
    /// The supervisor, which tells of the end, and whose own end is told by the kernel.
    supervisor: Option<(Socket, Option<OwnedFd>)>,
    /// The exit code of the last end that was told.
    told: Option<i32>,
}

/// What an end that nobody can tell the code of, and what is no end, gives.
const NO_CODE: i32 = 0;

impl Waiter {
    /// Begins to watch. Any of the conditions will do.
    pub fn new(engine: &Engine, wanted: &str, conditions: &[Condition]) -> Result<Waiter> {
        let dir = engine.find(wanted)?;
        let asks_for_health =
            conditions.iter().any(|c| matches!(c, Condition::Healthy | Condition::Unhealthy));
        if asks_for_health && dir.record()?.healthcheck.as_ref().and_then(Healthcheck::command).is_none() {
            return Err(anyhow!("cannot wait for the health of {wanted}: it has no health check"))
                .hint("dhow run --health-cmd COMMAND");
        }
        let watch = Watch::new()?;
        watch.add(&dir.path)?;
        let ended_before = match dir.status() {
            Ok(Status::Exited(exit) | Status::Starting(Some(exit))) => Some(exit.finished_at),
            _ => None,
        };
        let (wanted, conditions) = (wanted.to_owned(), conditions.to_vec());
        let mut waiter =
            Waiter { wanted, dir, conditions, ended_before, watch, supervisor: None, told: None };
        waiter.reach_supervisor(engine)?;
        Ok(waiter)
    }

    /// Waits; the exit code, where the condition has one. An error after `until`.
    pub fn wait(mut self, engine: &Engine, until: Option<Instant>) -> Result<i32> {
        loop {
            let status = self.status(engine)?;
            // It is out of sight before its supervisor tells how it ended.
            let is_to_be_told = status.is_none() && self.supervisor.is_some();
            if !is_to_be_told && let Some(code) = self.met(status.as_ref())? {
                return Ok(code);
            }
            if self.supervisor.is_none() && status.is_some_and(|status| status.is_alive()) {
                self.reach_supervisor(engine)?;
                continue;
            }
            let supervisor = self.supervisor.as_ref();
            let readable: Vec<BorrowedFd<'_>> = supervisor
                .iter()
                .flat_map(|(socket, pidfd)| [Some(socket.as_fd()), pidfd.as_ref().map(AsFd::as_fd)])
                .flatten()
                .collect();
            self.watch.wait(&Also { readable: &readable, deadline: until, ..Also::default() })?;
            self.hear();
            if until.is_some_and(|until| Instant::now() >= until) {
                let status = self.status(engine)?;
                let met = self.met(status.as_ref())?;
                return met.with_context(|| {
                    format!("cannot wait for {} any longer: its time is over", self.wanted)
                });
            }
        }
    }

    /// What it is doing; `None` if it is gone.
    fn status(&self, engine: &Engine) -> Result<Option<Status>> {
        match reap::settled(&engine.store, &self.dir) {
            Ok(status) => Ok(Some(status)),
            Err(_) if fs::metadata(&self.dir.path)?.is_none() => Ok(None),
            // Not ours to settle: what the files say must do.
            Err(error) => self.dir.status().map(Some).map_err(|_| error),
        }
    }

    /// The code, if a condition is met; an error if none can be any more.
    fn met(&self, status: Option<&Status>) -> Result<Option<i32>> {
        let code_of_end = match status {
            Some(Status::Exited(exit)) => Some(exit.code),
            Some(Status::Dead(_)) => Some(137),
            Some(Status::Created) => Some(NO_CODE),
            Some(_) => None,
            None => Some(self.told.unwrap_or(NO_CODE)),
        };
        // Between the look at the files and this, the program may have ended and been noted.
        let ended_since = match status {
            Some(Status::Exited(exit)) if Some(exit.finished_at) != self.ended_before => Some(exit.code),
            None => code_of_end,
            _ => None,
        };
        let health = || health::read(&self.dir).map(|health| health.status).unwrap_or_default();
        for condition in &self.conditions {
            let met = match condition {
                Condition::NotRunning => code_of_end,
                Condition::NextExit => self.told.or(ended_since),
                Condition::Running => matches!(status, Some(Status::Running(_))).then_some(NO_CODE),
                Condition::Paused => matches!(status, Some(Status::Paused(_))).then_some(NO_CODE),
                Condition::Healthy | Condition::Unhealthy => {
                    let word = if *condition == Condition::Healthy { "healthy" } else { "unhealthy" };
                    let runs = matches!(status, Some(Status::Running(_) | Status::Paused(_)));
                    (runs && health() == word).then_some(NO_CODE)
                }
                Condition::Removed => status.is_none().then_some(self.told.unwrap_or(NO_CODE)),
            };
            if met.is_some() {
                return Ok(met);
            }
        }
        let awaits = |wanted: &[Condition]| self.conditions.iter().all(|c| wanted.contains(c));
        match status {
            None => bail!("cannot wait for {}: it was removed", self.wanted),
            // Whoever waits for its health waits for a run that is over.
            Some(Status::Exited(exit)) if awaits(&[Condition::Healthy, Condition::Unhealthy]) => {
                bail!("cannot wait for the health of {}: it ended with {}", self.wanted, exit.code)
            }
            _ => Ok(None),
        }
    }

    /// Asks the supervisor to tell of the end, if there is one.
    fn reach_supervisor(&mut self, engine: &Engine) -> Result<()> {
        if !self.status(engine)?.is_some_and(|status| status.is_alive()) {
            return Ok(());
        }
        let Some(socket) = supervisor::connect(&self.dir)? else { return Ok(()) };
        if socket.send(&Control::AwaitEnd, None).is_err() {
            return Ok(());
        }
        let pidfd = self.dir.last_state()?.and_then(|state| open_process(state.supervisor));
        self.supervisor = Some((socket, pidfd));
        Ok(())
    }

    /// Hears what the supervisor has to tell, if it has.
    fn hear(&mut self) {
        let Some((socket, pidfd)) = &self.supervisor else { return };
        let mut fds = [rustix::event::PollFd::new(socket, rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        // Before the look at what it said: its last words are there then, if there are any.
        let has_ended = pidfd.as_ref().is_some_and(reap::has_ended);
        if rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|n| n > 0) {
            if let Ok(Some((Control::Exited(code), _))) = socket.receive::<Control>() {
                self.told = Some(code);
            }
            self.supervisor = None;
        } else if has_ended {
            self.supervisor = None;
        }
    }
}
