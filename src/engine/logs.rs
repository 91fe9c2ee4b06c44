//! logs: what a container wrote, from its beginning or a moment, and on as it comes.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::inotify;

use super::Engine;
use crate::store::container::{ContainerDir, Status, open_process};
use crate::supervisor::log::{Entry, Reader};

/// Which part of the log.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogOptions {
    /// Go on as it grows, until the container ends.
    pub follow: bool,
    /// Only the last so many lines.
    pub tail: Option<usize>,
    /// Only from here on.
    pub since: Option<Timestamp>,
    /// Only up to here.
    pub until: Option<Timestamp>,
}

/// Gives each entry to `each`, in order.
pub fn logs(
    engine: &Engine,
    wanted: &str,
    options: LogOptions,
    each: &mut dyn FnMut(Entry) -> Result<()>,
) -> Result<()> {
    let dir = engine.find(wanted)?;
    anyhow::ensure!(
        dir.record()?.log,
        "cannot read the log of {wanted}: it keeps none (--log-driver none, or --rm in the foreground)"
    );
    let wanted_entry =
        |e: &Entry| options.since.is_none_or(|t| e.time >= t) && options.until.is_none_or(|t| e.time <= t);
    // Watching begins before reading, so that nothing falls in between.
    let watch = if options.follow { Some(Watch::new(&dir)?) } else { None };
    let mut reader = Reader::new(&dir.file("log"));
    match options.tail {
        Some(lines) => {
            let mut last = Tail { lines, kept: VecDeque::new(), newlines: 0 };
            reader.read(&mut |e| {
                if wanted_entry(&e) {
                    last.push(e);
                }
                Ok(())
            })?;
            last.kept.into_iter().try_for_each(&mut *each)?;
        }
        None => reader.read(&mut |e| if wanted_entry(&e) { each(e) } else { Ok(()) })?,
    }
    let Some(watch) = watch else { return Ok(()) };
    loop {
        let ended = watch.wait(&dir)?;
        reader.read(&mut |e| if wanted_entry(&e) { each(e) } else { Ok(()) })?;
        if ended || options.until.is_some_and(|t| Timestamp::now() > t) {
            return Ok(());
        }
    }
}

/// The last lines; a line in parts counts once.
struct Tail {
    lines: usize,
    kept: VecDeque<Entry>,
    newlines: usize,
}

impl Tail {
    fn push(&mut self, entry: Entry) {
        let ends_line = |e: &Entry| e.content.ends_with(b"\n");
        let starts_line = self.kept.back().is_none_or(ends_line);
        if starts_line {
            self.newlines += 1;
        }
        self.kept.push_back(entry);
        while self.newlines > self.lines {
            while self.kept.pop_front().is_some_and(|e| !ends_line(&e)) {}
            self.newlines -= 1;
        }
    }
}

/// Wakes when the log grows or the container's supervisor ends.
struct Watch {
    changes: OwnedFd,
    supervisor: Option<OwnedFd>,
}

impl Watch {
    fn new(dir: &ContainerDir) -> Result<Watch> {
        let changes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .context("cannot watch the log")?;
        let events =
            inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&changes, &dir.path, events).context("cannot watch the log")?;
        let supervisor = match dir.status()? {
            Status::Running(state) | Status::Paused(state) | Status::Restarting(state, _) => {
                open_process(state.supervisor)
            }
            _ => None,
        };
        Ok(Watch { changes, supervisor })
    }

    /// Returns whether the container has ended.
    fn wait(&self, dir: &ContainerDir) -> Result<bool> {
        if self.supervisor.is_none() && !dir.status()?.is_alive() {
            return Ok(true);
        }
        let mut fds = vec![PollFd::from_borrowed_fd(self.changes.as_fd(), PollFlags::IN)];
        fds.extend(self.supervisor.iter().map(|s| PollFd::from_borrowed_fd(s.as_fd(), PollFlags::IN)));
        loop {
            match rustix::event::poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => {}
                other => {
                    other.context("cannot wait for the log")?;
                    break;
                }
            }
        }
        let mut buffer = [0; 4096];
        while rustix::io::read(&self.changes, &mut buffer).is_ok_and(|n| n > 0) {}
        Ok(fds.get(1).is_some_and(|f| !f.revents().is_empty()))
    }
}
