//! One repository: its manifests, blobs and tags.

use std::io;
use std::io::Read;

use anyhow::{Result, bail};

use crate::oci::Digest;
use crate::oci::Reference;

use super::Client;

/// A manifest or an index, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The exact bytes, which the digest is of.
    pub bytes: Vec<u8>,
    /// Its media type, as the registry said, or else as it says itself.
    pub media_type: String,
    /// The digest of the bytes.
    pub digest: Digest,
}

/// A blob's bytes as they arrive. Not verified: the digest is for the reader to compare.
pub struct BlobStream {
    /// Where the bytes start: what was asked for, or 0 where the registry ignores Range.
    pub from: u64,
    /// How large the whole blob is, where the registry says so.
    pub total: Option<u64>,
    pub(super) body: Box<dyn Read + Send>,
}

impl Read for BlobStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.body.read(buffer)
    }
}

/// One repository of a registry.
pub struct Repository<'a> {
    pub(super) client: &'a Client,
    pub(super) reference: Reference,
}

impl Repository<'_> {
    /// `registry/repository`, for errors.
    pub fn name(&self) -> String {
        let _ = self.client;
        format!("{}/{}", self.reference.registry, self.reference.repository)
    }

    /// Gets a manifest or an index by tag or digest: at most 8 MiB; verified where it is asked for by digest, or where the
    /// registry says the digest. [`NotFound`](crate::error::NotFound) of kind `manifest` where there is none.
    pub fn manifest(&self, tag_or_digest: &str) -> Result<Manifest> {
        bail!("cannot get {}:{tag_or_digest}", self.name())
    }

    /// The digest behind a tag, without its bytes where the registry allows; `None` where there is no such tag.
    pub fn head_manifest(&self, _tag_or_digest: &str) -> Result<Option<Digest>> {
        Ok(None)
    }

    /// Begins to fetch a blob, from the byte `from` if the registry can. A stream that is cut (see [`super::Cut`]) is the
    /// caller's to go on with, by calling again.
    pub fn blob(&self, digest: &Digest, _from: u64) -> Result<BlobStream> {
        bail!("cannot get {digest} of {}", self.name())
    }

    /// The size of a blob, `None` where the registry does not have it.
    pub fn has_blob(&self, _digest: &Digest) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Takes a blob over from another repository of the same registry; false where that cannot be.
    pub fn mount(&self, _digest: &Digest, _from_repository: &str) -> Result<bool> {
        Ok(false)
    }

    /// Uploads a blob. `open(offset)` gives its bytes from there: it is called again where an upload is cut.
    /// `progress` hears how many bytes the registry has.
    pub fn upload(
        &self,
        digest: &Digest,
        _size: u64,
        _open: &mut dyn FnMut(u64) -> Result<Box<dyn Read + Send>>,
        _progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        bail!("cannot upload {digest} to {}", self.name())
    }

    /// Puts a manifest or an index, as it is, and returns its digest.
    pub fn put_manifest(&self, tag_or_digest: &str, _media_type: &str, _bytes: &[u8]) -> Result<Digest> {
        bail!("cannot put {}:{tag_or_digest}", self.name())
    }

    /// All tags, as the registry lists them.
    pub fn tags(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}
