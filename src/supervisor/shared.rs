//! Volumes that are a file system of their own (`volume create -o type=tmpfs`, nfs, a device): one file system for all
//! containers that use them at the same time, as docker has it, and gone with the last of them.
//!
//! Nobody but supervisors could hold it, so each that uses it has it mounted, in a mount name space of its own, on the
//! volume's `_data`, and shows it to its container from there. Who comes next gets a clone of that mount from one of those
//! (`Control::Share`), also across the user name spaces of one user; the kernel counts.
//!
//! Invariant: who decides whether there is one already has the volume's lock, and never waits for another supervisor with
//! it: that one may be waiting for the lock, or hang, and then all others would with it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::Control;
use super::visit::try_connect;
use crate::error::ResultExt;
use crate::fs;
use crate::oci::runtime::{Mount, Spec};
use crate::runtime::mount;
use crate::runtime::rootfs::Root;
use crate::runtime::sync::Socket;
use crate::store::Store;
use crate::store::container::{ContainerDir, Record, SHARED};
use crate::store::volume;
use crate::sys::lock::{self, Kind};
use crate::sys::process;

/// How long another may take to come to where it can answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Mounts them for ourselves, and has the container get them from there.
pub(super) fn mount_volumes(
    spec: &mut Spec,
    store: &Store,
    dir: &ContainerDir,
    record: &Record,
) -> Result<()> {
    if record.volumes.is_empty() {
        return Ok(());
    }
    let mounts = spec.mounts_mut().as_mut().context("config.json has no mounts")?;
    let words = |m: &Mount| m.options().clone().unwrap_or_default();
    // A mount that is to be the host's peer has to come from the host's own name space.
    if mounts.iter().any(|m| mount::parse_options(&words(m)).propagation == libc::MS_SHARED) {
        return Ok(());
    }
    let mut wanted = BTreeMap::new();
    for m in mounts.iter_mut().filter(|m| m.typ().as_deref() != Some("bind")) {
        let Some(used) = record.volumes.iter().find(|used| used.destination == *m.destination()) else {
            continue;
        };
        let data = volume::data(store, &used.name);
        m.set_typ(Some("bind".into()));
        m.set_source(Some(data.clone()));
        m.set_options(Some([words(m), vec!["rbind".into()]].concat()));
        wanted.insert(used.name.as_str(), data);
    }
    // Those of the run before are still there.
    wanted.retain(|_, data| !is_mounted(data));
    if wanted.is_empty() {
        return Ok(());
    }
    process::unshare(libc::CLONE_NEWNS).context("cannot make a mount name space")?;
    mount::cut_propagation()?;
    for (name, data) in wanted {
        take(store, dir, name, &data).with_context(|| format!("cannot mount the volume {name}"))?;
    }
    Ok(())
}

/// Whether something is mounted there, for us.
fn is_mounted(data: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).ok().flatten().map(|meta| meta.dev());
    data.parent().is_some_and(|home| device(home) != device(data))
}

/// Takes part in a volume: in the mount that others have, or by making one.
fn take(store: &Store, dir: &ContainerDir, name: &str, data: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut given: Option<(ContainerDir, OwnedFd)> = None;
    loop {
        let file = volume::open_lock(store, name)?;
        lock::acquire(&file, Kind::Exclusive).context("cannot lock it")?;
        let holders = holders(store, dir, name)?;
        // Who gave it to us may have let go since, the last of all: then what we were given is nobody's any more.
        let tree = given.take().filter(|(giver, _)| holders.iter().any(|holder| holder.path == giver.path));
        let tree = match tree {
            Some((_, tree)) => Some(tree),
            None if holders.is_empty() => Some(make(store, name)?),
            None => None,
        };
        if let Some(tree) = tree {
            mount::attach(tree, Root::open_host(data)?).context("cannot mount it")?;
            fs::create_dir_all(&dir.file(SHARED), 0o700)?;
            return fs::open_or_create(&dir.file(SHARED).join(name), 0o600).map(drop);
        }
        drop(file);
        given = ask(holders, name, deadline)?;
        if given.is_none() {
            process::pause(Duration::from_millis(2));
        }
    }
}

