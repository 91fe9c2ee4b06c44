//! One entry of a layer's archive, read and made safe: clean relative names, known kinds, our own types. Pure.
//!
//! What is refused here: names that lead out of the root, and overlay's and our own extended attributes, which would let
//! an archive speak with the kernel's or with our voice.
//!
//! Invariant: `path` and a hard link's target have no empty, `.` or `..` component and no leading `/`.

use anyhow::{Result, bail};
use tar_core::parse::ParsedEntry;
use tar_core::{EntryType, PaxExtensions, SparseEntry};

use super::{overlay, owner};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const AUFS: &[u8] = b".wh..wh.";

/// An entry as the tree wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Empty for the root.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits and set-id, set-group, sticky.
    pub mode: u32,
    /// User id.
    pub uid: u64,
    /// Group id.
    pub gid: u64,
    /// When its content changed last.
    pub mtime: Time,
    /// Extended attributes: names and values.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// How many bytes follow the header, without the padding.
    pub payload: u64,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A file of `size` bytes of which only these regions are in the archive, one after the other.
    Sparse {
        /// What of it has data.
        regions: Vec<Region>,
        /// How long it is.
        size: u64,
    },
    /// A symlink and what it holds.
    Symlink(Vec<u8>),
    /// A second name for what is at this path.
    HardLink(Vec<u8>),
    /// A device.
    Device {
        /// Block device, else character device.
        is_block: bool,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// Hides what the layers beneath have at `path`, which is without the `.wh.` prefix here.
    Whiteout,
    /// Hides all that the layers beneath have in the directory `path`.
    Opaque,
    /// Means nothing to us, but stays in the archive.
    Ignored,
}

/// A region of a sparse file that has data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}

/// Seconds since the epoch, rounded down, and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    /// Seconds since the epoch.
    pub seconds: i64,
    /// And these.
    pub nanoseconds: u32,
}

/// What PAX global headers (type `g`) say about the entries after them.
#[derive(Debug, Default)]
pub(super) struct Defaults {
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<Time>,
}

impl Defaults {
    /// Takes over one global header. A later record replaces an earlier one, an empty value removes it.
    pub(super) fn update(&mut self, pax: &[u8]) -> Result<()> {
        for record in PaxExtensions::new(pax) {
            let record = record?;
            let value = record.value_bytes();
            match record.key_bytes() {
                b"uid" => self.uid = optional(value, |v| number("uid", v))?,
                b"gid" => self.gid = optional(value, |v| number("gid", v))?,
                b"mtime" => self.mtime = optional(value, |v| Ok(parse_time(v)))?.flatten(),
                // Applied to each entry, it would desynchronise us from readers that do not know global headers.
                b"size" => bail!("a global header sets the size of all entries"),
                _ => {}
            }
        }
        Ok(())
    }
}

fn optional<T>(value: &[u8], parse: impl FnOnce(&[u8]) -> Result<T>) -> Result<Option<T>> {
    if value.is_empty() { Ok(None) } else { parse(value).map(Some) }
}

/// Makes an entry from what the parser found; `sparse` is the map and the size of a sparse file.
pub(super) fn read(
    parsed: &ParsedEntry<'_>,
    sparse: Option<(Vec<SparseEntry>, u64)>,
    defaults: &Defaults,
) -> Result<Entry> {
    let pax = Pax::read(parsed.pax.unwrap_or_default())?;
    let name = until_nul(&parsed.path);
    let mut path = clean(name)?;
    let payload = if has_payload(parsed.entry_type) { parsed.size } else { 0 };
    let mut kind = match sparse {
        Some((map, size)) => sparse_file(&map, size, payload)?,
        None => kind_of(parsed, name.ends_with(b"/"))?,
    };
    if kind != Kind::Ignored
        && let Some(marked) = whiteout(&mut path)?
    {
        kind = marked;
    }
    // A negative time in base 256 arrives as its two's complement.
    let mtime = Time { seconds: parsed.mtime as i64, nanoseconds: 0 };
    Ok(Entry {
        kind,
        path,
        mode: parsed.mode & 0o7777,
        uid: if pax.has_uid { parsed.uid } else { defaults.uid.unwrap_or(parsed.uid) },
        gid: if pax.has_gid { parsed.gid } else { defaults.gid.unwrap_or(parsed.gid) },
        mtime: pax.mtime.or(defaults.mtime).unwrap_or(mtime),
        xattrs: pax.xattrs,
        payload,
    })
}

