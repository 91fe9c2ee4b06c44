//! The log that is kept with the container. Bounded: a file that is full is rotated.
//!
//! A log that cannot be written (a full disk) does not stop the container: what is missing is said where it is missing, as
//! soon as that can be written.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::entry::{self, Stream};
use crate::fs;
use crate::store::rotated::{self, Packing};

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of one file.
    pub max_size: u64,
    /// Files.
    pub n_files: u32,
    /// Whether those that are not written to any more are compressed.
    pub compress: bool,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { max_size: 10 << 20, n_files: 3, compress: false }
    }
}

/// The writing side.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    /// `None` after a rotation that could not make the next one.
    file: Option<File>,
    size: u64,
    bounds: Bounds,
    /// The last file before this one, while it is being compressed.
    packing: Option<Packing>,
    /// Why something is missing, until the log says so itself.
    lost: Option<String>,
}

impl LogFile {
    /// Opens (or goes on with) the log at `path`.
    pub fn open(path: &Path, bounds: Bounds) -> Result<LogFile> {
        let file = fs::append(path, 0o600)?;
        let size = file.metadata().with_context(|| format!("cannot look at {}", path.display()))?.len();
        let mut log =
            LogFile { path: path.to_owned(), file: Some(file), size, bounds, packing: None, lost: None };
        log.begin_packing();
        if size > 0 {
            // A supervisor that was killed may have left half a line.
            log.append(b"\n");
        }
        Ok(log)
    }

    /// Adds whole entries.
    pub fn append(&mut self, entries: &[u8]) {
        if entries.is_empty() {
            return;
        }
        let told = self.lost.as_ref().map(|why| {
            let mut told = Vec::new();
            let text = format!("[dhow: output is missing here: {why}]");
            entry::push(&mut told, &entry::stamp(Timestamp::now()), Stream::Err, true, text.as_bytes());
            [told.as_slice(), entries].concat()
        });
        match self.try_append(told.as_deref().unwrap_or(entries)) {
            Ok(()) => self.lost = None,
            Err(error) => {
                self.lost = Some(format!("{error:#}"));
                // Not half an entry, which would spoil the next one.
                if let Some(file) = &self.file {
                    let _ = file.set_len(self.size);
                }
            }
        }
        self.pack();
    }

    /// One that cannot be compressed, on a full disk, stays as it is.
    fn begin_packing(&mut self) {
        if self.bounds.compress {
            self.packing = Packing::begin(&self.path).ok().flatten();
        }
    }

    /// A piece of it for each time that something is written: more than what is written, so that it is done well before
    /// the next one.
    fn pack(&mut self) {
        if self.packing.as_mut().is_some_and(|packing| packing.step().unwrap_or(true)) {
            self.packing = None;
        }
    }

    fn try_append(&mut self, mut entries: &[u8]) -> Result<()> {
        while !entries.is_empty() {
            let room = self.bounds.max_size.saturating_sub(self.size);
            let n = fitting(entries, usize::try_from(room).unwrap_or(usize::MAX));
            // An entry that is longer than a file may be gets one for itself.
            let n = if n == 0 && self.size == 0 { first(entries) } else { n };
            if n == 0 {
                self.file = None;
                let _ = self.packing.take().map(Packing::finish);
                rotated::rotate(&self.path, self.bounds.n_files)?;
                self.size = 0;
                self.begin_packing();
                continue;
            }
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(fs::append(&self.path, 0o600)?),
            };
            file.write_all(&entries[..n]).with_context(|| format!("cannot write {}", self.path.display()))?;
            self.size += n as u64;
            entries = &entries[n..];
        }
        Ok(())
    }
}

/// Length of as many whole entries as have room.
fn fitting(entries: &[u8], room: usize) -> usize {
    if entries.len() <= room {
        return entries.len();
    }
    memchr::memrchr(b'\n', &entries[..room]).map_or(0, |end| end + 1)
}

/// Length of the first entry.
fn first(entries: &[u8]) -> usize {
    memchr::memchr(b'\n', entries).map_or(entries.len(), |end| end + 1)
}
