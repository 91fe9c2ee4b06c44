//! Reading files that grow by lines and are rotated: PATH is written, PATH.1 is the one before it, PATH.2 the one before
//! that. Used for containers' logs and for the journal.
//!
//! A reader follows the files and not their names: what is renamed while it is read is read to its end, and a line that a
//! slow writer adds to a file after that was renamed is read as well.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::fs;

/// Bytes that are read at once.
const CHUNK: usize = 128 << 10;

/// The name of the file that was rotated `n` times.
pub fn numbered(path: &Path, n: u32) -> PathBuf {
    if n == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    PathBuf::from(name)
}

/// Makes room at `path` for a new file: each of `n_files` moves on by one, and the oldest is gone.
pub fn rotate(path: &Path, n_files: u32) -> Result<()> {
    if n_files <= 1 {
        return fs::remove_file(path);
    }
    for n in (0..n_files - 1).rev() {
        let from = numbered(path, n);
        // One is missing where a rotation was cut short.
        if fs::symlink_metadata(&from)?.is_some() {
            fs::rename(&from, &numbered(path, n + 1))?;
        }
    }
    Ok(())
}

/// Reads all files of one log, oldest first, and on from there when called again.
#[derive(Debug)]
pub struct Lines {
    path: PathBuf,
    n_files: u32,
    /// Oldest first.
    parts: Vec<Part>,
}

impl Lines {
    /// A reader of the files at `path`, of which there are at most `n_files`. Opens nothing yet.
    pub fn new(path: &Path, n_files: u32) -> Lines {
        Lines { path: path.to_owned(), n_files, parts: Vec::new() }
    }

    /// Gives each whole line, without its newline, that came since the last call.
    pub fn read(&mut self, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.find_new()?;
        for part in &mut self.parts {
            part.read(each)?;
        }
        // What is rotated away can still be read as long as it is open; nobody writes to it any more.
        let gone = self.parts.len().saturating_sub(self.n_files.max(1) as usize);
        self.parts.drain(..gone);
        Ok(())
    }

    /// Passes over all that is there now.
    pub fn skip(&mut self) -> Result<()> {
        self.find_new()?;
        self.parts.iter_mut().try_for_each(Part::skip)
    }

