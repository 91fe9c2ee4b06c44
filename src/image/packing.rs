//! A packing: how the tar of a layer that was made here is compressed before it is shipped.
//!
//! All processors work on one layer, and yet the same tar gives the same bytes on every machine: what is cut into blocks,
//! and where, depends on the packing alone, never on how many threads there are or which is done first.
//!
//! - gzip: one member (RFC 1952), which also the simplest reader understands. Each block is deflated by itself, with the
//!   32 KiB before it as its dictionary, and ends on a byte boundary (an empty stored block, RFC 1951 section 3.2.4), so
//!   that the blocks can be put one after the other. This is what pigz does.
//! - zstd: the library's own threads, with jobs of a fixed size.
//!
//! Invariant: memory is bounded by the number of threads, whatever the size of the layer.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, bail};
use flate2::{Compress, Crc, FlushCompress};

use super::compression::Compression;

/// The bytes that are deflated by one thread at a time.
const BLOCK: usize = 256 << 10;
/// As far back as deflate can refer.
const WINDOW: usize = 32 << 10;
/// The bytes that one thread of zstd compresses at a time, and how much of the window it sees of the job before (1/8).
const ZSTD_JOB: u32 = 4 << 20;
const ZSTD_OVERLAP: u32 = 6;
/// More threads than this would only take memory.
const THREADS_LIMIT: usize = 16;

/// A kind of compression, with a level that is valid for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packing {
    compression: Compression,
    level: u32,
}

impl Packing {
    /// `level` is 1 to 9 for gzip (6), 1 to 19 for zstd (3); for no compression there is none.
    pub fn new(compression: Compression, level: Option<u32>) -> Result<Packing> {
        let (default, most) = match compression {
            Compression::None => (0, 0),
            Compression::Gzip => (6, 9),
            Compression::Zstd => (3, 19),
        };
        let level = level.unwrap_or(default);
        if level > most || (level == 0 && most > 0) {
            bail!("cannot compress with {compression} at level {level}: it has levels 1 to {most}");
        }
        Ok(Packing { compression, level })
    }

    /// What kind it is.
    pub fn compression(self) -> Compression {
        self.compression
    }

    /// A text that is the same for two packings that give the same bytes. The number at its end is for the day on which
    /// this module writes others.
    pub fn key(self) -> String {
        format!("{}-{}-1", self.compression, self.level)
    }

    /// The media type of a layer that is packed like this.
    pub fn media_type(self) -> &'static str {
        match self.compression {
            Compression::None => super::manifest::LAYER_TAR,
            Compression::Gzip => super::manifest::LAYER_GZIP,
            Compression::Zstd => super::manifest::LAYER_ZSTD,
        }
    }
}

impl Default for Packing {
    /// gzip, which every registry and every engine takes.
    fn default() -> Packing {
        Packing { compression: Compression::Gzip, level: 6 }
    }
}

/// As many threads as there are processors.
pub fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(THREADS_LIMIT)
}

/// Compresses the `size` bytes that `fill` writes, on so many threads.
pub fn pack(
    packing: Packing,
    n_threads: usize,
    size: u64,
    out: &mut dyn Write,
    fill: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    match packing.compression {
        Compression::None => fill(out),
        Compression::Gzip => gzip(packing.level, n_threads.max(1), out, fill),
        Compression::Zstd => zstd(packing.level, n_threads.max(1), size, out, fill),
    }
}

fn zstd(
    level: u32,
    n_threads: usize,
    size: u64,
    out: &mut dyn Write,
    fill: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    use zstd::zstd_safe::CParameter;
    let about = "cannot compress";
    let mut encoder = zstd::stream::write::Encoder::new(out, level as i32).context(about)?;
    // Never 0, which is another way to cut the input than 1 and more.
    encoder.multithread(n_threads as u32).context(about)?;
    encoder.set_parameter(CParameter::JobSize(ZSTD_JOB)).context(about)?;
    encoder.set_parameter(CParameter::OverlapSizeLog(ZSTD_OVERLAP)).context(about)?;
    encoder.include_checksum(true).context(about)?;
    encoder.set_pledged_src_size(Some(size)).context(about)?;
    fill(&mut encoder)?;
    encoder.finish().context(about)?;
    Ok(())
}

/// ID1 ID2, deflate, no flags, no time, no extra flags, unknown system: nothing in it depends on where we are.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

