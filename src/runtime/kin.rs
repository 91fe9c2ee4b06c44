//! The processes of a container that has no pid name space of its own, which would end them with it: known by what is
//! mounted on /etc/hosts and its like, or as their root, which are the container's own files.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::Result;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

use crate::fs;
use crate::host;

/// Ends all processes of the container `id`.
pub fn end_all(id: &str) -> Result<()> {
    // One that the kernel does not end is not waited for for ever.
    for _ in 0..16 {
        let mut found = false;
        for process in members(id)? {
            if rustix::process::pidfd_send_signal(&process, Signal::KILL).is_ok() {
                found = true;
                // Those of our own are reaped; another's are waited for by that one.
                let _ = rustix::process::waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED);
                await_end(&process);
            }
        }
        if !found {
            break;
        }
    }
    Ok(())
}

/// Sends a signal to all processes of the container `id`.
pub fn signal_all(id: &str, signal: Signal) -> Result<()> {
    for process in members(id)? {
        // One that has just ended needs none.
        let _ = rustix::process::pidfd_send_signal(&process, signal);
    }
    Ok(())
}

/// A pidfd can be read once its process has ended (pidfd_open(2)). One that the kernel cannot end in a second stays behind.
fn await_end(process: &OwnedFd) {
    let mut fds = [rustix::event::PollFd::new(process, rustix::event::PollFlags::IN)];
    let second = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
    let _ = rustix::event::poll(&mut fds, Some(&second));
}

fn members(id: &str) -> Result<Vec<OwnedFd>> {
    // Many processes share one mount name space, and its table is long.
    let mut known: HashMap<OsString, bool> = HashMap::new();
    let mut found = Vec::new();
    for name in fs::read_dir(Path::new("/proc"))? {
        let Some(pid) = name.to_str().and_then(|n| n.parse().ok()).and_then(Pid::from_raw) else { continue };
        // First the handle, then the look: whoever has the number later is not meant.
        let Ok(process) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { continue };
        let proc = Path::new("/proc").join(&name);
        let look = || fs::read_to_string(&proc.join("mountinfo")).is_ok_and(|table| is_of(&table, id));
        // From a user name space beside the container's only the table can be read.
        let is_member = match fs::read_link(&proc.join("ns/mnt")) {
            Ok(Some(namespace)) => *known.entry(namespace.into_os_string()).or_insert_with(look),
            _ => look(),
        };
        // By the number that /proc shows: ours may be another, in a pid name space of our own.
        let is_same =
            || host::visible_pid_of(process.as_fd()).is_ok_and(|seen| seen == Some(pid.as_raw_pid()));
        if is_member && is_same() && !is_over(&proc) {
            found.push(process);
        }
    }
    Ok(found)
}

/// A zombie has nothing left to be ended.
fn is_over(proc: &Path) -> bool {
    let text = fs::read_to_string(&proc.join("stat")).unwrap_or_default();
    let state = text.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
    matches!(state, None | Some("Z" | "X"))
}

/// Whether a mount table (proc_pid_mountinfo(5)) is that of the container: what is mounted on these paths comes from its
/// directory.
fn is_of(table: &str, id: &str) -> bool {
    const OURS: &[&str] = &["/", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];
    let own = format!("/{id}/");
    table.lines().any(|line| {
        let target = line.split(' ').nth(4).unwrap_or_default();
        OURS.contains(&target) && line.contains(&own)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_table_tells_whose_it_is() {
        let table = "30 1 8:1 / / rw - overlay overlay rw,lowerdir=/d/layers/a,upperdir=/d/containers/ab/upper\n\
                     31 30 8:1 /d/containers/ab/hosts /etc/hosts rw - ext4 /dev/sda rw\n";
        assert!(is_of(table, "ab"));
        assert!(!is_of(table, "a"));
        let bound = "31 30 8:1 /d/containers/cd/hosts /etc/hosts rw - ext4 /dev/sda rw\n";
        assert!(is_of(bound, "cd"));
        // A directory of a container that is mounted elsewhere is no sign.
        assert!(!is_of("31 30 8:1 /d/containers/ab/upper /mnt rw - ext4 /dev/sda rw\n", "ab"));
    }
}
