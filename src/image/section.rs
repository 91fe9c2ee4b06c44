//! A section: a range of bytes of a file, read by position, so that many threads can read one file.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// The bytes of a file from here to there.
#[derive(Debug, Clone)]
pub struct Section {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Section {
    /// `size` bytes from `at` on.
    pub fn new(file: Arc<File>, at: u64, size: u64) -> Section {
        Section { file, at, end: at.saturating_add(size) }
    }

    /// All of a file.
    pub fn whole(file: File) -> io::Result<Section> {
        let size = file.metadata()?.len();
        Ok(Section::new(Arc::new(file), 0, size))
    }

    /// How many bytes are left.
    pub fn size(&self) -> u64 {
        self.end - self.at
    }

    /// A section of this one, `at` counted from where this one stands.
    pub fn part(&self, at: u64, size: u64) -> Section {
        let start = self.at.saturating_add(at).min(self.end);
        Section { file: self.file.clone(), at: start, end: start.saturating_add(size).min(self.end) }
    }

    /// Passes over so many bytes; false if there are fewer.
    pub fn skip(&mut self, n: u64) -> bool {
        let fits = n <= self.size();
        self.at += n.min(self.size());
        fits
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.size()).unwrap_or(usize::MAX).min(buffer.len());
        let n = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}
