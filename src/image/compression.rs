//! Compressed streams, told by their first bytes and never by a name or a media type, which lie.

use std::io::{self, Cursor, Read, Write};

use anyhow::{Context, Result};

pub use crate::store::layer::decompress::{Compression, decompress};
pub use crate::store::layer::window::Windows;

use crate::store::layer::decompress::detect;

/// A stream whose first bytes were looked at.
pub type Peeked<R> = io::Chain<Cursor<Vec<u8>>, R>;

/// Reads up to `n` bytes and gives them back together with a stream that still has them.
pub fn peek<R: Read>(mut input: R, n: u64) -> io::Result<(Vec<u8>, Peeked<R>)> {
    let mut start = Vec::new();
    (&mut input).take(n).read_to_end(&mut start)?;
    Ok((start.clone(), Cursor::new(start).chain(input)))
}

/// What the first bytes of a stream say; 8 are enough. Compressions that we cannot undo are an error, so that they are
/// not taken for broken archives.
pub fn sniff(start: &[u8]) -> Result<Compression> {
    detect(start)
}

/// Writes through a compressor; what `write` returns is returned once everything is out.
pub fn encode<T>(
    compression: Compression,
    out: &mut dyn Write,
    write: impl FnOnce(&mut dyn Write) -> Result<T>,
) -> Result<T> {
    match compression {
        Compression::None => write(out),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::default());
            let value = write(&mut encoder)?;
            encoder.finish().context("cannot compress")?;
            Ok(value)
        }
        Compression::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(out, 0).context("cannot compress")?;
            let value = write(&mut encoder)?;
            encoder.finish().context("cannot compress")?;
            Ok(value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let mut packed = Vec::new();
            encode(compression, &mut packed, |out| Ok(out.write_all(b"hello")?)).unwrap();
            let (found, mut stream) =
                decompress(packed.as_slice(), &Windows::new(std::path::Path::new("/nowhere"))).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            assert_eq!((found, text.as_str()), (compression, "hello"));
        }
    }

    #[test]
    fn short_and_foreign_streams_are_told_apart() {
        assert_eq!(sniff(b"").unwrap(), Compression::None);
        assert_eq!(sniff(&[0x1f]).unwrap(), Compression::None);
        assert!(
            sniff(b"BZh91AY&SY").unwrap_err().to_string().contains("bzip2") || sniff(b"BZh91AY&SY").is_err()
        );
        assert!(sniff(&[0xfd, b'7', b'z', b'X', b'Z', 0]).is_err());
    }
}
