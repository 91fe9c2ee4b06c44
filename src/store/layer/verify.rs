//! Comparing a layer with its record.

use std::io;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};

use crate::fs;
use crate::host::Ids;
use crate::oci::DiffId;

use super::super::Store;
use super::compare::Comparison;
use super::input::with_input;
use super::split::{Reader, Record};
use super::{layout, tar, unpack};

const PIPE_SIZE: usize = 256 * 1024;

/// How closely to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Whether everything is there and has its size.
    Quick,
    /// The archive is made again, must have the layer's digest, and say what is there.
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
        Depth::Full => archive(&layer, diff_id, &store.ids)?,
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

/// Makes the archive again, hashes it, and compares the tree with its entries; returns its size.
fn archive(layer: &Path, diff_id: &DiffId, ids: &Ids) -> Result<u64> {
    let mut comparison = Comparison::new(layer, ids)?;
    let (reader, mut writer) = io::pipe().context("cannot make a pipe")?;
    // As large as a chunk of the reader's, if we may.
    let _ = rustix::pipe::fcntl_setpipe_size(&writer, PIPE_SIZE);
    let (made, compared) = std::thread::scope(|scope| {
        // The writing end is closed when all is written, which ends the reader.
        let made = scope.spawn(move || tar::write_unhashed(layer, &mut writer));
        let compared = with_input(reader, diff_id.0.algorithm(), |input| {
            unpack::entries(input, |entry| comparison.entry(entry))
        });
        (made.join(), compared)
    });
    let made = made.map_err(|_| anyhow!("its archive could not be made"))?;
    let ((), found, size) = match (made, compared) {
        // It was the reader that went away.
        (Err(error), Err(reason)) if is_broken_pipe(&error) => return Err(reason),
        // That a file cannot be read says more than that the archive ended too early.
        (Err(error), _) => return Err(error),
        (Ok(()), compared) => compared?,
    };
    if found != diff_id.0 {
        bail!("its content has digest {found}");
    }
    comparison.finish()?;
    Ok(size)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
