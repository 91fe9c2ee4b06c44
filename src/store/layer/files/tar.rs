//! Entries -> the bytes of an archive: POSIX ustar headers, with PAX records where those have no room (pax(1), "ustar
//! Interchange Format" and "pax Header Block").
//!
//! Invariant: the same entries give the same bytes, on any machine: no names of users, no times but the files' own.

use std::io::{self, Read, Write};

use anyhow::{Context, Result};

use super::super::entry::{Entry, Kind, Time};

const BLOCK: usize = 512;
const COPY: usize = 256 * 1024;

/// Writes one archive.
pub struct Writer<'a> {
    out: &'a mut dyn Write,
    whole_seconds: bool,
}

impl<'a> Writer<'a> {
    /// An archive that goes to `out`; `whole_seconds` leaves out the fractions of times, as layers do.
    pub fn new(out: &'a mut dyn Write, whole_seconds: bool) -> Writer<'a> {
        Writer { out, whole_seconds }
    }

    /// One entry and its content, of which exactly `entry.payload` bytes are taken: a file that shrank meanwhile is
    /// filled up with zeros, because its header is out.
    pub fn entry(&mut self, entry: &Entry, content: Option<&mut dyn Read>) -> Result<()> {
        let about = "cannot write the archive";
        let Some(header) = Header::of(entry, self.whole_seconds) else { return Ok(()) };
        self.out.write_all(&header.bytes()).context(about)?;
        let size = entry.payload;
        let Some(content) = content.filter(|_| size > 0) else { return Ok(()) };
        let mut buffer = vec![0; COPY.min(usize::try_from(size).unwrap_or(COPY))];
        let mut left = size;
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let n = match content.read(&mut buffer[..most]) {
                Ok(0) => {
                    buffer[..most].fill(0);
                    most
                }
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("cannot read {}", String::from_utf8_lossy(&entry.path)));
                }
            };
            self.out.write_all(&buffer[..n]).context(about)?;
            left -= n as u64;
        }
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        self.out.write_all(&[0; BLOCK][..padding as usize]).context(about)
    }

    /// A whiteout: what the layers beneath have at `path` is gone (image-spec layer.md, "Whiteouts").
    pub fn whiteout(&mut self, path: &[u8], mtime: Time) -> Result<()> {
        let base = path.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
        let path = [&path[..base], b".wh.", &path[base..]].concat();
        let entry =
            Entry { path, kind: Kind::File, mode: 0, uid: 0, gid: 0, mtime, xattrs: Vec::new(), payload: 0 };
        self.entry(&entry, None)
    }

    /// The end.
    pub fn finish(self) -> Result<()> {
        self.out
            .write_all(&[0; 2 * BLOCK])
            .and_then(|()| self.out.flush())
            .context("cannot write the archive")
    }
}

struct Header {
    pax: Vec<u8>,
    block: [u8; BLOCK],
}