fn gzip(
    level: u32,
    n_threads: usize,
    out: &mut dyn Write,
    fill: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let (jobs, queue) = mpsc::channel::<Job>();
    let queue = Mutex::new(queue);
    thread::scope(|scope| {
        for _ in 0..n_threads {
            scope.spawn(|| deflate_jobs(&queue, level));
        }
        out.write_all(&GZIP_HEADER).context("cannot write the compressed layer")?;
        let mut blocks = Blocks {
            out,
            jobs,
            pending: VecDeque::new(),
            most: 2 * n_threads,
            block: Vec::with_capacity(BLOCK),
            before: Vec::new(),
            crc: Crc::new(),
        };
        fill(&mut blocks)?;
        blocks.finish().context("cannot write the compressed layer")
        // The sender goes with `blocks`, and with it the threads end, also after an error.
    })
}

/// A block for a thread.
struct Job {
    block: Vec<u8>,
    before: Vec<u8>,
    is_last: bool,
    reply: mpsc::SyncSender<io::Result<Deflated>>,
}

struct Deflated {
    bytes: Vec<u8>,
    crc: Crc,
}

fn deflate_jobs(queue: &Mutex<mpsc::Receiver<Job>>, level: u32) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { break };
        // Nobody waits for it after an error elsewhere.
        let _ = job.reply.send(deflate(&job, level));
    }
}

fn deflate(job: &Job, level: u32) -> io::Result<Deflated> {
    // A new one for each block: one that is reset keeps the end of its window and its chains, and what was in there before
    // shows now and then in what it finds, so that the bytes would depend on which thread did which block.
    let mut compress = Compress::new(flate2::Compression::new(level), false);
    if !job.before.is_empty() {
        compress.set_dictionary(&job.before)?;
    }
    let flush = if job.is_last { FlushCompress::Finish } else { FlushCompress::Sync };
    // Room for the worst case (RFC 1951 section 3.2.4: stored blocks), so that how a buffer grows is no part of it.
    let mut bytes = Vec::with_capacity(job.block.len() + job.block.len() / 8 + 1024);
    loop {
        let at = usize::try_from(compress.total_in()).unwrap_or(usize::MAX).min(job.block.len());
        let status = compress.compress_vec(&job.block[at..], &mut bytes, flush)?;
        let is_all_in = compress.total_in() == job.block.len() as u64;
        // Room that is left over says that a flush is complete (zlib.h, deflate()).
        let is_flushed = is_all_in && bytes.len() < bytes.capacity();
        match status {
            flate2::Status::StreamEnd => break,
            _ if is_flushed && !job.is_last => break,
            _ => bytes.reserve(bytes.capacity().max(4096)),
        }
    }
    let mut crc = Crc::new();
    crc.update(&job.block);
    Ok(Deflated { bytes, crc })
}

/// Cuts what is written into blocks, and writes what the threads make of them, in order.
struct Blocks<'a> {
    out: &'a mut dyn Write,
    jobs: mpsc::Sender<Job>,
    pending: VecDeque<mpsc::Receiver<io::Result<Deflated>>>,
    most: usize,
    block: Vec<u8>,
    before: Vec<u8>,
    crc: Crc,
}

impl Blocks<'_> {
    fn submit(&mut self, is_last: bool) -> io::Result<()> {
        while self.pending.len() >= self.most {
            self.write_next()?;
        }
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        let tail = block[block.len().saturating_sub(WINDOW)..].to_vec();
        let before = std::mem::replace(&mut self.before, tail);
        let (reply, result) = mpsc::sync_channel(1);
        self.pending.push_back(result);
        let job = Job { block, before, is_last, reply };
        self.jobs.send(job).map_err(|_| io::Error::other("the compressing threads are gone"))
    }

    fn write_next(&mut self) -> io::Result<()> {
        let Some(result) = self.pending.pop_front() else { return Ok(()) };
        let deflated = result.recv().map_err(|_| io::Error::other("a compressing thread is gone"))??;
        self.crc.combine(&deflated.crc);
        self.out.write_all(&deflated.bytes)
    }

    fn finish(mut self) -> io::Result<()> {
        self.submit(true)?;
        while !self.pending.is_empty() {
            self.write_next()?;
        }
        self.out.write_all(&self.crc.sum().to_le_bytes())?;
        // The size modulo 2^32, which is what this counts.
        self.out.write_all(&self.crc.amount().to_le_bytes())
    }
}

