//! A layer becomes the archive again that it was unpacked from, byte for byte.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{FileType, OFlags, fstat};

use crate::fs;
use crate::oci::digest::Hasher;
use crate::oci::{Algorithm, Digest};

use super::split::{Reader, Record};
use super::{beneath, layout};

const CHUNK: usize = 256 * 1024;

/// Writes the archive of the layer in this directory; returns its digest by this algorithm.
pub(super) fn write(layer: &Path, algorithm: Algorithm, out: &mut dyn Write) -> Result<Digest> {
    let mut out = Hashed { out, hasher: algorithm.hasher() };
    put(layer, &mut |bytes| out.write(bytes))?;
    Ok(out.hasher.finish())
}

/// [`write()`] for who hashes the archive anyway.
pub(super) fn write_unhashed(layer: &Path, out: &mut dyn Write) -> Result<()> {
    put(layer, &mut |bytes| out.write_all(bytes).context("cannot write the archive"))
}

fn put(layer: &Path, out: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut split = Reader::new(fs::open(&layer.join(layout::SPLIT))?)?;
    let contents = Contents::open(layer)?;
    let mut buffer = vec![0; CHUNK];
    while let Some(record) = split.next()? {
        match record {
            Record::Raw(bytes) => out(&bytes)?,
            Record::File { path, inode, size } => {
                let name = || format!("cannot read {} of the layer", String::from_utf8_lossy(&path));
                let mut file = contents.file(&path, inode, size).with_context(name)?;
                let mut left = size;
                while left > 0 {
                    let most = left.min(CHUNK as u64) as usize;
                    let n = read(&mut file, &mut buffer[..most]).with_context(name)?;
                    if n == 0 {
                        bail!("{}: it was changed on disk", name());
                    }
                    out(&buffer[..n])?;
                    left -= n as u64;
                }
            }
        }
    }
    Ok(())
}

struct Hashed<'a> {
    out: &'a mut dyn Write,
    hasher: Hasher,
}

impl Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.out.write_all(bytes).context("cannot write the archive")
    }
}

/// Where the contents of a layer's files are.
pub(super) struct Contents {
    tree: OwnedFd,
    replaced: Option<OwnedFd>,
}

impl Contents {
    pub(super) fn open(layer: &Path) -> Result<Contents> {
        let replaced = layer.join(layout::REPLACED);
        let replaced = match fs::symlink_metadata(&replaced)? {
            Some(_) => Some(beneath::root(&replaced)?),
            None => None,
        };
        Ok(Contents { tree: beneath::root(&layer.join(layout::DIFF))?, replaced })
    }

    fn file(&self, path: &[u8], inode: u64, size: u64) -> Result<File> {
        // Not to wait for a FIFO that somebody put in the place of the file.
        self.open_as(path, inode, size, OFlags::RDONLY | OFlags::NONBLOCK).map(File::from)
    }

    /// A file as far as it was written, and how far that is: at most `size`.
    pub(super) fn begun(&self, path: &[u8], inode: u64, size: u64) -> Result<(File, u64)> {
        let file = File::from(self.open_any(path, inode, OFlags::RDONLY | OFlags::NONBLOCK)?);
        let meta = file.metadata()?;
        if !meta.is_file() || meta.len() > size {
            bail!("it was changed on disk");
        }
        Ok((file, meta.len()))
    }

    /// Whether the file is there and has this size.
    pub(super) fn check(&self, path: &[u8], inode: u64, size: u64) -> Result<()> {
        self.open_as(path, inode, size, OFlags::PATH).map(drop)
    }

    fn open_as(&self, path: &[u8], inode: u64, size: u64, flags: OFlags) -> Result<OwnedFd> {
        let file = self.open_any(path, inode, flags)?;
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_size as u64 != size {
            bail!("it was changed on disk");
        }
        Ok(file)
    }

    fn open_any(&self, path: &[u8], inode: u64, flags: OFlags) -> Result<OwnedFd> {
        let kept = self.replaced.as_ref().map(|dir| beneath::open(dir, inode.to_string().as_bytes(), flags));
        match kept {
            Some(Ok(file)) => Ok(file),
            _ => Ok(beneath::open(&self.tree, path, flags)?),
        }
    }
}

fn read(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
