//! Starting ourselves again in a hidden role: `supervise`, `enter`. The descriptors that the role is to have are put at
//! agreed numbers; nothing else is inherited.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};

use crate::sys::process;
use crate::sys::spawn::spawn;

/// Above every agreed number, so that moving one descriptor into place never overwrites another.
const CLEAR_OF_TARGETS: i32 = 8;

/// Runs `executable` with `words` as argv and an empty environment. `flags` are CLONE_NEW*
/// for the new process; without
/// `stdio` it keeps ours. `keep` is which descriptor goes to which number (3 and up). Returns pid and pidfd.
pub fn start(
    executable: BorrowedFd<'_>,
    flags: i32,
    words: &[&CStr],
    stdio: Option<[BorrowedFd<'_>; 3]>,
    keep: &[(BorrowedFd<'_>, i32)],
) -> Result<(i32, OwnedFd)> {
    spawn(flags, &mut || {
        let _ = place(executable, words, stdio, keep);
        // Nobody can be told: the parent sees the end of file on the socket that it waits on.
        125
    })
    .context("cannot start a process")
}

fn place(
    executable: BorrowedFd<'_>,
    words: &[&CStr],
    stdio: Option<[BorrowedFd<'_>; 3]>,
    keep: &[(BorrowedFd<'_>, i32)],
) -> Result<()> {
    let clear = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, CLEAR_OF_TARGETS);
    let executable = clear(executable)?;
    let moved = keep.iter().map(|(fd, at)| Ok((clear(*fd)?, *at))).collect::<Result<Vec<_>>>()?;
    if let Some(stdio) = stdio {
        let copies = [clear(stdio[0])?, clear(stdio[1])?, clear(stdio[2])?];
        super::process::set_stdio([copies[0].as_fd(), copies[1].as_fd(), copies[2].as_fd()])?;
    }
    process::close_on_exec_from(3)?;
    for (fd, at) in &moved {
        process::dup_to(fd.as_raw_fd(), *at)?;
    }
    process::reset_signals();
    let none: [&CStr; 0] = [];
    let Err(e) = nix::unistd::execveat(&executable, c"", words, &none, nix::fcntl::AtFlags::AT_EMPTY_PATH);
    Err(e.into())
}
