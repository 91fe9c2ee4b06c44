//! A remnant: what an interrupted pull has unpacked of a layer that came uncompressed, read as the archive's first bytes.
//!
//! Of such a layer nothing is kept but what is unpacked: a copy of its bytes, for the case that the pull is interrupted,
//! would be written in every pull and needed in hardly any. So an interrupted pull leaves the tree as far as it is, and as
//! a layer can be made into its archive again, half a layer can be made into half of it. The next pull, of any process,
//! reads these bytes from here and the others from the registry, and unpacks all of them anew; only then is the remnant
//! read twice, and the disk has it twice for as long as that takes.
//!
//! The split is written out now and then (`split::Writer`), so hardly more than a hundred kilobytes are fetched again. What a
//! remnant gives is worth as much as a partial: nothing until it was hashed, together with the rest.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;

use anyhow::Result;

use crate::fs;
use crate::store::partial::Partial;

use super::layout;
use super::split::{Reader, Record};
use super::tar::Contents;

/// The first bytes of an archive, which are read from the start.
pub struct Remnant {
    length: u64,
    left: u64,
    split: Reader,
    contents: Contents,
    now: Now,
}

enum Now {
    Raw(Cursor<Vec<u8>>),
    File(io::Take<File>),
}

/// Takes what is beside a partial out of the way of the next unpacking; `None` where there is nothing of use. It is
/// there until [`Partial::clear_remnant`], and for the next one if this one is interrupted too.
pub fn take(partial: &Partial) -> Result<Option<Remnant>> {
    let (tree, remnant) = (partial.tree(), partial.remnant());
    // Both are there where an unpacking was interrupted that read a remnant: then the longer one is of more use.
    let (new, old) = (open(&tree), open(&remnant));
    if length(&new) > length(&old) {
        fs::remove_tree(&remnant)?;
        fs::rename(&tree, &remnant)?;
        return Ok(new);
    }
    fs::remove_tree(&tree)?;
    if length(&old) == 0 {
        fs::remove_tree(&remnant)?;
        return Ok(None);
    }
    Ok(old)
}

fn length(remnant: &Option<Remnant>) -> u64 {
    remnant.as_ref().map_or(0, |remnant| remnant.length)
}

/// What cannot be read is of no use, for whatever reason.
fn open(layer: &Path) -> Option<Remnant> {
    fs::symlink_metadata(layer).ok()??;
    let length = measure(layer).ok()?;
    Some(Remnant {
        length,
        left: length,
        split: Reader::new(fs::open(&layer.join(layout::SPLIT)).ok()?).ok()?,
        contents: Contents::open(layer).ok()?,
        now: Now::Raw(Cursor::default()),
    })
}

/// How many bytes there are up to the first one that is missing.
fn measure(layer: &Path) -> Result<u64> {
    let mut split = Reader::new(fs::open(&layer.join(layout::SPLIT))?)?;
    let contents = Contents::open(layer)?;
    let mut length = 0;
    // The end of a split that was not finished is an error like any other.
    while let Ok(Some(record)) = split.next() {
        match record {
            Record::Raw(bytes) => length += bytes.len() as u64,
            Record::File { path, inode, size } => {
                let Ok((_, there)) = contents.begun(&path, inode, size) else { break };
                length += there;
                if there < size {
                    break;
                }
            }
        }
    }
    Ok(length)
}

impl Remnant {
    /// How many bytes there are.
    pub fn length(&self) -> u64 {
        self.length
    }

    fn next(&mut self) -> Result<()> {
        self.now = match self.split.next()? {
            Some(Record::Raw(bytes)) => Now::Raw(Cursor::new(bytes)),
            Some(Record::File { path, inode, size }) => {
                let (file, there) = self.contents.begun(&path, inode, size)?;
                Now::File(file.take(there))
            }
            None => anyhow::bail!("it ends too early"),
        };
        Ok(())
    }
}

impl Read for Remnant {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        loop {
            let n = match &mut self.now {
                Now::Raw(bytes) => bytes.read(&mut buffer[..most])?,
                Now::File(file) => file.read(&mut buffer[..most])?,
            };
            if n > 0 {
                self.left -= n as u64;
                return Ok(n);
            }
            let about = |error: anyhow::Error| format!("cannot read what is there of it: {error:#}");
            self.next().map_err(|error| io::Error::other(about(error)))?;
        }
    }
}
