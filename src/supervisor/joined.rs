//! Name spaces of other containers that a container is to be in: found when it starts, and held by descriptors until its
//! init is in them.
//!
//! In config.json such a name space has the path `container:ID`; so has the source of a /dev/shm that is another's. Which
//! process that is, is known only now: the other one may have been started anew.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use crate::error::ResultExt;
use crate::fs;
use crate::oci::runtime::{LinuxNamespaceType, Spec};
use crate::oci::words::SHM_OF;
use crate::spec::share::OF_CONTAINER;
use crate::store::Store;
use crate::store::container::{ContainerDir, State, start_time};

/// Puts the paths of the name spaces into the spec; they hold as long as what is returned.
pub(super) fn resolve(spec: &mut Spec, store: &Store) -> Result<Vec<File>> {
    let mut held = Vec::new();
    if let Some(namespaces) = spec.linux_mut().as_mut().and_then(|linux| linux.namespaces_mut().as_mut()) {
        for namespace in namespaces {
            let Some(id) = namespace.path().as_deref().and_then(id_in) else { continue };
            let path = hold(store, id, file_of(namespace.typ()), &mut held)?;
            namespace.set_path(Some(path));
        }
    }
    let mounts = spec.mounts_mut().iter_mut().flatten();
    for mount in mounts.filter(|mount| mount.typ().as_deref() == Some(SHM_OF)) {
        let Some(id) = mount.source().as_deref().and_then(id_in) else { continue };
        let path = hold(store, id, "mnt", &mut held)?;
        mount.set_source(Some(path));
    }
    Ok(held)
}

/// The inner user name space of the container `id`, if its programs live in one.
pub(super) fn inner_of(store: &Store, id: &str) -> Result<Option<File>> {
    let mut held = Vec::new();
    if running(store, id)?.is_inner {
        hold(store, id, "user", &mut held)?;
    }
    Ok(held.pop())
}

fn id_in(path: &Path) -> Option<&str> {
    path.to_str()?.strip_prefix(OF_CONTAINER)
}

/// The name in /proc/PID/ns.
fn file_of(kind: LinuxNamespaceType) -> &'static str {
    match kind {
        LinuxNamespaceType::Pid => "pid",
        LinuxNamespaceType::Network => "net",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Cgroup => "cgroup",
        LinuxNamespaceType::Mount => "mnt",
        _ => "user",
    }
}

/// Opens a name space of a container's init, and returns a path to it that nobody else's end or start changes.
fn hold(store: &Store, id: &str, file: &str, held: &mut Vec<File>) -> Result<PathBuf> {
    let state = running(store, id)?;
    let about = || format!("cannot join the name spaces of container {}", name(store, id));
    let pid = state.init.pid;
    let opened = fs::open(Path::new(&format!("/proc/{pid}/ns/{file}"))).with_context(about)?;
    // Still the same process, and so it was when it was opened.
    if start_time(pid) != Some(state.init.start_time) {
        return Err(not_running(store, id));
    }
    let path = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
    held.push(opened);
    Ok(path)
}

fn running(store: &Store, id: &str) -> Result<State> {
    let status = ContainerDir::of(store, id).status()?;
    status.run().cloned().ok_or_else(|| not_running(store, id))
}

fn not_running(store: &Store, id: &str) -> anyhow::Error {
    let name = name(store, id);
    let error: Result<()> = Err(anyhow!("container {name} is not running"));
    error
        .hint(format!("its name spaces are to be joined: dhow start {name}"))
        .err()
        .unwrap_or_else(|| anyhow!("it ended"))
}

fn name(store: &Store, id: &str) -> String {
    ContainerDir::of(store, id).record().map_or_else(|_| id.to_owned(), |record| record.name)
}
