//! logs: what containers wrote, from the beginning, a moment or the last lines on, and on as it comes.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Result, anyhow};
use jiff::Timestamp;

use super::watch::{Also, Watch};
use super::{Engine, reap};
use crate::error::ResultExt;
use crate::store::container::{ContainerDir, open_process};
use crate::store::rotated::Lines;
use crate::supervisor::log::entry::{each_entry, parse, stamp};
use crate::supervisor::log::{self, Entry, Settings};

/// Which part of the logs.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogOptions<'a> {
    /// Go on as they grow, until the containers end for good.
    pub follow: bool,
    /// Only the last so many lines of each.
    pub tail: Option<u64>,
    /// Only from here on.
    pub since: Option<Timestamp>,
    /// Only up to here.
    pub until: Option<Timestamp>,
    /// What `--log-opt labels=` and `env=` ask for is told, too.
    pub details: bool,
    /// Where it goes to: following ends when nobody reads there any more.
    pub reader: Option<BorrowedFd<'a>>,
}

/// Whose line it is.
#[derive(Debug)]
pub struct Author {
    /// The container's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// See [`LogOptions::details`].
    pub details: BTreeMap<String, String>,
}

/// What there is to show.
#[derive(Debug)]
pub enum Shown<'a> {
    /// A line, or a part of one.
    Entry {
        /// The container's.
        author: &'a Author,
        /// With its time and stream.
        entry: Entry<'a>,
        /// Whether it begins a line of its stream.
        starts_line: bool,
    },
    /// Nothing more for the moment.
    Pause,
}

/// Gives the lines to `each`, in order: one container after the other for what is there, and as it comes for what follows.
pub fn logs(
    engine: &Engine,
    wanted: &[&str],
    options: LogOptions<'_>,
    each: &mut dyn FnMut(Shown<'_>) -> Result<()>,
) -> Result<()> {
    let mut all =
        wanted.iter().map(|name| Source::open(engine, name, options)).collect::<Result<Vec<_>>>()?;
    // Watching begins before reading, so that nothing falls in between.
    let watch = if options.follow { Some(Watch::new()?) } else { None };
    for source in &all {
        watch.iter().try_for_each(|watch| watch.add(&source.dir.path))?;
    }
    let range = Range { since: options.since.map(stamp), until: options.until.map(stamp) };
    loop {
        // Before reading: what is written up to that moment is read once more.
        let is_late = options.until.is_some_and(|until| Timestamp::now() > until);
        for source in all.iter_mut().filter(|source| !source.is_over) {
            let has_ended = options.follow && source.has_ended(engine)?;
            source.read(&range, each)?;
            source.is_over = has_ended;
        }
        each(Shown::Pause)?;
        let Some(watch) = &watch else { return Ok(()) };
        if is_late || all.iter().all(|source| source.is_over) {
            return Ok(());
        }
        let supervisors: Vec<BorrowedFd<'_>> = all
            .iter()
            .filter(|source| !source.is_over)
            .filter_map(|source| source.supervisor.as_ref().map(AsFd::as_fd))
            .collect();
        let also =
            Also { readable: &supervisors, reader: options.reader, until: options.until, deadline: None };
        if watch.wait(&also)? {
            return Ok(());
        }
    }
}

/// The moments that are wanted, as a log has them.
struct Range {
    since: Option<String>,
    until: Option<String>,
}

impl Range {
    fn has(&self, stamp: &str) -> bool {
        self.since.as_deref().is_none_or(|since| stamp >= since)
            && self.until.as_deref().is_none_or(|until| stamp <= until)
    }
}

/// One container's log, and how far it was shown.
struct Source {
    dir: ContainerDir,
    author: Author,
    lines: Lines,
    /// Whether what comes next begins a line, for each stream.
    starts_line: [bool; 2],
    /// Whose end is waited for, while one lives.
    supervisor: Option<OwnedFd>,
    /// Nothing more will come.
    is_over: bool,
}

impl Source {
    fn open(engine: &Engine, wanted: &str, options: LogOptions<'_>) -> Result<Source> {
        let dir = engine.find(wanted)?;
        let record = dir.record()?;
        let Some(mut lines) = log::reader(&dir, &record)? else {
            let why = "configured logging driver does not support reading";
            return Err(anyhow!("cannot read the log of {wanted}: {why}"))
                .hint("nothing is kept with --log-driver none, nor with --rm in the foreground");
        };
        if let Some(n) = options.tail {
            seek_tail(&mut lines, n)?;
        }
        let details = match options.details {
            true => Settings::of(&record.log_config)?.attributes(&dir, &record)?,
            false => BTreeMap::new(),
        };
        let author = Author { id: record.id, name: record.name, details };
        Ok(Source { dir, author, lines, starts_line: [true; 2], supervisor: None, is_over: false })
    }

    fn read(&mut self, range: &Range, each: &mut dyn FnMut(Shown<'_>) -> Result<()>) -> Result<()> {
        let Source { author, lines, starts_line, .. } = self;
        lines.read(&mut each_entry(&mut |entry| {
            let starts_line = std::mem::replace(&mut starts_line[entry.stream as usize], entry.is_whole);
            if !range.has(entry.stamp) {
                return Ok(());
            }
            each(Shown::Entry { author, entry, starts_line })
        }))
    }

    /// Whether no supervisor is there that would write more. One that waits to run the container again is there.
    fn has_ended(&mut self, engine: &Engine) -> Result<bool> {
        if self.supervisor.as_ref().is_some_and(|pidfd| !reap::has_ended(pidfd)) {
            return Ok(false);
        }
        let status = match self.dir.status() {
            Ok(status) => status,
            // Removed.
            Err(error) if super::is_not_found(&error) => return Ok(true),
            Err(error) => return Err(error),
        };
        // The next one, after `restart`; while it starts, its first note wakes us.
        let state = status.is_alive().then(|| self.dir.last_state()).transpose()?.flatten();
        self.supervisor = state.and_then(|state| open_process(state.supervisor));
        if status.is_alive() && self.supervisor.is_none() {
            // A supervisor that was killed a moment ago holds its lock until the kernel has closed its files.
            return Ok(reap::decided(&engine.store, &self.dir).is_ok_and(|status| !status.is_alive()));
        }
        Ok(!status.is_alive())
    }
}

/// Goes to where the last `wanted` lines begin, from the end.
fn seek_tail(lines: &mut Lines, wanted: u64) -> Result<()> {
    let mut left = wanted;
    let mut is_last = true;
    lines.seek_back(&mut |line| {
        let Some(entry) = parse(line) else { return false };
        // Parts of a line count once, and the last line may not have ended yet.
        let ends_line = entry.is_whole || is_last;
        is_last = false;
        if ends_line && left == 0 {
            return true;
        }
        left -= u64::from(ends_line);
        false
    })
}
