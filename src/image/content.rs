//! The bytes behind a digest in a manifest, whether the store has them as a blob or as an unpacked layer.

use std::fs::File;
use std::io::{self, Write};

use anyhow::{Context, Result, bail};

use crate::error::NotFound;
use crate::oci::DiffId;
use crate::oci::Digest;
use crate::store::Store;
use crate::store::blob;
use crate::store::layer;

/// Where the bytes are.
#[derive(Debug)]
pub enum Content {
    /// A blob's file.
    Blob {
        /// The open file.
        file: File,
        /// The number of bytes.
        size: u64,
    },
    /// A layer whose uncompressed tar is made again from its files.
    Layer(layer::Layer),
}

/// Finds the bytes with this digest: a blob, or the uncompressed tar of the layer whose diff id it is.
pub fn blob_or_layer(store: &Store, digest: &Digest) -> Result<Content> {
    if let Some(file) = blob::open(store, digest)? {
        let size = file.metadata().with_context(|| format!("cannot read blob {digest}"))?.len();
        return Ok(Content::Blob { file, size });
    }
    match layer::find(store, &DiffId(digest.clone()))? {
        Some(layer) => Ok(Content::Layer(layer)),
        None => Err(NotFound { kind: "blob", name: digest.to_string() }.into()),
    }
}

impl Content {
    /// The number of bytes.
    pub fn size(&self) -> u64 {
        match self {
            Content::Blob { size, .. } => *size,
            Content::Layer(layer) => layer.size,
        }
    }

    /// Writes the bytes: exactly [`Content::size`] of them, or it is an error.
    pub fn write_to(self, store: &Store, out: &mut dyn Write) -> Result<()> {
        let size = self.size();
        let mut counted = Counted { out, n: 0 };
        match self {
            Content::Blob { mut file, .. } => {
                io::copy(&mut file, &mut counted).context("cannot copy a blob")?;
            }
            Content::Layer(layer) => layer::write_tar(store, &layer.diff_id, &mut counted)?,
        }
        if counted.n != size {
            bail!("cannot copy a blob: it has {} bytes, not {size}", counted.n);
        }
        Ok(())
    }
}

struct Counted<'a> {
    out: &'a mut dyn Write,
    n: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.n += n as u64;
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
