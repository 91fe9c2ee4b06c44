//! Waiting for files to change and processes to end, without looking again and again: inotify(7) and poll(2).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::inotify;

use crate::error::ResultExt;

/// What happens in directories, from the moment on that they are added.
#[derive(Debug)]
pub struct Watch(OwnedFd);

/// What else a wait ends with.
#[derive(Debug, Default)]
pub struct Also<'a> {
    /// Descriptors that become readable: pidfds of processes that end.
    pub readable: &'a [BorrowedFd<'a>],
    /// A stream whose reader goes away.
    pub reader: Option<BorrowedFd<'a>>,
    /// A moment by the clock on the wall.
    pub until: Option<Timestamp>,
    /// A moment that stays where it is when that clock is set.
    pub deadline: Option<Instant>,
}

impl Watch {
    /// Watches nothing yet.
    pub fn new() -> Result<Watch> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .context("cannot watch for changes")
            .hint("sysctl fs.inotify.max_user_instances says how many may do so at once")?;
        Ok(Watch(fd))
    }

    /// Watches a directory: files in it that are made, written to, or renamed into it,
    /// and its own end.
    pub fn add(&self, dir: &Path) -> Result<()> {
        let events =
            inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        let events = events | inotify::WatchFlags::MOVE_SELF | inotify::WatchFlags::DELETE_SELF;
        inotify::add_watch(&self.0, dir, events)
            .with_context(|| format!("cannot watch {}", dir.display()))
            .hint("sysctl fs.inotify.max_user_watches says how many directories may be watched")?;
        Ok(())
    }

    /// Waits for a change, or for what else is given; whether the reader is gone. A change since the last wait ends this
    /// one at once.
    pub fn wait(&self, also: &Also<'_>) -> Result<bool> {
        let by_wall = also.until.map(|until| {
            let left = until.duration_since(Timestamp::now()).max(jiff::SignedDuration::ZERO);
            left.unsigned_abs()
        });
        let by_deadline = also.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = by_wall.into_iter().chain(by_deadline).min().map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        let mut fds = vec![PollFd::from_borrowed_fd(self.0.as_fd(), PollFlags::IN)];
        fds.extend(also.readable.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)));
        fds.extend(also.reader.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::empty())));
        match rustix::event::poll(&mut fds, left.as_ref()) {
            Err(rustix::io::Errno::INTR) => return Ok(false),
            other => other.context("cannot wait for changes")?,
        };
        let is_reader_gone = also.reader.is_some() && fds.last().is_some_and(|fd| !fd.revents().is_empty());
        // What happened is looked for in the files themselves.
        let mut buffer = [0; 4096];
        while rustix::io::read(&self.0, &mut buffer).is_ok_and(|n| n > 0) {}
        Ok(is_reader_gone)
    }
}
