//! Starting ourselves again in a hidden role: `supervise`, `enter`. The descriptors that the role is to have are put at
//! agreed numbers; nothing else is inherited.
//!
//! A new start of the executable (`start`) forgets what the command had in memory and can run from another file. A copy of
//! the command (`copy`) is there in a sixth of the time.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};

use crate::sys::process::{self, Forked};
use crate::sys::spawn::spawn;

/// Above every agreed number, so that moving one descriptor into place never overwrites another.
const CLEAR_OF_TARGETS: i32 = 8;

/// Which descriptor goes to which number (3 and up).
type Keep<'a> = &'a [(BorrowedFd<'a>, i32)];

/// Runs `executable` with `words` as argv and an empty environment. `flags` are CLONE_NEW*
/// for the new process; without
/// `stdio` it keeps ours. `keep` is which descriptor goes to which number (3 and up). Returns pid and pidfd.
pub fn start(
    executable: BorrowedFd<'_>,
    flags: i32,
    words: &[&CStr],
    stdio: Option<[BorrowedFd<'_>; 3]>,
    keep: Keep<'_>,
) -> Result<(i32, OwnedFd)> {
    spawn(flags, &mut || {
        let _ = place(executable, words, stdio, keep);
        // Nobody can be told: the parent sees the end of file on the socket that it waits on.
        125
    })
    .context("cannot start a process")
}

/// Runs `role` in a copy of this process, with what [`start`] gives it but for the executable. It has nothing of ours but
/// memory, and ends with the exit code that it returns.
///
/// The caller must be single-threaded.
pub fn copy(
    flags: i32,
    stdio: Option<[BorrowedFd<'_>; 3]>,
    keep: Keep<'_>,
    role: &mut dyn FnMut() -> i32,
) -> Result<(i32, OwnedFd)> {
    let flags = u64::try_from(flags).context("cannot start a process")?;
    match process::fork(flags, None).context("cannot start a process")? {
        Forked::Parent { pid, pidfd } => Ok((pid, pidfd)),
        Forked::Child => {
            let numbers: Vec<i32> = [0, 1, 2].into_iter().chain(keep.iter().map(|(_, at)| *at)).collect();
            let placed = arrange(stdio, keep).and_then(|()| Ok(process::close_all_but(&numbers)?));
            process::reset_signals();
            // As the start of a program has it: /proc/PID is ours again, which entering a user name space took away.
            let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable);
            for signal in [libc::SIGPIPE, libc::SIGXFSZ] {
                process::ignore_signal(signal);
            }
            process::exit_now(if placed.is_ok() { role() } else { 125 })
        }
    }
}

fn place(
    executable: BorrowedFd<'_>,
    words: &[&CStr],
    stdio: Option<[BorrowedFd<'_>; 3]>,
    keep: Keep<'_>,
) -> Result<()> {
    let executable = clear(executable)?;
    process::close_on_exec_from(3)?;
    arrange(stdio, keep)?;
    process::reset_signals();
    let none: [&CStr; 0] = [];
    let Err(e) = nix::unistd::execveat(&executable, c"", words, &none, nix::fcntl::AtFlags::AT_EMPTY_PATH);
    Err(e.into())
}

/// Puts the descriptors at their numbers, open across exec.
fn arrange(stdio: Option<[BorrowedFd<'_>; 3]>, keep: Keep<'_>) -> Result<()> {
    let moved = keep.iter().map(|(fd, at)| Ok((clear(*fd)?, *at))).collect::<Result<Vec<_>>>()?;
    if let Some(stdio) = stdio {
        let copies = [clear(stdio[0])?, clear(stdio[1])?, clear(stdio[2])?];
        super::process::set_stdio([copies[0].as_fd(), copies[1].as_fd(), copies[2].as_fd()])?;
    }
    for (fd, at) in &moved {
        process::dup_to(fd.as_raw_fd(), *at)?;
    }
    Ok(())
}

fn clear(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, CLEAR_OF_TARGETS)?)
}
