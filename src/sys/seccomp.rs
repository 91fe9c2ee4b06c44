//! seccomp(2), which neither rustix nor nix wraps.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// Puts this thread, and every process it makes, under `program`. `flags` are SECCOMP_FILTER_FLAG_*; with NEW_LISTENER the
/// descriptor of the notifications is returned (it is close-on-exec).
///
/// The caller has set no_new_privs or has CAP_SYS_ADMIN in its user name space, and does not pass TSYNC: on failure
/// that returns a thread id, which would be taken for a descriptor. Allocates nothing, so it may run between clone and exec.
pub fn install(program: &[libc::sock_filter], flags: u32) -> io::Result<Option<OwnedFd>> {
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel reads one struct sock_fprog and copies `len` instructions from its pointer; both come from the
    // slice, which outlives the call, and nothing is written through them.
    let done =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    if u64::from(flags) & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER == 0 {
        return Ok(None);
    }
    // SAFETY: with NEW_LISTENER a call that does not fail returns a new descriptor, which nobody else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(done as i32) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::seccomp::{compile, flags};
    use crate::spec::seccomp::default_profile;
    use crate::sys::process::{Forked, exit_now, fork};
    use rustix::process::{WaitIdOptions, waitid};
    use std::os::fd::AsFd;

    type Call = (i64, [u64; 3], i32);

    fn errno_of(&(number, [a, b, c], _): &Call) -> i32 {
        // SAFETY: every call in this test takes numbers only, or is refused, or fails, before it follows a null pointer.
        let done = unsafe { libc::syscall(number, a, b, c) };
        if done < 0 { io::Error::last_os_error().raw_os_error().unwrap_or(-1) } else { 0 }
    }

    /// Makes `calls` in a child under `program`; each must give its errno (0: success).
    fn check(program: &[libc::sock_filter], flags: u32, calls: &[Call]) {
        // The test binary has threads, so the child makes system calls and nothing else: no memory, no panic.
        match fork(0, None).unwrap() {
            Forked::Child => {
                if rustix::thread::set_no_new_privs(true).is_err() || install(program, flags).is_err() {
                    exit_now(255);
                }
                let wrong = calls.iter().position(|call| errno_of(call) != call.2);
                exit_now(wrong.map_or(0, |n| n as i32 + 1));
            }
            Forked::Parent { pidfd, .. } => {
                let status =
                    waitid(rustix::process::WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
                let code = status.unwrap().exit_status();
                assert_ne!(code, Some(255), "the filter cannot be installed");
                let wrong = code.and_then(|code| calls.get((code as usize).wrapping_sub(1)));
                assert_eq!(code, Some(0), "the first call that went wrong: {wrong:?}");
            }
        }
    }

    #[test]
    fn the_default_profile_at_work() {
        let profile = default_profile(&std::collections::HashSet::new());
        let none = [0; 3];
        let first = |value: u64| [value, 0, 0];
        let socket = |family: u64| [family, libc::SOCK_DGRAM as u64, 0];
        check(
            &compile(&profile).unwrap(),
            flags(&profile),
            &[
                (libc::SYS_getppid, none, 0),
                (libc::SYS_unshare, first(libc::CLONE_NEWUSER as u64), libc::EPERM),
                (libc::SYS_clone, first(libc::CLONE_NEWUSER as u64), libc::EPERM),
                (libc::SYS_clone3, none, libc::ENOSYS),
                (libc::SYS_mount, none, libc::EPERM),
                (libc::SYS_keyctl, none, libc::EPERM),
                (libc::SYS_io_uring_setup, none, libc::EPERM),
                (libc::SYS_socket, socket(libc::AF_UNIX as u64), 0),
                (libc::SYS_socket, socket(libc::AF_VSOCK as u64), libc::EPERM),
                (libc::SYS_socket, socket(libc::AF_ALG as u64), libc::EPERM),
                // The kernel would take the lower half.
                (libc::SYS_socket, socket(1 << 32 | libc::AF_VSOCK as u64), libc::EPERM),
                (libc::SYS_socket, socket(1 << 32 | libc::AF_UNIX as u64), 0),
                (libc::SYS_personality, first(0xffff_ffff), 0),
                (libc::SYS_personality, first(libc::ADDR_NO_RANDOMIZE as u64), libc::EPERM),
                (999, none, libc::ENOSYS),
            ],
        );
    }

    #[test]
    fn a_listener_is_returned() {
        let json = r#"{ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["vhangup"], "action": "SCMP_ACT_NOTIFY" }] }"#;
        let profile = serde_json::from_str(json).unwrap();
        let program = compile(&profile).unwrap();
        match fork(0, None).unwrap() {
            Forked::Child => {
                let _ = rustix::thread::set_no_new_privs(true);
                exit_now(i32::from(!matches!(install(&program, flags(&profile)), Ok(Some(_)))));
            }
            Forked::Parent { pidfd, .. } => {
                let status =
                    waitid(rustix::process::WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
                assert_eq!(status.unwrap().exit_status(), Some(0));
            }
        }
    }
}
