//! cgroup v2: one tree, in which a cgroup that hands out controllers may hold no processes itself.
//!
//! 1. `base`: the top-most cgroup above us that we may write to and that holds us in; containers go below it.
//! 2. Make the directory; without limits that is all.
//! 3. A limit whose file is missing: hand the controller down from the base, and once more if the base is in our way
//!    because processes (ours) are in it: they move to a leaf of their own first.
//! 4. The device filter.
//!
//! Step 3 can only move processes that our pid name space shows. A supervisor has one of its own, so the command that
//! starts it calls `prepare` before.
//!
//! A process gets in by CLONE_INTO_CGROUP; moving one costs about 10 ms (see `v1`).

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use rustix::fs::Access;
use rustix::fs::AtFlags;
use rustix::fs::CWD;

use super::Shortfall;
use super::Wanted;
use super::convert;
use super::convert::Setting;
use super::devices;
use super::dir;
use super::dir::Dir;
use crate::fs;
use crate::oci::runtime::LinuxResources;
use crate::sys;

/// The cgroup that the processes of a base move to when the base has to hand out controllers.
const LEAF: &str = "dhow-own";

/// The controllers that a container which makes cgroups of its own can hand out.
const DELEGATED: &[&str] = &["cpu", "cpuset", "io", "memory", "pids"];

/// Makes what is wanted; `None` if there is no place for it.
pub fn create(
    root: &Path,
    own: &Path,
    wanted: &Wanted<'_>,
    short: &mut Shortfall,
) -> Result<Option<PathBuf>> {
    let plan = convert::v2(wanted.resources);
    short.refused(plan.refused);
    let limits: Vec<&str> = plan.settings.iter().map(|s| s.limit.as_str()).collect();
    let Some(base) = base_of(root, own, wanted.path)? else {
        let own = at(root, own);
        let why = format!("neither {} nor a cgroup above it is ours to write to", own.display());
        short.push_denied(limits.into_iter().chain(device_limit(wanted)), &why);
        return Ok(None);
    };
    let path = base.join(wanted.path.trim_start_matches('/'));
    match dir::make(&path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
            bail!("cannot create cgroup {}: it exists and has processes in it", path.display());
        }
        Err(e) => {
            let why = format!("cannot create cgroup {}: {e}", path.display());
            short.push_denied(limits.into_iter().chain(device_limit(wanted)), &why);
            return Ok(None);
        }
    }
    let Some(mut dir) = Dir::open(&path)? else {
        bail!("cannot set up cgroup {}: it is gone", path.display())
    };
    if matches!(dir.read("cgroup.type").as_deref().map(str::trim), Ok("domain invalid")) {
        dir::remove(&path)?;
        let why = format!("{} is a threaded cgroup, and no process can enter one below it", base.display());
        short.push_denied(limits.into_iter().chain(device_limit(wanted)), &why);
        return Ok(None);
    }
    if wanted.delegated {
        // What cannot be had is missed by who asks for it in there.
        let _ = hand_down(root, &base, &path, DELEGATED.iter().copied());
    }
    apply(root, &base, &path, &mut dir, &plan.settings, short);
    if device_limit(wanted).is_some() {
        filter_devices(dir, wanted.resources, short);
    }
    Ok(Some(path))
}

fn base_of(root: &Path, own: &Path, path: &str) -> Result<Option<PathBuf>> {
    if path.starts_with('/') { Ok(Some(root.to_owned())) } else { base(root, own) }
}

/// The directory that `create` would make.
pub fn planned(root: &Path, own: &Path, path: &str) -> Result<Option<PathBuf>> {
    Ok(base_of(root, own, path)?.map(|base| base.join(path.trim_start_matches('/'))))
}

/// Has the base hand out what these limits take, while its processes are there to be seen and moved.
pub fn prepare(root: &Path, own: &Path, settings: &[Setting]) -> Result<()> {
    let Some(base) = base(root, own)? else { return Ok(()) };
    let Some(dir) = Dir::open(&base)? else { return Ok(()) };
    let given = dir.read("cgroup.subtree_control").unwrap_or_default();
    for setting in settings {
        if !given.split_whitespace().any(|c| c == setting.controller) {
            // Why it failed is told by `create`, which tries again.
            let _ = hand_out(root, &base, &base, &setting.controller);
        }
    }
    Ok(())
}

