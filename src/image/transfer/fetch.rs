//! Streams: a blob of a registry as if nothing ever broke, one whose digest is compared at the end, one whose digest is
//! found out, one that another thread reads.

use std::io::{self, Read, Write};
use std::sync::mpsc::Receiver;

use crate::oci::digest::Hasher;
use crate::oci::{Algorithm, Digest};
use crate::registry::{Backoff, BlobStream, Cut, Repository};

/// A blob of a registry, from an offset on; goes on where a connection broke.
pub(super) struct Fetch<'a> {
    from: &'a Repository<'a>,
    digest: Digest,
    at: u64,
    stream: Option<BlobStream>,
    backoff: Backoff,
}

impl<'a> Fetch<'a> {
    pub(super) fn new(from: &'a Repository<'a>, digest: &Digest, at: u64) -> Fetch<'a> {
        Fetch { from, digest: digest.clone(), at, stream: None, backoff: Backoff::new() }
    }

    fn open(&mut self) -> anyhow::Result<BlobStream> {
        let mut stream = self.from.blob(&self.digest, self.at)?;
        // A registry that knows no Range begins at the beginning.
        let skip = self.at.saturating_sub(stream.from);
        let skipped = io::copy(&mut (&mut stream).take(skip), &mut io::sink())?;
        if stream.from > self.at || skipped < skip {
            anyhow::bail!("cannot get {} of {}: it is shorter than it was", self.digest, self.from.name());
        }
        Ok(stream)
    }

    fn read_on(&mut self, buffer: &mut [u8]) -> anyhow::Result<usize> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.open()?,
        };
        let n = stream.read(buffer)?;
        self.stream = Some(stream);
        Ok(n)
    }
}

impl Read for Fetch<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.read_on(buffer) {
                Ok(n) => {
                    if n > 0 {
                        self.backoff.reset();
                    }
                    self.at += n as u64;
                    return Ok(n);
                }
                Err(error) if Cut::is_in(&error) && self.backoff.wait(None) => {}
                Err(error) => return Err(io::Error::other(crate::error::chain(&error))),
            }
        }
    }
}

/// Reads, and at the end compares size and digest. What was read is to be believed only once the end was reached.
pub(super) struct Verified<R> {
    input: R,
    digest: Digest,
    size: u64,
    n: u64,
    hasher: Option<Hasher>,
}

impl<R: Read> Verified<R> {
    pub(super) fn new(input: R, digest: &Digest, size: u64) -> Verified<R> {
        Verified { input, digest: digest.clone(), size, n: 0, hasher: Some(digest.algorithm().hasher()) }
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        self.n += n as u64;
        let bad = |why: String| Err(io::Error::new(io::ErrorKind::InvalidData, why));
        if self.n > self.size {
            return bad(format!("blob {} has more than {} bytes", self.digest, self.size));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..n]);
        }
        if n > 0 || buffer.is_empty() {
            return Ok(n);
        }
        if self.n < self.size {
            return bad(format!("blob {} has {} bytes, not {}", self.digest, self.n, self.size));
        }
        if let Some(hasher) = self.hasher.take() {
            let found = hasher.finish();
            if found != self.digest {
                return bad(format!("blob {}: its content has digest {found}", self.digest));
            }
        }
        Ok(0)
    }
}

/// Writes, and finds out size and digest.
pub(super) struct Hashed<W> {
    out: W,
    hasher: Hasher,
    n: u64,
}

impl<W> Hashed<W> {
    pub(super) fn new(out: W, algorithm: Algorithm) -> Hashed<W> {
        Hashed { out, hasher: algorithm.hasher(), n: 0 }
    }

    pub(super) fn end(self) -> (W, Digest, u64) {
        (self.out, self.hasher.finish(), self.n)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.n += n as u64;
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What another thread sends, as a stream: chunks, and an error or the end.
pub(super) struct Received {
    chunks: Receiver<io::Result<Vec<u8>>>,
    chunk: io::Cursor<Vec<u8>>,
    is_over: bool,
}

impl Received {
    pub(super) fn new(chunks: Receiver<io::Result<Vec<u8>>>) -> Received {
        Received { chunks, chunk: io::Cursor::new(Vec::new()), is_over: false }
    }
}

impl Read for Received {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.chunk.read(buffer)?;
            if n > 0 || buffer.is_empty() || self.is_over {
                return Ok(n);
            }
            match self.chunks.recv() {
                // The empty chunk is the end.
                Ok(Ok(chunk)) => {
                    self.is_over = chunk.is_empty();
                    self.chunk = io::Cursor::new(chunk);
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(io::Error::other("the reading thread is gone")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lies_about_a_blob_are_found() {
        let check = |bytes: &[u8], digest: &[u8], size: u64, want: &str| {
            let mut found = Vec::new();
            let result = Verified::new(bytes, &Digest::of(digest), size).read_to_end(&mut found);
            let said = result.err().map(|e| e.to_string()).unwrap_or_default();
            assert!(said.contains(want) && said.is_empty() == want.is_empty(), "{said}");
        };
        check(b"abc", b"abc", 3, "");
        check(b"", b"", 0, "");
        check(b"abd", b"abc", 3, "its content has digest");
        check(b"abc", b"abc", 2, "more than 2");
        check(b"abc", b"abc", 4, "has 3 bytes, not 4");
    }

    #[test]
    fn what_is_sent_is_received() {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let sending = std::thread::spawn(move || {
            for chunk in [&b"ab"[..], b"c", b""] {
                sender.send(Ok(chunk.to_vec())).unwrap();
            }
        });
        let mut text = String::new();
        Received::new(receiver).read_to_string(&mut text).unwrap();
        sending.join().unwrap();
        assert_eq!(text, "abc");
        let (_, receiver) = std::sync::mpsc::sync_channel(1);
        assert!(Received::new(receiver).read_to_string(&mut text).is_err());
    }
}
