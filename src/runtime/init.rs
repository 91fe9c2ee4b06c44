//! The child's side: from a fresh clone to execve(2). Its point is the order, every line of `run` one named step.
//! No locks, no threads, no logging except the sync socket.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::process::{self, Program};
use super::rootfs::Root;
use super::sync::{Message, Socket};
use super::{
    Bundle, CreateOptions, Isolation, Outside, Rootfs, Stdio, apparmor, cgroup, dev, idmap, mask, mount,
    seccomp, terminal,
};
use crate::error::ResultExt;
use crate::fs;
use crate::oci::runtime::{Linux, LinuxNamespaceType, Mount, Process, Spec};
use crate::oci::words::SHM_OF;
use crate::sys;

/// Sets everything up and becomes the program; returns only an error.
pub fn run(bundle: &Bundle<'_>, stdio: Stdio, options: &CreateOptions, socket: &Socket) -> anyhow::Error {
    let set_up = set_up(bundle, stdio, options, socket);
    // After all that set-up had open is closed: a number of theirs may be among it.
    match set_up.and_then(|ready| options.preserved.place().map(|()| ready)) {
        Ok((program, keep)) => exec(&program, options, socket, keep.as_ref()),
        Err(error) => error,
    }
}

fn set_up(
    bundle: &Bundle<'_>,
    stdio: Stdio,
    options: &CreateOptions,
    socket: &Socket,
) -> Result<(Program, Option<OwnedFd>)> {
    if options.is_joined {
        // First of all: the supervisor sets the network up while we do the rest.
        super::inside::send(socket)?;
    }
    let spec = bundle.spec;
    let process = spec.process().as_ref().context("config.json has no process")?;
    let linux = spec.linux().clone().unwrap_or_default();
    let program = Program::new(
        process.args().as_deref().unwrap_or_default(),
        process.env().as_deref().unwrap_or_default(),
    )?;
    // Without name spaces there is no right to install one either, and that of the sandbox holds.
    let profile = linux.seccomp().as_ref().filter(|_| options.isolation == Isolation::Full);
    let filter = profile.map(seccomp::compile).transpose()?;

    // A belt beside the braces: the supervisor's pid name space ends us too.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    sys::process::reset_signals();
    let _ = rustix::process::setsid();
    cgroup::enter(&options.cgroup_doors).context("cannot join the container's cgroup")?;
    set_oom_score(process)?;
    let profile = apparmor::open(process)?;
    rustix::process::umask(Mode::empty());
    let terminal = match options.isolation {
        Isolation::Full => build(bundle, &stdio, options, &linux)?,
        Isolation::Chroot => super::chroot::set_up(bundle, &stdio)?,
    };

    if let Some(terminal) = terminal {
        socket.send(&Message::Console, Some(terminal.master.as_fd()))?;
        terminal::make_controlling(&terminal.slave)?;
        process::set_stdio([terminal.slave.as_fd(); 3])?;
    } else if let Stdio::Fds(fds) = &stdio {
        process::set_stdio([fds[0].as_fd(), fds[1].as_fd(), fds[2].as_fd()])?;
    }
    process::seal_descriptors()?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    process::set_rlimits(process.rlimits().as_deref().unwrap_or_default())?;
    let copy = |fd: &OwnedFd| options.preserved.clear(fd.try_clone()?);
    let keep = options.reaper.as_ref().map(copy).transpose()?;
    process::enter_cwd(process.cwd())?;
    if options.inner.is_some() && options.isolation == Isolation::Full {
        match &options.inner_of {
            Some(other) => super::inner::join(other.as_fd())?,
            None => super::inner::make(socket)?,
        }
    }
    profile.map(apparmor::Profile::apply).transpose()?;
    // Until here all our rights are above those of whoever may share our pid name space, and keep them away. Not sooner: the
    // supervisor has to map our ids, and that of a copied process is nobody's in our user name space (ptrace(2)).
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let listener = process::become_user(process, filter.as_deref(), options.emulate)?;
    if let Some(listener) = listener {
        socket.send(&Message::Listener, Some(listener.as_fd()))?;
    }
    // Changing ids cleared it (prctl(2), PR_SET_PDEATHSIG).
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    socket.send(&Message::Ready, None)?;
    socket.expect(&Message::Start)?;
    if options.emulate {
        process::believe(process)?;
    }
    Ok((program, keep))
}

