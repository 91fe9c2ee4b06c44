//! How a layer lies on those beneath it: its file `stacking`, which most layers do not have.
//!
//! ```text
//! flags (1: the root is opaque)   (shared  length  bytes)*   0 0
//! ```
//!
//! The records are the paths of implied directories, parents first: each shares so many bytes at the front with the one
//! before, and ends with these. Numbers as in `split`.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::fs;

use super::layout;
use super::split::{read_number, write_number};

const OPAQUE_ROOT: u64 = 1;
/// More than the deepest directory's path.
const MAX_PATH: u64 = 2 << 20;

/// Writes the file where there is something to write.
pub(super) struct Writer {
    path: PathBuf,
    out: Option<BufWriter<File>>,
    last: Vec<u8>,
}

impl Writer {
    pub(super) fn new(layer: &Path, is_opaque: bool) -> Result<Writer> {
        let mut writer = Writer { path: layer.join(layout::STACKING), out: None, last: Vec::new() };
        if is_opaque {
            writer.begin(OPAQUE_ROOT)?;
        }
        Ok(writer)
    }

    /// One more implied directory.
    pub(super) fn implied(&mut self, path: &[u8]) -> Result<()> {
        if self.out.is_none() {
            self.begin(0)?;
        }
        let same = path.iter().zip(&self.last).take_while(|(a, b)| a == b).count();
        // A record of no bytes is the end.
        let shared = same.min(path.len().saturating_sub(1));
        self.record(shared, &path[shared..])?;
        self.last.clear();
        self.last.extend_from_slice(path);
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<()> {
        self.record(0, &[])?;
        match &mut self.out {
            Some(out) => out.flush().with_context(|| format!("cannot write {}", self.path.display())),
            None => Ok(()),
        }
    }

    fn begin(&mut self, flags: u64) -> Result<()> {
        let mut out = BufWriter::new(fs::create_new(&self.path, 0o644)?);
        write_number(&mut out, flags).with_context(|| format!("cannot write {}", self.path.display()))?;
        self.out = Some(out);
        Ok(())
    }

    fn record(&mut self, shared: usize, rest: &[u8]) -> Result<()> {
        let Some(out) = &mut self.out else { return Ok(()) };
        write_number(out, shared as u64)
            .and_then(|()| write_number(out, rest.len() as u64))
            .and_then(|()| out.write_all(rest))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// Reads the file.
pub(super) struct Reader {
    /// The layer's directory.
    pub(super) layer: PathBuf,
    path: PathBuf,
    input: BufReader<File>,
    /// All that lies beneath the layer is hidden.
    pub(super) is_opaque: bool,
    last: Vec<u8>,
}

impl Reader {
    /// `None` where the layer lies on others like any layer.
    pub(super) fn open(layer: &Path) -> Result<Option<Reader>> {
        let path = layer.join(layout::STACKING);
        if fs::symlink_metadata(&path)?.is_none() {
            return Ok(None);
        }
        let mut input = BufReader::new(fs::open(&path)?);
        let flags = read_number(&mut input).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Some(Reader {
            layer: layer.to_owned(),
            path,
            input,
            is_opaque: flags & OPAQUE_ROOT != 0,
            last: Vec::new(),
        }))
    }

    /// The next implied directory.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>> {
        let mut read = || -> Result<bool> {
            let shared = read_number(&mut self.input)?;
            let length = read_number(&mut self.input)?;
            if shared > self.last.len() as u64 || length > MAX_PATH - shared.min(MAX_PATH) {
                bail!("a record makes no sense");
            }
            let (shared, length) = (shared as usize, length as usize);
            self.last.resize(shared + length, 0);
            self.input.read_exact(&mut self.last[shared..])?;
            Ok(length > 0)
        };
        let is_some = read().with_context(|| format!("cannot read {}", self.path.display()))?;
        Ok(is_some.then_some(&self.last[..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Ids;
    use crate::store::tests::Scratch;

    fn read(layer: &Path) -> Option<(bool, Vec<Vec<u8>>)> {
        let mut reader = Reader::open(layer).unwrap()?;
        let mut paths = Vec::new();
        while let Some(path) = reader.next().unwrap() {
            paths.push(path.to_vec());
        }
        Some((reader.is_opaque, paths))
    }

    #[test]
    fn what_is_written_is_read_back() {
        let scratch = Scratch::new(Ids::Root);
        let layer = &scratch.dir;
        Writer::new(layer, false).unwrap().finish().unwrap();
        assert_eq!(read(layer), None);

        let paths: Vec<Vec<u8>> = ["ab", "a", "a/b", "a/b/\n", "x"].map(|p| p.as_bytes().to_vec()).into();
        let mut writer = Writer::new(layer, true).unwrap();
        for path in &paths {
            writer.implied(path).unwrap();
        }
        writer.finish().unwrap();
        assert_eq!(read(layer), Some((true, paths)));
    }
}
