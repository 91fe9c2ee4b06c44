//! The lowest rung: a container where the sandbox around us allows neither name spaces nor mounts (docker's default
//! profile). chroot(2) into a plain directory keeps files apart, so that programs of an image run; processes, network,
//! host name and limits are those of the sandbox, and there is no /proc.
//!
//! No wall against a container that wants out: the sandbox around us is that. What was asked for and cannot be had
//! (a volume, a network of its own, a read-only root) is an error.
//!
//! Invariant: nothing is written to a root that is not a copy of ours.

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Signal, WaitId, WaitIdOptions};

use super::rootfs::Root;
use super::{Bundle, Rootfs, Stdio, dev, terminal};
use crate::error::ResultExt;
use crate::fs;
use crate::oci::runtime::{LinuxNamespaceType, Mount, Spec};
use crate::oci::words::OPTIONAL;

/// The way out of this rung.
pub const HINT: &str = "start the outer container with --privileged, or with --cap-add SYS_ADMIN --security-opt seccomp=unconfined";

/// Whether an error says that name spaces are not to be had, rather than that something went wrong.
pub fn is_refusal(error: &anyhow::Error) -> bool {
    let code = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
    matches!(code, Some(libc::EPERM | libc::EACCES | libc::ENOSYS))
}

/// Everything between the clone and the container's root, as init does it with name spaces and mounts on higher rungs.
pub(super) fn set_up(bundle: &Bundle<'_>, stdio: &Stdio) -> Result<Option<terminal::Terminal>> {
    let Rootfs::Dir(dir) = &bundle.rootfs else {
        return Err(anyhow!("cannot use a mounted root without mounts")).hint(HINT);
    };
    refuse(bundle.spec)?;
    let terminal = match stdio {
        // The sandbox's own ptys: there can be no others.
        Stdio::Terminal { rows, columns } => {
            Some(terminal::open(&Root::open_host(Path::new("/"))?, *rows, *columns)?)
        }
        Stdio::Fds(_) => None,
    };
    let root = Root::open_host(dir)?;
    let is_ours = dir.starts_with(bundle.dir);
    for mount in bundle.spec.mounts().iter().flatten() {
        place(&root, mount, bundle.dir, is_ours)?;
    }
    if is_ours {
        dev::populate_by_hand(&root)?;
    }
    if let Some(process) = bundle.spec.process() {
        super::init::make_cwd(&root, process, None)?;
    }
    enter(&root)?;
    lower_open_files();
    Ok(terminal)
}

/// Without /proc/self/fd, programs that close all descriptors try every number: apt takes minutes at a million.
fn lower_open_files() {
    const ENOUGH: u64 = 4096;
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, soft.min(ENOUGH), hard);
    }
}

fn refuse(spec: &Spec) -> Result<()> {
    let namespaces = spec.linux().as_ref().and_then(|l| l.namespaces().clone()).unwrap_or_default();
    if namespaces.iter().any(|n| n.typ() == LinuxNamespaceType::Network) {
        return Err(anyhow!("cannot make a network name space in this sandbox"))
            .hint(format!("use --network host, or {HINT}"));
    }
    if spec.root().as_ref().and_then(|r| r.readonly()).unwrap_or(false) {
        return Err(anyhow!("cannot make the root read-only in this sandbox")).hint(HINT);
    }
    if spec.linux().as_ref().is_some_and(|l| l.sysctl().as_ref().is_some_and(|s| !s.is_empty())) {
        return Err(anyhow!("cannot set sysctls in this sandbox")).hint(HINT);
    }
    Ok(())
}

