//! The files of a container, whether it runs or not, as one root that no path leads out of.
//!
//! Of one that runs: its init's root, with all that is mounted there. Of any other: its root file system, its volumes and
//! its bind mounts, put together in a mount name space that is this command's alone and goes away with it, however it
//! ends.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};

use super::{Engine, reap};
use crate::fs;
use crate::host::Ids;
use crate::oci::runtime::{Mount, Spec};
use crate::runtime::mount::{self, Options};
use crate::runtime::rootfs::Root;
use crate::store::container::{self, ContainerDir, ProcessId, Record, State, Status};
use crate::store::mapped::Moves;
use crate::store::rootfs;
use crate::supervisor::moves_of;
use crate::sys::lock::{self, Kind};
use crate::sys::process;
use crate::userns;

/// A container's files.
#[derive(Debug)]
pub struct Files {
    /// All paths are resolved in here.
    pub root: Root,
    /// The container.
    pub dir: ContainerDir,
    /// Its record.
    pub record: Record,
    /// How ids are mapped by now.
    pub ids: Ids,
    /// Which owners are others than they are in the container when it runs.
    pub moves: Option<Moves>,
    /// What is written is gone when the command ends.
    pub is_fleeting: bool,
    /// Keeps starts and removals waiting.
    _held: Vec<File>,
}

/// Opens the files of a container. Who is not root enters a user name space by this, so that it can be done once only.
pub fn open(engine: &mut Engine, wanted: &str) -> Result<Files> {
    let dir = engine.find(wanted)?;
    let record = dir.record()?;
    loop {
        match reap::decided(&engine.store, &dir)? {
            Status::Running(state) | Status::Paused(state) => {
                if let Some(root) = of_running(engine, &record, &state)? {
                    let ids = crate::host::current_ids()?;
                    let moves = outside_moves(engine, &dir, &record)?;
                    return Ok(Files {
                        root,
                        dir,
                        record,
                        ids,
                        moves,
                        is_fleeting: false,
                        _held: Vec::new(),
                    });
                }
                dir.wait_unlocked()?;
            }
            Status::Starting(_) => bail!("it does not get through its start"),
            Status::Restarting(..) => bail!("it is restarting: wait until it runs"),
            _ => return of_stopped(engine, dir, record),
        }
    }
}

/// `None` if it has just ended. By then no name space was joined: what does not run is looked at from another one.
fn of_running(engine: &Engine, record: &Record, state: &State) -> Result<Option<Root>> {
    let Some(process) = container::open_process(seen_from(record, state)) else { return Ok(None) };
    let root = match &state.chroot {
        Some(_) => None,
        // Open to whoever made its user name space.
        None => match Root::open_host(Path::new(&format!("/proc/{}/root", state.init.pid))) {
            Err(_) if reap::is_ending(state) => return Ok(None),
            root => Some(root.context("cannot open the container's root")?),
        },
    };
    // The number may have become another process's since.
    if reap::is_ending(state) {
        return Ok(None);
    }
    match userns::join(&engine.host, &process) {
        Err(error) if is_gone(&error) => return Ok(None),
        joined => joined?,
    }
    match (&state.chroot, root) {
        (Some(path), _) => Root::open_host(path).map(Some),
        (None, root) => Ok(root),
    }
}

/// The process in whose user name space a running container's files are looked at: its own, where the caller is who they
/// are; in one of the container alone they are nobody, and cannot do anything.
pub(super) fn seen_from(record: &Record, state: &State) -> ProcessId {
    if record.ids.is_some() { state.supervisor } else { state.init }
}

/// Which owners are others there than they are inside.
pub(super) fn outside_moves(engine: &Engine, dir: &ContainerDir, record: &Record) -> Result<Option<Moves>> {
    if record.ids.is_some() { moves_of(&engine.store, dir, record) } else { Ok(None) }
}

/// A process that has ended, and is still to be waited for, has no name spaces any more.
fn is_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error) == Some(libc::ESRCH)
}

