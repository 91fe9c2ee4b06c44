//! Blobs: bytes named by their digest (manifests, configs, compressed layers), `blobs/ALGORITHM/HEX`. The directory of an
//! algorithm other than sha256 is made with its first blob.
//!
//! Invariant: a blob in its place is whole and had its digest when it was written; it is never changed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::error::NotFound;
use crate::fs;
use crate::oci::digest::Hasher;
use crate::oci::{Algorithm, Digest};

use super::Store;
use super::draft::{self, Draft, Removed};
use super::partial::Partial;

const BLOBS: &str = "blobs";
const CONTENT: &str = "blob";
const VERIFY_CHUNK: usize = 256 * 1024;

/// A blob that is being written. Dropped before [`Writer::finish`] or [`Writer::seal`], it leaves nothing behind.
pub struct Writer {
    draft: Draft,
    file: File,
    hasher: Hasher,
    size: u64,
}

/// A blob that is whole but not yet in its place: see [`publish`].
#[derive(Debug)]
pub struct Sealed {
    bytes: Bytes,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// Where the bytes of a sealed blob are.
#[derive(Debug)]
enum Bytes {
    Draft(Draft),
    /// Fetched from a registry; held by us.
    Partial(Partial),
}

impl Writer {
    /// Begins an empty blob, which is to have a digest of this algorithm.
    pub fn new(store: &Store, algorithm: Algorithm) -> Result<Writer> {
        let draft = Draft::new(store)?;
        let file = fs::create_new(&draft.path().join(CONTENT), 0o644)?;
        Ok(Writer { draft, file, hasher: algorithm.hasher(), size: 0 })
    }

    /// Ends the blob, checks its digest and puts it in its place, durably.
    pub fn finish(self, store: &Store, expected: Option<&Digest>) -> Result<(Digest, u64)> {
        let file = self.file.try_clone().context("cannot duplicate a descriptor")?;
        let sealed = self.seal(expected)?;
        let found = (sealed.digest.clone(), sealed.size);
        if !exists(store, &sealed.digest)? {
            file.sync_data().with_context(|| format!("cannot sync blob {}", sealed.digest))?;
            sealed.place(store)?;
        }
        Ok(found)
    }

    /// Ends the blob and checks its digest. [`publish`] puts many of them in their places with one sync.
    pub fn seal(self, expected: Option<&Digest>) -> Result<Sealed> {
        let digest = self.hasher.finish();
        if let Some(expected) = expected
            && *expected != digest
        {
            bail!("cannot store blob {expected}: its content has digest {digest}");
        }
        Ok(Sealed { bytes: Bytes::Draft(self.draft), digest, size: self.size })
    }
}

impl Sealed {
    /// Opens it for reading, while it is not yet in its place.
    pub fn open(&self) -> Result<File> {
        match &self.bytes {
            Bytes::Draft(draft) => fs::open(&draft.path().join(CONTENT)),
            Bytes::Partial(partial) => fs::open(partial.path()),
        }
    }

    pub(super) fn of_partial(partial: Partial, size: u64) -> Sealed {
        Sealed { digest: partial.digest.clone(), bytes: Bytes::Partial(partial), size }
    }