/// What of an entry's PAX records the parser does not resolve, or resolves too leniently.
#[derive(Default)]
struct Pax {
    has_uid: bool,
    has_gid: bool,
    mtime: Option<Time>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Pax {
    fn read(records: &[u8]) -> Result<Pax> {
        let mut pax = Pax::default();
        let mut encoded = Vec::new();
        for record in PaxExtensions::new(records) {
            let record = record?;
            let (key, value) = (record.key_bytes(), record.value_bytes());
            match key {
                // The parser passes over numbers that it cannot read; a size so lost would shift all that follows.
                b"size" => drop(number("size", value)?),
                b"uid" => pax.has_uid = number("uid", value).is_ok(),
                b"gid" => pax.has_gid = number("gid", value).is_ok(),
                b"mtime" => pax.mtime = parse_time(value),
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        pax.add_xattr(name.to_vec(), value.to_vec());
                    } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                        encoded.push((percent_decoded(name), value));
                    }
                }
            }
        }
        // libarchive writes each attribute in both ways; the other one needs no decoding.
        for (name, value) in encoded {
            if !pax.xattrs.iter().any(|(known, _)| *known == name)
                && let Some(value) = base64_decoded(value)
            {
                pax.add_xattr(name, value);
            }
        }
        Ok(pax)
    }

    fn add_xattr(&mut self, name: Vec<u8>, value: Vec<u8>) {
        // Archives must not speak with the kernel's voice, nor with ours.
        let is_private = overlay::is_mark(&name) || name.starts_with(owner::PREFIX.as_bytes());
        if !is_private && !name.is_empty() && !name.contains(&0) {
            self.xattrs.push((name, value));
        }
    }
}

/// Links, devices and directories have no payload, whatever size their header claims (as in Go's and GNU's readers).
fn has_payload(kind: EntryType) -> bool {
    use EntryType::{Block, Char, Directory, Fifo, Link, Symlink};
    !matches!(kind, Link | Symlink | Char | Block | Directory | Fifo)
}

fn kind_of(parsed: &ParsedEntry<'_>, ends_with_slash: bool) -> Result<Kind> {
    let device = |is_block| Kind::Device {
        is_block,
        major: parsed.dev_major.unwrap_or(0),
        minor: parsed.dev_minor.unwrap_or(0),
    };
    let target = || until_nul(parsed.link_target.as_deref().unwrap_or_default());
    Ok(match parsed.entry_type {
        EntryType::Directory => Kind::Directory,
        // How tar said "directory" before there was a type for it.
        EntryType::Regular if ends_with_slash && parsed.size == 0 => Kind::Directory,
        EntryType::Symlink => Kind::Symlink(target().to_vec()),
        EntryType::Link => Kind::HardLink(clean(target())?),
        EntryType::Char => device(false),
        EntryType::Block => device(true),
        EntryType::Fifo => Kind::Fifo,
        // Letters are vendors' (volume labels, Solaris attributes); POSIX wants all else taken for a file.
        EntryType::Other(letter) if letter.is_ascii_uppercase() => Kind::Ignored,
        _ => Kind::File,
    })
}

fn sparse_file(map: &[SparseEntry], size: u64, payload: u64) -> Result<Kind> {
    let mut total: u64 = 0;
    let mut end: u64 = 0;
    let mut regions = Vec::with_capacity(map.len());
    for region in map {
        let Some(next) = region.offset.checked_add(region.length).filter(|next| *next <= size) else {
            bail!("the sparse file has data beyond its end");
        };
        if region.offset < end {
            bail!("the sparse file has regions that overlap");
        }
        end = next;
        total += region.length;
        regions.push(Region { offset: region.offset, length: region.length });
    }
    if total != payload {
        bail!("the sparse file has {payload} bytes of data, but its map has {total}");
    }
    Ok(Kind::Sparse { regions, size })
}