/// The other containers whose supervisors have it mounted.
fn holders(store: &Store, own: &ContainerDir, name: &str) -> Result<Vec<ContainerDir>> {
    let mut all = Vec::new();
    for user in volume::users(store)?.remove(name).unwrap_or_default() {
        let dir = ContainerDir::of(store, &user.id);
        let is_one = dir.path != own.path && fs::metadata(&dir.file(SHARED).join(name))?.is_some();
        // One that was killed has left its mark.
        if is_one && dir.open_lock().is_ok_and(|lock| lock::is_held(lock).unwrap_or(false)) {
            all.push(dir);
        }
    }
    Ok(all)
}

/// A clone of the mount of one of them. They are asked one after the other, and one that hangs delays the next by a moment
/// only. `None`: none of them can be asked yet, or those who could are ending: look again.
fn ask(holders: Vec<ContainerDir>, name: &str, deadline: Instant) -> Result<Option<(ContainerDir, OwnedFd)>> {
    let mut asked = Vec::new();
    let about = |silent: &ContainerDir| {
        anyhow!("container {} uses it, and its supervisor does not answer", silent.id())
    };
    let hint = "what hangs can be ended: dhow rm -f CONTAINER";
    let mut silent = holders.first().cloned();
    for holder in holders {
        let Some(socket) = try_connect(&holder)? else { continue };
        if socket.send(&Control::Share(name.to_owned()), None).is_ok() {
            asked.push((holder, socket));
        }
        if let Some(given) = hear(&mut asked, Duration::from_millis(100))? {
            return Ok(Some(given));
        }
    }
    while let Some((holder, _)) = asked.first() {
        silent = Some(holder.clone());
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        if let Some(given) = hear(&mut asked, left)? {
            return Ok(Some(given));
        }
    }
    match silent {
        Some(silent) if Instant::now() >= deadline => Err(about(&silent)).hint(hint),
        _ => Ok(None),
    }
}

/// Waits until one of them answers, and forgets who answered with nothing.
fn hear(asked: &mut Vec<(ContainerDir, Socket)>, most: Duration) -> Result<Option<(ContainerDir, OwnedFd)>> {
    let time = Timespec { tv_sec: most.as_secs() as i64, tv_nsec: most.subsec_nanos().into() };
    let mut fds: Vec<PollFd<'_>> =
        asked.iter().map(|(_, socket)| PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)).collect();
    if fds.is_empty() {
        return Ok(None);
    }
    match rustix::event::poll(&mut fds, Some(&time)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error).context("cannot wait for the supervisors of others"),
    }
    let Some(n) = fds.iter().position(|fd| !fd.revents().is_empty()) else { return Ok(None) };
    drop(fds);
    let (holder, socket) = asked.swap_remove(n);
    match socket.receive::<Control>()? {
        Some((Control::Done, Some(tree))) => Ok(Some((holder, tree))),
        Some((Control::Failed(failure), _)) => Err(failure.into_error()),
        // It is ending, or has ended.
        _ => Ok(None),
    }
}

fn make(store: &Store, name: &str) -> Result<OwnedFd> {
    let volume = volume::look_up(store, name)?.context("it is gone")?;
    let (fs_type, source, words) = volume::mount_of(store, &volume)?;
    let mut wanted = Mount::default();
    wanted.set_typ(Some(fs_type));
    wanted.set_source(Some(source));
    wanted.set_options(Some(words));
    mount::file_system(&wanted)
}

/// A clone of our mount of a volume, for another supervisor; `None` if we have none.
pub(super) fn clone_of(store: &Store, dir: &ContainerDir, name: &str) -> Result<Option<OwnedFd>> {
    volume::check_name(name)?;
    if fs::metadata(&dir.file(SHARED).join(name))?.is_none() {
        return Ok(None);
    }
    mount::clone_at(Root::open_host(&volume::data(store, name))?).map(Some).context("cannot clone the mount")
}

/// Lets go of all of them. Before anything of the container is removed: what is seen through our mounts is not ours to
/// remove.
pub(super) fn let_go(store: &Store, dir: &ContainerDir, record: &Record) -> Result<()> {
    for used in &record.volumes {
        let mark = dir.file(SHARED).join(&used.name);
        if fs::metadata(&mark)?.is_none() {
            continue;
        }
        let data = volume::data(store, &used.name);
        if is_mounted(&data) {
            rustix::mount::unmount(&data, UnmountFlags::DETACH)
                .with_context(|| format!("cannot unmount the volume {}", used.name))?;
        }
        fs::remove_file(&mark)?;
    }
    Ok(())
}