/// What comes nearest to a mount: a copy of the bundle's own files, a directory for a tmpfs.
fn place(root: &Root, mount: &Mount, bundle: &Path, is_ours: bool) -> Result<()> {
    let destination = mount.destination();
    if super::secrets::is_one(mount) {
        return Err(anyhow!(
            "cannot give secrets in this sandbox: what is not to be written to a disk needs a mount"
        ))
        .hint(HINT);
    }
    // The image's own volumes: what it has there is in the copy.
    if mount.options().iter().flatten().any(|word| word == OPTIONAL) {
        return if is_ours {
            root.create_dir_all(destination, Mode::from_raw_mode(0o755)).map(drop)
        } else {
            Ok(())
        };
    }
    match (mount.typ().as_deref(), mount.source()) {
        (Some("bind"), Some(source)) if source.starts_with(bundle) && is_ours => {
            copy_file(root, source, destination)
        }
        (Some("bind"), Some(source)) if !source.starts_with(bundle) => {
            Err(anyhow!("cannot bind {} in this sandbox: it allows no mounts", source.display())).hint(HINT)
        }
        (Some("tmpfs"), _) if is_ours && destination != Path::new("/dev") => {
            let made = root.create_dir_all(destination, Mode::from_raw_mode(0o755))?;
            let path = format!("/proc/self/fd/{}", made.as_raw_fd());
            rustix::fs::chmod(path, Mode::from_raw_mode(0o1777)).context("cannot chmod")
        }
        (Some("bind"), _) => Ok(()),
        _ if is_ours => root.create_dir_all(destination, Mode::from_raw_mode(0o755)).map(drop),
        _ => Ok(()),
    }
}

fn copy_file(root: &Root, source: &Path, destination: &Path) -> Result<()> {
    let about = || format!("cannot write {} in the container", destination.display());
    let bytes = fs::read(source)?;
    let dir =
        root.create_dir_all(destination.parent().unwrap_or(Path::new("/")), Mode::from_raw_mode(0o755))?;
    let name = destination.file_name().unwrap_or_default();
    // Not through what is there: it may be a symlink, or have other names.
    match rustix::fs::unlinkat(&dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(e) => return Err(e).with_context(about),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&dir, name, flags, Mode::from_raw_mode(0o644)).with_context(about)?;
    std::fs::File::from(file).write_all(&bytes).with_context(about)
}

/// Makes `root` our root.
pub(super) fn enter(root: &Root) -> Result<()> {
    let about = "cannot change to the container's root";
    rustix::process::fchdir(root).context(about)?;
    rustix::process::chroot(".").context(about).hint(HINT)?;
    rustix::process::chdir("/").context(about)
}

/// Ends what a container left when its init ended, which a pid name space would have done.
pub fn end_all(root: &Path, bundle: &Path) -> Result<()> {
    loop {
        let mut found = false;
        for pidfd in members(root, bundle)? {
            if rustix::process::pidfd_send_signal(&pidfd, Signal::KILL).is_ok() {
                found = true;
                // Another's child (of an `exec`) is waited for by that one.
                let _ = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            }
        }
        if !found {
            return Ok(());
        }
    }
}

/// Sends a signal to all processes of a container.
pub fn signal_all(root: &Path, bundle: &Path, signal: Signal) -> Result<()> {
    for pidfd in members(root, bundle)? {
        // One that has just ended needs none.
        let _ = rustix::process::pidfd_send_signal(&pidfd, signal);
    }
    Ok(())
}

/// The processes of a container: our descendants (we are their reaper), and whoever has that root, if it is below `bundle`
/// and so nobody else's.
fn members(root: &Path, bundle: &Path) -> Result<Vec<OwnedFd>> {
    let me = crate::host::visible_pid().context("our own process is not to be seen in /proc")?;
    let mut parents: HashMap<i32, i32> = HashMap::new();
    for name in fs::read_dir(Path::new("/proc"))? {
        let Some(pid) = name.to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        parents.extend(parent(&Path::new("/proc").join(&name)).map(|parent| (pid, parent)));
    }
    let descends = |pid: i32| {
        let mut above = std::iter::successors(parents.get(&pid), |above| parents.get(above));
        // As many steps as there are processes: what changed while we looked may make a circle.
        above.by_ref().take(parents.len()).any(|above| *above == me)
    };
    let is_inside = |pid: i32| {
        root.starts_with(bundle)
            && fs::read_link(Path::new(&format!("/proc/{pid}/root")))
                .is_ok_and(|r| r.as_deref() == Some(root))
    };
    let found = parents.keys().filter(|pid| **pid != me && (descends(**pid) || is_inside(**pid)));
    Ok(found
        .filter_map(|pid| {
            rustix::process::pidfd_open(rustix::process::Pid::from_raw(*pid)?, PidfdFlags::empty()).ok()
        })
        .collect())
}

/// Field 4 of /proc/PID/stat.
fn parent(proc: &Path) -> Option<i32> {
    let text = fs::read_to_string(&proc.join("stat")).ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
