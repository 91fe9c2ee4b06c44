//! What a sandbox left on the machine. A process belongs to a sandbox if it descends from this test program and anything
//! that the kernel tells about it (command line, working directory, root, descriptors, mounts) names the sandbox's directory.
//! Invariant: no process is looked at, let alone ended, that does not descend from this program: it is made the subreaper
//! of all that it starts, so that orphans stay its descendants. A mount of the sandbox in the machine's own mount name
//! space is seen by every process of the machine, and tells nothing about whose they are.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::wait;

/// One thing that should be gone.
#[derive(Debug)]
pub enum Leftover {
    /// A process, and what tells that it is ours.
    Process(i32, String),
    /// A mount in our own mount name space.
    Mount(String),
    /// A cgroup named after one of our containers.
    Cgroup(PathBuf),
}

/// What is there now.
pub fn find(dir: &Path, ids: &BTreeSet<String>) -> Vec<Leftover> {
    let mut left = Vec::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let name = dir.to_string_lossy();
    left.extend(mounts.lines().filter(|l| l.contains(&*name)).map(|l| Leftover::Mount(l.to_owned())));
    for pid in descendants() {
        if let Some(why) = belongs(pid, dir) {
            left.push(Leftover::Process(pid, why));
        }
    }
    find_cgroups(Path::new("/sys/fs/cgroup"), ids, 0, &mut left);
    left
}

/// Waits until nothing is left; what is, if the deadline passes. Ends may take a moment after the command's own.
pub fn wait(dir: &Path, ids: &BTreeSet<String>) -> Vec<Leftover> {
    let mut left = Vec::new();
    wait::within(wait::SOON, || {
        left = find(dir, ids);
        left.is_empty().then_some(())
    });
    left
}

#[track_caller]
pub fn wait_for_none(dir: &Path, ids: &BTreeSet<String>) {
    let left = wait(dir, ids);
    assert!(left.is_empty(), "left behind by {}:\n{}", dir.display(), report(&left));
}

pub fn report(left: &[Leftover]) -> String {
    let line = |l: &Leftover| match l {
        Leftover::Process(pid, why) => format!("  process {pid}: {why}\n"),
        Leftover::Mount(line) => format!("  mount {line}\n"),
        Leftover::Cgroup(path) => format!("  cgroup {}\n", path.display()),
    };
    left.iter().map(line).collect()
}

/// Ends what should have ended by itself, so that one failed test does not disturb the next.
pub fn kill(left: &[Leftover]) {
    for l in left {
        match l {
            Leftover::Process(pid, _) => {
                let _ = Pid::from_raw(*pid).map(|pid| rustix::process::kill_process(pid, Signal::KILL));
            }
            Leftover::Mount(line) => {
                let at = line.split(' ').nth(4).unwrap_or_default();
                if !Path::new(at).starts_with(crate::sandbox::base()) {
                    continue;
                }
                let _ = rustix::mount::unmount(at, rustix::mount::UnmountFlags::DETACH);
            }
            Leftover::Cgroup(path) => {
                let _ = fs::remove_dir(path);
            }
        }
    }
}

/// Makes this program the parent of every orphan among its descendants. To be called before anything is started.
pub fn adopt_orphans() {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
        thread::spawn(reap_orphans);
    });
}

/// Children that somebody here waits for in his own time: not to be reaped by another.
static AWAITED: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Notes a child that may have ended long before it is waited for.
pub fn is_awaited(child: &Child) {
    AWAITED.lock().unwrap_or_else(PoisonError::into_inner).insert(child.id() as i32);
}

/// Its wait is over: the number is another's before long.
pub fn is_waited_for(child: &Child) {
    AWAITED.lock().unwrap_or_else(PoisonError::into_inner).remove(&(child.id() as i32));
}

/// Reaps for ever, as every init should: a zombie in a container's pid name space keeps its init from ending. Children that
/// are waited for at once are told from orphans by their age. A busy machine may keep one of our own threads from its
/// `wait` for seconds, so those of our own session, which no container's process is in, are given a minute.
fn reap_orphans() {
    let mut seen: BTreeMap<i32, u32> = BTreeMap::new();
    loop {
        let zombies = orphans();
        seen.retain(|pid, _| zombies.contains_key(pid));
        for (pid, in_our_session) in zombies {
            let times = seen.entry(pid).or_default();
            *times += 1;
            if *times > if in_our_session { 600 } else { 5 } {
                let _ = rustix::process::waitpid(Pid::from_raw(pid), rustix::process::WaitOptions::NOHANG);
            }
        }
        wait::within(Duration::from_millis(100), || None::<()>);
    }
}

