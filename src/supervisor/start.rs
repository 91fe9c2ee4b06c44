//! From the container's directory to a running program: root, user, cgroup, streams, init. Each step named, in order.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context, Result};
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};

use super::Begin;
use super::emulation::Emulation;
use super::gate::Gate;
use super::log::{Stream, Writer};
use super::names::Names;
use super::network::Joined;
use super::relay::{Input, Relay, set_nonblocking};
use super::{identity, joined, shift};
use crate::fs;
use crate::host::{self, Ids};
use crate::oci::runtime::{LinuxNamespaceType, Mount, Spec};
use crate::runtime::cgroup::{self, Cgroup};
use crate::runtime::inner::Inner;
use crate::runtime::preserved::Preserved;
use crate::runtime::{Bundle, CreateOptions, Init, Isolation, Rootfs, Stdio, create, sealed};
use crate::spec::options::Userns;
use crate::store::Store;
use crate::store::container::{ContainerDir, ProcessId, Record, State, start_time};
use crate::store::{health, rootfs};

/// A container that runs, and all that serving it takes.
#[derive(Debug)]
pub struct Running {
    /// The container's init.
    pub init: Init,
    /// Its pid as whoever started us sees it; 0 where that cannot be told.
    pub pid: i32,
    /// Our side of its terminal.
    pub terminal: Option<OwnedFd>,
    /// Its root, where it is a chroot and nothing else.
    pub chroot: Option<PathBuf>,
    /// Its processes are among the host's, or another container's.
    pub shares_pids: bool,
    /// Its cgroup.
    pub cgroup: Option<Cgroup>,
    /// Its streams.
    pub relays: Vec<Relay>,
    /// Its log.
    pub log: Option<Writer>,
    /// Who answers root's calls of a single-id user.
    pub emulation: Option<Emulation>,
    /// Where it reads what those type who are attached.
    pub input: Option<Input>,
    /// Some of its output goes past us.
    pub is_unheard: bool,
    /// Its names, where it is on networks of its own.
    pub names: Option<Names>,
    /// The gate of a box.
    pub gate: Option<Gate>,
}

/// Our ends of the container's streams.
struct Streams {
    terminal: Option<OwnedFd>,
    relays: Vec<Relay>,
    log: Option<Writer>,
    input: Option<Input>,
    is_unheard: bool,
}

/// What is started.
#[derive(Debug, Clone, Copy)]
pub struct Starting<'a> {
    /// Where the container lies.
    pub store: &'a Store,
    /// Its directory.
    pub dir: &'a ContainerDir,
    /// Its record.
    pub record: &'a Record,
    /// How it is to begin.
    pub begin: &'a Begin,
    /// The command's end of its terminal.
    pub data: Option<&'a OwnedFd>,
    /// How often it was started before by the same supervisor.
    pub restarts: u32,
    /// Descriptors of the command's that the program gets.
    pub preserved: Option<&'a Preserved>,
}

/// Starts a container, joined to its networks; what works less well than asked for is told to `warn`.
pub fn start(
    starting: Starting<'_>,
    joined: Option<&mut Joined>,
    warn: &mut dyn FnMut(String),
) -> Result<Running> {
    let Starting { store, dir, record, begin, .. } = starting;
    if record.healthcheck.is_some() {
        health::forget(dir);
    }
    let mut spec = read_spec(dir)?;
    let held = joined::resolve(&mut spec, store)?;
    let inner = identity::inner(store, &spec, record)?;
    shift::owners(&mut spec, (store, dir), record, begin)?;
    let root = rootfs::prepare(store, dir, record, identity::moves(store, record, inner.as_ref())?)?;
    if begin.isolation == Isolation::Full {
        super::shared::mount_volumes(&mut spec, store, dir, record)?;
    }
    super::secrets::add(&mut spec, store, record)?;
    super::links::add(&mut spec, store, record, warn)?;
    identity::resolve_user(&mut spec, store, record, (&root.0, inner.as_ref()), warn)?;
    if root.1 == "overlay-memory" && !record.auto_remove {
        warn(
            "its changes are in memory, and end with this run: the disk of the store takes no overlay".into(),
        );
    }
    let cgroup = make_cgroup(dir, &spec, record, begin, warn)?;
    let chroot = chroot_of(&root.0, begin);
    let started = run(starting, &spec, (root, inner), cgroup.as_ref(), joined);
    drop(held);
    let shares_pids = shares_pids(&spec);
    let (init, pid, streams, emulation, gate, names) = match started {
        Ok(parts) => parts,
        Err(error) => {
            if let Some(cgroup) = &cgroup {
                let _ = cgroup.kill_all().and_then(|()| cgroup.remove());
            }
            return Err(error);
        }
    };
    let Streams { terminal, relays, log, input, is_unheard } = streams;
    Ok(Running {
        init,
        pid,
        terminal,
        chroot,
        shares_pids,
        cgroup,
        relays,
        log,
        emulation,
        input,
        is_unheard,
        gate,
        names,
    })
}

