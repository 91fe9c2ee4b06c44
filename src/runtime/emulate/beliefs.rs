//! Who believes what: a small table of beliefs, and in each process its place in that table.
//!
//! The place is kept where the kernel itself hands it from parent to child, through fork, exec and the death of the
//! parent: in the soft limit RLIMIT_LOCKS, which no kernel since 2.4.25 has looked at. A table by pid would lose the
//! daemon that forks twice, whose parent is gone before the daemon first asks who it is; and it would need care with
//! pids that are used again. Here there is nothing to forget, and all threads of a process share one belief.
//!
//! The hard limit is left alone. A program that sets its own RLIMIT_LOCKS makes itself root again, which harms nobody:
//! emulation is no wall, as all in the container have the rights of the one user.
//!
//! Invariant: the table holds at most [`MOST`] beliefs; place 0 is root's and is never given away.

use std::io;

use super::belief::Belief;
use crate::sys::notify;

/// How many beliefs there can be at once; a machine has fewer users that run something.
const MOST: usize = 256;

/// How many further groups a belief can hold: so the table stays under 100 KB, whatever the container does.
pub const MOST_GROUPS: usize = 64;

/// The largest id a process can have: PID_MAX_LIMIT of linux/threads.h.
const PID_MAX: i32 = 4 << 20;

/// The limit that stands for place 0 is "unlimited", which processes start with, so that this is place 1. A number that
/// nobody sets by hand, well under what a program would think too small.
const FIRST: u64 = 0x6d68_6400;

/// The table.
#[derive(Debug, Default)]
pub struct Beliefs {
    /// Places 1.., `None` where free.
    table: Vec<Option<Belief>>,
}

impl Beliefs {
    /// What this process believes.
    pub fn of(&self, pid: i32) -> io::Result<Belief> {
        let (soft, _) = notify::locks_limit(pid)?;
        let held = place(soft).and_then(|at| self.table.get(at)).and_then(Option::as_ref);
        Ok(held.cloned().unwrap_or_default())
    }

    /// Makes this process believe.
    pub fn set(&mut self, pid: i32, belief: Belief) -> io::Result<()> {
        let (_, hard) = notify::locks_limit(pid)?;
        let soft = if belief == Belief::default() { hard } else { limit(self.place_for(belief)?) };
        notify::set_locks_limit(pid, soft, hard)
    }

    /// The place that holds `belief`, taken if need be; EAGAIN (which setuid(2) may give) if there is none left.
    fn place_for(&mut self, belief: Belief) -> io::Result<usize> {
        if let Some(at) = self.table.iter().position(|held| held.as_ref() == Some(&belief)) {
            return Ok(at);
        }
        if self.table.len() < MOST {
            self.table.push(Some(belief));
            return Ok(self.table.len() - 1);
        }
        if !self.table.iter().any(Option::is_none) {
            self.sweep();
        }
        let free = self.table.iter().position(Option::is_none);
        let at = free.ok_or_else(|| io::Error::from_raw_os_error(libc::EAGAIN))?;
        self.table[at] = Some(belief);
        Ok(at)
    }

    /// Frees the places that no process holds. All ids are tried, as /proc may not be ours: about half a second, once in
    /// many new beliefs. A child that is forked meanwhile is no worry: ids rise, so it comes after its parent, whose
    /// place is kept.
    fn sweep(&mut self) {
        let mut held = [false; MOST];
        for pid in 1..=PID_MAX {
            if let Some(at) = notify::locks_limit(pid).ok().and_then(|(soft, _)| place(soft)) {
                held[at] = true;
            }
        }
        for (slot, held) in self.table.iter_mut().zip(held) {
            if !held {
                *slot = None;
            }
        }
    }
}

fn limit(place: usize) -> u64 {
    FIRST + place as u64
}

fn place(limit: u64) -> Option<usize> {
    limit.checked_sub(FIRST).map(|at| at as usize).filter(|at| *at < MOST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::emulate::belief::Ids;

    fn somebody(uid: u32) -> Belief {
        Belief { user: Ids::default().set(uid, true).unwrap(), ..Belief::default() }
    }

    #[test]
    fn the_kernel_hands_a_belief_down() {
        let mut beliefs = Beliefs::default();
        let mut shell = std::process::Command::new("/bin/sh")
            .args(["-c", "read x; sleep 60 & echo $!; read x; kill $!"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = shell.id() as i32;
        assert_eq!(beliefs.of(pid).unwrap(), Belief::default());
        beliefs.set(pid, somebody(7)).unwrap();
        let mut stdin = shell.stdin.take().unwrap();
        let mut line = String::new();
        std::io::Write::write_all(&mut stdin, b"\n").unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(shell.stdout.take().unwrap()), &mut line)
            .unwrap();
        assert_eq!(beliefs.of(line.trim().parse().unwrap()).unwrap(), somebody(7));
        beliefs.set(pid, Belief::default()).unwrap();
        assert_eq!(notify::locks_limit(pid).unwrap().0, notify::locks_limit(0).unwrap().0);
        drop(stdin);
        shell.wait().unwrap();
    }

    #[test]
    fn a_full_table_forgets_what_nobody_believes() {
        let mut beliefs = Beliefs::default();
        let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let pid = child.id() as i32;
        for uid in 1..3 * MOST as u32 {
            beliefs.set(pid, somebody(uid)).unwrap();
            assert_eq!(beliefs.of(pid).unwrap(), somebody(uid));
        }
        assert_eq!(beliefs.table.len(), MOST);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