/// Changes the limits of one that is there; the first file that is missing has all controllers handed down.
pub fn update(
    root: &Path,
    own: &Path,
    (path, at): (&str, &Path),
    settings: &[Setting],
    short: &mut Shortfall,
) -> Result<()> {
    let dir = open(at, "change")?;
    let is_missing = |file: &str| matches!(dir.read(file), Err(e) if e.kind() == io::ErrorKind::NotFound);
    if settings.iter().any(|setting| is_missing(&setting.file))
        && let Some(base) = base_of(root, own, path)?
    {
        hand_down(root, &base, at, settings.iter().map(|s| s.controller.as_str()));
    }
    super::update::apply_twice(at, &settings.iter().collect::<Vec<_>>(), short)
}

/// Writes the settings; the first file that is missing has all controllers handed down.
fn apply(root: &Path, base: &Path, path: &Path, dir: &mut Dir, settings: &[Setting], short: &mut Shortfall) {
    let mut failed: Option<BTreeMap<String, String>> = None;
    for setting in settings {
        let mut result = dir.apply(setting);
        if is_missing(&result) && failed.is_none() {
            let controllers = settings.iter().map(|s| s.controller.as_str());
            failed = Some(hand_down(root, base, path, controllers));
            result = dir.apply(setting);
        }
        if let Err(e) = &result {
            let why = failed.as_ref().and_then(|f| f.get(&setting.controller)).cloned();
            short.push(&setting.limit, &why.unwrap_or_else(|| super::why(path, setting, e)));
        }
    }
}

fn is_missing(result: &io::Result<()>) -> bool {
    matches!(result, Err(e) if e.kind() == io::ErrorKind::NotFound)
}

fn device_limit(wanted: &Wanted<'_>) -> Option<&'static str> {
    let has_rules = wanted.resources.devices().as_ref().is_some_and(|d| !d.is_empty());
    (wanted.devices_needed && has_rules).then_some("device rules")
}

/// The cgroup below which ours go: the top-most one, from the root of the mount down to our own, that we may write to.
///
/// For a user that is what was delegated, so that a container started by cron and one started from a desktop lie side
/// by side. For root on the machine itself it is the root of the tree, which alone may hold processes and hand out
/// controllers. Root in a container that can see the whole machine's tree stays below its own cgroup: above it, the
/// limits of the outer container would not hold.
pub(super) fn base(root: &Path, own: &Path) -> Result<Option<PathBuf>> {
    // A leaf that an earlier command moved us to stands for the cgroup above it.
    let own = if own.ends_with(LEAF) { own.parent().unwrap_or(own) } else { own };
    let mut levels: Vec<PathBuf> = own.ancestors().map(|below| at(root, below)).collect();
    levels.reverse();
    let Some(top) = levels.iter().position(|dir| is_writable(dir)) else { return Ok(None) };
    if top == 0 && levels.len() > 1 && !is_on_the_machine()? {
        return Ok(levels.pop());
    }
    Ok(Some(levels.swap_remove(top)))
}

/// `root` or a cgroup below it; joining an empty path would leave a slash at the end.
fn at(root: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { root.to_owned() } else { root.join(below) }
}

/// Moving a process below a cgroup takes the right to write to its cgroup.procs, making one the right to its directory.
fn is_writable(dir: &Path) -> bool {
    let may = |path: &Path| rustix::fs::accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok();
    may(dir) && may(&dir.join("cgroup.procs"))
}

/// Whether /proc shows the machine's own first process (PROC_PID_INIT_INO), and not that of a container.
fn is_on_the_machine() -> Result<bool> {
    // Unreadable means that the first process is not ours to look at, so we are not root of the machine.
    Ok(fs::read_link(Path::new("/proc/1/ns/pid"))
        .ok()
        .flatten()
        .is_some_and(|l| l.as_os_str() == "pid:[4026531836]"))
}

/// Hands controllers down from the base to the parent of `leaf`; returns why, for those that could not be.
fn hand_down<'a>(
    root: &Path,
    base: &Path,
    leaf: &Path,
    controllers: impl Iterator<Item = &'a str>,
) -> BTreeMap<String, String> {
    let mut failed = BTreeMap::new();
    let mut levels: Vec<&Path> = leaf.ancestors().skip(1).take_while(|p| p.starts_with(base)).collect();
    levels.reverse();
    for controller in controllers {
        let done = levels.iter().try_for_each(|level| hand_out(root, base, level, controller));
        if let Err(why) = done {
            failed.insert(controller.to_owned(), why);
        }
    }
    failed
}

