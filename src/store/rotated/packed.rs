//! Compressed files of a log: PATH.N.gz, which says in its header of which file it is a copy.
//!
//! Compressing goes piece by piece, each a gzip member (RFC 1952, 2.2) of its own: who writes the log does one piece now and
//! then, keeps nothing in memory in between, and may be killed at any time. A copy is named when it is whole, and only then
//! the file goes.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use flate2::bufread::MultiGzDecoder;
use flate2::{Compression, GzBuilder};

use super::{numbered, with_suffix};
use crate::fs;

/// Bytes of a piece.
const PIECE: usize = 256 << 10;

/// The name of the compressed copy of `path`.
pub(super) fn name(path: &Path) -> PathBuf {
    with_suffix(path, ".gz")
}

/// What tells a file from every other one, also from one that gets its number later.
pub(super) fn stamp_of(file: &File) -> Result<String> {
    let meta = file.metadata().context("cannot look at a log")?;
    Ok(format!("{}:{}:{}.{:09}", meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec()))
}

/// The stamp of the file that this is a copy of.
pub(super) fn stamp_in(packed: &File) -> Option<String> {
    let mut start = vec![0; 512];
    let n = packed.read_at(&mut start, 0).ok()?;
    let decoder = flate2::bufread::GzDecoder::new(&start[..n]);
    String::from_utf8(decoder.header()?.comment()?.to_vec()).ok()
}

/// What a compressed file holds, as a file without a name beside it, or in memory where the disk takes none.
pub(super) fn unpack(packed: &File, path: &Path) -> Result<File> {
    let beside = fs::create_unnamed(path.parent().unwrap_or(Path::new("/")));
    if let Ok(file) = beside.and_then(|file| unpack_to(packed, file)) {
        return Ok(file);
    }
    let memory = rustix::fs::memfd_create("dhow-log", rustix::fs::MemfdFlags::CLOEXEC)?;
    unpack_to(packed, memory.into())
}

fn unpack_to(packed: &File, mut to: File) -> Result<File> {
    let mut from = packed;
    std::io::Seek::rewind(&mut from)?;
    std::io::copy(&mut MultiGzDecoder::new(std::io::BufReader::new(from)), &mut to)?;
    Ok(to)
}

/// A file that is being compressed.
#[derive(Debug)]
pub struct Packing {
    from: File,
    from_path: PathBuf,
    to: File,
    to_path: PathBuf,
    offset: u64,
}

impl Packing {
    /// Begins with the file that was last rotated away from `path`, if it is not compressed yet.
    pub fn begin(path: &Path) -> Result<Option<Packing>> {
        let from_path = numbered(path, 1);
        if fs::symlink_metadata(&from_path)?.is_none() {
            return Ok(None);
        }
        let from = fs::open(&from_path)?;
        let to_path = with_suffix(path, ".packing");
        // What an earlier one left that was cut short.
        fs::remove_file(&to_path)?;
        let to = fs::create_new(&to_path, 0o600)?;
        Ok(Some(Packing { from, from_path, to, to_path, offset: 0 }))
    }

    /// Does one piece; true if that was the last.
    pub fn step(&mut self) -> Result<bool> {
        let about = || format!("cannot compress {}", self.from_path.display());
        let mut piece = vec![0; PIECE];
        let n = self.from.read_at(&mut piece, self.offset).with_context(about)?;
        let stamp = stamp_of(&self.from)?;
        let mut encoder = GzBuilder::new().comment(stamp).write(Vec::new(), Compression::fast());
        let packed = encoder.write_all(&piece[..n]).and_then(|()| encoder.finish());
        packed.and_then(|bytes| self.to.write_all(&bytes)).with_context(about)?;
        self.offset += n as u64;
        let size = self.from.metadata().with_context(about)?.len();
        if n > 0 && self.offset < size {
            return Ok(false);
        }
        // Before what it replaces goes: that may be on the disk already.
        self.to.sync_data().with_context(about)?;
        fs::rename(&self.to_path, &name(&self.from_path))?;
        fs::remove_file(&self.from_path)?;
        Ok(true)
    }

    /// Does all that is left.
    pub fn finish(mut self) -> Result<()> {
        while !self.step()? {}
        Ok(())
    }
}

impl Drop for Packing {
    /// What is not whole is of no use; a copy that is whole has another name by now.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.to_path);
    }
}