/// The container's bundle.
pub fn read_spec(dir: &ContainerDir) -> Result<Spec> {
    let text = fs::read_to_string(&dir.file("config.json"))?;
    serde_json::from_str(&text).with_context(|| format!("cannot read {}", dir.file("config.json").display()))
}

/// Whether the container has no pid name space of its own.
pub fn shares_pids(spec: &Spec) -> bool {
    let namespaces =
        spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    !namespaces.iter().any(|n| n.typ() == LinuxNamespaceType::Pid && n.path().is_none())
}

/// The root that a container without name spaces is confined to.
fn chroot_of(root: &rootfs::Root, begin: &Begin) -> Option<PathBuf> {
    match root {
        rootfs::Root::Dir(path) if begin.isolation == Isolation::Chroot => Some(path.clone()),
        _ => None,
    }
}

type Parts = (Init, i32, Streams, Option<Emulation>, Option<Gate>, Option<Names>);

fn run(
    starting: Starting<'_>,
    spec: &Spec,
    ((root, driver), inner): ((rootfs::Root, &str), Option<Inner>),
    cgroup: Option<&Cgroup>,
    mut joined: Option<&mut Joined>,
) -> Result<Parts> {
    let Starting { store, dir, record, begin, data, restarts, preserved } = starting;
    let outside = shift::outside(record, spec);
    let is_inner = inner.is_some() && record.person.is_none();
    let (stdio, mut streams) = make_stdio(dir, record, begin, spec)?;
    let emulate = store.ids == Ids::Single;
    let v2 = cgroup.map(Cgroup::v2_dir).transpose()?.flatten();
    let cgroup_doors = match (cgroup, &v2) {
        (Some(cgroup), None) => cgroup.doors()?,
        _ => Vec::new(),
    };
    let (gate, gate_inside) = Gate::of(record)?.unzip();
    let preserved = preserved.map(Preserved::try_clone).transpose()?.unwrap_or_default();
    let reaper = if record.init { Some(preserved.clear(sealed::own()?)?) } else { None };
    let options = CreateOptions {
        gate: gate_inside.map(|gate| preserved.clear(gate)).transpose()?,
        cgroup_doors,
        reaper,
        preserved,
        cgroup_dirs: cgroup.map(Cgroup::mounts).unwrap_or_default(),
        emulate: emulate && inner.is_none(),
        isolation: begin.isolation,
        inner,
        inner_of: inner_of(store, record)?,
        is_joined: joined.is_some(),
        outside,
    };
    let chroot = chroot_of(&root, begin);
    let rootfs = match root {
        rootfs::Root::Mount(tree) => Rootfs::Mount(tree, dir.file("merged")),
        rootfs::Root::Dir(path) => Rootfs::Dir(path),
    };
    let bundle = Bundle { dir: &dir.path, spec, rootfs };
    let mut names = None;
    let mut init = create(&bundle, stdio, &options, v2.as_ref().map(AsFd::as_fd), &mut |pid, inside| {
        let Some(joined) = &mut joined else { return Ok(()) };
        joined.join(store, pid, inside)?;
        names = Some(Names::open(starting, spec, joined)?);
        Ok(())
    })?;
    let mut emulation = if emulate { Some(Emulation::open(dir)?) } else { None };
    if let (Some(emulation), Some(listener)) = (&mut emulation, init.listener.take()) {
        emulation.add(listener);
    }
    if let Some(master) = init.console.take() {
        let copy = || master.try_clone().context("cannot copy the terminal");
        // Who types more than the program reads must not keep us from what it writes.
        set_nonblocking(&master).context("cannot use the terminal")?;
        streams.terminal = Some(copy()?);
        streams.input = Some(Input::new(copy()?, true).context("cannot use the terminal")?);
        streams.relays.extend(terminal_relays(master, data)?);
    }
    // Before the program runs: if this cannot be written, nothing has happened yet.
    let pid = write_state(dir, &init, (driver, chroot, is_inner), cgroup, restarts)?;
    init.start(|socket| serve_until_exec(socket, emulation.as_mut()))?;
    Ok((init, pid, streams, emulation, gate, names))
}

