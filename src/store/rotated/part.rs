//! One of the files of a log, and how far it was read.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{CHUNK, Identity, packed};

/// One file, and how far it was read.
#[derive(Debug)]
pub(super) struct Part {
    pub identity: Identity,
    path: PathBuf,
    file: File,
    /// Whether it is yet to be decompressed.
    is_packed: bool,
    /// Of which file it is a compressed copy, if it is one.
    stamp: Option<String>,
    offset: u64,
    /// A line whose end was not there yet.
    rest: Vec<u8>,
}

impl Part {
    pub fn of(file: File, path: &Path) -> Result<Part> {
        let meta = file.metadata().with_context(|| format!("cannot look at {}", path.display()))?;
        let identity = (meta.dev(), meta.ino());
        Ok(Part {
            identity,
            path: path.to_owned(),
            file,
            is_packed: false,
            stamp: None,
            offset: 0,
            rest: Vec::new(),
        })
    }

    /// One that is compressed.
    pub fn packed(file: File, path: &Path) -> Result<Part> {
        let stamp = packed::stamp_in(&file);
        Ok(Part { is_packed: true, stamp, ..Part::of(file, path)? })
    }

    /// Whether it is the same file, compressed or not.
    pub fn is(&self, other: &Part) -> bool {
        let stamp = |part: &Part| match part.is_packed || part.stamp.is_some() {
            true => part.stamp.clone(),
            false => packed::stamp_of(&part.file).ok(),
        };
        let is_copy = || stamp(self).is_some_and(|own| stamp(other) == Some(own));
        self.identity == other.identity || ((self.stamp.is_some() || other.stamp.is_some()) && is_copy())
    }

    /// Decompresses it, if that is still to be done.
    fn unpack(&mut self) -> Result<()> {
        if self.is_packed {
            let about = || format!("cannot read {}", self.path.display());
            self.file = packed::unpack(&self.file, &self.path).with_context(about)?;
            self.is_packed = false;
        }
        Ok(())
    }

    fn size(&self) -> Result<u64> {
        Ok(self.file.metadata().with_context(|| format!("cannot look at {}", self.path.display()))?.len())
    }

    pub fn skip(&mut self) -> Result<()> {
        self.unpack()?;
        self.offset = self.size()?;
        self.rest.clear();
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        loop {
            match self.file.read_at(buffer, offset) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                other => return other.with_context(|| format!("cannot read {}", self.path.display())),
            }
        }
    }

    pub fn read(&mut self, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.unpack()?;
        let mut chunk = vec![0; CHUNK];
        loop {
            let n = self.read_at(&mut chunk, self.offset)?;
            if n == 0 {
                return Ok(());
            }
            self.offset += n as u64;
            let mut lines = &chunk[..n];
            if !self.rest.is_empty() {
                let Some(end) = memchr::memchr(b'\n', lines) else {
                    self.rest.extend_from_slice(lines);
                    continue;
                };
                self.rest.extend_from_slice(&lines[..end]);
                lines = &lines[end + 1..];
                let line = std::mem::take(&mut self.rest);
                each(&line)?;
            }
            while let Some(end) = memchr::memchr(b'\n', lines) {
                each(&lines[..end])?;
                lines = &lines[end + 1..];
            }
            self.rest.extend_from_slice(lines);
        }
    }

    /// Whether `enough` was; the place to read from is after that line then.
    pub fn seek_back(&mut self, enough: &mut dyn FnMut(&[u8]) -> bool) -> Result<bool> {
        self.unpack()?;
        let mut start = self.size()?;
        // The beginning of a line that reaches into what was looked at before.
        let mut tail: Vec<u8> = Vec::new();
        let mut has_end = false;
        while start > 0 {
            let n = start.min(CHUNK as u64);
            start -= n;
            let mut block = vec![0; n as usize];
            let mut filled = 0;
            while filled < block.len() {
                match self.read_at(&mut block[filled..], start + filled as u64)? {
                    0 => break,
                    more => filled += more,
                }
            }
            block.truncate(filled);
            block.extend_from_slice(&tail);
            let mut end = block.len();
            while let Some(newline) = memchr::memrchr(b'\n', &block[..end]) {
                // What comes after the last newline is no line yet.
                if has_end && enough(&block[newline + 1..end]) {
                    self.offset = start + end as u64 + 1;
                    return Ok(true);
                }
                has_end = true;
                end = newline;
            }
            block.truncate(end);
            tail = block;
        }
        if has_end && enough(&tail) {
            self.offset = tail.len() as u64 + 1;
            return Ok(true);
        }
        Ok(false)
    }
}
