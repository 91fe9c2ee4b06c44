//! The flags of run that are for jobs: what cron starts, or a CI system, again and again under one name.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::{ArgMatches, Command};

use super::flags::{exclude, switch, value};
use super::run_flags::one;
use crate::engine::Engine;
use crate::engine::overlap::{self, IfRunning};
use crate::error::ResultExt;
use crate::quantity;
use crate::store::turn::Turn;
use crate::sys::process::pause;

/// Flags of run and create.
pub(super) fn add_common(command: Command) -> Command {
    command.arg(switch("replace", None, "End and remove a container that has the name")).arg(value(
        "tz",
        None,
        "ZONE",
        "Time zone: a name as in Europe/Berlin, a file, or local",
    ))
}

/// Flags of run alone.
pub(super) fn add(command: Command) -> Command {
    command
        .arg(value(
            "if-running",
            None,
            "WHAT",
            "skip, wait, replace or fail, if a container of this name runs",
        ))
        .arg(switch("rmi", None, "Remove container and image when it ends, unless others use the image"))
        .arg(switch("quiet-ok", None, "Print the output only if it fails"))
        .arg(value("jitter", None, "DURATION", "Wait up to so long before, by chance"))
}

/// What they say.
pub(super) struct Job {
    /// The name, and what becomes of another run under it; `None` where nothing was said.
    overlap: Option<(String, IfRunning)>,
    /// Output is shown only if it failed.
    pub(super) quiet_ok: bool,
    jitter: Duration,
}

/// Reads them; `matches` may be of create.
pub(super) fn read(matches: &ArgMatches) -> Result<Job> {
    exclude(matches, "if-running", &["replace"])?;
    exclude(matches, "rmi", &["detach"])?;
    let of_run = |name: &str| matches.try_get_one::<String>(name).ok().flatten().map(String::as_str);
    let replace = matches.get_flag("replace");
    let word = of_run("if-running").or(replace.then_some("replace"));
    let policy = word.map(|word| match word {
        "fail" => Ok(IfRunning::Fail),
        "skip" => Ok(IfRunning::Skip),
        "wait" => Ok(IfRunning::Wait),
        "replace" => Ok(IfRunning::Replace),
        other => Err(anyhow!("cannot use --if-running {other:?}")).hint("it is skip, wait, replace or fail"),
    });
    let overlap = match policy.transpose()? {
        None => None,
        Some(policy) => {
            let flag = if replace { "--replace" } else { "--if-running" };
            let name = one(matches, "name").ok_or_else(|| anyhow!("cannot use {flag} without a --name"));
            Some((name.hint("runs of the same job are known by their name")?.to_owned(), policy))
        }
    };
    let quiet_ok = matches.try_get_one::<bool>("quiet-ok").ok().flatten().copied().unwrap_or(false);
    let detached = matches.try_get_one::<bool>("detach").ok().flatten().copied().unwrap_or(false);
    if quiet_ok && detached {
        return Err(anyhow!("cannot use --quiet-ok with -d"))
            .hint("a container in the background prints nothing");
    }
    let jitter = of_run("jitter").map(quantity::duration).transpose().context("cannot use --jitter")?;
    let jitter = Duration::try_from(jitter.unwrap_or_default())
        .map_err(|_| anyhow!("cannot use --jitter: it is less than nothing"))?;
    Ok(Job { overlap, quiet_ok, jitter })
}

/// What came of taking a turn.
pub(super) enum Taken {
    /// Go on; a turn is to be held until the container is there.
    Go(Option<Turn>),
    /// Another run goes on: leave it at that.
    Skip(String),
}

impl Job {
    /// Waits for the moment to start, and for the turn of the name. A signal ends us here: there is nothing to undo.
    pub(super) fn await_turn(&self, engine: impl FnOnce() -> Result<Engine>) -> Result<Taken> {
        delay(self.jitter)?;
        let Some((name, policy)) = &self.overlap else { return Ok(Taken::Go(None)) };
        Ok(match overlap::settle(&engine()?, name, *policy)? {
            Some(turn) => Taken::Go(Some(turn)),
            None => Taken::Skip(format!("dhow: skipped: container {name} is running\n")),
        })
    }

    /// Whether a container of the name that has ended is to make room.
    pub(super) fn takes_over(&self) -> bool {
        self.overlap.is_some()
    }
}

/// Lets a time pass, from nothing to `most`, by chance.
fn delay(most: Duration) -> Result<()> {
    if most.is_zero() {
        return Ok(());
    }
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .context("cannot get random numbers")?;
    let nanoseconds = (u128::from(u64::from_ne_bytes(bytes)) * most.as_nanos()) >> 64;
    let end = std::time::Instant::now() + Duration::from_nanos(nanoseconds as u64);
    loop {
        let left = end.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        // A stop and a continuation cut it short.
        pause(left);
    }
}