impl Header {
    /// `None` for what no archive has.
    fn of(entry: &Entry, whole_seconds: bool) -> Option<Header> {
        let mut pax = Vec::new();
        let mut name = if entry.path.is_empty() { b".".to_vec() } else { entry.path.clone() };
        let (mut link, mut device) = (&b""[..], None);
        let letter = match &entry.kind {
            Kind::Directory => {
                name.push(b'/');
                b'5'
            }
            Kind::File => b'0',
            Kind::Symlink(target) => {
                link = target;
                b'2'
            }
            Kind::HardLink(target) => {
                link = target;
                b'1'
            }
            Kind::Device { is_block, major, minor } => {
                device = Some((*major, *minor));
                if *is_block { b'4' } else { b'3' }
            }
            Kind::Fifo => b'6',
            Kind::Sparse { .. } | Kind::Whiteout | Kind::Opaque | Kind::Ignored => return None,
        };
        let mut block = [0; BLOCK];
        text(&mut block[..100], &name, "path", &mut pax);
        number(&mut block[100..108], entry.mode.into(), "mode", &mut pax);
        number(&mut block[108..116], entry.uid, "uid", &mut pax);
        number(&mut block[116..124], entry.gid, "gid", &mut pax);
        number(&mut block[124..136], entry.payload, "size", &mut pax);
        time(&mut block[136..148], entry.mtime, whole_seconds, &mut pax);
        block[156] = letter;
        text(&mut block[157..257], link, "linkpath", &mut pax);
        block[257..265].copy_from_slice(b"ustar\x0000");
        if let Some((major, minor)) = device {
            // There is no record for larger ones; none that is in use has more than seven octal digits.
            octal(&mut block[329..337], u64::from(major) & 0o7_777_777);
            octal(&mut block[337..345], u64::from(minor) & 0o7_777_777);
        }
        for (name, value) in &entry.xattrs {
            record(&mut pax, &[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
        seal(&mut block);
        Some(Header { pax, block })
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(4 * BLOCK);
        if !self.pax.is_empty() {
            let mut block = [0; BLOCK];
            let end = self.block[..100].iter().position(|b| *b == 0).unwrap_or(100).min(80);
            let name = [b"PaxHeaders.0/", &self.block[..end]].concat();
            block[..name.len()].copy_from_slice(&name);
            octal(&mut block[100..108], 0o644);
            octal(&mut block[108..116], 0);
            octal(&mut block[116..124], 0);
            octal(&mut block[124..136], self.pax.len() as u64);
            octal(&mut block[136..148], 0);
            block[156] = b'x';
            block[257..265].copy_from_slice(b"ustar\x0000");
            seal(&mut block);
            bytes.extend_from_slice(&block);
            bytes.extend_from_slice(&self.pax);
            bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        }
        bytes.extend_from_slice(&self.block);
        bytes
    }
}

/// A text in its field, or as much of it as fits and all of it in a record.
fn text(field: &mut [u8], value: &[u8], key: &str, pax: &mut Vec<u8>) {
    let n = value.len().min(field.len());
    field[..n].copy_from_slice(&value[..n]);
    // Readers take a header's text for UTF-8 or for whatever their locale is: a record says that it is bytes as they are.
    if n < value.len() || !value.is_ascii() {
        record(pax, key.as_bytes(), value);
    }
}

fn number(field: &mut [u8], value: u64, key: &str, pax: &mut Vec<u8>) {
    let most = 1_u64 << (3 * (field.len() - 1)).min(63);
    if value < most {
        octal(field, value);
        return;
    }
    octal(field, 0);
    record(pax, key.as_bytes(), value.to_string().as_bytes());
}

fn time(field: &mut [u8], mtime: Time, whole_seconds: bool, pax: &mut Vec<u8>) {
    let fits = (0..1 << 33).contains(&mtime.seconds);
    octal(field, if fits { mtime.seconds as u64 } else { 0 });
    let nanoseconds = if whole_seconds { 0 } else { mtime.nanoseconds };
    if fits && nanoseconds == 0 {
        return;
    }
    // -1.25 is kept as -2 s and 750,000,000 ns.
    let total = i128::from(mtime.seconds) * 1_000_000_000 + i128::from(nanoseconds);
    let (sign, total) = (if total < 0 { "-" } else { "" }, total.unsigned_abs());
    let text = format!("{sign}{}.{:09}", total / 1_000_000_000, total % 1_000_000_000);
    record(pax, b"mtime", text.trim_end_matches('0').trim_end_matches('.').as_bytes());
}

/// Octal digits, with zeros in front and a NUL at the end.
fn octal(field: &mut [u8], value: u64) {
    let width = field.len() - 1;
    let digits = format!("{value:0width$o}");
    field[..width].copy_from_slice(&digits.as_bytes()[digits.len() - width..]);
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(pax: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    pax.extend_from_slice(format!("{length} ").as_bytes());
    pax.extend_from_slice(key);
    pax.push(b'=');
    pax.extend_from_slice(value);
    pax.push(b'\n');
}

/// The checksum: the sum of all bytes, its own field taken for spaces.
fn seal(block: &mut [u8; BLOCK]) {
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
    octal(&mut block[148..155], sum);
}

#[cfg(test)]
mod tests {
    use super::super::super::entry;
    use super::*;
    use tar_core::parse::{Limits, ParseEvent, Parser};

    fn entry(path: &[u8], kind: Kind) -> Entry {
        let mtime = Time { seconds: 1_700_000_000, nanoseconds: 0 };
        Entry {
            path: path.to_vec(),
            kind,
            mode: 0o4755,
            uid: 33,
            gid: 7,
            mtime,
            xattrs: Vec::new(),
            payload: 0,
        }
    }

    /// What is written is what our own reader finds.
    fn check(wanted: &Entry) {
        let mut bytes = Vec::new();
        let mut content = io::repeat(b'x');
        let mut writer = Writer::new(&mut bytes, false);
        writer.entry(wanted, Some(&mut content)).unwrap();
        writer.finish().unwrap();
        let mut parser = Parser::new(Limits::default());
        parser.set_ignore_pax_errors(true);
        match parser.parse(&bytes).unwrap() {
            ParseEvent::Entry { entry, .. } => {
                assert_eq!(entry::read(&entry, None, &entry::Defaults::default()).unwrap(), *wanted);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn entries_are_read_back() {
        check(&entry(b"a/b", Kind::File));
        check(&entry(b"d", Kind::Directory));
        check(&entry(b"", Kind::Directory));
        check(&entry("ümlaut".as_bytes(), Kind::File));
        check(&entry(b"\xff\xfe", Kind::File));
        check(&entry(&[b'n'; 5000], Kind::Symlink(vec![b't'; 300])));
        check(&entry(b"l", Kind::HardLink(b"a/b".to_vec())));
        check(&entry(b"f", Kind::Fifo));
        check(&entry(b"null", Kind::Device { is_block: false, major: 1, minor: 3 }));
        check(&entry(b"sda", Kind::Device { is_block: true, major: 259, minor: 1_048_575 }));
        let xattrs =
            vec![(b"security.capability".to_vec(), vec![0, 1, b'\n', 0xff]), (b"user.a".to_vec(), vec![])];
        check(&Entry { xattrs, payload: 700, ..entry(b"x", Kind::File) });
        for (seconds, nanoseconds) in [(0, 0), (0, 1), (-2, 750_000_000), (1 << 40, 5), (1 << 33, 0)] {
            check(&Entry { mtime: Time { seconds, nanoseconds }, ..entry(b"t", Kind::File) });
        }
        check(&Entry { uid: 1 << 21, gid: u32::MAX.into(), ..entry(b"o", Kind::File) });
    }

    #[test]
    fn records_count_themselves() {
        for n in [1, 80, 90, 91, 92, 93, 94, 95, 980, 990, 991, 992, 993, 994] {
            let mut pax = Vec::new();
            record(&mut pax, b"k", &vec![b'v'; n]);
            let text = String::from_utf8(pax).unwrap();
            assert_eq!(text.split(' ').next().unwrap().parse(), Ok(text.len()), "{n}");
        }
    }
}
