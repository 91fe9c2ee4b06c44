//! Making processes: clone3(2) as a fork with name spaces.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// Which side of the fork we are on.
#[derive(Debug)]
pub enum Forked {
    /// The new process.
    Child,
    /// The old process, with the child's pid (in our pid name space) and a pidfd of it.
    Parent {
        /// Process id of the child.
        pid: i32,
        /// Stable handle of the child.
        pidfd: OwnedFd,
    },
}

/// From linux/sched.h; libc's constant is an int and overflows.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// struct clone_args of clone3(2), version 2 (Linux 5.7).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Forks with `flags` (CLONE_NEW*, or 0); the child is announced by SIGCHLD. With `cgroup`, a descriptor of a cgroup
/// v2 directory, the child starts in that cgroup.
///
/// The caller must be single-threaded: the child goes on with a copy of all locks as they are at this moment.
pub fn fork(flags: u64, cgroup: Option<std::os::fd::BorrowedFd<'_>>) -> io::Result<Forked> {
    use std::os::fd::AsRawFd;
    let mut pidfd: libc::c_int = -1;
    let mut args = CloneArgs {
        flags: flags | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd).addr() as u64,
        // The kernel takes it from the caller then (clone(2), CLONE_PARENT).
        exit_signal: if flags & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 },
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM the child runs on a copy of this memory, so no stack or TLS is shared; `args` is a whole
    // struct clone_args of the size given, and its pidfd field points to an int that outlives the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    match pid {
        0 => Ok(Forked::Child),
        pid if pid > 0 => {
            // SAFETY: the kernel stored a new descriptor, which nobody else owns, because CLONE_PIDFD was asked for.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Forked::Parent { pid: pid as i32, pidfd })
        }
        _ => match io::Error::last_os_error() {
            // A container's filter answers so to make programs take the old call, whose flags it can read.
            e if e.raw_os_error() == Some(libc::ENOSYS) && cgroup.is_none() => old_clone(flags),
            e => Err(e),
        },
    }
}

fn old_clone(flags: u64) -> io::Result<Forked> {
    let none = 0_usize;
    // SAFETY: without CLONE_VM the child runs on a copy of this memory, and a null stack means the one it has there; the
    // pointers for ids and TLS are null because no flag asks for them.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags | libc::SIGCHLD as u64, none, none, none, none) };
    match pid {
        0 => Ok(Forked::Child),
        pid if pid > 0 => {
            let raw = rustix::process::Pid::from_raw(pid as i32).ok_or(io::ErrorKind::InvalidData)?;
            let pidfd = rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty())?;
            Ok(Forked::Parent { pid: pid as i32, pidfd })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends this process at once, running no destructors: the way out for a forked child that could not exec.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) takes no pointers and does not return.
    unsafe { libc::_exit(code) }
}

/// Resets every signal to its default action and unblocks all: exec keeps ignored and blocked signals otherwise.
pub fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        if signal != libc::SIGKILL && signal != libc::SIGSTOP {
            // SAFETY: SIG_DFL is a valid disposition; unused numbers are refused with EINVAL, which does no harm.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
    let none = nix::sys::signal::SigSet::empty();
    let _ = none.thread_set_mask();
}

