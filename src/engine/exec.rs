//! exec: one more process in a container that runs.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, anyhow};

use super::attach::{Ended, Signals, Stay, follow_process};
use super::detach_keys::DetachKeys;
use super::start::terminal_size;
use super::{Engine, reap, stop};
use crate::error::ExitWith;
use crate::fs;
use crate::host::Ids;
use crate::oci::runtime::{LinuxNamespaceType, Spec};
use crate::runtime::Outside;
use crate::runtime::exec::{self, Entering, Request, null_stdio};
use crate::runtime::preserved::Preserved;
use crate::runtime::rootfs::Root;
use crate::spec::capabilities;
use crate::store::container::{ContainerDir, State};
use crate::store::journal::{self, Event};
use crate::store::person::Person;
use crate::supervisor::{self, apply_user, become_person, extra_groups, keep_groups};

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
    let text = fs::read_to_string(&dir.file("config.json"))?;
    let spec: Spec = serde_json::from_str(&text)
        .with_context(|| format!("cannot read {}", dir.file("config.json").display()))?;
    let mut process = spec.process().clone().context("config.json has no process")?;
    process.set_args(Some(options.command.clone()));
    if let Some(dir) = &options.workdir {
        process.set_cwd(dir.into());
    }
    let mut env = process.env().clone().unwrap_or_default();
    if options.terminal && !env.iter().any(|e| e.starts_with("TERM=")) {
        env.push("TERM=xterm".into());
    }
    for new in super::secret::variables(&engine.store, &record)?.iter().chain(&options.env) {
        let key = format!("{}=", new.split('=').next().unwrap_or_default());
        env.retain(|e| !e.starts_with(&key));
        env.push(new.clone());
    }
    crate::supervisor::add_link_variables(&mut env, &engine.store, &record)?;
    let has_home = env.iter().any(|e| e.starts_with("HOME="));
    process.set_env(Some(env));
    if options.privileged {
        let caps =
            capabilities::everything(process.capabilities().as_ref(), super::create::held_capabilities()?);
        process.set_capabilities(caps);
    }
    let root = match &state.chroot {
        Some(path) => Root::open_host(path)?,
        None => Root::open_host(Path::new(&format!("/proc/{}/root", state.init.pid)))?,
    };
    let person = options.person.as_ref().or(record.person.as_ref()).filter(|_| options.user.is_none());
    if let Some(person) = person {
        become_person(&mut process, person, &root);
        if root.locate(process.cwd()).is_err() {
            process.set_cwd(person.home.clone());
        }
    } else {
        let user = options.user.clone().unwrap_or_else(|| record.user.clone());
        apply_user(&mut process, &user, &extra_groups(&record), has_home, &root)?;
    }
    let is_single = engine.current_ids()? == Ids::Single;
    // With one id another user is one by emulation, which is for those outside.
    let is_other = is_single && options.user.is_some();
    let is_inner = person.map_or(state.is_inner && !is_other, |p| p.is_inner);
    if is_inner && is_single {
        keep_groups(&mut process);
    }
    let user = (process.user().uid(), process.user().gid());
    let outside =
        record.ids.as_ref().map(|ids| Outside { root: ids.outside((0, 0)), user: ids.outside(user) });
    let linux = spec.linux().clone().unwrap_or_default();
    let namespaces = linux.namespaces().clone().unwrap_or_default();
    let request = Request {
        process,
        namespaces: namespaces.iter().fold(0, |flags, n| flags | kind_flag(n.typ())),
        seccomp: linux.seccomp().clone().filter(|_| !options.privileged && state.chroot.is_none()),
        cgroup: state.cgroup.clone().and_then(|c| serde_json::from_value(c).ok()),
        terminal: options.terminal.then(terminal_size),
        emulate: !is_inner && is_single,
        chroot: state.chroot.clone(),
        is_inner,
        outside,
        n_preserved: options.preserve.len(),
        limit: None,
    };
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

fn kind_flag(kind: LinuxNamespaceType) -> i32 {
    kind as i32
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

impl Engine {
    /// How ids are mapped in the name space that we are in by now.
    fn current_ids(&self) -> Result<Ids> {
        crate::host::current_ids()
    }
}
