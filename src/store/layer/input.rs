//! The tar stream as the unpacker sees it: a window of bytes, read and hashed ahead by a second thread.
//!
//! Reading (often decompressing) and hashing cost about as much as parsing and writing, so each side gets a core. Memory
//! is a handful of chunks, whatever the stream says about itself.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use anyhow::{Context, Result};

use crate::oci::{Algorithm, Digest};

/// Large enough that a write costs little beside its bytes, small enough to stay in the second-level cache.
const CHUNK: usize = 256 * 1024;
/// Room in front of each chunk for what was left of the one before: a header that lies across the border.
const HEADROOM: usize = 4 * 1024;
const CHUNKS_AHEAD: usize = 4;

/// A window on the stream.
pub(super) struct Input {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    full: Receiver<io::Result<Chunk>>,
    empty: Sender<Vec<u8>>,
}

/// Bytes HEADROOM..end of the buffer are content.
struct Chunk {
    buffer: Vec<u8>,
    end: usize,
}

/// Runs `work` on the stream, to its very end, and returns with its result the digest and the size of what was read.
pub(super) fn with_input<T>(
    source: impl Read + Send,
    algorithm: Algorithm,
    work: impl FnOnce(&mut Input) -> Result<T>,
) -> Result<(T, Digest, u64)> {
    with_pieces(source, algorithm, CHUNK, work)
}

/// [`with_input`], where `work` gets what is there as soon as it is a `piece`: for a stream that may end at any time, and
/// what came is to be of use.
pub(super) fn with_pieces<T>(
    source: impl Read + Send,
    algorithm: Algorithm,
    piece: usize,
    work: impl FnOnce(&mut Input) -> Result<T>,
) -> Result<(T, Digest, u64)> {
    let (to_work, full) = sync_channel(CHUNKS_AHEAD);
    let (empty, from_work) = channel();
    let mut input = Input { buffer: Vec::new(), start: 0, end: 0, full, empty };
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new()
            .spawn_scoped(scope, move || {
                read_ahead(source, algorithm, piece.min(CHUNK), &to_work, &from_work)
            })
            .context("cannot start a thread")?;
        let worked = work(&mut input).and_then(|done| input.drain(|_| Ok(())).map(|()| done));
        // Ends the reader where the work ended early: its next chunk finds nobody.
        drop(input);
        let (digest, size) = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        worked.map(|done| (done, digest, size))
    })
}

fn read_ahead(
    mut source: impl Read,
    algorithm: Algorithm,
    piece: usize,
    full: &SyncSender<io::Result<Chunk>>,
    empty: &Receiver<Vec<u8>>,
) -> (Digest, u64) {
    let mut hasher = algorithm.hasher();
    let mut size = 0;
    loop {
        let mut buffer = empty.try_recv().unwrap_or_else(|_| vec![0; HEADROOM + CHUNK]);
        let (n, end) = read_fully(&mut source, &mut buffer[HEADROOM..HEADROOM + piece]);
        hasher.update(&buffer[HEADROOM..HEADROOM + n]);
        size += n as u64;
        let is_last = n < piece;
        let is_sent = full.send(Ok(Chunk { end: HEADROOM + n, buffer })).is_ok();
        if let Err(error) = end {
            // After what came before it. Whoever has ended does not want to know.
            let _ = full.send(Err(error));
        }
        if is_last || !is_sent {
            return (hasher.finish(), size);
        }
    }
}