/// The inner user name space that it joins, where it joins that of another container.
fn inner_of(store: &Store, record: &Record) -> Result<Option<std::fs::File>> {
    let userns = record.options.get("userns").cloned().unwrap_or_default();
    match serde_json::from_value(userns) {
        Ok(Userns::Container(id)) => joined::inner_of(store, &id),
        _ => Ok(None),
    }
}

/// Answers emulated calls that init makes between `Start` and exec.
fn serve_until_exec(socket: BorrowedFd<'_>, emulation: Option<&mut Emulation>) -> Result<()> {
    let Some(emulation) = emulation else { return Ok(()) };
    loop {
        let ready: Vec<(bool, bool)> = {
            let mut fds = vec![PollFd::from_borrowed_fd(socket, PollFlags::IN)];
            fds.extend(emulation.interest().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            rustix::event::poll(&mut fds, None).context("cannot wait for the container")?;
            fds.iter()
                .map(|f| (f.revents().contains(PollFlags::IN), f.revents().contains(PollFlags::HUP)))
                .collect()
        };
        if ready[0] != (false, false) {
            return Ok(());
        }
        emulation.step(&ready[1..]);
    }
}

/// Notes the run; the pid of its init.
fn write_state(
    dir: &ContainerDir,
    init: &Init,
    (driver, chroot, is_inner): (&str, Option<PathBuf>, bool),
    cgroup: Option<&Cgroup>,
    restart_count: u32,
) -> Result<i32> {
    let of = |pid: i32| Some(ProcessId { pid, start_time: start_time(pid)? });
    let gone = "the container's processes are not to be seen in /proc";
    let state = State {
        supervisor: host::visible_pid().and_then(of).context(gone)?,
        init: host::visible_pid_of(init.pidfd.as_fd())?
            .and_then(of)
            .unwrap_or(ProcessId { pid: 0, start_time: 0 }),
        started_at: Timestamp::now(),
        driver: driver.to_owned(),
        chroot,
        is_inner,
        cgroup: cgroup.map(serde_json::to_value).transpose().context("cannot note the cgroup")?,
        paused: false,
        restart_count,
        restarting: None,
    };
    dir.write_state(&state)?;
    Ok(state.init.pid)
}

fn make_cgroup(
    dir: &ContainerDir,
    spec: &Spec,
    record: &Record,
    begin: &Begin,
    warn: &mut dyn FnMut(String),
) -> Result<Option<Cgroup>> {
    let Some(linux) = spec.linux() else { return Ok(None) };
    let Some(resources) = linux.resources() else { return Ok(None) };
    let path = cgroup_path(spec);
    // A chroot has the devices of the sandbox around it, and its rules.
    let devices_needed = resources.devices().is_some() && begin.isolation == Isolation::Full;
    let delegated = spec.mounts().iter().flatten().any(shows_writable_cgroup);
    let wanted = cgroup::Wanted { path, resources, devices_needed, delegated };
    let hierarchy = cgroup::probe()?;
    if let Some(planned) = cgroup::planned(&hierarchy, path)? {
        dir.note_cgroup(&serde_json::to_value(planned).context("cannot note the cgroup")?);
    }
    cgroup::create(&hierarchy, &wanted, warn, record.strict_limits)
}

/// Where its cgroup is made.
pub(super) fn cgroup_path(spec: &Spec) -> &str {
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_ref());
    path.and_then(|path| path.to_str()).unwrap_or("dhow/container")
}

