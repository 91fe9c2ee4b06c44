//! Volumes that are a file system of their own (`volume create -o type=tmpfs`, nfs, a device): one file system for all
//! containers that use them at the same time, as docker has it, and gone with the last of them.
//!
//! Nobody but supervisors could hold it, so each that uses it has it mounted, in a mount name space of its own, on the
//! volume's `_data`, and shows it to its container from there. Who comes next gets a clone of that mount from one of those
//! (`Control::Share`), also across the user name spaces of one user; the kernel counts.
//!
//! Invariant: who decides whether there is one already has the volume's lock, and never waits for another supervisor with
//! it: that one may be waiting for the lock.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::mount::UnmountFlags;

use super::Control;
use super::visit::try_connect;
use crate::fs;
use crate::oci::runtime::{Mount, Spec};
use crate::runtime::mount;
use crate::runtime::rootfs::Root;
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
    loop {
        let file = volume::open_lock(store, name)?;
        lock::acquire(&file, Kind::Exclusive).context("cannot lock it")?;
        let tree = match of_others(store, dir, name)? {
            Others::Have(tree) => tree,
            Others::HaveNone => make(store, name)?,
            Others::AreBusy if Instant::now() > deadline => {
                bail!("a container that uses it does not answer");
            }
            Others::AreBusy => {
                drop(file);
                process::pause(Duration::from_millis(2));
                continue;
            }
        };
        mount::attach(tree, Root::open_host(data)?).context("cannot mount it")?;
        fs::create_dir_all(&dir.file(SHARED), 0o700)?;
        return fs::open_or_create(&dir.file(SHARED).join(name), 0o600).map(drop);
    }
}

/// What other containers have of a volume.
enum Others {
    /// This is a clone of their mount.
    Have(OwnedFd),
    /// None of them has it mounted.
    HaveNone,
    /// One may have it, and cannot be asked yet.
    AreBusy,
}

fn of_others(store: &Store, own: &ContainerDir, name: &str) -> Result<Others> {
    let mut are_busy = false;
    for user in volume::users(store)?.remove(name).unwrap_or_default() {
        let dir = ContainerDir::of(store, &user.id);
        let is_one = dir.path != own.path && fs::metadata(&dir.file(SHARED).join(name))?.is_some();
        // One that was killed has left its mark.
        let lives = || dir.open_lock().is_ok_and(|lock| lock::is_held(lock).unwrap_or(false));
        if !is_one || !lives() {
            continue;
        }
        let Some(socket) = try_connect(&dir)? else {
            are_busy = true;
            continue;
        };
        if socket.send(&Control::Share(name.to_owned()), None).is_ok()
            && let Some((Control::Done, Some(tree))) = socket.receive::<Control>()?
        {
            return Ok(Others::Have(tree));
        }
    }
    Ok(if are_busy { Others::AreBusy } else { Others::HaveNone })
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
