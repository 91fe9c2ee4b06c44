//! start and run: a container that exists -> a supervisor that runs it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, anyhow};

use super::Engine;
use super::create::{self, CreateOptions, Created};
use super::{reap, wiring};
use crate::endpoint::Network;
use crate::error::ResultExt;
use crate::event::Sink;
use crate::fs;
use crate::host::Ids;
use crate::oci::runtime::{LinuxResources, Spec};
use crate::runtime::cgroup;
use crate::runtime::preserved::Preserved;
use crate::runtime::sealed::{self, Executable};
use crate::spec::options::Streams;
use crate::store::container::{ContainerDir, Record, Status};
use crate::supervisor::{self, Begin, Client, SpawnOptions, Waiting};
use crate::userns::Entering;

/// How a container is started.
#[derive(Debug, Clone, Copy, Default)]
pub struct StartOptions {
    /// Its output comes here, and it ends with us.
    pub foreground: bool,
    /// Our stdin is its stdin.
    pub stdin: bool,
    /// We show its stdout.
    pub stdout: bool,
    /// We show its stderr.
    pub stderr: bool,
    /// We may go away while it stays.
    pub may_leave: bool,
}

impl StartOptions {
    /// Those that are ours.
    pub fn streams(self) -> Streams {
        Streams { stdin: self.stdin, stdout: self.stdout, stderr: self.stderr }
    }

    /// All of its streams are ours, `stdin` if it is wanted.
    pub fn foreground(stdin: bool) -> StartOptions {
        StartOptions { foreground: true, stdin, stdout: true, stderr: true, may_leave: false }
    }
}

/// Plans, makes and gets ready to start a container, for [`start_created`]. The supervisor starts up while we find out
/// what is to run.
pub fn make(
    engine: &Engine,
    entering: Option<Entering>,
    mut wanted: CreateOptions,
    options: StartOptions,
    events: Sink<'_>,
) -> Result<(Created, Waiting)> {
    let id = create::random_id()?;
    let dir = ContainerDir::of(&engine.store, &id);
    let role = Role {
        terminal: wanted.options.terminal,
        full_isolation: wanted.options.full_isolation,
        shares_pids: !wanted.options.pid.is_own(),
    };
    let preserved = Preserved::of_caller(&wanted.preserve)?;
    let finish = || entering.map(Entering::finish).transpose();
    let has_ranges = matches!(engine.host.ids, Ids::Ranges { .. });
    let (supervisor, holder) = if options.foreground && has_ranges && engine.host.executable_is_out_of_reach {
        // A copy has the command's memory, of which it gives back what is free should it live longer. It has our rights,
        // mapped or not. With one id it would not do: memory that was there before the name space is out of the emulation's
        // reach.
        let supervisor = supervise(&dir, None, role, options, events)?;
        (supervisor, finish()?)
    } else {
        let executable = sealed::executable(&engine.host)?;
        // A program that is started before its ids are mapped has no rights in the name space. newuidmap and newgidmap
        // keep two processors busy; planning goes better with the supervisor's start-up than with them.
        let holder = finish()?;
        (supervise(&dir, Some(executable), role, options, events)?, holder)
    };
    supervisor.preserve(&preserved)?;
    // A chroot has the network around it; who asked for another, or for ports of one, is told so.
    let is_published = !wanted.options.publish.is_empty() || wanted.options.publish_all;
    if supervisor.is_chroot() && wiring::is_by_default(&wanted.options) && !is_published {
        wanted.options.network = Network::Host;
    }
    let created = create::create(engine, id, wanted)?;
    drop(holder);
    Ok((created, supervisor))
}

/// Starts a container that was just made. If that fails it is removed again when it was to be removed anyway.
pub fn start_created(
    created: Created,
    supervisor: Waiting,
    options: StartOptions,
    events: Sink<'_>,
) -> Result<Client> {
    let Created { record, resources, lock, .. } = created;
    begin(supervisor, &record, &resources, lock, options, events)
}

/// Starts a container that exists and does not run. `Ok(None)`: it runs already.
pub fn start(
    engine: &Engine,
    wanted: &str,
    options: StartOptions,
    events: Sink<'_>,
) -> Result<Option<Client>> {
    start_changed(engine, wanted, options, None, events)
}