/// Name spaces, mounts, devices: the container as it will find itself; returns in its root.
fn build(
    bundle: &Bundle<'_>,
    stdio: &Stdio,
    options: &CreateOptions,
    linux: &Linux,
) -> Result<Option<terminal::Terminal>> {
    let spec = bundle.spec;
    enter_namespaces(linux, options)?;
    let mounts = spec.mounts().clone().unwrap_or_default();
    let binds = clone_binds(&mounts)?;
    let cgroups = clone_cgroups(options, &mounts)?;
    mount::cut_propagation()?;
    let root = attach_root(&bundle.rootfs)?;
    for (entry, bind) in mounts.iter().zip(binds) {
        if entry.typ().as_deref() == Some("cgroup") {
            place_cgroups(&root, entry, &cgroups)?;
        } else {
            mount::place(&root, entry, bind)?;
        }
    }
    dev::populate(&root, linux.devices().as_deref().unwrap_or_default())?;
    set_hostname(spec)?;
    set_sysctls(linux)?;
    let terminal = match stdio {
        Stdio::Terminal { rows, columns } => Some(terminal::open(&root, *rows, *columns)?),
        Stdio::Fds(_) => None,
    };
    if let Some(terminal) = &terminal {
        dev::console(&root, &terminal.slave)?;
        terminal.belongs_to(options.outside)?;
    }
    if let Some(process) = spec.process() {
        make_cwd(&root, process, options.outside)?;
    }
    enter_root(&root)?;
    protect_paths(linux, spec)?;
    Ok(terminal)
}

fn exec(
    program: &Program,
    options: &CreateOptions,
    socket: &Socket,
    reaper: Option<&OwnedFd>,
) -> anyhow::Error {
    match reaper {
        Some(reaper) => super::reaper::become_it(reaper, program, socket, options.gate.as_ref()),
        None => program.exec(),
    }
}

/// Joins the name spaces that have a path, and makes our own cgroup the root of what we see of them.
fn enter_namespaces(linux: &Linux, options: &CreateOptions) -> Result<()> {
    for namespace in linux.namespaces().as_deref().unwrap_or_default() {
        match namespace.path() {
            // We were born in it.
            Some(_) if namespace.typ() == LinuxNamespaceType::Pid => {}
            Some(path) => {
                let fd = fs::open(path)?;
                sys::process::join_namespaces(&fd, namespace.typ() as i32)
                    .with_context(|| format!("cannot join the name space {}", path.display()))?;
            }
            None if namespace.typ() == LinuxNamespaceType::Cgroup => {
                sys::process::unshare(libc::CLONE_NEWCGROUP).context("cannot make a cgroup name space")?;
            }
            // Where somebody joins us meanwhile, they do it: we would wait for the lock of all links, which they hold.
            None if namespace.typ() == LinuxNamespaceType::Network && !options.is_joined => {
                bring_up_loopback()?
            }
            None => {}
        }
    }
    Ok(())
}

/// `lo` of a new network name space is down (network_namespaces(7)); programs expect 127.0.0.1 to answer.
fn bring_up_loopback() -> Result<()> {
    sys::net::set_up(c"lo").context("cannot bring up the loopback device")
}

fn set_oom_score(process: &Process) -> Result<()> {
    if let Some(score) = process.oom_score_adj() {
        fs::write(Path::new("/proc/self/oom_score_adj"), score.to_string().as_bytes())
            .hint("an unprivileged caller can only raise it")?;
    }
    Ok(())
}

fn clone_binds(mounts: &[Mount]) -> Result<Vec<Option<mount::Detached>>> {
    let clone = |m: &Mount| {
        let options = mount::parse_options(m.options().as_deref().unwrap_or_default());
        let is_bind = options.bind || m.typ().as_deref() == Some("bind");
        match m.source() {
            Some(source) if m.typ().as_deref() == Some(SHM_OF) => Ok(Some(mount::shm_of(source)?)),
            Some(source) if is_bind => {
                let tree = mount::clone_tree(source, &options)?;
                idmap::map_owners(&tree, m, source)?;
                Ok(Some(tree))
            }
            _ => Ok(None),
        }
    };
    mounts.iter().map(clone).collect()
}

fn clone_cgroups(options: &CreateOptions, mounts: &[Mount]) -> Result<Vec<(String, mount::Detached)>> {
    let Some(entry) = mounts.iter().find(|m| m.typ().as_deref() == Some("cgroup")) else {
        return Ok(Vec::new());
    };
    let words = entry.options().clone().unwrap_or_default();
    let clone = |(name, path): &(String, std::path::PathBuf)| {
        Ok((name.clone(), mount::clone_tree(path, &mount::parse_options(&words))?))
    };
    options.cgroup_dirs.iter().map(clone).collect()
}

/// /sys/fs/cgroup: under v2 our own cgroup, under v1 a directory for each controller that we are in.
fn place_cgroups(root: &Root, entry: &Mount, cgroups: &[(String, mount::Detached)]) -> Result<()> {
    let base = entry.destination();
    if let [(name, whole)] = cgroups
        && name.is_empty()
    {
        let target = root.create_dir_all(base, Mode::from_raw_mode(0o755))?;
        return mount::attach(&whole.tree, target).context("cannot mount the cgroup in the container");
    }
    if cgroups.is_empty() {
        return Ok(());
    }
    let words = ["mode=755", "nosuid", "nodev", "noexec"].map(str::to_owned);
    let tmpfs =
        mount::make("tmpfs", Some("tmpfs"), &mount::parse_options(&words)).context("cannot make a tmpfs")?;
    mount::attach(&tmpfs, root.create_dir_all(base, Mode::from_raw_mode(0o755))?)
        .context("cannot mount on /sys/fs/cgroup in the container")?;
    for (name, dir) in cgroups {
        let target = root.create_dir_all(&base.join(name), Mode::from_raw_mode(0o755))?;
        mount::attach(&dir.tree, target)
            .with_context(|| format!("cannot mount cgroup {name} in the container"))?;
    }
    mount::read_only(root.locate(base).context("cannot open /sys/fs/cgroup in the container")?, false)
}

