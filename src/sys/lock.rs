//! Open-file-description locks (fcntl(2), F_OFD_SETLK): owned by the open file, so they die with the last process that
//! holds it, and, unlike flock(2), can be asked about without taking them.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Many may hold it; the descriptor must be readable.
    Shared,
    /// One may hold it; the descriptor must be writable.
    Exclusive,
}

fn request(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

fn set(fd: impl AsFd, command: libc::c_int, kind: Kind) -> io::Result<()> {
    let kind = match kind {
        Kind::Shared => libc::F_RDLCK,
        Kind::Exclusive => libc::F_WRLCK,
    };
    apply(fd, command, request(kind))
}

fn apply(fd: impl AsFd, command: libc::c_int, lock: libc::flock) -> io::Result<()> {
    loop {
        // SAFETY: the descriptor is borrowed for the call, and F_OFD_SETLK(W) reads one struct flock, which `lock` is.
        if unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), command, &raw const lock) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Waits for the lock.
pub fn acquire(fd: impl AsFd, kind: Kind) -> io::Result<()> {
    set(fd, libc::F_OFD_SETLKW, kind)
}

/// Takes the lock, or returns false if somebody holds it against us.
pub fn try_acquire(fd: impl AsFd, kind: Kind) -> io::Result<bool> {
    taken(set(fd, libc::F_OFD_SETLK, kind))
}

fn taken(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(e) => Err(e),
    }
}

/// The lock on the one byte at `at`, which need not be there: as many locks in one file as there are numbers.
fn byte(kind: libc::c_int, at: i64) -> libc::flock {
    libc::flock { l_start: at, l_len: 1, ..request(kind) }
}

/// Waits for the exclusive lock on the byte at `at`.
pub fn acquire_byte(fd: impl AsFd, at: i64) -> io::Result<()> {
    apply(fd, libc::F_OFD_SETLKW, byte(libc::F_WRLCK, at))
}

/// Takes the exclusive lock on the byte at `at`, or returns false if somebody has it.
pub fn try_acquire_byte(fd: impl AsFd, at: i64) -> io::Result<bool> {
    taken(apply(fd, libc::F_OFD_SETLK, byte(libc::F_WRLCK, at)))
}

/// Gives the lock on the byte at `at` back, also where a child still holds a copy of the descriptor.
pub fn release_byte(fd: impl AsFd, at: i64) -> io::Result<()> {
    apply(fd, libc::F_OFD_SETLK, byte(libc::F_UNLCK, at))
}

/// Whether another open file holds an exclusive lock; takes nothing.
pub fn is_held(fd: impl AsFd) -> io::Result<bool> {
    is_against(fd, libc::F_RDLCK)
}

/// Whether another open file holds a lock of either kind; takes nothing.
pub fn is_taken(fd: impl AsFd) -> io::Result<bool> {
    is_against(fd, libc::F_WRLCK)
}

fn is_against(fd: impl AsFd, kind: libc::c_int) -> io::Result<bool> {
    let mut lock = request(kind);
    // SAFETY: the descriptor is borrowed for the call, and F_OFD_GETLK reads and writes one struct flock.
    if unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs;

    #[test]
    fn a_lock_belongs_to_the_open_file() {
        let path = std::env::temp_dir().join(format!("dhow-lock-{}", std::process::id()));
        let (a, b) = (fs::open_or_create(&path, 0o600).unwrap(), fs::open_or_create(&path, 0o600).unwrap());
        assert!(!is_held(&b).unwrap());
        acquire(&a, Kind::Exclusive).unwrap();
        assert!(is_held(&b).unwrap());
        assert!(!try_acquire(&b, Kind::Shared).unwrap());
        drop(a);
        assert!(try_acquire(&b, Kind::Shared).unwrap());
        let c = fs::open_or_create(&path, 0o600).unwrap();
        assert!(is_taken(&c).unwrap() && !is_held(&c).unwrap());
        drop(b);
        assert!(!is_taken(&c).unwrap());
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn each_byte_is_a_lock_and_giving_it_back_reaches_all_copies() {
        let path = std::env::temp_dir().join(format!("dhow-lock-byte-{}", std::process::id()));
        let (a, b) = (fs::open_or_create(&path, 0o600).unwrap(), fs::open_or_create(&path, 0o600).unwrap());
        let _copy = a.try_clone().unwrap();
        let far = i64::MAX - 1;
        acquire_byte(&a, far).unwrap();
        assert!(!try_acquire_byte(&b, far).unwrap());
        assert!(try_acquire_byte(&b, far - 1).unwrap());
        release_byte(&a, far).unwrap();
        assert!(try_acquire_byte(&b, far).unwrap());
        fs::remove_file(&path).unwrap();
    }
}
