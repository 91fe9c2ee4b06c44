//! exec: one more process in a container that runs.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, anyhow};

use super::attach::{Ended, Signals, Stay, follow_process};
use super::detach_keys::DetachKeys;
use super::start::terminal_size;
use super::{Engine, reap, stop};
use crate::error::ExitWith;
use crate::runtime::exec::{self, Entering, Request, null_stdio};
use crate::runtime::preserved::Preserved;
use crate::store::container::{ContainerDir, State};
use crate::store::journal::{self, Event};
use crate::store::person::Person;
use crate::supervisor::{self, Wanted};

/// What to run and how.
#[derive(Debug, Clone, Default)]
pub struct ExecOptions {
    /// Program and arguments.
    pub command: Vec<String>,
    /// `KEY=VALUE` on top of the container's.
    pub env: Vec<String>,
    /// Working directory; the container's otherwise.
    pub workdir: Option<String>,
    /// `user[:group]`; the container's otherwise.
    pub user: Option<String>,
    /// A pty.
    pub terminal: bool,
    /// stdin is passed on.
    pub interactive: bool,
    /// Does not wait.
    pub detach: bool,
    /// All rights of the caller.
    pub privileged: bool,
    /// As this person; as the container's own, if it has one and no user is named.
    pub person: Option<Person>,
    /// What leaves it to itself.
    pub detach_keys: DetachKeys,
    /// Descriptors of ours that it gets, by their numbers.
    pub preserve: Vec<i32>,
}

/// Runs it; the exit code, or `Detached`.
pub fn exec(engine: &Engine, wanted: &str, options: ExecOptions) -> Result<Ended> {
    let about = || format!("cannot exec in {wanted}");
    let (dir, state) = engine.running(wanted).with_context(about)?;
    let done = exec_in(engine, wanted, &dir, &state, options);
    // Ended meanwhile, it makes each step fail in its own way, of which none tells why.
    match done {
        Err(error) if !error.is::<ExitWith>() && reap::is_ending(&state) => {
            Err(anyhow!("container {wanted} is not running")).with_context(about)
        }
        done => done,
    }
}

fn exec_in(
    engine: &Engine,
    wanted: &str,
    dir: &ContainerDir,
    state: &State,
    options: ExecOptions,
) -> Result<Ended> {
    let about = || format!("cannot exec in {wanted}");
    let preserved = Preserved::of_caller(&options.preserve).with_context(about)?;
    let signals = if options.detach { None } else { Some(Signals::catch()?) };
    let init = stop::open_init(engine, state).with_context(about)?;
    let entering =
        exec::begin(&engine.host, &init, !options.detach, Some(stdio_of(&options)?)).with_context(about)?;
    let record = dir.record()?;
    let privileged = options.privileged.then(super::create::held_capabilities).transpose()?;
    let wanted = Wanted {
        command: options.command.clone(),
        env: &options.env,
        workdir: options.workdir.as_deref(),
        user: options.user.as_deref(),
        person: options.person.as_ref(),
        privileged,
        terminal: options.terminal.then(terminal_size),
    };
    let mut request = supervisor::request(&engine.store, dir, &record, state, wanted)?;
    request.n_preserved = options.preserve.len();
    let line = options.command.join(" ");
    let exec_id = super::create::random_id()?;
    let event = |action: String| Event::of_container(&record, action).with("execID", exec_id.as_str());
    let begun = [event(format!("exec_create: {line}")), event(format!("exec_start: {line}"))];
    journal::note_all(&engine.store, &begun);
    let entering = Entered { entering, preserved };
    let ended = run(&dir.path, entering, &request, &options, signals).with_context(about)?;
    if let Ended::Exited(code) = ended {
        journal::note(&engine.store, &event("exec_die".into()).with("exitCode", code.to_string()));
    }
    Ok(ended)
}

/// Who is to become the process, and what of ours it gets.
struct Entered {
    entering: Entering,
    preserved: Preserved,
}

/// The process's streams, where it has no terminal.
fn stdio_of(options: &ExecOptions) -> Result<[OwnedFd; 3]> {
    let mut stdio = null_stdio()?;
    if !options.detach && !options.terminal {
        let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().context("cannot use our standard streams");
        if options.interactive {
            stdio[0] = own(rustix::stdio::stdin())?;
        }
        stdio[1] = own(rustix::stdio::stdout())?;
        stdio[2] = own(rustix::stdio::stderr())?;
    }
    Ok(stdio)
}

fn run(
    dir: &Path,
    entered: Entered,
    request: &Request,
    options: &ExecOptions,
    signals: Option<Signals>,
) -> Result<Ended> {
    let Entered { entering, preserved } = entered;
    let mut process = entering.request(request, &preserved)?;
    drop(preserved);
    if let Some(listener) = process.listener.take() {
        supervisor::hand_over_listener(dir, listener.as_fd())?;
    }
    process.start(|_| Ok(()))?;
    let Some(signals) = signals else { return Ok(Ended::Detached) };
    let console = process.console.take();
    let stay = Stay { input: options.interactive, keys: options.detach_keys.clone(), sig_proxy: true };
    follow_process(&process, console, &signals, stay)
}
