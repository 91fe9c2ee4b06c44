//! The processes of a container, as /proc of the machine shows them.
//!
//! Which they are is told by /proc too: those in the pid name space of the container's init, and all that descend from
//! them or from the init. So it works without a cgroup, and for a chroot.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::Result;

use crate::fs;
use crate::store::container::State;

/// Clock ticks in a second: USER_HZ, the same for every processor that Linux runs on here.
pub const TICKS: u64 = 100;

/// One process. Numbers of processes and users are the machine's, unless said otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Its number in the innermost name space.
    pub inner_pid: i32,
    /// Its parent.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// Its session.
    pub session: i32,
    /// R, S, D, Z...
    pub state: char,
    /// Controlling terminal: device number, 0 for none.
    pub terminal: u64,
    /// Processor time in ticks.
    pub cpu: u64,
    /// Start after boot in ticks.
    pub start: u64,
    /// Nice value.
    pub nice: i64,
    /// Threads.
    pub n_threads: u64,
    /// Bytes of address space.
    pub virtual_size: u64,
    /// Bytes of memory.
    pub resident: u64,
    /// Real and effective user.
    pub users: (u32, u32),
    /// Real and effective group.
    pub groups: (u32, u32),
    /// System call filter: 0 none, 1 strict, 2 filter.
    pub seccomp: u8,
    /// The program's short name.
    pub name: String,
    /// The command line; empty for a zombie.
    pub args: String,
}

/// All processes of a container that runs, by their numbers.
pub fn of(state: &State) -> Result<Vec<Process>> {
    let namespace = |pid: i32| fs::read_link(Path::new(&format!("/proc/{pid}/ns/pid"))).ok().flatten();
    let own = namespace(std::process::id() as i32);
    let inside = namespace(state.init.pid).filter(|inside| Some(inside) != own.as_ref());
    let mut parents = HashMap::new();
    let mut members: HashSet<i32> = HashSet::from([state.init.pid]);
    for name in fs::read_dir(Path::new("/proc"))? {
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Some(stat) = read(pid, "stat") else { continue };
        let Some(parent) =
            stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok())
        else {
            continue;
        };
        parents.insert(pid, parent);
        if inside.is_some() && namespace(pid) == inside {
            members.insert(pid);
        }
    }
    let mut found: Vec<Process> = parents
        .keys()
        .filter(|pid| is_member(**pid, &parents, &members))
        .filter_map(|pid| look(*pid))
        .collect();
    found.sort_by_key(|process| (process.start, process.pid));
    Ok(found)
}

fn is_member(mut pid: i32, parents: &HashMap<i32, i32>, members: &HashSet<i32>) -> bool {
    // A number may be given anew while we look: no more steps than there are processes.
    for _ in 0..=parents.len() {
        if members.contains(&pid) {
            return true;
        }
        match parents.get(&pid) {
            Some(parent) if *parent > 0 => pid = *parent,
            _ => return false,
        }
    }
    false
}

fn read(pid: i32, file: &str) -> Option<String> {
    let bytes = fs::read(Path::new(&format!("/proc/{pid}/{file}"))).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// What /proc says of it; `None` if it has ended.
fn look(pid: i32) -> Option<Process> {
    let mut process = parse_stat(&read(pid, "stat")?)?;
    let status = read(pid, "status")?;
    let numbers = |key: &str| -> Vec<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.into_iter().flat_map(str::split_whitespace).filter_map(|word| word.parse().ok()).collect()
    };
    let pair = |key: &str| {
        let all = numbers(key);
        let at = |n: usize| all.get(n).and_then(|id| u32::try_from(*id).ok()).unwrap_or(0);
        (at(0), at(1))
    };
    (process.users, process.groups) = (pair("Uid"), pair("Gid"));
    process.resident = numbers("VmRSS").first().unwrap_or(&0) * 1024;
    process.seccomp = numbers("Seccomp").first().map_or(0, |n| *n as u8);
    process.inner_pid = numbers("NSpid").last().map_or(pid, |n| *n as i32);
    process.args = read(pid, "cmdline")?.trim_end_matches('\0').replace('\0', " ");
    Some(process)
}

/// proc_pid_stat(5). The name may hold anything, spaces and parentheses too.
fn parse_stat(text: &str) -> Option<Process> {
    let (head, rest) = text.rsplit_once(')')?;
    let (pid, name) = head.split_once('(')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // The third field of the file is the first here.
    let number = |n: usize| fields.get(n - 3).and_then(|field| field.parse::<i64>().ok());
    let natural = |n: usize| number(n).map(|n| n.max(0) as u64);
    Some(Process {
        pid: pid.trim().parse().ok()?,
        state: fields.first()?.chars().next()?,
        parent: number(4)? as i32,
        group: number(5)? as i32,
        session: number(6)? as i32,
        terminal: natural(7)?,
        cpu: natural(14)? + natural(15)?,
        nice: number(19)?,
        n_threads: natural(20)?,
        start: natural(22)?,
        virtual_size: natural(23)?,
        name: name.to_owned(),
        ..Process::default()
    })
}

/// Bytes that a process read from and wrote to block devices; nothing where we may not know.
pub fn block_bytes(pid: i32) -> (u64, u64) {
    let text = read(pid, "io").unwrap_or_default();
    let field =
        |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok()).unwrap_or(0);
    (field("read_bytes:"), field("write_bytes:"))
}

/// Seconds since boot, and when that was, in seconds since the epoch.
pub fn clock() -> (f64, i64) {
    let text = |path: &str| fs::read_to_string(Path::new(path)).unwrap_or_default();
    let uptime = text("/proc/uptime").split_whitespace().next().and_then(|t| t.parse().ok()).unwrap_or(0.0);
    let boot = text("/proc/stat").lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
    (uptime, boot.unwrap_or(0))
}

/// Bytes of memory that the machine has.
pub fn total_memory() -> u64 {
    let text = fs::read_to_string(Path::new("/proc/meminfo")).unwrap_or_default();
    let kib = text.lines().find_map(|line| {
        line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_anything() {
        let line = "7 (a) b (c) S 1 2 3 34816 7 4194560 1 2 3 4 50 7 0 0 20 5 1 0 1234 8192 100 0";
        let found = parse_stat(line).unwrap();
        assert_eq!((found.pid, found.name.as_str(), found.state), (7, "a) b (c", 'S'));
        assert_eq!((found.parent, found.group, found.session, found.terminal), (1, 2, 3, 34816));
        assert_eq!((found.cpu, found.nice, found.n_threads, found.start), (57, 5, 1, 1234));
        for bad in ["", "7", "7 (x", "7 (x) S 1", ") ("] {
            assert!(parse_stat(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn descent_is_followed() {
        let parents = HashMap::from([(2, 1), (3, 2), (4, 3), (5, 1), (6, 7), (7, 6)]);
        let members = HashSet::from([2]);
        let found: Vec<i32> = (1..8).filter(|pid| is_member(*pid, &parents, &members)).collect();
        assert_eq!(found, [2, 3, 4]);
    }
}