/// Reads the `.wh.` names of the image specification (layer.md, "Whiteouts"), and makes `path` what they speak about.
fn whiteout(path: &mut Vec<u8>) -> Result<Option<Kind>> {
    let base = path.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
    let name = &path[base..];
    if name == OPAQUE {
        path.truncate(base.saturating_sub(1));
        return Ok(Some(Kind::Opaque));
    }
    if name.starts_with(AUFS) {
        return Ok(Some(Kind::Ignored));
    }
    let Some(hidden) = name.strip_prefix(WHITEOUT) else {
        return Ok(None);
    };
    if matches!(hidden, b"" | b"." | b"..") {
        bail!("a whiteout names nothing");
    }
    path.drain(base..base + WHITEOUT.len());
    Ok(Some(Kind::Whiteout))
}

/// The path without leading slashes, `.` and `..`; one that leads out of the root is refused.
fn clean(name: &[u8]) -> Result<Vec<u8>> {
    let mut path: Vec<u8> = Vec::with_capacity(name.len());
    for component in name.split(|b| *b == b'/') {
        match component {
            b"" | b"." => {}
            b".." if path.is_empty() => bail!("the name leads out of the layer"),
            b".." => path.truncate(path.iter().rposition(|b| *b == b'/').unwrap_or(0)),
            component => {
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(component);
            }
        }
    }
    Ok(path)
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or_default()
}

fn number(key: &str, value: &[u8]) -> Result<u64> {
    match std::str::from_utf8(value).ok().and_then(|v| v.parse().ok()) {
        Some(n) => Ok(n),
        None => bail!("{:?} is not a {key}", String::from_utf8_lossy(value)),
    }
}

/// PAX times: `[-]SECONDS[.FRACTION]`; digits beyond the nanosecond are dropped.
fn parse_time(value: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanoseconds = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = nanoseconds.fold(0, |n, digit| n * 10 + u32::from(digit - b'0'));
    // -1.25 is 0.75 s after -2.
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some(Time { seconds: seconds.checked_sub(1)?, nanoseconds: 1_000_000_000 - nanoseconds });
    }
    Some(Time { seconds, nanoseconds })
}

/// `%41` as `A`, which is how libarchive writes attribute names.
fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let hex = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let escaped = match rest {
            [b'%', a, b, ..] => hex(*a).zip(hex(*b)).map(|(a, b)| a * 16 + b),
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &rest[3..] } else { after };
    }
    bytes
}

