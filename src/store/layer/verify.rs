//! Comparing a layer with its record.

use std::io;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::fs;
use crate::oci::DiffId;

use super::super::Store;
use super::split::{Reader, Record};
use super::{layout, tar};

/// How closely to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Whether everything is there and has its size.
    Quick,
    /// The archive is made again, and must have the layer's digest.
    Full,
}

/// Looks whether a layer of our own is what its record says; the error tells what is wrong with it. Returns the size of
/// its archive.
pub fn verify(store: &Store, diff_id: &DiffId, depth: Depth) -> Result<u64> {
    let layer = layout::layer(store, diff_id);
    let path = layer.join(layout::RECORD);
    let text = fs::read_to_string_if_exists(&path)?.context("its record is missing")?;
    let record: super::Record = serde_json::from_str(&text).context("its record is damaged")?;
    let size = match depth {
        Depth::Quick => sizes(&layer)?,
        Depth::Full => {
            let mut counted = Counted(0);
            let found = tar::write(&layer, &mut counted)?;
            if found != diff_id.0 {
                bail!("its content has digest {found}");
            }
            counted.0
        }
    };
    if size != record.size {
        bail!("its archive would have {size} bytes, not {}", record.size);
    }
    Ok(size)
}

/// The size that the archive would have, if every file has the size that it should have.
fn sizes(layer: &Path) -> Result<u64> {
    let mut split = Reader::new(fs::open(&layer.join(layout::SPLIT))?)?;
    let contents = tar::Contents::open(layer)?;
    let mut total = 0;
    while let Some(record) = split.next()? {
        total += match record {
            Record::Raw(bytes) => bytes.len() as u64,
            Record::File { path, inode, size } => {
                contents.check(&path, inode, size).with_context(|| {
                    format!("cannot find {} of the layer", String::from_utf8_lossy(&path))
                })?;
                size
            }
        };
    }
    Ok(total)
}

struct Counted(u64);

impl io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