    /// Goes back from the end line by line, newest first, until `enough` says of a line that reading is to begin after it.
    /// All lines are read if it never does. To be called before `read`.
    pub fn seek_back(&mut self, enough: &mut dyn FnMut(&[u8]) -> bool) -> Result<()> {
        self.find_new()?;
        for at in (0..self.parts.len()).rev() {
            if self.parts[at].seek_back(enough)? {
                self.parts.drain(..at);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Opens what came since the last look. Newest first, so that a rotation in between shows a file twice, and never
    /// hides one.
    fn find_new(&mut self) -> Result<()> {
        let newest = self.parts.last().map(|part| part.identity);
        let mut found = Vec::new();
        for n in 0..self.n_files.max(1) {
            let path = numbered(&self.path, n);
            if n == 0 && newest.is_some() && identity(&path)? == newest {
                return Ok(());
            }
            if identity(&path)?.is_none() {
                continue;
            }
            // It may be renamed, or go, between the look and the opening.
            let Ok(file) = fs::open(&path) else { continue };
            let part = Part::of(file, &path)?;
            if Some(part.identity) == newest {
                break;
            }
            if !found.iter().any(|p: &Part| p.identity == part.identity) {
                found.push(part);
            }
        }
        let known = |part: &Part| self.parts.iter().any(|p| p.identity == part.identity);
        found.retain(|part| !known(part));
        self.parts.extend(found.into_iter().rev());
        Ok(())
    }
}

type Identity = (u64, u64);

fn identity(path: &Path) -> Result<Option<Identity>> {
    Ok(fs::metadata(path)?.filter(std::fs::Metadata::is_file).map(|m| (m.dev(), m.ino())))
}

/// One file, and how far it was read.
#[derive(Debug)]
struct Part {
    identity: Identity,
    path: PathBuf,
    file: File,
    offset: u64,
    /// A line whose end was not there yet.
    rest: Vec<u8>,
}

impl Part {
    fn of(file: File, path: &Path) -> Result<Part> {
        let meta = file.metadata().with_context(|| format!("cannot look at {}", path.display()))?;
        let identity = (meta.dev(), meta.ino());
        Ok(Part { identity, path: path.to_owned(), file, offset: 0, rest: Vec::new() })
    }

    fn size(&self) -> Result<u64> {
        Ok(self.file.metadata().with_context(|| format!("cannot look at {}", self.path.display()))?.len())
    }

    fn skip(&mut self) -> Result<()> {
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

    fn read(&mut self, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
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
    fn seek_back(&mut self, enough: &mut dyn FnMut(&[u8]) -> bool) -> Result<bool> {
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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("dhow-rotated-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir, 0o700).unwrap();
        dir.join("f")
    }

    fn new_lines(lines: &mut Lines) -> Vec<String> {
        let mut all = Vec::new();
        lines
            .read(&mut |line| {
                all.push(String::from_utf8_lossy(line).into_owned());
                Ok(())
            })
            .unwrap();
        all
    }

    #[test]
    fn a_reader_follows_files_and_not_names() {
        let path = scratch("follow");
        let add = |text: &str| fs::append(&path, 0o600).unwrap().write_all(text.as_bytes()).unwrap();
        let mut lines = Lines::new(&path, 3);
        assert!(new_lines(&mut lines).is_empty(), "nothing is there yet");
        add("1\n2\nhal");
        assert_eq!(new_lines(&mut lines), ["1", "2"]);
        let mut late = fs::append(&path, 0o600).unwrap();
        rotate(&path, 3).unwrap();
        add("3\n");
        late.write_all(b"f\n").unwrap();
        assert_eq!(new_lines(&mut lines), ["half", "3"], "also what comes to a file that was renamed");
        rotate(&path, 3).unwrap();
        add("4\n");
        rotate(&path, 3).unwrap();
        add("5\n");
        assert_eq!(new_lines(&mut lines), ["4", "5"], "two rotations between two looks");
        assert_eq!(new_lines(&mut Lines::new(&path, 3)), ["3", "4", "5"], "the oldest is gone");
        let mut late = Lines::new(&path, 3);
        late.skip().unwrap();
        add("6\n");
        assert_eq!(new_lines(&mut late), ["6"]);
        fs::remove_tree(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn one_file_is_emptied() {
        let path = scratch("one");
        let add = |text: &str| fs::append(&path, 0o600).unwrap().write_all(text.as_bytes()).unwrap();
        add("1\n");
        rotate(&path, 1).unwrap();
        add("2\n");
        assert_eq!(new_lines(&mut Lines::new(&path, 1)), ["2"]);
        fs::remove_tree(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn the_end_is_found_from_the_end() {
        let path = scratch("back");
        for (long, n_lines) in [(1, 10), (1000, 1000), (CHUNK, 5)] {
            let _ = fs::remove_file(&path);
            let all: Vec<String> = (0..n_lines).map(|n| format!("{n}{}", "x".repeat(long))).collect();
            for (n, line) in all.iter().enumerate() {
                fs::append(&path, 0o600).unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
                if n == n_lines / 3 {
                    rotate(&path, 2).unwrap();
                }
            }
            fs::append(&path, 0o600).unwrap().write_all(b"no line yet").unwrap();
            for wanted in [0, 1, 2, n_lines / 2, n_lines - 1, n_lines, n_lines + 5] {
                let mut lines = Lines::new(&path, 2);
                let mut left = wanted;
                lines
                    .seek_back(&mut |_| {
                        let is_enough = left == 0;
                        left = left.saturating_sub(1);
                        is_enough
                    })
                    .unwrap();
                let found = new_lines(&mut lines);
                assert!(found == all[n_lines.saturating_sub(wanted)..], "{long} {n_lines} {wanted}");
            }
            let _ = fs::remove_file(&numbered(&path, 1));
        }
        fs::remove_tree(path.parent().unwrap()).unwrap();
    }
}
