//! A container's log: what its program wrote, with the time and the stream, in files beside it (`file`, `entry`), and, if
//! that is wanted, at the system's log as well (`syslog`, `journald`). `settings` says what `--log-driver` and `--log-opt`
//! mean.
//!
//! Nothing here keeps the container waiting: what cannot be written is counted, and told where it is missing.

pub mod entry;
mod file;
mod journald;
mod settings;
mod ship;
mod syslog;

use std::os::fd::BorrowedFd;

use anyhow::{Context, Result};
use jiff::Timestamp;
use rustix::event::PollFlags;

pub use entry::{Entry, Stream};
pub use file::Bounds;
pub use settings::{Destination, Settings};

use crate::store::container::{ContainerDir, Record};
use crate::store::rotated::Lines;
use entry::Splitter;
use file::LogFile;
use ship::Ship;

/// The writing side.
#[derive(Debug)]
pub struct Writer {
    splitter: Splitter,
    file: Option<LogFile>,
    ship: Option<Ship>,
}

impl Writer {
    /// Opens, or goes on with, the log of a container. An error if it goes to the system's log and that is not there.
    pub fn open(dir: &ContainerDir, record: &Record) -> Result<Writer> {
        let settings = Settings::of(&record.log_config)?;
        let file = settings.kept.map(|bounds| LogFile::open(&dir.file(FILE), bounds)).transpose()?;
        let ship = match &settings.destination {
            Destination::None => None,
            Destination::Syslog(options) => Some(syslog::open(options, &settings.tag(record))),
            Destination::Journald => {
                Some(journald::open(record, &settings.tag(record), settings.attributes(dir, record)?))
            }
        };
        let ship = ship.transpose().with_context(|| format!("cannot log to {}", record.log_config.driver))?;
        Ok(Writer { splitter: Splitter::default(), file, ship })
    }

    /// Adds what the program wrote.
    pub fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let Writer { splitter, file, ship } = self;
        let now = Timestamp::now();
        let stamp = entry::stamp(now);
        let mut entries = Vec::with_capacity(bytes.len() + bytes.len() / 2 + 64);
        splitter.split(stream, bytes, &mut |is_whole, line| {
            if file.is_some() {
                entry::push(&mut entries, &stamp, stream, is_whole, line);
            }
            if let Some(ship) = ship {
                ship.push(now, stream, is_whole, line);
            }
        });
        if let Some(file) = file {
            file.append(&entries);
        }
        self.step();
    }

    /// Writes out lines that never got their newline, and gives what is on its way to the system's log a moment to leave.
    pub fn finish(&mut self) {
        let Writer { splitter, file, ship } = self;
        let now = Timestamp::now();
        let mut entries = Vec::new();
        splitter.finish(&mut |stream, line| {
            entry::push(&mut entries, &entry::stamp(now), stream, false, line);
            if let Some(ship) = ship {
                ship.push(now, stream, false, line);
            }
        });
        if let Some(file) = file {
            file.append(&entries);
        }
        if let Some(ship) = ship {
            ship.finish();
        }
    }

    /// What to wait for where not all could be passed on at once.
    pub fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        self.ship.as_ref().and_then(Ship::interest)
    }

    /// Passes on what waits, as far as that goes without waiting.
    pub fn step(&mut self) {
        if let Some(ship) = &mut self.ship {
            ship.flush();
        }
    }
}

/// The log's name in the container's directory.
pub const FILE: &str = "log";

/// A reader of a container's log; `None` if none is kept that can be read.
pub fn reader(dir: &ContainerDir, record: &Record) -> Result<Option<Lines>> {
    let kept = Settings::of(&record.log_config)?.kept.filter(|_| record.log);
    Ok(kept.map(|bounds| Lines::new(&dir.file(FILE), bounds.n_files)))
}

#[cfg(test)]
mod tests;