/// Fills `bytes` unless the source ends before; how much came, and whether that is the source's end or an error.
fn read_fully(source: &mut impl Read, bytes: &mut [u8]) -> (usize, io::Result<()>) {
    let mut n = 0;
    while n < bytes.len() {
        match source.read(&mut bytes[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (n, Err(error)),
        }
    }
    (n, Ok(()))
}

impl Input {
    /// The window: what was read and not consumed.
    pub(super) fn available(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Moves the window's start; `n` bytes must be available.
    pub(super) fn consume(&mut self, n: usize) {
        debug_assert!(n <= self.end - self.start);
        self.start += n;
    }

    /// Passes over so many bytes; fewer are an error.
    pub(super) fn skip(&mut self, mut n: u64) -> Result<()> {
        while n > 0 {
            let there = (self.fill(1)? as u64).min(n);
            anyhow::ensure!(there > 0, "the archive is cut off");
            self.consume(there as usize);
            n -= there;
        }
        Ok(())
    }

    /// Widens the window to at least `wanted` bytes, or fewer if the stream ends before; returns its size.
    pub(super) fn fill(&mut self, wanted: usize) -> Result<usize> {
        while self.available().len() < wanted {
            match self.full.recv() {
                Ok(chunk) => self.append(chunk.context("cannot read the archive")?),
                Err(_) => break,
            }
        }
        Ok(self.available().len())
    }

    /// Hands the rest of the stream to `take`.
    pub(super) fn drain(&mut self, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        while self.fill(1)? > 0 {
            take(self.available())?;
            self.start = self.end;
        }
        Ok(())
    }

    fn append(&mut self, mut chunk: Chunk) {
        let rest = self.end - self.start;
        if rest > HEADROOM {
            self.buffer.drain(..self.start);
            self.buffer.truncate(rest);
            self.buffer.extend_from_slice(&chunk.buffer[HEADROOM..chunk.end]);
            (self.start, self.end) = (0, self.buffer.len());
            return;
        }
        let start = HEADROOM - rest;
        chunk.buffer[start..HEADROOM].copy_from_slice(&self.buffer[self.start..self.end]);
        (self.start, self.end) = (start, chunk.end);
        let used = std::mem::replace(&mut self.buffer, chunk.buffer);
        if used.len() == HEADROOM + CHUNK {
            // The reader may be done already; then the buffer is freed.
            let _ = self.empty.send(used);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_of_any_size_see_the_whole_stream() {
        let bytes: Vec<u8> = (0..CHUNK * 3 + 77).map(|n| (n % 251) as u8).collect();
        for step in [1000, HEADROOM, HEADROOM + 1, CHUNK - 1, CHUNK, CHUNK + 1, CHUNK * 2 + 5] {
            let (seen, digest, size) = with_input(&bytes[..], Algorithm::default(), |input| {
                let mut seen = Vec::new();
                loop {
                    let n = input.fill(step)?.min(step);
                    if n == 0 {
                        return Ok(seen);
                    }
                    seen.extend_from_slice(&input.available()[..n]);
                    input.consume(n);
                }
            })
            .unwrap();
            assert!(seen == bytes, "step {step}");
            assert_eq!((digest, size), (Digest::of(&bytes), bytes.len() as u64));
        }
    }

    #[test]
    fn what_came_before_an_error_is_seen() {
        struct Gone;
        impl Read for Gone {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("gone"))
            }
        }
        for n in [0, 10, CHUNK, CHUNK + 10] {
            let mut seen = 0;
            let bytes = vec![7; n];
            let ended = with_pieces(bytes.as_slice().chain(Gone), Algorithm::default(), 1000, |input| {
                input.drain(|bytes| {
                    seen += bytes.len();
                    Ok(())
                })
            });
            assert!(crate::error::chain(&ended.unwrap_err()).contains("gone"));
            assert_eq!(seen, n);
        }
    }

    #[test]
    fn all_is_hashed_even_if_the_work_stops_early() {
        let bytes = vec![7; CHUNK * 9 + 1];
        let (_, digest, size) = with_input(&bytes[..], Algorithm::default(), |input| input.fill(10)).unwrap();
        assert_eq!((digest, size), (Digest::of(&bytes), bytes.len() as u64));
        assert!(
            with_input(&bytes[..], Algorithm::default(), |_| -> Result<()> { anyhow::bail!("no") }).is_err()
        );
    }
}
