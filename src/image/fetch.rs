//! The bytes of one blob from a registry, in order, however often the connection breaks: a reader that goes on from where
//! it stood. Writes nothing.
//!
//! Invariant: it gives exactly as many bytes as the descriptor says, or an error that names the blob. Which bytes they
//! are is for the caller to hash.

use std::io::{self, Read};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::oci::Digest;
use crate::registry::{Backoff, BlobStream, Cut};

/// As much as must arrive between two breaks, or the second counts as following the first.
const PROGRESS: u64 = 64 * 1024;

/// Where a stream of bytes begins, and the stream.
pub struct Opened {
    /// The offset of its first byte.
    pub from: u64,
    /// The size of the whole blob, where it is known.
    pub total: Option<u64>,
    /// The bytes.
    pub body: Box<dyn Read + Send>,
}

impl From<BlobStream> for Opened {
    fn from(stream: BlobStream) -> Opened {
        Opened { from: stream.from, total: stream.total, body: Box::new(stream) }
    }
}

/// Opens the blob at an offset, or before it.
pub type Open<'a> = &'a (dyn Fn(u64) -> Result<Opened> + Sync);

/// Ends many fetches at once, also those that wait for their next attempt.
#[derive(Debug, Default)]
pub struct Stop {
    is_set: Mutex<bool>,
    changed: Condvar,
}

/// Why a fetch ended that was stopped. Not for people: whoever stopped it has the reason.
#[derive(Debug, thiserror::Error)]
#[error("stopped")]
pub struct Stopped;

impl Stop {
    /// Ends them; false if they were ended before.
    pub fn set(&self) -> bool {
        let mut is_set = self.is_set.lock().unwrap_or_else(PoisonError::into_inner);
        self.changed.notify_all();
        !std::mem::replace(&mut is_set, true)
    }

    /// An error once it is set.
    pub fn check(&self) -> Result<(), Stopped> {
        if *self.is_set.lock().unwrap_or_else(PoisonError::into_inner) { Err(Stopped) } else { Ok(()) }
    }

    /// Waits for so long.
    fn pause(&self, delay: Duration) -> Result<(), Stopped> {
        let is_set = self.is_set.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(is_set, delay, |is_set| !*is_set);
        let (is_set, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *is_set { Err(Stopped) } else { Ok(()) }
    }
}

/// See the module.
pub struct Fetch<'a> {
    digest: &'a Digest,
    size: u64,
    open: Open<'a>,
    stop: &'a Stop,
    at: u64,
    body: Option<Opened>,
    backoff: Backoff,
    since_break: u64,
    /// What [`Read::read`] could not say.
    error: Option<anyhow::Error>,
}

impl<'a> Fetch<'a> {
    /// The bytes from `at` to the end of a blob of this size.
    pub fn new(digest: &'a Digest, size: u64, at: u64, open: Open<'a>, stop: &'a Stop) -> Fetch<'a> {
        Fetch {
            digest,
            size,
            open,
            stop,
            at,
            body: None,
            backoff: Backoff::new(),
            since_break: 0,
            error: None,
        }
    }

    /// Some more bytes; 0 at the end.
    pub fn next(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            self.stop.check()?;
            if self.at == self.size {
                return self.finish();
            }
            let mut opened = match self.body.take() {
                Some(opened) => opened,
                None => self.reopen()?,
            };
            let skipped = self.at - opened.from;
            if skipped > 0 {
                self.skip(opened, skipped, buffer)?;
                continue;
            }
            let wanted = usize::try_from(self.size - self.at).unwrap_or(usize::MAX).min(buffer.len());
            match opened.body.read(&mut buffer[..wanted]) {
                Ok(0) => self.broke("it ended too early")?,
                Ok(n) => {
                    self.at += n as u64;
                    self.since_break += n as u64;
                    opened.from = self.at;
                    self.body = Some(opened);
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => self.body = Some(opened),
                Err(error) => self.broke(&error.to_string())?,
            }
        }
    }

    /// All bytes, for a blob that is known to be small.
    pub fn read_all(mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 32 * 1024];
        loop {
            match self.next(&mut buffer)? {
                0 => return Ok(bytes),
                n => bytes.extend_from_slice(&buffer[..n]),
            }
        }
    }

    /// What ended it, where it was used as a `Read`.
    pub fn error(&mut self) -> Option<anyhow::Error> {
        self.error.take()
    }

    fn reopen(&mut self) -> Result<Opened> {
        let opened = (self.open)(self.at)?;
        if let Some(total) = opened.total
            && total != self.size
        {
            bail!("cannot use blob {}: it has {total} bytes, not {}", self.digest, self.size);
        }
        if opened.from > self.at {
            bail!(
                "cannot fetch blob {}: asked for it from byte {}, got it from {}",
                self.digest,
                self.at,
                opened.from
            );
        }
        Ok(opened)
    }

