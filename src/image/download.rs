//! A blob that is written to its partial and read behind the writer's back: fetching and unpacking are one stream, and
//! the unpacker can be slower than the network without anything but the disk holding what lies between.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Condvar, Mutex, PoisonError};

use anyhow::{Context, Result};

use crate::oci::Digest;
use crate::store::partial::Partial;

use super::fetch::{Fetch, Open, Stop};

const CHUNK: usize = 128 * 1024;

/// The bytes of a blob that are whole but have another digest than they should.
#[derive(Debug, thiserror::Error)]
#[error("cannot use blob {wanted}: its content has digest {found}")]
pub struct WrongDigest {
    wanted: Digest,
    found: Digest,
}

/// How far a file is written: told by the writer, awaited by the reader.
#[derive(Debug, Default)]
pub struct Mark {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default, Clone, Copy)]
struct State {
    written: u64,
    is_over: bool,
}

impl Mark {
    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// Waits until there is something after `at`, or nothing more comes.
    fn wait(&self, at: u64) -> u64 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_while(state, |s| s.written <= at && !s.is_over);
        waited.unwrap_or_else(PoisonError::into_inner).written
    }
}

/// Ends the reader's waiting however the writer ends.
struct Over<'a>(&'a Mark);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.set(|state| state.is_over = true);
    }
}

/// Fetches what the partial lacks of a blob of `size` bytes, and hashes all of it; `progress` hears how much there is.
pub fn download(
    partial: &Partial,
    size: u64,
    open: Open<'_>,
    stop: &Stop,
    mark: &Mark,
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    let _over = Over(mark);
    let digest = &partial.digest;
    let about = || format!("cannot store blob {digest}");
    if partial.len()? > size {
        partial.clear()?;
    }
    let there = partial.len()?;
    let mut hasher = digest.algorithm().hasher();
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    // Whoever reads along may have it at once: it is no better and no worse after it was hashed.
    mark.set(|state| state.written = there);
    progress(there);
    while at < there {
        stop.check()?;
        let n = partial.file().read_at(&mut buffer, at).with_context(about)?;
        if n == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof)).with_context(about);
        }
        hasher.update(&buffer[..n]);
        at += n as u64;
    }
    let mut fetch = Fetch::new(digest, size, at, open, stop);
    loop {
        let n = fetch.next(&mut buffer)?;
        if n == 0 {
            break;
        }
        partial.file().write_all_at(&buffer[..n], at).with_context(about)?;
        hasher.update(&buffer[..n]);
        at += n as u64;
        mark.set(|state| state.written = at);
        progress(at);
    }
    let found = hasher.finish();
    if found != *digest {
        return Err(WrongDigest { wanted: digest.clone(), found }.into());
    }
    Ok(())
}

/// Reads a file as far as it is written, and waits for more; ends where the writer ended, well or not.
pub struct Follower<'a> {
    file: &'a File,
    mark: &'a Mark,
    at: u64,
    written: u64,
}

impl<'a> Follower<'a> {
    /// Reads from the start.
    pub fn new(file: &'a File, mark: &'a Mark) -> Follower<'a> {
        Follower { file, mark, at: 0, written: 0 }
    }
}

impl Read for Follower<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.written {
            self.written = self.mark.wait(self.at);
        }
        let there = usize::try_from(self.written.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let wanted = there.min(buffer.len());
        let n = self.file.read_at(&mut buffer[..wanted], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Ids;
    use crate::image::fetch::Opened;
    use crate::store::partial;
    use crate::store::tests::Scratch;

    const BLOB: &[u8] = b"0123456789";

    fn run(partial: &Partial, blob: &'static [u8]) -> (Result<()>, Vec<u8>) {
        let open = |from| {
            let total = Some(blob.len() as u64);
            Ok(Opened { from, total, body: Box::new(&blob[from as usize..]) })
        };
        let (mark, stop) = (Mark::default(), Stop::default());
        std::thread::scope(|scope| {
            let reading = scope.spawn(|| {
                let mut seen = Vec::new();
                Follower::new(partial.file(), &mark).read_to_end(&mut seen).unwrap();
                seen
            });
            let done = download(partial, 10, &open, &stop, &mark, &mut |_| {});
            (done, reading.join().unwrap())
        })
    }

    #[test]
    fn what_is_there_is_built_upon() {
        let scratch = Scratch::new(Ids::Root);
        for there in [0, 1, 9, 10] {
            let partial = partial::claim(&scratch.store, &Digest::of(BLOB)).unwrap().unwrap();
            partial.clear().unwrap();
            partial.file().write_all_at(&BLOB[..there], 0).unwrap();
            let (done, seen) = run(&partial, BLOB);
            done.unwrap();
            assert_eq!(seen, BLOB, "{there}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_at_the_end() {
        let scratch = Scratch::new(Ids::Root);
        let partial = partial::claim(&scratch.store, &Digest::of(BLOB)).unwrap().unwrap();
        partial.file().write_all_at(b"x", 0).unwrap();
        let (done, seen) = run(&partial, BLOB);
        assert!(done.unwrap_err().is::<WrongDigest>());
        assert_eq!(seen, b"x123456789");
        partial.file().write_all_at(b"longer than it may be", 0).unwrap();
        let (done, seen) = run(&partial, BLOB);
        done.unwrap();
        assert_eq!(seen, BLOB, "what is too long is of no use");
    }
}
