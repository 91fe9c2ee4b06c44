//! Reading files that grow by lines and are rotated: PATH is written, PATH.1 is the one before it, PATH.2 the one before
//! that. Used for containers' logs and for the journal.
//!
//! A reader follows the files and not their names: what is renamed while it is read is read to its end, and a line that a
//! slow writer adds to a file after that was renamed is read as well.
//!
//! A file that nobody writes to any more may be compressed (`packed`): PATH.1.gz in place of PATH.1.

mod packed;
mod part;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::fs;
pub use packed::Packing;
use part::Part;

/// Bytes that are read at once.
const CHUNK: usize = 128 << 10;
/// So often it is looked for new files while they are rotated all the time.
const LOOKS: u32 = 100;

/// The name of the file that was rotated `n` times.
pub fn numbered(path: &Path, n: u32) -> PathBuf {
    if n == 0 {
        return path.to_owned();
    }
    with_suffix(path, &format!(".{n}"))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Makes room at `path` for a new file: each of `n_files` moves on by one, and the oldest is gone.
pub fn rotate(path: &Path, n_files: u32) -> Result<()> {
    if n_files <= 1 {
        return fs::remove_file(path);
    }
    for n in (0..n_files - 1).rev() {
        let (from, to) = (numbered(path, n), numbered(path, n + 1));
        // One is missing where a rotation was cut short.
        if fs::symlink_metadata(&from)?.is_some() {
            fs::rename(&from, &to)?;
            fs::remove_file(&packed::name(&to))?;
        } else if n > 0 && fs::symlink_metadata(&packed::name(&from))?.is_some() {
            fs::rename(&packed::name(&from), &packed::name(&to))?;
            fs::remove_file(&to)?;
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

    /// Opens what came since the last look.
    fn find_new(&mut self) -> Result<()> {
        self.find_new_by(&mut part_at)
    }

    /// Newest first, so that a rotation in between shows a file twice, and never hides one. After two of them a newer one
    /// would follow an older one: then it is looked again.
    fn find_new_by(&mut self, part_at: &mut dyn FnMut(&Path, u32) -> Result<Option<Part>>) -> Result<()> {
        let newest = self.parts.last().map(|part| part.identity);
        let mut found: Vec<Part> = Vec::new();
        for _ in 0..LOOKS {
            let first = identity(&self.path)?;
            if newest.is_some() && first == newest {
                return Ok(());
            }
            found.clear();
            for n in 0..self.n_files.max(1) {
                let Some(part) = part_at(&self.path, n)? else { continue };
                if self.parts.last().is_some_and(|newest| newest.is(&part)) {
                    break;
                }
                if !found.iter().any(|p: &Part| p.is(&part)) {
                    found.push(part);
                }
            }
            if identity(&self.path)? == first {
                break;
            }
        }
        let known = |part: &Part| self.parts.iter().any(|p| p.is(part));
        found.retain(|part| !known(part));
        self.parts.extend(found.into_iter().rev());
        Ok(())
    }
}

/// What was rotated `n` times, if it is there: it may be renamed, or go, between the look and the opening. One that is
/// compressed is there before the other goes.
fn part_at(path: &Path, n: u32) -> Result<Option<Part>> {
    let path = numbered(path, n);
    if let Some(file) = identity(&path)?.and_then(|_| fs::open(&path).ok()) {
        return Part::of(file, &path).map(Some);
    }
    let path = packed::name(&path);
    let Some(file) = fs::open(&path).ok().filter(|_| n > 0) else { return Ok(None) };
    Part::packed(file, &path).map(Some)
}

type Identity = (u64, u64);

fn identity(path: &Path) -> Result<Option<Identity>> {
    Ok(fs::metadata(path)?.filter(std::fs::Metadata::is_file).map(|m| (m.dev(), m.ino())))
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
    fn files_are_in_order_whatever_is_rotated_meanwhile() {
        let path = scratch("meanwhile");
        let add = |text: &str| fs::append(&path, 0o600).unwrap().write_all(text.as_bytes()).unwrap();
        let mut lines = Lines::new(&path, 9);
        add("1\n");
        rotate(&path, 9).unwrap();
        add("2\n");
        let mut opened = 0;
        lines
            .find_new_by(&mut |path, n| {
                let part = part_at(path, n);
                opened += 1;
                // Two rotations after the first look: what was not there then is where the second one looks.
                for text in ["3\n", "4\n"].iter().filter(|_| opened == 1) {
                    rotate(path, 9).unwrap();
                    add(text);
                }
                part
            })
            .unwrap();
        assert_eq!(new_lines(&mut lines), ["1", "2", "3", "4"]);
        fs::remove_tree(path.parent().unwrap()).unwrap();
    }

    /// Compresses what was rotated last.
    fn pack(path: &Path) {
        let mut packing = Packing::begin(path).unwrap().unwrap();
        while !packing.step().unwrap() {}
    }

    #[test]
    fn compressed_files_are_read_as_the_others() {
        let path = scratch("packed");
        let add = |text: &str| fs::append(&path, 0o600).unwrap().write_all(text.as_bytes()).unwrap();
        let turn = || {
            rotate(&path, 4).unwrap();
            pack(&path);
        };
        let mut follower = Lines::new(&path, 4);
        add("1\n2\n");
        assert_eq!(new_lines(&mut follower), ["1", "2"]);
        add("3\n");
        turn();
        add("4\n");
        assert_eq!(new_lines(&mut follower), ["3", "4"], "of what was compressed only what is new, and once");
        turn();
        add("4\n");
        turn();
        add("5\n");
        assert_eq!(new_lines(&mut follower), ["4", "5"], "same text, another file");
        assert!(new_lines(&mut follower).is_empty());
        let names = fs::read_dir(path.parent().unwrap()).unwrap();
        let mut names: Vec<_> = names.iter().map(|n| n.to_str().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, ["f", "f.1.gz", "f.2.gz", "f.3.gz"]);
        assert_eq!(new_lines(&mut Lines::new(&path, 4)), ["1", "2", "3", "4", "4", "5"]);
        for (wanted, want) in
            [(2, &["4", "5"][..]), (3, &["4", "4", "5"]), (9, &["1", "2", "3", "4", "4", "5"])]
        {
            let mut lines = Lines::new(&path, 4);
            let mut left = wanted;
            lines
                .seek_back(&mut |_| {
                    let is_enough = left == 0;
                    left = usize::saturating_sub(left, 1);
                    is_enough
                })
                .unwrap();
            assert_eq!(new_lines(&mut lines), want, "{wanted}");
        }
        turn();
        assert_eq!(new_lines(&mut Lines::new(&path, 4)), ["4", "4", "5"], "the oldest is gone");
        // One that was cut short counts for nothing, and is begun anew.
        add("6\n");
        rotate(&path, 4).unwrap();
        drop(Packing::begin(&path).unwrap());
        assert_eq!(new_lines(&mut Lines::new(&path, 4)), ["4", "5", "6"]);
        pack(&path);
        assert_eq!(new_lines(&mut Lines::new(&path, 4)), ["4", "5", "6"]);
        assert!(Packing::begin(&path).unwrap().is_none(), "nothing is left to do");
        fs::remove_tree(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn large_files_are_compressed_piece_by_piece() {
        let path = scratch("large");
        let text: String = (0..100_000).map(|n| format!("line {n}\n")).collect();
        fs::append(&path, 0o600).unwrap().write_all(text.as_bytes()).unwrap();
        rotate(&path, 2).unwrap();
        let mut packing = Packing::begin(&path).unwrap().unwrap();
        let mut n_steps = 1;
        while !packing.step().unwrap() {
            n_steps += 1;
        }
        assert!(n_steps > 2, "{n_steps}");
        let size = fs::metadata(&packed::name(&numbered(&path, 1))).unwrap().unwrap().len();
        assert!(size < text.len() as u64 / 2, "{size}");
        let lines = new_lines(&mut Lines::new(&path, 2));
        assert!(lines.len() == 100_000 && lines[99_999] == "line 99999");
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