/// Base 64 with or without padding; `None` if it is not.
fn base64_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut n_bits) = (0u32, 0);
    for b in text.iter().filter(|b| **b != b'=') {
        let value = match b {
            b'A'..=b'Z' => b - b'A',
            b'a'..=b'z' => b - b'a' + 26,
            b'0'..=b'9' => b - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        n_bits += 6;
        if n_bits >= 8 {
            n_bits -= 8;
            bytes.push((bits >> n_bits) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_or_refused() {
        let check = |name: &str, want: Option<&str>| {
            let found = clean(name.as_bytes()).ok().map(|p| String::from_utf8(p).unwrap());
            assert_eq!(found.as_deref(), want, "{name}");
        };
        check("./", Some(""));
        check("a/b", Some("a/b"));
        check("./a//b/./c/", Some("a/b/c"));
        check("/etc/passwd", Some("etc/passwd"));
        check("a/../b", Some("b"));
        check("a/b/../../c", Some("c"));
        check("..", None);
        check("a/../../b", None);
        check("/../b", None);
        check("a/..b/...", Some("a/..b/..."));
    }

    #[test]
    fn whiteouts_are_known_by_their_names() {
        let check = |name: &str, want: Option<(Option<Kind>, &str)>| {
            let mut path = name.as_bytes().to_vec();
            let found = whiteout(&mut path).ok().map(|kind| (kind, String::from_utf8(path).unwrap()));
            assert_eq!(found, want.map(|(kind, path)| (kind, path.to_owned())), "{name}");
        };
        check("a/b", Some((None, "a/b")));
        check("a/.wh.b", Some((Some(Kind::Whiteout), "a/b")));
        check(".wh.b", Some((Some(Kind::Whiteout), "b")));
        check(".wh.b/c", Some((None, ".wh.b/c")));
        check(".wh..wh..opq", Some((Some(Kind::Opaque), "")));
        check("a/.wh..wh..opq", Some((Some(Kind::Opaque), "a")));
        check("a/b/.wh..wh..opq", Some((Some(Kind::Opaque), "a/b")));
        check(".wh..wh.plnk", Some((Some(Kind::Ignored), ".wh..wh.plnk")));
        check(".wh.", None);
        check("a/.wh...", None);
        check("a/.wh..", None);
    }

    #[test]
    fn times_have_nanoseconds_and_signs() {
        let check = |text: &str, want: Option<(i64, u32)>| {
            let found = parse_time(text.as_bytes()).map(|t| (t.seconds, t.nanoseconds));
            assert_eq!(found, want, "{text}");
        };
        check("0", Some((0, 0)));
        check("1700000000.123456789", Some((1_700_000_000, 123_456_789)));
        check("1.5", Some((1, 500_000_000)));
        check("1.0000000019", Some((1, 1)));
        check("-1.25", Some((-2, 750_000_000)));
        check("-0.5", Some((-1, 500_000_000)));
        check("-3", Some((-3, 0)));
        for bad in ["", ".5", "x", "1.x", "1.5.5", "1e9", "99999999999999999999", "-9223372036854775808.5"] {
            check(bad, None);
        }
    }

    #[test]
    fn xattrs_are_read_in_both_spellings_and_private_ones_dropped() {
        let mut records = Vec::new();
        let mut add = |key: &str, value: &[u8]| {
            let body = key.len() + value.len() + 3;
            let mut length = body;
            while length != body + length.to_string().len() {
                length = body + length.to_string().len();
            }
            records.extend_from_slice(format!("{length} {key}=").as_bytes());
            records.extend_from_slice(value);
            records.push(b'\n');
        };
        add("SCHILY.xattr.user.a", b"1\n\0=2");
        add("LIBARCHIVE.xattr.user.a", b"eA==");
        add("LIBARCHIVE.xattr.user.%62", b"aGVsbG8");
        add("SCHILY.xattr.trusted.overlay.opaque", b"y");
        add("SCHILY.xattr.user.overlay.opaque", b"y");
        add("LIBARCHIVE.xattr.user.dhow.owner", b"eA==");
        add("SCHILY.xattr.", b"");
        let xattr = |name: &[u8], value: &[u8]| (name.to_vec(), value.to_vec());
        let found = Pax::read(&records).unwrap().xattrs;
        assert_eq!(found, [xattr(b"user.a", b"1\n\0=2"), xattr(b"user.b", b"hello")]);
    }

    #[test]
    fn sparse_maps_must_be_consistent() {
        let check = |map: &[(u64, u64)], size, payload, is_good| {
            let map: Vec<_> =
                map.iter().map(|(offset, length)| SparseEntry { offset: *offset, length: *length }).collect();
            assert_eq!(sparse_file(&map, size, payload).is_ok(), is_good, "{map:?}");
        };
        check(&[], 100, 0, true);
        check(&[(0, 10), (20, 5), (100, 0)], 100, 15, true);
        check(&[(0, 10)], 100, 11, false);
        check(&[(95, 10)], 100, 10, false);
        check(&[(u64::MAX, 2)], 100, 2, false);
        check(&[(50, 10), (0, 10)], 100, 20, false);
    }

    #[test]
    fn global_headers_set_defaults() {
        let mut defaults = Defaults::default();
        defaults.update(b"12 uid=1000\n13 mtime=1.5\n").unwrap();
        assert_eq!((defaults.uid, defaults.gid), (Some(1000), None));
        assert_eq!(defaults.mtime, Some(Time { seconds: 1, nanoseconds: 500_000_000 }));
        defaults.update(b"7 uid=\n").unwrap();
        assert_eq!(defaults.uid, None);
        assert!(defaults.update(b"9 size=3\n").is_err());
        assert!(defaults.update(b"99 uid=3\n").is_err());
    }
}
