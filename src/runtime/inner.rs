//! The inner user name space: in it a caller who is root of the one around is nobody but themselves, with their own ids.
//!
//! It is entered last, when all mounts are made. To the kernel nothing about any file changes by it: what belongs to the
//! outer 0, which is the caller, is shown as the caller's, inside as well as in every directory that is bound. So the
//! image's own files are the caller's too; for what only root can do there is the outer name space (`shell --root`).
//!
//! The other ids stay what they are, and 0 takes the place that the caller's id has outside.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::sync::{Message, Socket};
use crate::fs;
use crate::host::{self, IdMapping, InnerIds, OwnIds, extents, place_of_root};
use crate::sys::process;

/// Which ids are in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inner {
    /// The caller's own; root changes places with them.
    Caller(InnerIds),
    /// A range that is the container's alone, and nothing of the caller's: its root is nobody outside.
    Mapped(OwnIds),
}

/// In the process that is to live there: makes the name space, and waits until its ids are mapped.
pub(super) fn make(socket: &Socket) -> Result<()> {
    process::unshare(libc::CLONE_NEWUSER).context("cannot make an inner user name space")?;
    socket.send(&Message::Unshared, None)?;
    socket.expect(&Message::Mapped)
}

/// In an exec: enters that of the container's init.
pub(super) fn join(init: BorrowedFd<'_>) -> Result<()> {
    process::join_namespaces(init, libc::CLONE_NEWUSER).context("cannot join the inner user name space")
}

/// On the other side of the ladder, root of the name space around: maps the ids of the process behind `pidfd`.
pub(super) fn map(pidfd: impl AsFd, inner: &Inner) -> Result<()> {
    let about = "cannot map ids in the inner user name space";
    let pid = host::visible_pid_of(pidfd.as_fd())?.context("it ended").context(about)?;
    for file in ["uid_map", "gid_map"] {
        let text = match inner {
            Inner::Mapped(ids) => IdMapping::text(if file == "uid_map" { &ids.uids } else { &ids.gids }),
            Inner::Caller(ids) => {
                let outer = fs::read_to_string(&PathBuf::from("/proc/self").join(file))?;
                inner_map(&outer, if file == "uid_map" { ids.uid } else { ids.gid })
            }
        };
        fs::write(&PathBuf::from(format!("/proc/{pid}/{file}")), text.as_bytes()).context(about)?;
    }
    Ok(())
}

/// 0 and `own` change places, everything else that is mapped outside is mapped onto itself. A line may not reach over
/// the end of a line of the outer map.
fn inner_map(outer: &str, own: Option<u32>) -> String {
    let root = place_of_root(outer, own);
    let mut lines: Vec<String> = own.map(|own| format!("{own} 0 1")).into_iter().collect();
    if let Some(root) = root.filter(|_| own != Some(0)) {
        lines.push(format!("0 {root} 1"));
    }
    // Neither what is taken inside nor what is taken outside is there to be mapped again.
    let mut holes: Vec<u64> = [own, root].into_iter().flatten().map(u64::from).collect();
    holes.sort_unstable();
    for (start, count) in extents(outer) {
        let (mut from, end) = (start.max(1), start + count);
        for to in holes.iter().copied().chain([end]).filter(|hole| *hole <= end) {
            if to > from {
                lines.push(format!("{from} {from} {}", to - from));
            }
            from = from.max(if to == end { end } else { to + 1 });
        }
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_and_the_caller_change_places() {
        let check = |outer: &str, own: Option<u32>, want: &[&str]| {
            assert_eq!(inner_map(outer, own), want.join("\n") + "\n", "{outer} {own:?}");
        };
        check("         0       1000          1\n", Some(1000), &["1000 0 1"]);
        check(
            "0 1000 1\n1 100000 65536\n",
            Some(1000),
            &["1000 0 1", "0 1000 1", "1 1 999", "1001 1001 64536"],
        );
        check("0 7 1\n1 100 5\n6 300 5\n", Some(8), &["8 0 1", "0 8 1", "1 1 5", "6 6 2", "9 9 2"]);
        check("0 7 1\n1 100 5\n", Some(1), &["1 0 1", "0 1 1", "2 2 4"]);
        check("0 7 1\n1 100 5\n", Some(5), &["5 0 1", "0 5 1", "1 1 4"]);
        // The caller's id is none of the ids around: root gets the last of them.
        check("0 7 1\n1 100 5\n", Some(6), &["6 0 1", "0 5 1", "1 1 4"]);
        check("0 7 1\n1 100 5\n", Some(0), &["0 0 1", "1 1 5"]);
        // The caller is nobody there.
        check("0 7 1\n1 100 5\n", None, &["0 5 1", "1 1 4"]);
    }
}