/// Our children that have ended and that nobody said he would wait for, and whether they are of our session.
fn orphans() -> BTreeMap<i32, bool> {
    let own = std::process::id();
    let session = stat(own as i32).map(|(_, _, session)| session);
    let awaited = AWAITED.lock().unwrap_or_else(PoisonError::into_inner);
    let orphan = |pid: i32| {
        let (state, parent, its_session) = stat(pid)?;
        let is_ours = state == "Z" && parent == own as i32 && !awaited.contains(&pid);
        is_ours.then_some((pid, Some(its_session) == session))
    };
    names(Path::new("/proc")).iter().filter_map(|n| n.to_str()?.parse().ok()).filter_map(orphan).collect()
}

/// State, parent and session of a process. The session is 0, which is no pid, where its leader is outside of our pid name
/// space, as it is in a CI job; getsid(2)'s wrapper takes that for a mistake.
fn stat(pid: i32) -> Option<(String, i32, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which may hold anything but is closed by the last parenthesis: state, parent, group, session.
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().take(4).collect();
    Some((fields.first()?.to_string(), fields.get(1)?.parse().ok()?, fields.get(3)?.parse().ok()?))
}

/// Every process that this program started, or that those started.
fn descendants() -> Vec<i32> {
    let all: Vec<i32> =
        names(Path::new("/proc")).iter().filter_map(|n| n.to_str()?.parse::<i32>().ok()).collect();
    let parents: BTreeMap<i32, i32> = all.iter().filter_map(|pid| Some((*pid, parent(*pid)?))).collect();
    let own = std::process::id() as i32;
    let descends = |pid: &i32| {
        let mut above = parents.get(pid);
        while let Some(pid) = above {
            if *pid == own {
                return true;
            }
            above = parents.get(pid);
        }
        false
    };
    all.into_iter().filter(descends).collect()
}

/// Sends a signal to a process that dhow told of, if it descends from this program: a wrong number, such as one of another
/// pid name space, must not hit a stranger.
#[track_caller]
pub fn kill_own(pid: i32, signal: Signal) {
    assert!(descendants().contains(&pid), "process {pid} does not descend from this test");
    rustix::process::kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Waits until a process has given back all that it had: it is gone, or nothing of it is left but how it ended.
#[track_caller]
pub fn wait_for_end(pid: i32) {
    let status = || fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    // Its first thread is seen dead while others still have its files.
    let is_over = || {
        !status().lines().any(|l| l.starts_with("State:") && !l.contains('Z') && !l.contains('X'))
            && names(Path::new(&format!("/proc/{pid}/task"))).len() < 2
    };
    crate::wait::until("the process's end", || is_over().then_some(()));
}

/// The parent of a process.
pub fn parent(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|l| l.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// The names in a directory; none where there is no such directory.
pub fn names(dir: &Path) -> Vec<OsString> {
    fs::read_dir(dir).map(|entries| entries.flatten().map(|e| e.file_name()).collect()).unwrap_or_default()
}

fn belongs(pid: i32, dir: &Path) -> Option<String> {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let needle = dir.as_os_str().as_bytes();
    let holds = |bytes: &[u8]| bytes.windows(needle.len()).any(|w| w == needle);
    let command = fs::read(proc.join("cmdline")).unwrap_or_default();
    let shown = String::from_utf8_lossy(&command).replace('\0', " ");
    if holds(&command) {
        return Some(format!("{shown} (its command line)"));
    }
    let mut links = vec![proc.join("cwd"), proc.join("root"), proc.join("exe")];
    links.extend(names(&proc.join("fd")).iter().map(|n| proc.join("fd").join(n)));
    for link in links {
        if fs::read_link(&link).is_ok_and(|to| holds(to.as_os_str().as_bytes())) {
            return Some(format!("{shown} ({})", link.display()));
        }
    }
    let own_namespace = fs::read_link("/proc/self/ns/mnt").ok()?;
    if fs::read_link(proc.join("ns/mnt")).ok()? == own_namespace {
        return None;
    }
    // By the last part of the path alone: a bind mount's source is shown relative to its file system's root.
    let mounts = fs::read(proc.join("mountinfo")).unwrap_or_default();
    let own_name = dir.file_name()?.as_bytes();
    mounts.windows(own_name.len()).any(|w| w == own_name).then(|| format!("{shown} (its mounts)"))
}

fn find_cgroups(dir: &Path, ids: &BTreeSet<String>, depth: u32, left: &mut Vec<Leftover>) {
    if ids.is_empty() || depth > 8 {
        return;
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|t| t.is_dir()) {
            continue;
        }
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if ids.iter().any(|id| name.contains(id.as_str())) {
            left.push(Leftover::Cgroup(entry.path()));
        } else {
            find_cgroups(&entry.path(), ids, depth + 1, left);
        }
    }
}
