//! `--quiet-ok`: all that a run prints is held back, and shown only if it failed.
//!
//! Our own two streams are files without a name meanwhile, so that no memory is needed however much there is. The
//! container writes to pipes, which threads empty into those files: a program may open /dev/stderr again, and would
//! truncate a file. Where both streams of the caller are one (cron's are), both of the container are one pipe: its order is
//! kept exactly, as it would have been.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::fs;
use crate::sys::process::dup_to;

/// See the module.
pub(super) struct Held {
    /// The caller's stdout and stderr.
    saved: [OwnedFd; 2],
    /// What is held back: of both streams, or of each.
    spools: Vec<File>,
    /// The reading ends, while the container has the writing ends.
    pipes: Vec<OwnedFd>,
    collectors: Vec<JoinHandle<()>>,
    /// Closed when there is nothing more to come.
    going_on: Option<OwnedFd>,
}

impl Held {
    /// Begins to hold back; the files lie in `dir`.
    pub(super) fn begin(dir: &Path) -> Result<Held> {
        let about = "cannot hold the output back";
        let save = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().context(about);
        let saved = [save(rustix::stdio::stdout())?, save(rustix::stdio::stderr())?];
        let same = |a: &OwnedFd, b: &OwnedFd| -> rustix::io::Result<bool> {
            let (a, b) = (rustix::fs::fstat(a)?, rustix::fs::fstat(b)?);
            Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
        };
        let is_one = same(&saved[0], &saved[1]).context(about)?;
        let spools = (0..if is_one { 1 } else { 2 })
            .map(|_| fs::create_unnamed(dir).context(about))
            .collect::<Result<Vec<_>>>()?;
        let held = Held { saved, spools, pipes: Vec::new(), collectors: Vec::new(), going_on: None };
        held.point_at(&held.spools).context(about)?;
        Ok(held)
    }

    /// Puts `targets` (one for both, or one each) in the place of our streams.
    fn point_at(&self, targets: &[impl AsRawFd]) -> Result<()> {
        let (Some(out), Some(err)) = (targets.first(), targets.last()) else { return Ok(()) };
        dup_to(out.as_raw_fd(), 1)?;
        dup_to(err.as_raw_fd(), 2)?;
        Ok(())
    }

    /// Makes our streams what the container is to get: until [`Held::collect`], what we write ourselves goes there too,
    /// and must be little.
    pub(super) fn lend(&mut self) -> Result<()> {
        let about = "cannot hold the output back";
        let mut writing = Vec::new();
        for _ in &self.spools {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC).context(about)?;
            // Only the reading end: the other is the container's.
            rustix::io::ioctl_fionbio(&read, true).context(about)?;
            self.pipes.push(read);
            writing.push(write);
        }
        self.point_at(&writing).context(about)
    }

    /// Takes our streams back, and begins to empty the container's pipes.
    pub(super) fn collect(&mut self) -> Result<()> {
        let about = "cannot hold the output back";
        self.point_at(&self.spools).context(about)?;
        let (ending, going_on) = pipe_with(PipeFlags::CLOEXEC).context(about)?;
        self.going_on = Some(going_on);
        for (pipe, spool) in std::mem::take(&mut self.pipes).into_iter().zip(&self.spools) {
            let (spool, ending) = (spool.try_clone().context(about)?, ending.try_clone().context(about)?);
            self.collectors.push(std::thread::spawn(move || empty(&pipe, spool, &ending)));
        }
        Ok(())
    }

    /// Ends the holding back: with `show`, all is printed, each stream where it belongs.
    pub(super) fn end(mut self, show: bool) -> Result<()> {
        if !self.pipes.is_empty() {
            // The start failed; what the container wrote before that counts too.
            self.collect()?;
        }
        self.going_on = None;
        for collector in self.collectors.drain(..) {
            let _ = collector.join();
        }
        self.point_at(&self.saved)?;
        if !show {
            return Ok(());
        }
        for (spool, to) in self.spools.iter_mut().zip(&self.saved) {
            spool.rewind().context("cannot read what was held back")?;
            replay(spool, to)?;
        }
        Ok(())
    }
}

/// Copies what comes until nobody writes any more, or `ending` ends and all is there.
fn empty(pipe: &OwnedFd, mut spool: File, ending: &OwnedFd) {
    let mut buffer = [0; 32 << 10];
    let mut lost: u64 = 0;
    let mut is_ending = false;
    loop {
        match rustix::io::read(pipe, &mut buffer) {
            Ok(0) => break,
            // A disk that is full costs the rest of the output, and does not stop the container.
            Ok(n) if lost > 0 || spool.write_all(&buffer[..n]).is_err() => lost += n as u64,
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if !is_ending => {
                let mut fds = [
                    PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN),
                    PollFd::from_borrowed_fd(ending.as_fd(), PollFlags::IN),
                ];
                let _ = rustix::event::poll(&mut fds, None);
                is_ending = !fds[1].revents().is_empty();
            }
            Err(_) => break,
        }
    }
    if lost > 0 {
        let told = format!("[dhow: {lost} bytes of output are missing here: the disk was full]\n");
        let _ = spool.write_all(told.as_bytes());
    }
}

fn replay(spool: &mut File, to: &OwnedFd) -> Result<()> {
    let mut to = File::from(to.try_clone().context("cannot show what was held back")?);
    let mut buffer = [0; 64 << 10];
    loop {
        let n = spool.read(&mut buffer).context("cannot read what was held back")?;
        if n == 0 {
            return Ok(());
        }
        match to.write_all(&buffer[..n]) {
            // The reader went away.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            other => other.context("cannot show what was held back")?,
        }
    }
}