/// Makes `level` hand a controller to its children.
fn hand_out(root: &Path, base: &Path, level: &Path, controller: &str) -> Result<(), String> {
    // Before anything is written: a cgroup with processes refuses some controllers (EBUSY), but takes cpu, cpuset and
    // pids as a wish to become a threaded one, whose children then are "domain invalid" and take no process at all.
    if holds_processes(level).map_err(|e| explain(level, controller, &e))? {
        if level != base {
            return Err(explain(level, controller, &io::Error::from_raw_os_error(libc::EBUSY)));
        }
        vacate(level)?;
    }
    let write = || -> io::Result<()> {
        open_level(level)?.write("cgroup.subtree_control", &format!("+{controller}"))
    };
    let mut result = write();
    // ENOENT: the level above does not hand it out, yet.
    if is_missing(&result) {
        let above = level.parent().filter(|above| level != root && above.starts_with(root));
        let Some(above) = above else {
            return Err(format!("there is no {controller} controller for {}", level.display()));
        };
        hand_out(root, base, above, controller)?;
        result = write();
    }
    result.map_err(|e| explain(level, controller, &e))
}

fn open_level(level: &Path) -> io::Result<Dir> {
    Dir::open(level).map_err(io::Error::other)?.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Whether processes keep this cgroup from handing out controllers. The root of the whole tree, which alone has no
/// type, may have them.
fn holds_processes(level: &Path) -> io::Result<bool> {
    let dir = open_level(level)?;
    Ok(dir.read("cgroup.type").is_ok() && dir.read("cgroup.procs").map(|text| !text.is_empty())?)
}

/// Says what the kernel's errno means here.
fn explain(level: &Path, controller: &str, error: &io::Error) -> String {
    let level = level.display();
    match error.raw_os_error() {
        Some(libc::EINVAL) => format!("this kernel has no {controller} controller in cgroup v2"),
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => {
            format!("the {controller} controller is not delegated to us: {level} is not ours to write to")
        }
        Some(libc::EOPNOTSUPP) => format!(
            "{level} is a threaded cgroup or below one, and those cannot have the {controller} controller"
        ),
        Some(libc::EBUSY) => {
            format!("{level} cannot hand out the {controller} controller: processes are in it")
        }
        _ => format!("{level} does not hand out the {controller} controller: {error}"),
    }
}

/// Moves the processes of a cgroup, we are among them, to a leaf below it.
fn vacate(level: &Path) -> Result<(), String> {
    let fail =
        |what: &str, e: &dyn std::fmt::Display| format!("cannot move {what} out of {}: {e}", level.display());
    let leaf = level.join(LEAF);
    let open = |path: &Path| open_level(path).map_err(|e| fail("processes", &e));
    // It may be there and hold what an earlier command moved: that is fine.
    match rustix::fs::mkdirat(CWD, &leaf, rustix::fs::Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(e) => return Err(fail("processes", &e)),
    }
    let (dir, mut leaf) = (open(level)?, open(&leaf)?);
    // They may fork while they are moved; what is born later is born in the leaf.
    for _ in 0..64 {
        let pids = dir.pids().map_err(|e| fail("processes", &e))?;
        if pids.is_empty() {
            return Ok(());
        }
        if pids.contains(&0) {
            return Err(fail("processes", &"some are outside of our pid name space"));
        }
        for pid in pids {
            match leaf.write("cgroup.procs", &pid.to_string()) {
                Err(e) if e.raw_os_error() != Some(libc::ESRCH) => {
                    return Err(fail(&format!("process {pid}"), &e));
                }
                _ => {}
            }
        }
    }
    Err(fail("processes", &"new ones keep coming"))
}

fn filter_devices(dir: Dir, resources: &LinuxResources, short: &mut Shortfall) {
    let attach = || -> Result<()> {
        let program = devices::program(&devices::rules(resources.devices().as_deref().unwrap_or_default())?);
        let program = load(&program).context("cannot load the device filter")?;
        sys::bpf::attach_device_filter(dir.into_fd(), program).context("cannot attach the device filter")
    };
    match attach() {
        Ok(()) => {}
        Err(e) if e.downcast_ref::<io::Error>().is_some_and(|e| e.raw_os_error() == Some(libc::EPERM)) => {
            short.push_denied(["device rules"], &format!("{e:#}"));
        }
        Err(e) => short.push("device rules", &format!("{e:#}")),
    }
}

/// Loads the filter. Before Linux 5.11 programs counted against RLIMIT_MEMLOCK, 64 KiB for all programs of root.
fn load(program: &[sys::bpf::Insn]) -> io::Result<OwnedFd> {
    use rustix::process::Resource::Memlock;
    let first = sys::bpf::load_device_filter(program);
    if !matches!(&first, Err(e) if e.raw_os_error() == Some(libc::EPERM)) {
        return first;
    }
    let before = rustix::process::getrlimit(Memlock);
    let unlimited = rustix::process::Rlimit { current: None, maximum: None };
    if rustix::process::setrlimit(Memlock, unlimited).is_err() {
        return first;
    }
    let second = sys::bpf::load_device_filter(program);
    rustix::process::setrlimit(Memlock, before)?;
    second
}

fn open(path: &Path, verb: &str) -> Result<Dir> {
    Dir::open(path)?.with_context(|| format!("cannot {verb} cgroup {}: it is gone", path.display()))
}

/// Moves a process in.
pub fn add(path: &Path, pid: i32) -> Result<()> {
    let mut dir = open(path, "enter")?;
    dir.write("cgroup.procs", &pid.to_string()).map_err(|e| match e.raw_os_error() {
        Some(libc::EOPNOTSUPP) => anyhow::anyhow!(
            "cannot move process {pid} into cgroup {}: it is below a threaded cgroup, which takes threads only",
            path.display()
        ),
        _ => anyhow::Error::new(e).context(format!("cannot move process {pid} into cgroup {}", path.display())),
    })
}

/// cgroup.procs, open for writing.
pub fn door(path: &Path) -> Result<OwnedFd> {
    open(path, "enter")?
        .open_to_write("cgroup.procs")
        .with_context(|| format!("cannot enter cgroup {}", path.display()))
}

/// The directory, for CLONE_INTO_CGROUP.
pub fn dir_fd(path: &Path) -> Result<OwnedFd> {
    Ok(open(path, "enter")?.into_fd())
}

/// Kills all and waits until none is left.
pub fn kill_all(path: &Path) -> Result<()> {
    let Some(mut dir) = Dir::open(path)? else { return Ok(()) };
    let about = || format!("cannot kill the processes of cgroup {}", path.display());
    match dir.write("cgroup.kill", "1") {
        Ok(()) => {}
        // Before Linux 5.14. A frozen process can be killed in v2.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return dir::kill_until_empty(path, || Ok(())),
        Err(e) => return Err(e).with_context(about),
    }
    if !dir.await_event("populated", "0", Instant::now() + dir::PATIENCE).with_context(about)? {
        bail!("{}: some do not die", about());
    }
    Ok(())
}

/// Stops or resumes all and waits until it is so.
pub fn freeze(path: &Path, frozen: bool) -> Result<()> {
    let verb = if frozen { "freeze" } else { "thaw" };
    let about = || format!("cannot {verb} cgroup {}", path.display());
    let mut dir = open(path, verb)?;
    let state = if frozen { "1" } else { "0" };
    dir.write("cgroup.freeze", state).with_context(about)?;
    if !dir.await_event("frozen", state, Instant::now() + dir::PATIENCE).with_context(about)? {
        let _ = dir.write("cgroup.freeze", "0");
        bail!("{}: some processes do not stop", about());
    }
    Ok(())
}
