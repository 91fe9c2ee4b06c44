//! A window: as much of what came out as a zstd frame may refer back to, 8 MiB at zstd's level 19, 128 MiB at level 22,
//! and as a frame says up to gigabytes. It is a decoder's only large buffer.
//!
//! Windows of up to 512 MiB are taken, as docker, containerd and podman take them (klauspost/compress, `MaxWindowSize`;
//! `zstd -d` alone refuses more than 128 MiB). In memory are so many at once as there is a budget for, shared by all
//! layers that are unpacked side by side; the others are unnamed files in the store. What a file has of a window is not
//! kept in our memory (`sys::zstd`), and the kernel writes it out only where it must: so what a pull needs does not depend
//! on what its layers say.
//!
//! A frame made to refer everywhere at once has, for a moment, as many pages of its window mapped as it likes: they are the
//! page cache's, which the kernel takes back where memory is short.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::fs;
use crate::sys::zstd::{Decoder, Place, Step};

/// In memory, all windows together: four of level 19, or a dozen of the default level.
const BUDGET: usize = 34 << 20;
/// Two to this is the largest window.
const WINDOW_LOG: i32 = 29;

/// Where windows are.
#[derive(Debug, Clone)]
pub struct Windows {
    dir: PathBuf,
    free: Arc<Mutex<usize>>,
}

impl Windows {
    /// Windows for decoders that work side by side; what is too large for memory goes to unnamed files in `dir`.
    pub fn new(dir: &Path) -> Windows {
        Windows { dir: dir.to_owned(), free: Arc::new(Mutex::new(BUDGET)) }
    }

    fn find(&self, size: usize) -> io::Result<Place> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if *free >= size {
            *free -= size;
            return Ok(Place { file: None, claim: Box::new(Claim { free: self.free.clone(), size }) });
        }
        drop(free);
        let file =
            fs::create_unnamed(&self.dir).map_err(|error| io::Error::other(crate::error::chain(&error)))?;
        fill(&file, size)?;
        Ok(Place { file: Some(file), claim: Box::new(()) })
    }
}

/// Given back when dropped.
struct Claim {
    free: Arc<Mutex<usize>>,
    size: usize,
}

impl Drop for Claim {
    fn drop(&mut self) {
        *self.free.lock().unwrap_or_else(PoisonError::into_inner) += self.size;
    }
}

/// Gives a file its size, and room for it on the disk.
fn fill(mut file: &File, size: usize) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, size as u64) {
        Err(Errno::NOTSUP | Errno::NOSYS) => {
            io::copy(&mut io::repeat(0).take(size as u64), &mut file)?;
            file.flush()
        }
        done => Ok(done?),
    }
}

/// Reads what is in a zstd stream, of however many frames.
pub(super) struct Unzstd<R> {
    input: R,
    decoder: Decoder,
    /// Whether the last frame that was begun is over.
    is_whole: bool,
}

impl<R: BufRead> Unzstd<R> {
    pub(super) fn new(input: R, windows: &Windows) -> Result<Unzstd<R>> {
        let windows = windows.clone();
        let decoder = Decoder::new(WINDOW_LOG, Box::new(move |size| windows.find(size)));
        Ok(Unzstd { input, decoder: decoder.context("cannot read the layer")?, is_whole: true })
    }
}

impl<R: BufRead> Read for Unzstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let available = self.input.fill_buf()?;
            let is_over = available.is_empty();
            if is_over && self.is_whole {
                return Ok(0);
            }
            let Step { read, written, is_end } = self.decoder.run(available, buffer)?;
            self.input.consume(read);
            self.is_whole = is_end;
            if written > 0 {
                return Ok(written);
            }
            if is_over && !is_end {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the zstd stream is cut off"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Ids;
    use crate::store::tests::Scratch;

    fn packed(plain: &[u8], window_log: u32) -> Vec<u8> {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(window_log).unwrap();
        encoder.long_distance_matching(true).unwrap();
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    /// Bytes that repeat only at a distance of `n`.
    fn plain(n: u32, times: usize) -> Vec<u8> {
        let numbers = (0..n / 4).map(|i| i.wrapping_mul(2_654_435_761) ^ (i >> 3));
        numbers.flat_map(u32::to_le_bytes).collect::<Vec<u8>>().repeat(times)
    }

    #[test]
    fn windows_are_in_memory_as_long_as_there_is_room_and_then_in_files() {
        let scratch = Scratch::new(Ids::Root);
        let windows = Windows::new(&scratch.store.data.join("tmp"));
        let plain = plain(10 << 20, 3);
        let stream = packed(&plain, 24);
        assert!(stream.len() < 20 << 20, "it refers back: {}", stream.len());
        // The third finds no room: each takes 16 MiB and a little.
        let mut readers: Vec<_> =
            (0..3).map(|_| Unzstd::new(io::BufReader::new(&stream[..]), &windows).unwrap()).collect();
        let mut found = vec![Vec::new(); 3];
        let mut buffer = vec![0; 100_000];
        while found.iter().any(|f| f.len() < plain.len()) {
            for (reader, found) in readers.iter_mut().zip(&mut found) {
                let n = reader.read(&mut buffer).unwrap();
                found.extend_from_slice(&buffer[..n]);
            }
        }
        assert!(*windows.free.lock().unwrap() < 16 << 20);
        assert!(found.iter().all(|f| *f == plain));
        assert!(readers.iter_mut().all(|r| r.read(&mut buffer).unwrap() == 0));
        drop(readers);
        assert_eq!(*windows.free.lock().unwrap(), BUDGET);
        assert!(scratch.is_tidy());
    }

    #[test]
    fn streams_of_many_frames_and_cut_ones() {
        let windows = Windows::new(Path::new("/nowhere"));
        let read = |stream: &[u8]| {
            let mut found = Vec::new();
            let mut reader = Unzstd::new(io::BufReader::with_capacity(7, stream), &windows).unwrap();
            reader.read_to_end(&mut found).map(|_| found)
        };
        let (one, two) =
            (zstd::encode_all(&b"one"[..], 1).unwrap(), zstd::encode_all(&b"two"[..], 1).unwrap());
        let skipped = [0x53, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
        assert_eq!(read(&[&one[..], &skipped, &two].concat()).unwrap(), b"onetwo");
        for n in 1..one.len() {
            assert!(read(&one[..n]).is_err(), "{n}");
        }
        assert!(read(&[&one[..], b"junk"].concat()).is_err());
        // A window of 1 GiB is more than anybody takes (RFC 8878, section 3.1.1.1.2: exponent 20), and one of 64 MiB has
        // nowhere to be.
        let frame = |exponent: u8| [&[0x28, 0xb5, 0x2f, 0xfd, 0, exponent << 3][..], &[1, 0, 0]].concat();
        assert!(read(&frame(20)).unwrap_err().to_string().contains("too much memory"));
        assert!(read(&frame(16)).unwrap_err().to_string().contains("/nowhere"));
        assert_eq!(read(&frame(14)).unwrap(), b"");
    }
}