impl Write for Blocks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.block.len() == BLOCK {
            self.submit(false)?;
        }
        let n = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..n]);
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::compression::{Windows, decompress};
    use crate::oci::Digest;
    use std::io::Read;

    /// Some text, some noise, always the same.
    fn sample(size: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(size);
        let mut state = 0x2545_f491_4f6c_dd1du64;
        while bytes.len() < size {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            match state % 3 {
                0 => bytes.extend_from_slice(&state.to_le_bytes()),
                _ => bytes.extend_from_slice(format!("/usr/share/doc/{}\n", state % 1000).as_bytes()),
            }
        }
        bytes.truncate(size);
        bytes
    }

    fn packed(packing: Packing, n_threads: usize, bytes: &[u8], chunk: usize) -> Vec<u8> {
        let mut out = Vec::new();
        pack(packing, n_threads, bytes.len() as u64, &mut out, |to| {
            bytes.chunks(chunk).try_for_each(|part| Ok(to.write_all(part)?))
        })
        .unwrap();
        out
    }

    #[test]
    fn the_number_of_threads_does_not_matter() {
        for (compression, size) in [(Compression::Gzip, 1 << 20), (Compression::Zstd, 9 << 20)] {
            let bytes = sample(size + 12_345);
            for level in [Some(1), None] {
                let packing = Packing::new(compression, level).unwrap();
                let one = packed(packing, 1, &bytes, 1 << 20);
                for (n_threads, chunk) in [(2, 1000), (5, bytes.len())] {
                    assert!(packed(packing, n_threads, &bytes, chunk) == one, "{compression} {n_threads}");
                }
                assert!(one.len() < bytes.len() / 2);
            }
        }
    }

    /// What a thread did before must not show either, which takes real files to see.
    #[test]
    fn which_thread_does_which_block_does_not_matter() {
        let exe = crate::fs::open(std::path::Path::new("/proc/self/exe")).unwrap();
        let mut bytes = Vec::new();
        exe.take(24 << 20).read_to_end(&mut bytes).unwrap();
        for compression in [Compression::Gzip, Compression::Zstd] {
            let packing = Packing::new(compression, None).unwrap();
            let one = Digest::of(&packed(packing, 1, &bytes, 1 << 16));
            for n_threads in [2, 3] {
                assert_eq!(Digest::of(&packed(packing, n_threads, &bytes, 1 << 16)), one, "{compression}");
            }
        }
    }

    /// These bytes are on registries: the day they change, [`Packing::key`] must change too.
    #[test]
    fn the_bytes_are_what_they_were() {
        let bytes = sample(1_000_003);
        for (compression, want) in [
            (Compression::Gzip, "55691cfb2600c10cdb63f75c441bf3d5b272efaa141df81cf2125a5c548f83b1"),
            (Compression::Zstd, "2471afcdc512cda267e3531cf4764e55c4f2b7762dbffe22a1673fce0ae89c8f"),
        ] {
            let packing = Packing::new(compression, None).unwrap();
            assert_eq!(Digest::of(&packed(packing, 3, &bytes, 4096)).hex(), want, "{compression}");
        }
    }

    #[test]
    fn every_size_is_read_back() {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            for size in [0, 1, WINDOW, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 77] {
                let bytes = sample(size);
                let out = packed(Packing::new(compression, None).unwrap(), 3, &bytes, 10_007);
                let (_, mut stream) =
                    decompress(out.as_slice(), &Windows::new(std::path::Path::new("/nowhere"))).unwrap();
                let mut found = Vec::new();
                stream.read_to_end(&mut found).unwrap();
                assert!(found == bytes, "{compression} {size}");
                if compression == Compression::Gzip {
                    // One member: a reader that stops after the first has read everything.
                    let mut found = Vec::new();
                    flate2::read::GzDecoder::new(out.as_slice()).read_to_end(&mut found).unwrap();
                    assert!(found == bytes, "{size}");
                }
            }
        }
    }

    #[test]
    fn an_error_of_either_end_comes_back() {
        let full = |_: &[u8]| Err::<usize, _>(io::Error::from(io::ErrorKind::StorageFull));
        struct Out<F>(F);
        impl<F: FnMut(&[u8]) -> io::Result<usize>> Write for Out<F> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                (self.0)(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for compression in [Compression::Gzip, Compression::Zstd] {
            let packing = Packing::new(compression, None).unwrap();
            let bytes = sample(3 * BLOCK);
            let fill = |to: &mut dyn Write| Ok(to.write_all(&bytes)?);
            assert!(pack(packing, 2, bytes.len() as u64, &mut Out(full), fill).is_err());
            assert!(pack(packing, 2, 1, &mut io::sink(), |_| bail!("no")).is_err());
        }
    }

    #[test]
    fn levels_are_checked() {
        assert_eq!(Packing::new(Compression::Gzip, None).unwrap(), Packing::default());
        for (compression, level) in [(Compression::Gzip, 0), (Compression::Gzip, 10), (Compression::Zstd, 20)]
        {
            assert!(Packing::new(compression, Some(level)).is_err());
        }
        assert!(Packing::new(Compression::None, None).is_ok());
    }
}