/// What may change a container before it is started, while nobody else can.
pub type Change<'a> = &'a mut dyn FnMut(&ContainerDir, &mut Record, &mut Spec) -> Result<()>;

/// The same for a container that is changed first.
pub fn start_changed(
    engine: &Engine,
    wanted: &str,
    options: StartOptions,
    change: Option<Change<'_>>,
    events: Sink<'_>,
) -> Result<Option<Client>> {
    let dir = engine.find(wanted)?;
    let lock = loop {
        match reap::decided(&engine.store, &dir)? {
            Status::Running(_) | Status::Restarting(..) => return Ok(None),
            Status::Paused(_) => {
                return Err(anyhow!("cannot start {wanted}: it is paused"))
                    .hint(format!("unpause it: dhow unpause {wanted}"));
            }
            Status::Starting(_) => anyhow::bail!("cannot start {wanted}: another start does not get through"),
            _ => {}
        }
        // Those who wait for a container's end hold the lock for a moment when it comes.
        match dir.try_lock()? {
            Some(lock) => break lock,
            None => reap::pause(),
        }
    };
    dir.forget_stopped()?;
    let mut record = dir.record()?;
    let text = fs::read_to_string(&dir.file("config.json"))?;
    let mut spec: Spec = serde_json::from_str(&text)
        .with_context(|| format!("cannot read {}", dir.file("config.json").display()))?;
    if let Some(change) = change {
        change(&dir, &mut record, &mut spec)?;
        let config = serde_json::to_vec(&spec).context("cannot encode the spec")?;
        fs::write_atomic(&dir.file("config.json"), &config)?;
        dir.write_record(&record)?;
    }
    let resources = spec.linux().as_ref().and_then(|l| l.resources().clone()).unwrap_or_default();
    let role = Role {
        terminal: record.terminal,
        full_isolation: record
            .options
            .get("full_isolation")
            .and_then(serde_json::Value::as_bool)
            .unwrap_or(false),
        shares_pids: supervisor::shares_pids(&spec),
    };
    let about = || format!("cannot start {}", record.name);
    super::mounts::fill_if_unfilled(&engine.store, &dir, &record).with_context(about)?;
    let supervisor = sealed::executable(&engine.host)
        .and_then(|executable| supervise(&dir, Some(executable), role, options, events))
        .with_context(about)?;
    begin(supervisor, &record, &resources, lock, options, events).map(Some)
}

/// What of a container its supervisor's own start depends on.
#[derive(Debug, Clone, Copy)]
struct Role {
    terminal: bool,
    full_isolation: bool,
    shares_pids: bool,
}

/// Starts the supervisor.
fn supervise(
    dir: &ContainerDir,
    executable: Option<Executable>,
    role: Role,
    options: StartOptions,
    events: Sink<'_>,
) -> Result<Waiting> {
    let stdio: [BorrowedFd<'_>; 3] =
        [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let options = SpawnOptions {
        terminal: role.terminal && options.foreground && (options.stdin || options.stdout),
        stdio: options.foreground.then_some(stdio),
        may_downgrade: !role.full_isolation && !role.shares_pids,
        shares_pids: role.shares_pids,
    };
    supervisor::spawn(&dir.path, executable, options, events)
}

/// Tells it to begin.
fn begin(
    supervisor: Waiting,
    record: &Record,
    resources: &LinuxResources,
    lock: OwnedFd,
    options: StartOptions,
    events: Sink<'_>,
) -> Result<Client> {
    let about = || format!("cannot start {}", record.name);
    // Here and not in the supervisor, whose pid name space does not show the processes that may have to move.
    cgroup::prepare(resources).with_context(about)?;
    let begin = Begin {
        foreground: options.foreground,
        stdin: options.stdin,
        stdout: options.stdout,
        stderr: options.stderr,
        may_leave: options.may_leave,
        size: terminal_size(),
        ..Begin::default()
    };
    supervisor.begin(&lock, begin, events).with_context(about)
}

/// Rows and columns of the terminal that we are on, if any.
pub fn terminal_size() -> (u16, u16) {
    [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()]
        .iter()
        .find_map(|fd| rustix::termios::tcgetwinsize(fd.as_fd()).ok())
        .map_or((0, 0), |s| (s.ws_row, s.ws_col))
}