    /// Puts it in its place. The caller has synced.
    pub(in crate::store) fn place(self, store: &Store) -> Result<()> {
        let to = path(store, &self.digest);
        if self.digest.algorithm() != Algorithm::default() {
            let blobs = store.data.join(BLOBS);
            fs::create_dir_all(&blobs.join(self.digest.algorithm().name()), 0o755)?;
            fs::open(&blobs)?.sync_all().with_context(|| format!("cannot sync {}", blobs.display()))?;
        }
        match self.bytes {
            Bytes::Draft(draft) => draft.publish(CONTENT.as_ref(), &to)?,
            Bytes::Partial(partial) => {
                let is_new = draft::rename_new(partial.path(), &to)?;
                if !is_new {
                    partial.clear()?;
                }
                is_new
            }
        };
        Ok(())
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Puts sealed blobs in their places, durably, with one sync for all.
pub fn publish(store: &Store, blobs: Vec<Sealed>) -> Result<()> {
    store.sync()?;
    for blob in blobs {
        blob.place(store)?;
    }
    Ok(())
}

/// Stores these bytes and returns their digest.
pub fn put(store: &Store, bytes: &[u8]) -> Result<Digest> {
    let digest = Digest::of(bytes);
    if exists(store, &digest)? {
        return Ok(digest);
    }
    let mut writer = Writer::new(store, digest.algorithm())?;
    writer.write_all(bytes).with_context(|| format!("cannot write blob {digest}"))?;
    writer.finish(store, Some(&digest))?;
    Ok(digest)
}

/// The blob's file, or `None` where there is no such blob.
pub fn open(store: &Store, digest: &Digest) -> Result<Option<File>> {
    locate(store, digest)?.map(|path| fs::open(&path)).transpose()
}

/// The whole blob, checked against its digest; more than `limit` bytes is an error, because what a document claims
/// about its size comes from outside.
pub fn read(store: &Store, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
    let about = || format!("cannot read blob {digest}");
    let Some(file) = open(store, digest)? else {
        return Err(NotFound { kind: "blob", name: digest.to_string() }.into());
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).with_context(about)?;
    if bytes.len() as u64 > limit {
        bail!("cannot read blob {digest}: it has more than {limit} bytes");
    }
    if digest.algorithm().digest(&bytes) != *digest {
        bail!("cannot read blob {digest}: it was changed on disk");
    }
    Ok(bytes)
}

/// Whether there is such a blob, here or in an additional store.
pub fn exists(store: &Store, digest: &Digest) -> Result<bool> {
    Ok(locate(store, digest)?.is_some())
}

/// Whether our own store has such a blob.
pub fn is_own(store: &Store, digest: &Digest) -> Result<bool> {
    Ok(fs::symlink_metadata(&path(store, digest))?.is_some())
}

/// The size of the blob, or `None` where there is no such blob.
pub fn size(store: &Store, digest: &Digest) -> Result<Option<u64>> {
    let Some(path) = locate(store, digest)? else { return Ok(None) };
    Ok(fs::symlink_metadata(&path)?.map(|meta| meta.len()))
}

/// The bytes that a blob of our own takes on disk, as du(1) counts them.
pub fn size_on_disk(store: &Store, digest: &Digest) -> Result<u64> {
    let meta = fs::symlink_metadata(&path(store, digest))?;
    Ok(meta.map_or(0, |meta| meta.blocks() * 512))
}

fn locate(store: &Store, digest: &Digest) -> Result<Option<PathBuf>> {
    for data in store.places() {
        let path = path_in(data, digest);
        if fs::symlink_metadata(&path)?.is_some() {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Looks whether a blob of our own is what it is called; the error tells what is wrong with it. Returns its size.
pub fn verify(store: &Store, digest: &Digest) -> Result<u64> {
    let mut file = fs::open(&path(store, digest))?;
    let mut hasher = digest.algorithm().hasher();
    let mut buffer = vec![0; VERIFY_CHUNK];
    let mut size = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                hasher.update(&buffer[..n]);
                size += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("cannot read it"),
        }
    }
    let found = hasher.finish();
    if found != *digest {
        bail!("its content has digest {found}");
    }
    Ok(size)
}

/// Takes a blob of our own out of its place; `None` if it is gone already.
pub fn take_away(store: &Store, digest: &Digest) -> Result<Option<Removed>> {
    draft::take_away(store, &path(store, digest))
}

/// Removes a blob; one that is gone already is fine.
pub fn remove(store: &Store, digest: &Digest) -> Result<()> {
    fs::remove_file(&path(store, digest))
}

/// All blobs of our own, unsorted.
pub fn list(store: &Store) -> Result<Vec<Digest>> {
    let mut all = Vec::new();
    for dir in dirs(store)? {
        // What is not named by a digest is not ours.
        all.extend(fs::read_dir(&dir)?.iter().filter_map(|n| Digest::from_hex(n.to_str()?)));
    }
    Ok(all)
}

/// The directories that blobs of our own lie in.
pub fn dirs(store: &Store) -> Result<Vec<PathBuf>> {
    let mut dirs = Vec::new();
    for algorithm in Algorithm::ALL {
        let dir = store.data.join(BLOBS).join(algorithm.name());
        if fs::symlink_metadata(&dir)?.is_some() {
            dirs.push(dir);
        }
    }
    Ok(dirs)
}

fn path(store: &Store, digest: &Digest) -> PathBuf {
    path_in(&store.data, digest)
}

fn path_in(data: &Path, digest: &Digest) -> PathBuf {
    data.join(BLOBS).join(digest.path())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Ids;
    use crate::store::tests::Scratch;

    #[test]
    fn what_is_put_is_read_back() {
        let scratch = Scratch::new(Ids::Root);
        let store = &scratch.store;
        let digest = put(store, b"hello").unwrap();
        assert_eq!(put(store, b"hello").unwrap(), digest);
        assert_eq!(read(store, &digest, 5).unwrap(), b"hello");
        assert!(read(store, &digest, 4).is_err());
        assert_eq!(list(store).unwrap(), std::slice::from_ref(&digest));
        remove(store, &digest).unwrap();
        assert!(open(store, &digest).unwrap().is_none());
        assert!(read(store, &digest, 5).unwrap_err().is::<NotFound>());
        assert!(scratch.is_tidy());
    }

    #[test]
    fn a_wrong_blob_is_not_stored() {
        let scratch = Scratch::new(Ids::Root);
        let store = &scratch.store;
        let mut writer = Writer::new(store, Algorithm::default()).unwrap();
        writer.write_all(b"abc").unwrap();
        assert!(writer.finish(store, Some(&Digest::of(b"abd"))).is_err());
        assert!(list(store).unwrap().is_empty());
        assert!(scratch.is_tidy());

        let digest = put(store, b"abc").unwrap();
        fs::write(&path(store, &digest), b"abx").unwrap();
        assert!(read(store, &digest, 9).is_err());
    }

    #[test]
    fn blobs_of_any_algorithm_lie_beside_each_other() {
        let scratch = Scratch::new(Ids::Root);
        let store = &scratch.store;
        let write = |algorithm: Algorithm, expected: &Digest| {
            let mut writer = Writer::new(store, algorithm).unwrap();
            writer.write_all(b"abc").unwrap();
            writer.finish(store, Some(expected))
        };
        for algorithm in Algorithm::ALL {
            let digest = algorithm.digest(b"abc");
            assert!(write(algorithm, &algorithm.digest(b"abd")).is_err());
            assert_eq!(write(algorithm, &digest).unwrap(), (digest.clone(), 3));
            assert_eq!(read(store, &digest, 3).unwrap(), b"abc");
            assert_eq!(verify(store, &digest).unwrap(), 3);
            assert!(store.data.join(format!("blobs/{}/{}", algorithm.name(), digest.hex())).exists());
        }
        assert_eq!(list(store).unwrap(), Algorithm::ALL.map(|algorithm| algorithm.digest(b"abc")));
        let digest = Algorithm::Sha512.digest(b"abc");
        fs::write(&path(store, &digest), b"abx").unwrap();
        assert!(read(store, &digest, 3).is_err() && verify(store, &digest).is_err());
        remove(store, &digest).unwrap();
        assert_eq!((list(store).unwrap().len(), exists(store, &digest).unwrap()), (2, false));
        assert!(scratch.is_tidy());
    }

    #[test]
    fn sealed_blobs_are_published_together() {
        let scratch = Scratch::new(Ids::Root);
        let store = &scratch.store;
        let seal = |text: &[u8]| {
            let mut writer = Writer::new(store, Algorithm::default()).unwrap();
            writer.write_all(text).unwrap();
            writer.seal(None).unwrap()
        };
        let blobs = vec![seal(b"a"), seal(b"b")];
        assert!(list(store).unwrap().is_empty());
        publish(store, blobs).unwrap();
        assert_eq!(list(store).unwrap().len(), 2);
        assert!(scratch.is_tidy());
    }
}
