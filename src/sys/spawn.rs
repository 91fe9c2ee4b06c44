//! Processes that borrow our memory: nothing is copied for them, as vfork(2) has it, but on a stack of their own.
//!
//! A fork copies the page tables, and then every page that either side writes to: more work, for a child that only
//! becomes another program, than all that the child does.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

/// Room for what the child calls; only pages that are touched are ever there.
const STACK_SIZE: usize = 256 * 1024;

/// Memory for a child's stack.
#[derive(Debug)]
struct Stack(NonNull<c_void>);

impl Stack {
    fn new() -> io::Result<Stack> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses overlaps nothing.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), STACK_SIZE, access, flags, -1, 0) };
        match NonNull::new(at) {
            Some(at) if at.as_ptr() != libc::MAP_FAILED => Ok(Stack(at)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Where a stack that grows down begins.
    fn top(&self) -> *mut c_void {
        self.0.as_ptr().wrapping_byte_add(STACK_SIZE)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and whoever ran on it has ended or left it by exec.
        unsafe { libc::munmap(self.0.as_ptr(), STACK_SIZE) };
    }
}

/// clone(2), not clone3: its flags can be read by the filter of a container around us, and glibc has a wrapper that
/// starts a function on another stack. `entry` gets `argument`.
fn clone(
    entry: extern "C" fn(*mut c_void) -> c_int,
    stack: &Stack,
    flags: c_int,
    argument: *mut c_void,
) -> io::Result<(i32, OwnedFd)> {
    let mut pidfd: c_int = -1;
    let flags = flags | libc::CLONE_VM | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: the stack is writable memory that outlives the child's use of it (both callers see to that), `argument` is
    // what `entry` expects, and the place for the pidfd is an int that outlives the call.
    let pid = unsafe { libc::clone(entry, stack.top(), flags, argument, &raw mut pidfd) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel stored a new descriptor, which nobody else owns, because CLONE_PIDFD was asked for.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// What the child of [`spawn`] does: becomes another program, or returns an exit code.
type Child<'a> = &'a mut dyn FnMut() -> i32;

extern "C" fn run(argument: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes a pointer to its `child`, and is stopped as long as we run.
    let child = unsafe { &mut *argument.cast::<Child<'_>>() };
    child()
}

/// Runs `child` in a new process with `flags` (CLONE_NEW*); returns its pid and pidfd once it has become another program
/// or has ended. Until then we are stopped, so it may read and write all that we have; descriptors and signals are its own.
///
/// The caller must be single-threaded.
pub fn spawn(flags: i32, mut child: Child<'_>) -> io::Result<(i32, OwnedFd)> {
    let stack = Stack::new()?;
    clone(run, &stack, flags | libc::CLONE_VFORK, (&raw mut child).cast())
}

/// A process that does nothing but hold new name spaces for as long as this lives, and no longer than we do.
#[derive(Debug)]
pub struct Holder {
    /// Its process id.
    pub pid: i32,
    /// A handle of it, for joining the name spaces.
    pub pidfd: OwnedFd,
    /// Closed when we drop it or die; the holder waits for that.
    end: Option<OwnedFd>,
    _stack: Stack,
}

/// The two ends of the pipe that tells a holder when to end.
struct Ends {
    wait: c_int,
    end: c_int,
}

/// Runs side by side with its parent: makes system calls and touches nothing but its stack.
extern "C" fn hold(argument: *mut c_void) -> c_int {
    // SAFETY: `Holder::new` passes a pointer to two ints in a box that is never freed.
    let Ends { wait, end } = unsafe { argument.cast::<Ends>().read() };
    let mut byte = 0_u8;
    // SAFETY: only this process's copy of the descriptor is closed; nobody here uses it.
    unsafe { libc::close(end) };
    // SAFETY: reads into one byte of our own stack. No handler of a signal returns here: none is set.
    unsafe { libc::read(wait, (&raw mut byte).cast(), 1) };
    0
}

impl Holder {
    /// Makes the name spaces in `flags` (CLONE_NEW*).
    ///
    /// The caller must be single-threaded.
    pub fn new(flags: i32) -> io::Result<Holder> {
        let stack = Stack::new()?;
        let (wait, end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        // Eight bytes that stay: the holder reads them at a time of its own.
        let ends = Box::leak(Box::new(Ends { wait: wait.as_raw_fd(), end: end.as_raw_fd() }));
        let (pid, pidfd) = clone(hold, &stack, flags, std::ptr::from_mut(ends).cast())?;
        Ok(Holder { pid, pidfd, end: Some(end), _stack: stack })
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.end.take());
        // Its stack is only free once it is gone.
        let id = rustix::process::WaitId::PidFd(std::os::fd::AsFd::as_fd(&self.pidfd));
        let _ = rustix::io::retry_on_intr(|| {
            rustix::process::waitid(id.clone(), rustix::process::WaitIdOptions::EXITED)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn exit_code(pidfd: &OwnedFd) -> Option<i32> {
        let id = rustix::process::WaitId::PidFd(pidfd.as_fd());
        let status = rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED).unwrap();
        status.unwrap().exit_status()
    }

    #[test]
    fn a_child_writes_where_we_read() {
        let mut seen = 0;
        let (_, pidfd) = spawn(0, &mut || {
            seen += 1;
            7
        })
        .unwrap();
        assert_eq!(exit_code(&pidfd), Some(7));
        assert_eq!(seen, 1);
    }

    #[test]
    fn a_child_becomes_another_program() {
        let (_, pidfd) = spawn(0, &mut || {
            let _ = nix::unistd::execv(c"/bin/sh", &[c"sh", c"-c", c"exit 3"]);
            9
        })
        .unwrap();
        assert_eq!(exit_code(&pidfd), Some(3));
    }

    #[test]
    fn a_holder_lives_as_long_as_its_handle() {
        let holder = Holder::new(0).unwrap();
        let pidfd = holder.pidfd.try_clone().unwrap();
        let signal = |pidfd: &OwnedFd| crate::sys::process::signal(pidfd, 0);
        signal(&pidfd).unwrap();
        drop(holder);
        assert!(signal(&pidfd).is_err());
    }
}