/// Attaches the root file system in our own mount name space.
fn attach_root(rootfs: &Rootfs) -> Result<Root> {
    match rootfs {
        Rootfs::Mount(tree, at) => {
            mount::attach(tree, Root::open_host(at)?)
                .with_context(|| format!("cannot mount the root on {}", at.display()))?;
            Root::open_host(at)
        }
        Rootfs::Dir(dir) => {
            // pivot_root(2) wants a mount point.
            let words = ["rbind".to_owned()];
            let bound = mount::clone_tree(dir, &mount::parse_options(&words))?;
            mount::attach(&bound.tree, Root::open_host(dir)?)
                .with_context(|| format!("cannot bind {}", dir.display()))?;
            Root::open_host(dir)
        }
    }
}

fn set_hostname(spec: &Spec) -> Result<()> {
    if let Some(name) = spec.hostname() {
        rustix::system::sethostname(name.as_bytes())
            .with_context(|| format!("cannot set the hostname {name}"))?;
    }
    if let Some(name) = spec.domainname() {
        sys::net::set_domainname(name).with_context(|| format!("cannot set the domain name {name}"))?;
    }
    Ok(())
}

/// Writes sysctls through a procfs of our own, opened by descriptor: nothing the image or a volume mounted on /proc can
/// send the write elsewhere (CVE-2025-52881).
fn set_sysctls(linux: &Linux) -> Result<()> {
    let Some(sysctls) = linux.sysctl().as_ref().filter(|s| !s.is_empty()) else {
        return Ok(());
    };
    let proc =
        mount::make("proc", None, &mount::Options::default()).context("cannot make a proc file system")?;
    for (key, value) in sysctls {
        let about = || format!("cannot set sysctl {key} to {value}");
        let path = format!("sys/{}", key.replace('.', "/"));
        let how = rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat2(&proc, path, flags, Mode::empty(), how).with_context(about)?;
        rustix::io::write(&file, value.as_bytes()).with_context(about)?;
    }
    Ok(())
}

/// Docker makes the working directory where it is missing.
pub(super) fn make_cwd(root: &Root, process: &Process, outside: Option<Outside>) -> Result<()> {
    if process.cwd() == Path::new("/") || root.locate(process.cwd()).is_ok() {
        return Ok(());
    }
    let dir = root.create_dir_all(process.cwd(), Mode::from_raw_mode(0o755))?;
    if let Some(Outside { root: (uid, gid), .. }) = outside {
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        rustix::fs::chownat(&dir, c"", Some(uid), Some(gid), rustix::fs::AtFlags::EMPTY_PATH)
            .context("cannot give the working directory to the container")?;
    }
    Ok(())
}

/// pivot_root(2) onto the container's root and away with the old one.
fn enter_root(root: &Root) -> Result<()> {
    let about = "cannot change to the container's root";
    rustix::process::fchdir(root).context(about)?;
    // "." twice: the old root is stacked on the new one and unmounted from there; no directory is needed for it.
    match rustix::process::pivot_root(".", ".") {
        Ok(()) => rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH).context(about)?,
        // Docker's profile has mount(2) for who has CAP_SYS_ADMIN, and this never: lay the root on top of the old one.
        Err(Errno::PERM) => {
            rustix::mount::mount_move(".", "/").context(about)?;
            rustix::process::chroot(".").context(about)?;
        }
        Err(e) => return Err(e).context(about),
    }
    rustix::process::chdir("/").context(about)
}

/// Masks, read-only paths, and the root's own mode; after everything that writes below.
fn protect_paths(linux: &Linux, spec: &Spec) -> Result<()> {
    let root = Root::open_host(Path::new("/"))?;
    mask::hide(&root, linux.masked_paths().as_deref().unwrap_or_default())?;
    mask::protect(&root, linux.readonly_paths().as_deref().unwrap_or_default())?;
    if spec.root().as_ref().and_then(|r| r.readonly()).unwrap_or(false) {
        mount::read_only(&root, false).context("cannot make the container's root read-only")?;
    }
    if let Some(propagation) = linux.rootfs_propagation() {
        let options = mount::parse_options(std::slice::from_ref(propagation));
        mount::set_attributes(&root, &options, true).context("cannot set the root's propagation")?;
    }
    Ok(())
}

/// The raw number of a descriptor that is to stay open across exec.
pub(super) fn keep_across_exec(fd: BorrowedFd<'_>) -> Result<i32> {
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).context("cannot keep a descriptor")?;
    Ok(fd.as_raw_fd())
}