/// Sends a signal to every process of our pid name space, and of those below it, but ourselves: only for its pid 1, because
/// anybody else's reach would be far too wide.
pub fn signal_name_space(number: i32) -> io::Result<()> {
    if !is_alone() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    // SAFETY: kill(2) takes two numbers.
    match unsafe { libc::kill(-1, number) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether we are pid 1, and so the kernel ends with us all that is in our pid name space.
pub fn is_alone() -> bool {
    std::process::id() == 1
}

/// Ignores a signal, so that the call that would have raised it returns its error instead.
pub fn ignore_signal(signal: i32) {
    // SAFETY: SIG_IGN is a valid disposition, and no handler runs in our place.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Takes ownership of an inherited descriptor by number, for hidden roles that get descriptors from their parent.
/// `None` if it is not open.
pub fn inherited_fd(number: i32) -> Option<OwnedFd> {
    // SAFETY: F_GETFD only looks the number up.
    if number < 0 || unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: the number is open (just checked), and a role calls this once per number before anything else opens files.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A close-on-exec copy, at a number from `least` on, of a descriptor that came to us by execve(2): one that is open, and not
/// close-on-exec as all are that this program opens. EBADF for any other.
pub fn copy_of_inherited(number: i32, least: i32) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only looks the number up.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 || flags & libc::FD_CLOEXEC != 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: no pointers; the copy is a new descriptor.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, least) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the number is new, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Whether an inherited descriptor number is a socket: how a hidden role tells that dhow started it, and not a person who
/// typed its word.
pub fn is_socket(number: i32) -> bool {
    let mut kind: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: SO_TYPE stores one int, for which `kind` has room as `length` says; any number may be asked about.
    let done = unsafe {
        libc::getsockopt(number, libc::SOL_SOCKET, libc::SO_TYPE, (&raw mut kind).cast(), &raw mut length)
    };
    done == 0
}

/// Marks every descriptor from `first` on close-on-exec (close_range(2), CLOSE_RANGE_CLOEXEC; Linux 5.11).
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: no pointers; the descriptors stay open and owned, only a flag of each changes.
    if unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) } == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

/// Closes every descriptor but these (close_range(2), Linux 5.9): for a copy of a process that is to have nothing of it.
/// It must never return to the frames that own them.
pub fn close_all_but(numbers: &[i32]) -> io::Result<()> {
    let mut kept: Vec<u32> = numbers.iter().filter_map(|n| u32::try_from(*n).ok()).collect();
    kept.sort_unstable();
    let mut first = 0;
    for number in kept.into_iter().map(Some).chain([None]) {
        let last = number.map_or(Some(u32::MAX), |n| n.checked_sub(1)).filter(|last| *last >= first);
        // SAFETY: no pointers; whoever owned these descriptors here is never heard of again, as said above.
        if last.is_some_and(|last| unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } != 0) {
            return Err(io::Error::last_os_error());
        }
        first = number.map_or(u32::MAX, |n| n.saturating_add(1));
    }
    Ok(())
}

/// Joins the name spaces `flags` (CLONE_NEW*) of the process behind `pidfd`, all in one step (setns(2), Linux 5.8).
/// A pid name space counts for children only.
pub fn join_namespaces(pidfd: impl std::os::fd::AsFd, flags: i32) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: no pointers; the descriptor is borrowed for the call.
    if unsafe { libc::setns(pidfd.as_fd().as_raw_fd(), flags) } == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

/// Leaves the name spaces `flags` for new ones (unshare(2)). The caller must be single-threaded for CLONE_NEWUSER.
pub fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: no pointers; only name spaces change, neither descriptors (no CLONE_FILES) nor memory.
    if unsafe { libc::unshare(flags) } == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

/// dup2(2): puts a copy of `fd` at number `at`, open across exec. For children that are about to exec, and for our own
/// standard streams.
pub fn dup_to(fd: i32, at: i32) -> io::Result<()> {
    // SAFETY: no pointers; nobody owns the number that is replaced: not in a child that is about to exec, and the standard
    // streams are never closed.
    if unsafe { libc::dup2(fd, at) } >= 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

/// Marks an inherited descriptor close-on-exec; one that is not open is left alone.
pub fn set_close_on_exec(fd: i32) {
    // SAFETY: F_SETFD changes a flag of the number, whoever owns it; no pointers.
    unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
}

/// Sends any signal, real-time ones too, to the process behind `pidfd` (pidfd_send_signal(2)).
pub fn signal(pidfd: impl std::os::fd::AsFd, number: i32) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let none: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: the descriptor is borrowed for the call; without a siginfo the kernel makes one.
    let done =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), number, none, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits a little for what no descriptor announces (poll(2) with nothing to wait for).
pub fn pause(time: std::time::Duration) {
    let time = rustix::event::Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
    let _ = rustix::event::poll(&mut [], Some(&time));
}
