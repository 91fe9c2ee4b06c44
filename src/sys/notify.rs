//! seccomp_unotify(2): receiving and answering system calls of other processes, and reaching into those processes:
//! their memory (process_vm_readv(2)) and their limits (prlimit(2)).
//!
//! No policy: which calls are notified is the filter's business, what they get as an answer `runtime::emulate`'s.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// From linux/seccomp.h (Linux 6.6): the caller and we are woken on one CPU, as the two never run at once.
const SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP: u64 = 1;

/// A system call that waits for our answer.
#[derive(Debug, Clone, Copy)]
pub struct Notification {
    /// Names this very call, until it is answered or its thread is gone.
    pub id: u64,
    /// The thread, in the pid name space of whoever received this; 0 if it cannot be seen from there.
    pub pid: i32,
    /// Number of the call.
    pub number: i32,
    /// AUDIT_ARCH_* that tells what `number` means.
    pub arch: u32,
    /// The registers; what is in the upper half of a 32-bit argument is the caller's litter.
    pub args: [u64; 6],
}

/// What the waiting call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Success with this value.
    Value(i64),
    /// -1 with this errno.
    Error(i32),
    /// The kernel does the call as if it had never been notified.
    Continue,
}

/// Space for one struct seccomp_notif as large as the running kernel wants it: a later kernel may write more than we
/// know, and refuses a buffer that is not zeroed.
#[derive(Debug)]
pub struct Buffer(Vec<u64>);

impl Buffer {
    /// Asks the kernel for the size. One that does not tell has no listeners either, so any size will do.
    #[expect(clippy::new_without_default, reason = "it asks the kernel")]
    pub fn new() -> Buffer {
        let mut sizes =
            libc::seccomp_notif_sizes { seccomp_notif: 0, seccomp_notif_resp: 0, seccomp_data: 0 };
        // SAFETY: SECCOMP_GET_NOTIF_SIZES fills one struct seccomp_notif_sizes, which `sizes` is.
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_NOTIF_SIZES, 0, &raw mut sizes) };
        let bytes = size_of::<libc::seccomp_notif>().max(usize::from(sizes.seccomp_notif));
        Buffer(vec![0; bytes.div_ceil(8)])
    }
}