    /// Leaves out what a registry sent that does not know Range.
    fn skip(&mut self, mut opened: Opened, n: u64, buffer: &mut [u8]) -> Result<()> {
        let n = usize::try_from(n).unwrap_or(usize::MAX).min(buffer.len());
        match opened.body.read(&mut buffer[..n]) {
            Ok(0) => self.broke("it ended too early"),
            Ok(n) => {
                opened.from += n as u64;
                self.body = Some(opened);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.body = Some(opened);
                Ok(())
            }
            Err(error) => self.broke(&error.to_string()),
        }
    }

    /// Waits for the next attempt, if there is to be one.
    fn broke(&mut self, why: &str) -> Result<()> {
        if self.since_break >= PROGRESS {
            self.backoff.reset();
        }
        self.since_break = 0;
        let Some(delay) = self.backoff.next(None) else {
            let Fetch { digest, at, size, .. } = self;
            return Err(Cut { why: why.to_owned() }).with_context(|| {
                format!("cannot fetch blob {digest}: it breaks off after {at} of {size} bytes")
            });
        };
        Ok(self.stop.pause(delay)?)
    }

    /// Nothing may follow, where that can be told.
    fn finish(&mut self) -> Result<usize> {
        if let Some(mut opened) = self.body.take()
            && opened.total.is_none()
            && opened.body.read(&mut [0]).unwrap_or(0) > 0
        {
            bail!("cannot use blob {}: it has more than {} bytes", self.digest, self.size);
        }
        Ok(0)
    }
}

impl Read for Fetch<'_> {
    /// [`Fetch::next`], whose error is left in [`Fetch::error`].
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.next(buffer).map_err(|error| {
            let told = io::Error::other(error.to_string());
            self.error = Some(error);
            told
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const BLOB: &[u8] = b"0123456789";

    /// A registry that sends the pieces one after the other, each in a connection of its own that then breaks.
    fn fetch(pieces: &[(u64, Option<u64>, &'static [u8])], size: u64) -> Result<Vec<u8>> {
        let n = AtomicUsize::new(0);
        let open = |_| {
            let (from, total, bytes) = pieces[n.fetch_add(1, Ordering::Relaxed).min(pieces.len() - 1)];
            Ok(Opened { from, total, body: Box::new(bytes) })
        };
        Fetch::new(&Digest::of(BLOB), size, 0, &open, &Stop::default()).read_all()
    }

    #[test]
    fn a_broken_stream_is_gone_on_with() {
        let check =
            |pieces: &[(u64, Option<u64>, &'static [u8])]| assert_eq!(fetch(pieces, 10).unwrap(), BLOB);
        check(&[(0, Some(10), BLOB)]);
        check(&[(0, None, BLOB)]);
        check(&[(0, Some(10), b"012"), (3, Some(10), b""), (3, Some(10), b"3456789")]);
        // Ranges are ignored, and once more than asked for is sent.
        check(&[(0, Some(10), b"012"), (0, Some(10), b"01"), (0, Some(10), BLOB)]);
        check(&[(0, Some(10), b"012"), (1, Some(10), b"123456789")]);
    }

    #[test]
    fn lies_about_the_size_name_the_blob() {
        let check = |pieces: &[(u64, Option<u64>, &'static [u8])], size: u64, want: &str| {
            let error = crate::error::chain(&fetch(pieces, size).unwrap_err());
            assert!(error.contains(want) && error.contains(&Digest::of(BLOB).to_string()), "{error}");
        };
        check(&[(0, Some(10), BLOB)], 11, "has 10 bytes, not 11");
        check(&[(0, Some(10), BLOB)], 9, "has 10 bytes, not 9");
        check(&[(0, None, BLOB)], 9, "more than 9 bytes");
        check(&[(0, None, b"0123"), (4, None, b"")], 10, "breaks off after 4 of 10");
        check(&[(0, None, b"0123"), (5, None, b"56789")], 10, "from byte 4, got it from 5");
    }

    #[test]
    fn a_stop_ends_the_waiting() {
        let stop = Stop::default();
        let open = |_| Ok(Opened { from: 0, total: None, body: Box::new(&b""[..]) });
        std::thread::scope(|scope| {
            let digest = Digest::of(BLOB);
            let stop = &stop;
            let fetching = scope.spawn(move || Fetch::new(&digest, 1 << 40, 0, &open, stop).read_all());
            assert!(stop.set() && !stop.set());
            assert!(fetching.join().unwrap().unwrap_err().is::<Stopped>());
        });
    }
}
