//! A cgroup as a directory: making it, writing and reading its files, waiting for it to empty, removing it. What v1 and
//! v2 have in common.
//!
//! Invariant: nothing waits without a deadline, and nothing sleeps for a condition that the kernel can announce.

use std::fs::File;
use std::io;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::fs::CWD;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::process::PidfdFlags;
use rustix::process::Signal;

use super::convert::Setting;
use crate::fs;

/// How long dying processes may take to leave a cgroup.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// An open cgroup directory.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    /// The file written last, kept open: device rules are many writes to one file.
    last: Option<(String, OwnedFd)>,
}

impl Dir {
    /// Opens a cgroup; `None` if it is gone.
    pub fn open(path: &Path) -> Result<Option<Dir>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Dir { fd, last: None })),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e).with_context(|| format!("cannot open cgroup {}", path.display())),
        }
    }

    /// The descriptor, for CLONE_INTO_CGROUP and bpf(2).
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Opens one of its files for writing.
    pub fn open_to_write(&self, file: &str) -> io::Result<OwnedFd> {
        Ok(rustix::fs::openat(&self.fd, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Writes one of its files.
    pub fn write(&mut self, file: &str, value: &str) -> io::Result<()> {
        let fd = match self.last.take() {
            Some((last, fd)) if last == file => fd,
            _ => self.open_to_write(file)?,
        };
        // A cgroup file takes its value in one write(2) or not at all.
        let written = rustix::io::retry_on_intr(|| rustix::io::write(&fd, value.as_bytes()));
        self.last = Some((file.to_owned(), fd));
        written?;
        Ok(())
    }

    /// Writes a setting, to its second file where the first is missing.
    pub fn apply(&mut self, setting: &Setting) -> io::Result<()> {
        let first = self.write(&setting.file, &setting.value);
        match (&first, &setting.instead) {
            (Err(e), Some((file, value))) if e.kind() == io::ErrorKind::NotFound => self.write(file, value),
            _ => first,
        }
    }

    /// Reads one of its files.
    pub fn read(&self, file: &str) -> io::Result<String> {
        let fd = rustix::fs::openat(&self.fd, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut text = String::new();
        File::from(fd).read_to_string(&mut text)?;
        Ok(text)
    }

    /// The processes in this very cgroup. 0 stands for one that our pid name space does not show.
    pub fn pids(&self) -> io::Result<Vec<i32>> {
        match self.read("cgroup.procs") {
            Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
            // It was removed since we opened it.
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }

    /// Waits until v2's cgroup.events has the line `key value`; false if the deadline came first.
    pub fn await_event(&self, key: &str, value: &str, deadline: Instant) -> io::Result<bool> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&self.fd, "cgroup.events", flags, Mode::empty()) {
            Err(Errno::NODEV) => return Ok(true),
            opened => opened?,
        };
        loop {
            let mut buffer = [0; 256];
            let n = match rustix::io::pread(&fd, &mut buffer, 0) {
                Err(Errno::NODEV) => return Ok(true),
                n => n?,
            };
            let wanted = (key.as_bytes(), value.as_bytes());
            let mut lines = buffer[..n].split(|b| *b == b'\n').filter_map(|l| {
                let at = l.iter().position(|b| *b == b' ')?;
                Some((&l[..at], &l[at + 1..]))
            });
            if lines.any(|line| line == wanted) {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            // kernfs raises POLLPRI when the file has changed since it was last read.
            wait(&mut [PollFd::new(&fd, PollFlags::PRI)], left)?;
        }
    }
}

/// poll(2) that takes a signal for an answer.
fn wait(fds: &mut [PollFd<'_>], at_most: Duration) -> io::Result<()> {
    let timeout = Timespec { tv_sec: at_most.as_secs() as i64, tv_nsec: at_most.subsec_nanos().into() };
    match rustix::event::poll(fds, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Asks again and again, ever more rarely, where the kernel announces nothing (v1). False if the deadline came first.
pub fn await_condition(deadline: Instant, mut condition: impl FnMut() -> Result<bool>) -> Result<bool> {
    let mut pause = Duration::from_micros(250);
    loop {
        if condition()? {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        wait(&mut [], pause.min(left))?;
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Makes an empty cgroup, and the ones above it where they are missing. What an earlier container of that name left
/// behind is removed first; one with processes in it is `ResourceBusy`.
pub fn make(path: &Path) -> io::Result<()> {
    for _ in 0..8 {
        match rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => sweep(path)?,
            // Somebody may remove the parents between the two calls: try again.
            Err(Errno::NOENT) => make_parents(path)?,
            made => return Ok(made?),
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

fn make_parents(path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent() else { return Err(io::ErrorKind::NotFound.into()) };
    match rustix::fs::mkdirat(CWD, parent, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(Errno::NOENT) => {
            make_parents(parent)?;
            match rustix::fs::mkdirat(CWD, parent, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => Ok(()),
                Err(e) => Err(e.into()),
            }
        }
        Err(e) => Err(e.into()),
    }
}

/// Removes a cgroup and those below it (a container may have made some), once, without waiting.
fn sweep(path: &Path) -> io::Result<()> {
    match rustix::fs::unlinkat(CWD, path, rustix::fs::AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::BUSY | Errno::NOTEMPTY) => {}
        Err(e) => return Err(e.into()),
    }
    for child in children(path) {
        sweep(&child)?;
    }
    match rustix::fs::unlinkat(CWD, path, rustix::fs::AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Removes a cgroup and those below it, waiting for dying processes to leave. One that is gone already is fine.
pub fn remove(path: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let about = || format!("cannot remove cgroup {}", path.display());
    let removed = await_condition(deadline, || match sweep(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
            // Where the kernel announces it (v2), wait for the last process; where not, the caller asks again.
            if let Some(dir) = Dir::open(path)? {
                match dir.await_event("populated", "0", deadline) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e).with_context(about),
                    _ => {}
                }
            }
            Ok(false)
        }
        Err(e) => Err(e).with_context(about),
    })?;
    if !removed {
        bail!("{}: there are still processes in it", about());
    }
    Ok(())
}

/// The cgroups directly below.
fn children(path: &Path) -> Vec<PathBuf> {
    // A cgroup that vanishes while we look has no children; d_type would save the lstat, but this is not a hot path.
    let names = fs::read_dir(path).unwrap_or_default();
    let is_dir = |p: &PathBuf| matches!(fs::symlink_metadata(p), Ok(Some(m)) if m.is_dir());
    names.iter().map(|name| path.join(name)).filter(is_dir).collect()
}

/// The processes in a cgroup and in those below it; none if it is gone.
pub fn pids(path: &Path) -> Result<Vec<i32>> {
    let Some(dir) = Dir::open(path)? else { return Ok(Vec::new()) };
    let mut pids =
        dir.pids().with_context(|| format!("cannot read the processes of cgroup {}", path.display()))?;
    for child in children(path) {
        pids.extend(self::pids(&child)?);
    }
    Ok(pids)
}

/// Kills what is in a cgroup until nothing is; `unfreeze` is called after each round, since what is frozen cannot die.
pub fn kill_until_empty(path: &Path, mut unfreeze: impl FnMut() -> Result<()>) -> Result<()> {
    let emptied = await_condition(Instant::now() + PATIENCE, || {
        let listed = pids(path)?;
        if listed.is_empty() {
            return Ok(true);
        }
        // A number may be given to another process at any time. So: handles first, then the list again. A number that
        // is still in it is held by a member, and a handle taken before is that member's or a dead process's.
        let handles: Vec<(i32, OwnedFd)> = listed
            .iter()
            .filter_map(|pid| {
                Some((*pid, rustix::process::pidfd_open(Pid::from_raw(*pid)?, PidfdFlags::empty()).ok()?))
            })
            .collect();
        let still = pids(path)?;
        for (_, handle) in handles.iter().filter(|(pid, _)| still.contains(pid)) {
            // ESRCH is what we want; anything else shows in the next round.
            let _ = rustix::process::pidfd_send_signal(handle, Signal::KILL);
        }
        unfreeze()?;
        Ok(false)
    })?;
    if !emptied {
        bail!("cannot kill the processes of cgroup {}: some do not die", path.display());
    }
    Ok(())
}
