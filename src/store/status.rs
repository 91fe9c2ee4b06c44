//! What a container is doing: derived from its lock and from what its supervisor notes, never believed.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::fs;

/// A process that a record speaks of; the start time tells it from a later one with the same pid.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
pub struct ProcessId {
    /// Pid in the host's (outermost visible) name space.
    pub pid: i32,
    /// Field 22 of /proc/PID/stat, clock ticks since boot.
    pub start_time: u64,
}

/// What a supervisor notes of the run that it supervises.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// The supervisor.
    pub supervisor: ProcessId,
    /// The container's init.
    pub init: ProcessId,
    /// When the program started.
    pub started_at: Timestamp,
    /// How the root is mounted: overlay, or copy.
    pub driver: String,
    /// The root, where the container is a chroot and nothing else.
    #[serde(default)]
    pub chroot: Option<PathBuf>,
    /// Its programs are in an inner user name space.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_inner: bool,
    /// The cgroup, as `runtime::cgroup` wrote it down.
    pub cgroup: Option<serde_json::Value>,
    /// All its processes are stopped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// How often it was run again since it was started.
    #[serde(default)]
    pub restart_count: u32,
    /// How the run ended, while the next one waits for its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarting: Option<Exit>,
}

/// How the last run ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code, 128+n for a signal.
    pub code: i32,
    /// When.
    pub finished_at: Timestamp,
    /// Whether the kernel killed for memory.
    pub oom_killed: bool,
    /// What went wrong on our side, if anything.
    pub error: String,
}

/// What a container is doing, derived and never stored.
#[derive(Debug, Clone)]
pub enum Status {
    /// Never started.
    Created,
    /// Its supervisor lives and has not said yet that the program runs, or somebody clears away what a run left. How it ended
    /// the last time, as long as that holds: it is what a person is told.
    Starting(Option<Exit>),
    /// The program runs.
    Running(State),
    /// The program is there and all its processes are stopped.
    Paused(State),
    /// The program ended like this, and its supervisor is going to run it again.
    Restarting(State, Exit),
    /// It ended.
    Exited(Exit),
    /// Its supervisor vanished without a word; somebody has to write down the end.
    Dead(State),
}

impl Status {
    /// What the notes mean, given whether a supervisor holds the lock.
    pub(super) fn of(held: bool, state: Option<State>, exit: Option<Exit>) -> Status {
        match (held, state, exit) {
            (true, Some(mut state), None) => match state.restarting.take() {
                Some(exit) => Status::Restarting(state, exit),
                None if state.paused => Status::Paused(state),
                None => Status::Running(state),
            },
            (true, _, exit) => Status::Starting(exit),
            (false, _, Some(exit)) => Status::Exited(exit),
            (false, Some(state), None) => Status::Dead(state),
            (false, None, None) => Status::Created,
        }
    }

    /// Whether a supervisor lives: it can be neither started nor removed.
    pub fn is_alive(&self) -> bool {
        matches!(self, Status::Starting(_) | Status::Running(_) | Status::Paused(_) | Status::Restarting(..))
    }

    /// The notes of the run, if there are processes.
    pub fn run(&self) -> Option<&State> {
        match self {
            Status::Running(state) | Status::Paused(state) => Some(state),
            _ => None,
        }
    }

    /// The notes that it was derived from, where they say more than that there are none or old ones: those that are read a
    /// moment later may be of another run.
    pub fn state(&self) -> Option<&State> {
        match self {
            Status::Running(state)
            | Status::Paused(state)
            | Status::Restarting(state, _)
            | Status::Dead(state) => Some(state),
            Status::Created | Status::Starting(_) | Status::Exited(_) => None,
        }
    }

    /// Docker's word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Status::Created | Status::Starting(None) => "created",
            Status::Running(_) => "running",
            Status::Paused(_) => "paused",
            Status::Restarting(..) => "restarting",
            Status::Exited(_) | Status::Dead(_) | Status::Starting(Some(_)) => "exited",
        }
    }
}

/// Opens a process of a record, if it is still the same one.
pub fn open_process(process: ProcessId) -> Option<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(process.pid)?;
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()?;
    (start_time(process.pid)? == process.start_time).then_some(pidfd)
}

/// The start time of a process, field 22 of /proc/PID/stat; the second may hold spaces and parentheses.
pub fn start_time(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(Path::new(&format!("/proc/{pid}/stat"))).ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}
