//! Showing owners: stat(2) and its kin tell what `owner` has written beside a file, and what somebody other than root
//! creates is written down as his at once. Costly, for stat is what programs do most, so it is a choice: see `filter`.
//!
//! Whatever is out of the ordinary (an error, a file that bears no mark, one that exists already) is left to the kernel,
//! which then does the call itself, so that no errno is made up here.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::belief::Belief;
use super::filter::Call;
use super::owner;
use super::process::{self, Found, Process};
use crate::sys::notify;
use crate::sys::notify::Notification;

/// A file that has a mark, and where the caller wants to know of it.
#[derive(Debug)]
pub struct Sight {
    file: OwnedFd,
    stat: rustix::fs::Stat,
    owner: (u32, u32),
    node: Option<owner::Node>,
    into: u64,
}

/// What a call of the stat family looks at; `None` if the kernel is to answer.
pub fn look(call: Call, asked: &Notification, caller: &Process) -> Option<Sight> {
    let args = &asked.args;
    let at_flags = |at: usize| args[at] as i32 & (libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH);
    let (dir_fd, path, flags, into) = match call {
        Call::Fstat => (args[0] as i32, None, libc::AT_EMPTY_PATH, args[1]),
        Call::Stat => (libc::AT_FDCWD, Some(args[0]), 0, args[1]),
        Call::Lstat => (libc::AT_FDCWD, Some(args[0]), libc::AT_SYMLINK_NOFOLLOW, args[1]),
        Call::Newfstatat => (args[0] as i32, Some(args[1]), at_flags(3), args[2]),
        _ => (args[0] as i32, Some(args[1]), at_flags(2), args[4]),
    };
    let path = path.map_or_else(|| Ok(CString::default()), |at| caller.memory().path(at)).ok()?;
    let Ok(Found::File(file)) = caller.find_at(dir_fd, &path, flags) else { return None };
    let stat = process::stat(&file).ok()?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if !matches!(kind, FileType::RegularFile | FileType::Directory) {
        return None;
    }
    let node = if kind == FileType::RegularFile && stat.st_size == 0 { owner::node(&file) } else { None };
    let owner = owner::owner(&file);
    (owner != (0, 0) || node.is_some()).then_some(Sight { file, stat, owner, node, into })
}

impl Sight {
    /// Stores it in the memory of the caller.
    pub fn tell(mut self, call: Call, asked: &Notification) -> Result<(), Errno> {
        let told = if call == Call::Statx {
            let mask = StatxFlags::from_bits_retain(asked.args[3] as u32);
            let mut statx = rustix::fs::statx(&self.file, c"", AtFlags::EMPTY_PATH, mask)?;
            (statx.stx_uid, statx.stx_gid) = self.owner;
            if let Some(node) = self.node {
                statx.stx_mode = (u32::from(statx.stx_mode) & 0o7777 | node.kind) as u16;
                (statx.stx_rdev_major, statx.stx_rdev_minor) = (node.major, node.minor);
            }
            notify::store(asked.pid, self.into, &statx)
        } else {
            (self.stat.st_uid, self.stat.st_gid) = self.owner;
            if let Some(node) = self.node {
                self.stat.st_mode = self.stat.st_mode & 0o7777 | node.kind;
                self.stat.st_rdev = rustix::fs::makedev(node.major, node.minor);
            }
            notify::store(asked.pid, self.into, &self.stat)
        };
        told.map_err(|_| Errno::FAULT)
    }
}

/// Where a call makes something.
#[derive(Debug)]
pub struct Place {
    dir: OwnedFd,
    name: CString,
    mode: Mode,
    owner: (u32, u32),
    flags: OFlags,
}

/// Where a call that may create would do so, on behalf of somebody of this belief; `None` if the kernel is to do it.
pub fn place(call: Call, asked: &Notification, caller: &Process, belief: &Belief) -> Option<Place> {
    let me = (belief.user.file, belief.group.file);
    let args = &asked.args;
    let creat = (libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC) as u64;
    let (dir_fd, path, flags, mode) = match call {
        Call::Open => (libc::AT_FDCWD, args[0], args[1], args[2]),
        Call::Openat => (args[0] as i32, args[1], args[2], args[3]),
        Call::Creat => (libc::AT_FDCWD, args[0], creat, args[1]),
        Call::Mkdir => (libc::AT_FDCWD, args[0], 0, args[1]),
        _ => (args[0] as i32, args[1], 0, args[2]),
    };
    let flags = OFlags::from_bits_retain(flags as u32);
    if flags.contains(OFlags::PATH) {
        return None;
    }
    let mut path = caller.memory().path(path).ok()?.into_bytes();
    if flags.is_empty() {
        // mkdir(2) is fine with a slash at the end.
        path.truncate(path.iter().rposition(|b| *b != b'/').map_or(0, |at| at + 1));
    }
    let path = CString::new(path).ok()?;
    let (dir, name) = caller.parent(dir_fd, &path).ok()??;
    let about = process::stat(&dir).ok()?;
    // A set-group-id directory passes its group on.
    let group = if about.st_mode & libc::S_ISGID != 0 { owner::owner(&dir).1 } else { me.1 };
    let mode = Mode::from_raw_mode(mode as u32 & 0o7777 & !caller.umask());
    Some(Place { dir, name, mode, owner: (me.0, group), flags })
}

impl Place {
    /// Makes a directory.
    pub fn make_dir(&self) -> Result<(), Errno> {
        rustix::fs::mkdirat(&self.dir, &self.name, Mode::RWXU)?;
        // From here on it exists, and the call must not be done again.
        let _ = self.finish_dir();
        Ok(())
    }

    fn finish_dir(&self) -> Result<(), Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&self.dir, &self.name, flags, Mode::empty())?;
        owner::mark(&made, self.owner);
        // The kernel has passed on a set-group-id bit of the parent, which is to stay.
        let passed_on = process::stat(&made)?.st_mode & libc::S_ISGID;
        let mode = self.mode.as_raw_mode() & 0o1777 | passed_on;
        rustix::fs::chmod(owner::link(&made), Mode::from_raw_mode(mode))
    }

    /// Makes a file that is not there yet, and opens it as the caller asked for.
    pub fn make_file(&self) -> Result<OwnedFd, Errno> {
        let flags = self.flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, &self.name, flags, Mode::RUSR | Mode::WUSR)?;
        owner::mark(&file, self.owner);
        rustix::fs::fchmod(&file, self.mode)?;
        Ok(file)
    }

    /// Takes back what `make_file` has made.
    pub fn remove_file(&self) {
        let _ = rustix::fs::unlinkat(&self.dir, &self.name, AtFlags::empty());
    }

    /// Whether the caller wants its descriptor closed by exec.
    pub fn is_close_on_exec(&self) -> bool {
        self.flags.contains(OFlags::CLOEXEC)
    }
}
