//! A container's log: lines `TIME STREAM TAG CONTENT`, the format of the Kubernetes CRI. TAG is `F` for a line that ended
//! with a newline, `P` for a part of one. CONTENT is what the program wrote, byte for byte; it never holds a newline, so
//! the log is safe for any bytes and readable with any tool.
//!
//! A log that cannot be written (a full disk) does not stop the container: what is missing is said where it is missing, as
//! soon as that can be written.
//!
//! Bounded: at `MAX_SIZE` the file becomes log.1, log.1 becomes log.2, and what was log.2 is gone.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::Timestamp;

use crate::fs;

const MAX_SIZE: u64 = 10 << 20;
const MAX_FILES: u32 = 3;
/// A longer line is kept in parts.
const MAX_LINE: usize = 16 << 10;

/// Which of the program's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// stdout, or the terminal.
    Out,
    /// stderr.
    Err,
}

impl Stream {
    fn word(self) -> &'static str {
        match self {
            Stream::Out => "stdout",
            Stream::Err => "stderr",
        }
    }
}

/// The writing side.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: File,
    size: u64,
    /// What came of a line so far, for each stream.
    partial: [Vec<u8>; 2],
    /// Why something is missing, until the log says so itself.
    lost: Option<String>,
}

impl Writer {
    /// Opens (or goes on with) the log at `path`.
    pub fn open(path: &Path) -> Result<Writer> {
        let file = fs::append(path, 0o600)?;
        let size = file.metadata().with_context(|| format!("cannot look at {}", path.display()))?.len();
        let mut writer =
            Writer { path: path.to_owned(), file, size, partial: [Vec::new(), Vec::new()], lost: None };
        if size > 0 {
            // A supervisor that was killed may have left half a line.
            writer.append(b"\n");
        }
        Ok(writer)
    }

    /// Adds what the program wrote.
    pub fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let mut entries = Vec::with_capacity(bytes.len() + 64);
        let now = Timestamp::now();
        let mut partial = std::mem::take(&mut self.partial[stream as usize]);
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                partial.pop();
                entry(&mut entries, now, stream, 'F', &partial);
                partial.clear();
            }
            while partial.len() >= MAX_LINE {
                let rest = partial.split_off(MAX_LINE);
                entry(&mut entries, now, stream, 'P', &partial);
                partial = rest;
            }
        }
        self.partial[stream as usize] = partial;
        self.append(&entries);
    }

    /// Writes out lines that never got their newline.
    pub fn finish(&mut self) {
        let mut entries = Vec::new();
        for stream in [Stream::Out, Stream::Err] {
            let partial = std::mem::take(&mut self.partial[stream as usize]);
            if !partial.is_empty() {
                entry(&mut entries, Timestamp::now(), stream, 'P', &partial);
            }
        }
        self.append(&entries);
    }

    fn append(&mut self, entries: &[u8]) {
        if entries.is_empty() {
            return;
        }
        let told = self.lost.as_ref().map(|why| {
            let mut told = Vec::new();
            let text = format!("[dhow: output is missing here: {why}]");
            entry(&mut told, Timestamp::now(), Stream::Err, 'F', text.as_bytes());
            [told.as_slice(), entries].concat()
        });
        match self.try_append(told.as_deref().unwrap_or(entries)) {
            Ok(()) => self.lost = None,
            Err(error) => {
                self.lost = Some(format!("{error:#}"));
                // Not half an entry, which would spoil the next one.
                let _ = self.file.set_len(self.size);
            }
        }
    }

    fn try_append(&mut self, entries: &[u8]) -> Result<()> {
        if self.size > 0 && self.size + entries.len() as u64 > MAX_SIZE {
            self.rotate()?;
        }
        self.file.write_all(entries).with_context(|| format!("cannot write {}", self.path.display()))?;
        self.size += entries.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> Result<()> {
        for n in (1..MAX_FILES).rev() {
            let from = if n == 1 { self.path.clone() } else { numbered(&self.path, n - 1) };
            if fs::metadata(&from)?.is_some() {
                fs::rename(&from, &numbered(&self.path, n))?;
            }
        }
        self.file = fs::append(&self.path, 0o600)?;
        self.size = 0;
        Ok(())
    }
}

fn entry(to: &mut Vec<u8>, time: Timestamp, stream: Stream, tag: char, content: &[u8]) {
    to.extend_from_slice(format!("{time:.9} {} {tag} ", stream.word()).as_bytes());
    to.extend_from_slice(content);
    to.push(b'\n');
}

