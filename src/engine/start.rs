//! start and run: a container that exists -> a supervisor that runs it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};

use super::Engine;
use super::create::Created;
use super::reap;
use crate::event::Sink;
use crate::fs;
use crate::oci::runtime::{LinuxResources, Spec};
use crate::runtime::{Isolation, cgroup};
use crate::store::container::{ContainerDir, Record, Status};
use crate::supervisor::{self, Begin, Client};

/// How a container is started.
#[derive(Debug, Clone, Copy, Default)]
pub struct StartOptions {
    /// Its output comes here, and it ends with us.
    pub foreground: bool,
    /// Our stdin is its stdin.
    pub stdin: bool,
}

/// Starts a container that was just made. If that fails it is removed again when it was to be removed anyway.
pub fn start_created(created: Created, options: StartOptions, events: Sink<'_>) -> Result<Client> {
    let Created { dir, record, resources, lock } = created;
    spawn(&dir, &record, &resources, lock, options, events)
}

/// Starts a container that exists and does not run. `Ok(None)`: it runs already.
pub fn start(
    engine: &Engine,
    wanted: &str,
    options: StartOptions,
    events: Sink<'_>,
) -> Result<Option<Client>> {
    let dir = engine.find(wanted)?;
    let lock = loop {
        match reap::decided(&engine.store, &dir)? {
            Status::Running(_) => return Ok(None),
            Status::Starting => anyhow::bail!("cannot start {wanted}: another start does not get through"),
            _ => {}
        }
        // Those who wait for a container's end hold the lock for a moment when it comes.
        match dir.try_lock()? {
            Some(lock) => break lock,
            None => reap::pause(),
        }
    };
    let record = dir.record()?;
    let text = fs::read_to_string(&dir.file("config.json"))?;
    let spec: Spec = serde_json::from_str(&text)
        .with_context(|| format!("cannot read {}", dir.file("config.json").display()))?;
    let resources = spec.linux().as_ref().and_then(|l| l.resources().clone()).unwrap_or_default();
    spawn(&dir, &record, &resources, lock, options, events).map(Some)
}

fn spawn(
    dir: &ContainerDir,
    record: &Record,
    resources: &LinuxResources,
    lock: OwnedFd,
    options: StartOptions,
    events: Sink<'_>,
) -> Result<Client> {
    let stdio: [BorrowedFd<'_>; 3] =
        [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let full = record.options.get("full_isolation").and_then(serde_json::Value::as_bool).unwrap_or(false);
    let begin = Begin {
        foreground: options.foreground,
        stdin: options.stdin,
        size: terminal_size(),
        isolation: Isolation::Full,
        may_downgrade: !full,
    };
    let own = options.foreground.then_some(stdio);
    // Here and not in the supervisor, whose pid name space does not show the processes that may have to move.
    cgroup::prepare(resources).with_context(|| format!("cannot start {}", record.name))?;
    supervisor::spawn(dir, lock, &begin, record.terminal, own, events)
        .with_context(|| format!("cannot start {}", record.name))
}

/// Rows and columns of the terminal that we are on, if any.
pub fn terminal_size() -> (u16, u16) {
    [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()]
        .iter()
        .find_map(|fd| rustix::termios::tcgetwinsize(fd.as_fd()).ok())
        .map_or((0, 0), |s| (s.ws_row, s.ws_col))
}