fn of_stopped(engine: &mut Engine, dir: ContainerDir, record: Record) -> Result<Files> {
    userns::enter(&mut engine.host)?;
    engine.store.ids = engine.host.ids.clone();
    // Others may look at it meanwhile. Starts and removals wait, as they want the lock for themselves.
    let shared = dir.open_lock()?;
    while !lock::try_acquire(&shared, Kind::Shared).context("cannot lock the container")? {
        match reap::decided(&engine.store, &dir)? {
            status if status.is_alive() => return Err(anyhow!("it was started just now")),
            _ => reap::pause(),
        }
    }
    // Overlay must not be mounted twice on the same changes.
    let alone = fs::open_or_create(&dir.file("files.lock"), 0o600)?;
    lock::acquire(&alone, Kind::Exclusive).context("cannot lock the container's files")?;
    let moves = moves_of(&engine.store, &dir, &record)?;
    let (root, driver) = assemble(engine, &dir, &record, moves.clone())?;
    let ids = engine.store.ids.clone();
    let is_fleeting = driver == "overlay-memory";
    Ok(Files { root, dir, record, ids, moves, is_fleeting, _held: vec![shared, alone] })
}

/// The root with what its start would mount there of the host's.
fn assemble(
    engine: &Engine,
    dir: &ContainerDir,
    record: &Record,
    moves: Option<Moves>,
) -> Result<(Root, &'static str)> {
    // Who entered a user name space got a mount name space with it; root of one around us did not.
    let is_private = engine.host.is_rootless() || make_private().is_ok();
    // What is written now is there when it starts, also where the changes of a container that is thrown away would be
    // in memory.
    let lasting = Record { auto_remove: false, ..record.clone() };
    let (root, driver) = rootfs::prepare(&engine.store, dir, &lasting, moves)?;
    let tree = match root {
        rootfs::Root::Mount(tree) => tree,
        rootfs::Root::Dir(path) => match clone_dir(&path) {
            Ok(tree) if is_private => tree,
            // In a sandbox that allows no mounts there are no volumes either.
            _ => return Ok((Root::open_host(&path)?, driver)),
        },
    };
    if !is_private {
        return Ok((Root::from(tree), driver));
    }
    let merged = dir.file("merged");
    mount::attach(&tree, &Root::open_host(&merged)?).context("cannot mount the container's root")?;
    let root = Root::open_host(&merged)?;
    let spec = spec(dir)?;
    for mount in spec.mounts().iter().flatten().filter(|m| outlives_a_run(m)) {
        let words = mount.options().clone().unwrap_or_default();
        let options = Options { propagation: 0, ..mount::parse_options(&words) };
        let bound = match is_bind(mount) {
            true => Some(mount::clone_tree(&mount.source().clone().unwrap_or_default(), &options)?),
            false => None,
        };
        mount::place(&root, mount, bound)?;
    }
    if spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false) {
        mount::read_only(&root, false)?;
    }
    Ok((root, driver))
}

/// What is not made anew by every start, and is no device.
fn outlives_a_run(mount: &Mount) -> bool {
    let of_a_run = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"];
    let kind = mount.typ().as_deref().unwrap_or_default();
    !of_a_run.contains(&kind) && !mount.destination().starts_with("/dev")
}

fn is_bind(mount: &Mount) -> bool {
    let says_so = |words: &Vec<String>| words.iter().any(|word| word == "bind" || word == "rbind");
    mount.typ().as_deref() == Some("bind") || mount.options().as_ref().is_some_and(says_so)
}

fn make_private() -> Result<()> {
    process::unshare(libc::CLONE_NEWNS).context("cannot make a mount name space")?;
    mount::cut_propagation()
}

fn clone_dir(path: &Path) -> Result<std::os::fd::OwnedFd> {
    Ok(mount::clone_tree(path, &Options { bind: true, recursive: true, ..Options::default() })?.tree)
}

/// The container's spec.
pub(super) fn spec(dir: &ContainerDir) -> Result<Spec> {
    let path = dir.file("config.json");
    let text = fs::read_to_string(&path)?;
    serde_json::from_str(&text).with_context(|| format!("cannot read {}", path.display()))
}

/// Walking a deep tree holds a descriptor or two for each level: takes as many as we may have.
pub(super) fn take_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