fn shows_writable_cgroup(mount: &Mount) -> bool {
    mount.typ().as_deref() == Some("cgroup") && mount.options().iter().flatten().any(|word| word == "rw")
}

/// The container's streams and our ends of them. In the foreground the container gets the command's own descriptors where
/// nothing stands in between: no log to keep, and no terminal that it could play tricks on.
fn make_stdio(dir: &ContainerDir, record: &Record, begin: &Begin, spec: &Spec) -> Result<(Stdio, Streams)> {
    let log = if record.log { Some(Writer::open(dir, record)?) } else { None };
    let mut streams = Streams { terminal: None, relays: Vec::new(), log, input: None, is_unheard: false };
    if record.terminal {
        let (rows, columns) = begin.size;
        return Ok((Stdio::Terminal { rows, columns }, streams));
    }
    let user = spec.process().as_ref().map_or(0, |p| p.user().uid());
    // Who has ids of their own can open none of the caller's pipes again: they get our own.
    let (user, may_share) = match shift::outside(record, spec) {
        Some(outside) => (outside.user.0, false),
        None => (user, true),
    };
    let stdin = make_stdin(record, begin, &mut streams)?;
    let stdout = output(rustix::stdio::stdout(), begin, Stream::Out, (user, may_share), &mut streams)?;
    let stderr = output(rustix::stdio::stderr(), begin, Stream::Err, (user, may_share), &mut streams)?;
    Ok((Stdio::Fds([stdin, stdout, stderr]), streams))
}

fn make_stdin(record: &Record, begin: &Begin, streams: &mut Streams) -> Result<OwnedFd> {
    let own = rustix::stdio::stdin();
    if begin.foreground && begin.stdin {
        if !rustix::termios::isatty(own) {
            return own.try_clone_to_owned().context("cannot use stdin");
        }
        let (read, write) = pipe()?;
        let from = own.try_clone_to_owned().context("cannot use stdin")?;
        streams.relays.push(Relay::new(from, Some(write), None).for_input());
        return Ok(read);
    }
    if record.interactive && !begin.foreground {
        let (read, write) = pipe()?;
        streams.input = Some(Input::new(write, false).context("cannot use a pipe")?);
        return Ok(read);
    }
    rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .context("cannot open /dev/null")
}

fn output(
    own: BorrowedFd<'_>,
    begin: &Begin,
    stream: Stream,
    (user, may_share): (u32, bool),
    streams: &mut Streams,
) -> Result<OwnedFd> {
    let clone = || own.try_clone_to_owned().context("cannot use our standard streams");
    let is_shown = begin.foreground
        && match stream {
            Stream::Out => begin.stdout,
            Stream::Err => begin.stderr,
        };
    if is_shown && may_share && !begin.may_leave && streams.log.is_none() && !rustix::termios::isatty(own) {
        streams.is_unheard = true;
        return clone();
    }
    let (read, write) = pipe()?;
    // /dev/stdout can be opened again by its owner only; a program that is not root expects to be able to.
    if user != 0 {
        let _ = rustix::fs::fchown(&write, Some(rustix::fs::Uid::from_raw(user)), None);
    }
    let to = is_shown.then(clone).transpose()?;
    streams.relays.push(Relay::new(read, to, Some(stream)));
    Ok(write)
}

fn terminal_relays(master: OwnedFd, data: Option<&OwnedFd>) -> Result<Vec<Relay>> {
    let copy = |fd: &OwnedFd| fd.try_clone().context("cannot copy a descriptor");
    let mut relays = Vec::new();
    if let Some(data) = data {
        relays.push(Relay::new(copy(data)?, Some(copy(&master)?), None).for_input());
    }
    let to = data.map(copy).transpose()?;
    relays.push(Relay::new(master, to, Some(Stream::Out)).of_terminal());
    Ok(relays)
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("cannot make a pipe")
}