fn numbered(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    PathBuf::from(name)
}

/// One entry of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When it was written.
    pub time: Timestamp,
    /// On which stream.
    pub stream: Stream,
    /// The program's bytes, with the newline if there was one.
    pub content: Vec<u8>,
}

/// Parses one line of a log without its newline; `None` for one that is not ours (a half line after a crash).
pub fn parse(line: &[u8]) -> Option<Entry> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let stream = match parts.next()? {
        b"stdout" => Stream::Out,
        b"stderr" => Stream::Err,
        _ => return None,
    };
    let whole = match parts.next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    let mut content = parts.next()?.to_vec();
    if whole {
        content.push(b'\n');
    }
    Some(Entry { time, stream, content })
}

/// The files of a log, oldest first.
pub fn files(path: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = (1..MAX_FILES).rev().map(|n| numbered(path, n)).collect();
    all.push(path.to_owned());
    all
}

/// Reads a log that may still grow: entries up to its present end, and on from there when called again.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: Option<File>,
    rest: Vec<u8>,
}

impl Reader {
    /// A reader of the log at `path`.
    pub fn new(path: &Path) -> Reader {
        Reader { path: path.to_owned(), file: None, rest: Vec::new() }
    }

    /// All entries so far, the rotated files' among them; later calls give what was added since.
    pub fn read(&mut self, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        if self.file.is_none() {
            for path in files(&self.path) {
                if fs::metadata(&path)?.is_some() {
                    let mut file = fs::open(&path)?;
                    self.read_file(&mut file, each)?;
                    self.file = Some(file);
                }
            }
            return Ok(());
        }
        let Some(mut file) = self.file.take() else { return Ok(()) };
        self.read_file(&mut file, each)?;
        if self.was_rotated(&file)? {
            file = fs::open(&self.path)?;
            file.rewind().with_context(|| format!("cannot read {}", self.path.display()))?;
            self.read_file(&mut file, each)?;
        }
        self.file = Some(file);
        Ok(())
    }

    fn was_rotated(&self, file: &File) -> Result<bool> {
        use std::os::unix::fs::MetadataExt;
        let ours = file.metadata().with_context(|| format!("cannot look at {}", self.path.display()))?;
        Ok(fs::metadata(&self.path)?.is_some_and(|now| now.ino() != ours.ino()))
    }

    fn read_file(&mut self, file: &mut File, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let mut chunk = vec![0; 64 << 10];
        loop {
            let n = file.read(&mut chunk).with_context(|| format!("cannot read {}", self.path.display()))?;
            if n == 0 {
                return Ok(());
            }
            self.rest.extend_from_slice(&chunk[..n]);
            while let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                if let Some(entry) = parse(&line[..end]) {
                    each(entry)?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("dhow-log-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir, 0o700).unwrap();
        dir.join("log")
    }

    fn all(path: &Path) -> (Vec<u8>, Vec<u8>) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        Reader::new(path)
            .read(&mut |e| {
                match e.stream {
                    Stream::Out => out.extend(e.content),
                    Stream::Err => err.extend(e.content),
                }
                Ok(())
            })
            .unwrap();
        (out, err)
    }

    #[test]
    fn bytes_come_back_as_they_were_written() {
        let path = scratch("bytes");
        let mut log = Writer::open(&path).unwrap();
        let long = vec![b'x'; 40_000];
        log.write(Stream::Out, b"a\xff\0b\n\nhalf");
        log.write(Stream::Err, b"e\n");
        log.write(Stream::Out, b" line\n");
        log.write(Stream::Out, &long);
        log.finish();
        let (out, err) = all(&path);
        assert_eq!(out, [b"a\xff\0b\n\nhalf line\n".as_slice(), &long].concat());
        assert_eq!(err, b"e\n");
        fs::remove_tree(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn the_log_is_bounded() {
        let path = scratch("bounded");
        let mut log = Writer::open(&path).unwrap();
        let line = [vec![b'y'; 8000], b"\n".to_vec()].concat();
        for _ in 0..5000 {
            log.write(Stream::Out, &line);
        }
        let size: u64 = files(&path).iter().filter_map(|f| fs::metadata(f).unwrap()).map(|m| m.len()).sum();
        assert!(size <= MAX_SIZE * u64::from(MAX_FILES) && size > MAX_SIZE, "{size}");
        fs::remove_tree(path.parent().unwrap()).unwrap();
    }
}
