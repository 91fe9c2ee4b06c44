//! A layer's `split`: the archive without the payloads that lie in `diff/`, so that it can be put together again byte
//! for byte and nothing is stored twice.
//!
//! ```text
//! zstd( "dhow split 1\n" record* end )
//! raw    0  length  bytes                       headers, padding, payloads that are no file in diff/
//! file   1  size  inode  path-length  path      the content of this file
//! end    2
//! ```
//!
//! Numbers are in base 128, low digits first, the high bit set on all but the last. The inode number names the file in
//! `replaced/`, where the content of an entry goes that a later entry of the same archive replaced.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};

use anyhow::{Context, Result, bail};

const MAGIC: &[u8] = b"dhow split 1\n";
const RAW: u8 = 0;
const FILE: u8 = 1;
const END: u8 = 2;
/// Raw bytes are gathered up to here before they become a record.
const GATHER: usize = 64 * 1024;
/// Longer than any record that is written: two gatherings, or the path of a file.
const MAX_RECORD: u64 = 2 << 20;
/// Headers are mostly zeros and repetition: higher levels gain little.
const LEVEL: i32 = 1;

/// Writes a split.
pub(super) struct Writer {
    out: zstd::Encoder<'static, BufWriter<File>>,
    raw: Vec<u8>,
    /// Bytes of the archive since all was written out.
    held: u64,
    write_out: u64,
}

impl Writer {
    /// So many bytes of the archive may go by before what is known of them is written out: what is lost if we are killed.
    pub(super) fn new(file: File, write_out: u64) -> io::Result<Writer> {
        let mut out = zstd::Encoder::new(BufWriter::new(file), LEVEL)?;
        out.write_all(MAGIC)?;
        Ok(Writer { out, raw: Vec::with_capacity(GATHER), held: 0, write_out })
    }

    /// These bytes, as they are.
    pub(super) fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        for piece in bytes.chunks(GATHER) {
            self.raw.extend_from_slice(piece);
            if self.raw.len() >= GATHER {
                self.flush().context("cannot write split")?;
            }
        }
        self.count(bytes.len() as u64).context("cannot write split")
    }

    fn count(&mut self, n: u64) -> io::Result<()> {
        self.held = self.held.saturating_add(n);
        if self.held >= self.write_out {
            self.held = 0;
            self.flush()?;
            self.out.flush()?;
        }
        Ok(())
    }

    /// The content of a file in `diff/`.
    pub(super) fn file(&mut self, path: &[u8], inode: u64, size: u64) -> Result<()> {
        let write = |writer: &mut Writer| {
            writer.flush()?;
            writer.out.write_all(&[FILE])?;
            for number in [size, inode, path.len() as u64] {
                write_number(&mut writer.out, number)?;
            }
            writer.out.write_all(path)?;
            // Before the content: of a large file that is being written, every byte counts.
            writer.count(size)
        };
        write(self).context("cannot write split")
    }

    pub(super) fn finish(mut self) -> Result<()> {
        let finish = || {
            self.flush()?;
            self.out.write_all(&[END])?;
            self.out.finish()?.flush()
        };
        finish().context("cannot write split")
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.raw.is_empty() {
            self.out.write_all(&[RAW])?;
            write_number(&mut self.out, self.raw.len() as u64)?;
            self.out.write_all(&self.raw)?;
            self.raw.clear();
        }
        Ok(())
    }
}

/// A record, as read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    Raw(Vec<u8>),
    File { path: Vec<u8>, inode: u64, size: u64 },
}

/// Reads a split.
pub(super) struct Reader {
    input: BufReader<zstd::Decoder<'static, BufReader<File>>>,
}

impl Reader {
    pub(super) fn new(file: File) -> Result<Reader> {
        let mut input = BufReader::new(zstd::Decoder::new(file).context("cannot read split")?);
        let mut magic = [0; MAGIC.len()];
        input.read_exact(&mut magic).context("cannot read split")?;
        if magic != MAGIC {
            bail!("cannot read split: it is of another version");
        }
        Ok(Reader { input })
    }

    /// The next record, `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Record>> {
        let about = "cannot read split";
        let mut tag = [0];
        self.input.read_exact(&mut tag).context(about)?;
        match tag[0] {
            END => Ok(None),
            RAW => {
                let length = read_number(&mut self.input).context(about)?;
                Ok(Some(Record::Raw(self.bytes(length)?)))
            }
            FILE => {
                let size = read_number(&mut self.input).context(about)?;
                let inode = read_number(&mut self.input).context(about)?;
                let length = read_number(&mut self.input).context(about)?;
                Ok(Some(Record::File { path: self.bytes(length)?, inode, size }))
            }
            other => bail!("{about}: there is no record {other}"),
        }
    }

    fn bytes(&mut self, length: u64) -> Result<Vec<u8>> {
        if length > MAX_RECORD {
            bail!("cannot read split: a record of {length} bytes");
        }
        let mut bytes = vec![0; length as usize];
        self.input.read_exact(&mut bytes).context("cannot read split")?;
        Ok(bytes)
    }
}

/// Writes a number in base 128.
pub(super) fn write_number(out: &mut impl Write, mut number: u64) -> io::Result<()> {
    let mut bytes = [0; 10];
    let mut n = 0;
    loop {
        bytes[n] = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            return out.write_all(&bytes[..=n]);
        }
        bytes[n] |= 0x80;
        n += 1;
    }
}

/// Reads a number in base 128.
pub(super) fn read_number(input: &mut impl Read) -> io::Result<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        input.read_exact(&mut byte)?;
        number |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "a number has too many digits"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs;
    use crate::host::Ids;
    use crate::store::tests::Scratch;

    #[test]
    fn numbers_are_read_back() {
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            write_number(&mut bytes, number).unwrap();
            assert_eq!(read_number(&mut &bytes[..]).unwrap(), number);
            assert!(read_number(&mut &bytes[..bytes.len() - 1]).is_err());
        }
        assert!(read_number(&mut &[0xff; 11][..]).is_err());
    }

    #[test]
    fn records_are_read_back() {
        let scratch = Scratch::new(Ids::Root);
        let path = scratch.dir.join("split");
        let mut writer = Writer::new(fs::create_new(&path, 0o600).unwrap(), u64::MAX).unwrap();
        writer.raw(b"a").unwrap();
        writer.raw(b"b").unwrap();
        writer.file(b"x/y", 7, 300).unwrap();
        writer.raw(&[5; GATHER + 1]).unwrap();
        writer.raw(b"c").unwrap();
        writer.finish().unwrap();
        let mut reader = Reader::new(fs::open(&path).unwrap()).unwrap();
        let mut records = Vec::new();
        while let Some(record) = reader.next().unwrap() {
            records.push(record);
        }
        let file = Record::File { path: b"x/y".to_vec(), inode: 7, size: 300 };
        let raw = |bytes: &[u8]| Record::Raw(bytes.to_vec());
        assert_eq!(records, [raw(b"ab"), file, raw(&[5; GATHER]), raw(b"\x05c")]);

        let whole = fs::read(&path).unwrap();
        for n in 0..whole.len() {
            fs::write(&path, &whole[..n]).unwrap();
            let read_all = || -> Result<()> {
                let mut reader = Reader::new(fs::open(&path)?)?;
                while reader.next()?.is_some() {}
                Ok(())
            };
            assert!(read_all().is_err(), "{n}");
        }
    }
}