/// Takes the next waiting call. `NotFound` if its thread was killed meanwhile. Blocks unless poll(2) said readable.
pub fn receive(listener: impl AsFd, buffer: &mut Buffer) -> io::Result<Notification> {
    buffer.0.fill(0);
    // SAFETY: the descriptor is borrowed; the kernel writes one struct seccomp_notif of the size it told `Buffer::new`.
    let done = unsafe {
        libc::ioctl(listener.as_fd().as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, buffer.0.as_mut_ptr())
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the buffer holds at least one seccomp_notif (`Buffer::new`), aligned as u64, and every bit pattern is one.
    let raw = unsafe { buffer.0.as_ptr().cast::<libc::seccomp_notif>().read() };
    Ok(Notification {
        id: raw.id,
        pid: raw.pid as i32,
        number: raw.data.nr,
        arch: raw.data.arch,
        args: raw.data.args,
    })
}

/// Answers a call. `NotFound` if its thread is gone or was interrupted by a signal.
pub fn send(listener: impl AsFd, id: u64, answer: Answer) -> io::Result<()> {
    let (val, error, flags) = match answer {
        Answer::Value(value) => (value, 0, 0),
        Answer::Error(errno) => (0, -errno, 0),
        Answer::Continue => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
    };
    let mut response = libc::seccomp_notif_resp { id, val, error, flags };
    // SAFETY: the descriptor is borrowed; the kernel reads one struct seccomp_notif_resp, which has not grown since it
    // appeared.
    let done = unsafe {
        libc::ioctl(listener.as_fd().as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Answers a call with a new descriptor of the caller's for `fd` (Linux 5.14).
pub fn send_fd(listener: impl AsFd, id: u64, fd: impl AsFd, close_on_exec: bool) -> io::Result<()> {
    let mut request = libc::seccomp_notif_addfd {
        id,
        flags: libc::SECCOMP_ADDFD_FLAG_SEND as u32,
        srcfd: fd.as_fd().as_raw_fd() as u32,
        newfd: 0,
        newfd_flags: if close_on_exec { libc::O_CLOEXEC as u32 } else { 0 },
    };
    // SAFETY: both descriptors are borrowed; the kernel reads one struct seccomp_notif_addfd, whose size is in the number.
    let done = unsafe {
        libc::ioctl(listener.as_fd().as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw mut request)
    };
    if done >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether the call still waits: only then do its pid and what was read through it belong to the caller, as pids are
/// used again.
pub fn is_valid(listener: impl AsFd, id: u64) -> bool {
    // SAFETY: the descriptor is borrowed; the kernel reads one u64.
    unsafe {
        libc::ioctl(listener.as_fd().as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) == 0
    }
}

/// Has the kernel hand the CPU to and fro between caller and listener; `InvalidInput` before Linux 6.6.
pub fn wake_synchronously(listener: impl AsFd) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed; this ioctl takes its flags by value.
    let done = unsafe {
        libc::ioctl(
            listener.as_fd().as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS,
            SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads up to `into.len()` bytes of a process at `address`; fewer where the memory ends.
pub fn read_memory(pid: i32, address: u64, into: &mut [u8]) -> io::Result<usize> {
    // Two pieces that meet at a page boundary: a transfer is cut short only between pieces.
    let first = into.len().min(4096 - (address % 4096) as usize);
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let piece = |offset: usize, len: usize| libc::iovec {
        iov_base: std::ptr::without_provenance_mut((address as usize).wrapping_add(offset)),
        iov_len: len,
    };
    let remote = [piece(0, first), piece(first, into.len() - first)];
    // SAFETY: the local piece is `into`, borrowed for the call; the remote ones are checked by the kernel.
    let n = unsafe { libc::process_vm_readv(pid, &raw const local, 1, remote.as_ptr(), 2, 0) };
    if n >= 0 { Ok(n as usize) } else { Err(io::Error::last_os_error()) }
}

/// Writes a slice, or a structure of the kernel's such as struct stat, into a process at `address`, or fails with EFAULT.
pub fn store<T: ?Sized>(pid: i32, address: u64, value: &T) -> io::Result<()> {
    let len = size_of_val(value);
    let local = libc::iovec { iov_base: (&raw const *value).cast_mut().cast(), iov_len: len };
    let remote = libc::iovec { iov_base: std::ptr::without_provenance_mut(address as usize), iov_len: len };
    // SAFETY: the kernel only reads the local piece, which is `value`; the remote one is checked by the kernel.
    let n = unsafe { libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0) };
    match n {
        n if n == len as isize => Ok(()),
        n if n >= 0 => Err(io::Error::from_raw_os_error(libc::EFAULT)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The soft and hard RLIMIT_LOCKS of a process.
pub fn locks_limit(pid: i32) -> io::Result<(u64, u64)> {
    let mut old = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: there is no new limit, and the old one goes to a struct rlimit64 that outlives the call.
    let done = unsafe { libc::prlimit64(pid, libc::RLIMIT_LOCKS, std::ptr::null(), &raw mut old) };
    if done == 0 { Ok((old.rlim_cur, old.rlim_max)) } else { Err(io::Error::last_os_error()) }
}

/// Sets the soft and hard RLIMIT_LOCKS of a process.
pub fn set_locks_limit(pid: i32, soft: u64, hard: u64) -> io::Result<()> {
    let new = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the new limit is read from a struct rlimit64, and nothing is asked back.
    let done = unsafe { libc::prlimit64(pid, libc::RLIMIT_LOCKS, &raw const new, std::ptr::null_mut()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
