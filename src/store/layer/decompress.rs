//! Compressed layers: which compression it is, told by the first bytes, and a reader of what is inside.
//!
//! Memory is bounded whatever the stream says: 32 KiB of window for gzip; for zstd see `window`. The size of what comes
//! out is not bounded here; it goes to disk, and the disk is the bound.

use std::fmt;
use std::io::{self, BufReader, Read};

use anyhow::{Context, Result, anyhow};
use flate2::bufread::MultiGzDecoder;

use crate::error::ResultExt;

use super::window::{Unzstd, Windows};

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// Skippable zstd frames (RFC 8878, section 3.1.2), which some writers put first: the low digit is theirs.
const ZSTD_SKIPPABLE: &[u8] = &[0x2a, 0x4d, 0x18];
const BZIP2: &[u8] = b"BZh";
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];
const LONGEST_MAGIC: usize = 6;
const BUFFER: usize = 64 * 1024;

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        })
    }
}

/// Reads what is inside a stream that may be compressed.
pub fn decompress<'a>(
    mut packed: impl Read + Send + 'a,
    windows: &Windows,
) -> Result<(Compression, Box<dyn Read + Send + 'a>)> {
    let mut start = Vec::with_capacity(LONGEST_MAGIC);
    (&mut packed).take(LONGEST_MAGIC as u64).read_to_end(&mut start).context("cannot read the layer")?;
    let compression = detect(&start)?;
    let packed = BufReader::with_capacity(BUFFER, io::Cursor::new(start).chain(packed));
    let plain: Box<dyn Read + Send + 'a> = match compression {
        Compression::None => Box::new(packed),
        Compression::Gzip => Box::new(MultiGzDecoder::new(packed)),
        Compression::Zstd => Box::new(Unzstd::new(packed, windows)?),
    };
    Ok((compression, plain))
}

/// What the first bytes of a stream say. Compressions that we cannot undo are an error, so that they are not taken for
/// broken archives.
pub fn detect(start: &[u8]) -> Result<Compression> {
    let is_skippable =
        start.first().is_some_and(|b| b & 0xf0 == 0x50) && start[1..].starts_with(ZSTD_SKIPPABLE);
    if start.starts_with(GZIP) {
        return Ok(Compression::Gzip);
    }
    if start.starts_with(ZSTD) || is_skippable {
        return Ok(Compression::Zstd);
    }
    for (magic, name, tool) in [(BZIP2, "bzip2", "bzip2"), (XZ, "xz", "xz")] {
        if start.starts_with(magic) {
            return Err(anyhow!("cannot read what is compressed with {name}"))
                .hint(format!("decompress it first: {tool} -d"));
        }
    }
    Ok(Compression::None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn windows() -> Windows {
        Windows::new(std::path::Path::new("/nowhere"))
    }

    fn check(packed: &[u8], want: Compression, plain: &[u8]) {
        let (compression, mut reader) = decompress(packed, &windows()).unwrap();
        let mut found = Vec::new();
        reader.read_to_end(&mut found).unwrap();
        assert_eq!((compression, &found[..]), (want, plain));
    }

    #[test]
    fn the_first_bytes_tell() {
        let plain = b"some text, some text, some text";
        let gzip = |bytes: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        check(b"", Compression::None, b"");
        check(b"x", Compression::None, b"x");
        check(plain, Compression::None, plain);
        check(&gzip(plain), Compression::Gzip, plain);
        // Several members are one stream, which is how parallel compressors write.
        check(&[gzip(&plain[..9]), gzip(&plain[9..])].concat(), Compression::Gzip, plain);
        let zstd = zstd::encode_all(&plain[..], 1).unwrap();
        check(&zstd, Compression::Zstd, plain);
        check(&[&[0x53, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9], &zstd[..]].concat(), Compression::Zstd, plain);
        for other in [&b"BZh91AY"[..], &[0xfd, b'7', b'z', b'X', b'Z', 0, 0]] {
            assert!(decompress(other, &windows()).is_err());
        }
    }
}
