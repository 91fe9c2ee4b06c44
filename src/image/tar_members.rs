//! The members of an archive's tar, one after the other. Reads headers only; unpacks nothing: the tar of a layer is read
//! in `store::layer`, with other rules.
//!
//! Invariant: memory is bounded by the parser's limits, whatever the headers claim.

use std::io::{self, Read};

use anyhow::{Context, Result, bail};
use tar_core::parse::{Limits, ParseEvent, ParsedEntry, Parser};

use super::section::Section;

/// A stream of which a part can be passed over.
pub trait Skip: Read {
    /// Passes over `n` bytes.
    fn skip(&mut self, n: u64) -> io::Result<()> {
        match io::copy(&mut self.take(n), &mut io::sink())? {
            passed if passed == n => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Skip for Box<dyn Read + Send + '_> {}

impl Skip for Section {
    fn skip(&mut self, n: u64) -> io::Result<()> {
        if Section::skip(self, n) { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A file with content.
    File,
    /// A symlink with this target.
    Symlink(Vec<u8>),
    /// Another name of an earlier member.
    HardLink(Vec<u8>),
    /// Anything else: no archive has a use for it.
    Other,
}

/// A member's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its path as it is in the archive.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// The size of its content.
    pub size: u64,
    /// Where its content begins, counted in bytes from the beginning of the archive.
    pub offset: u64,
}

/// Walks over an archive.
pub struct Members<R> {
    input: R,
    parser: Parser,
    /// Bytes of the current member's content that nobody read yet.
    content: u64,
    /// The padding after it.
    padding: u64,
    offset: u64,
}

impl<R: Skip> Members<R> {
    /// At the beginning of an uncompressed archive.
    pub fn new(input: R) -> Members<R> {
        let limits = Limits { max_path_len: Some(4096), ..Limits::default() };
        let mut parser = Parser::new(limits);
        parser.set_ignore_pax_errors(true);
        Members { input, parser, content: 0, padding: 0, offset: 0 }
    }

    /// The next header; what was not read of the member before is passed over.
    pub fn advance(&mut self) -> Result<Option<Member>> {
        self.input.skip(self.content).context("cannot read the archive: it is cut off")?;
        // Some writers leave the padding after the last member out, as they do the end mark.
        match self.input.skip(self.padding) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                return Err(error).context("cannot read the archive");
            }
            _ => {}
        }
        self.offset += self.content + self.padding;
        (self.content, self.padding) = (0, 0);
        let mut header = Vec::new();
        loop {
            let event = self.parser.parse(&header).context("cannot read the archive")?;
            match event {
                ParseEvent::NeedData { min_bytes } => {
                    // Exactly what is asked for: the content that follows is not ours to read.
                    let missing = min_bytes.saturating_sub(header.len()).max(1) as u64;
                    let n = (&mut self.input).take(missing).read_to_end(&mut header);
                    let n = n.context("cannot read the archive")? as u64;
                    self.offset += n;
                    if n < missing && header.is_empty() {
                        return Ok(None);
                    }
                    if n < missing {
                        bail!("cannot read the archive: it is cut off");
                    }
                }
                ParseEvent::Entry { entry, .. } => return self.member(member(&entry)).map(Some),
                ParseEvent::SparseEntry { entry, .. } => {
                    let sparse = Member { kind: Kind::Other, ..member(&entry) };
                    return self.member(sparse).map(Some);
                }
                ParseEvent::GlobalExtensions { consumed, .. } => _ = header.drain(..consumed),
                ParseEvent::End { .. } => return Ok(None),
            }
        }
    }

    fn member(&mut self, mut member: Member) -> Result<Member> {
        if member.size > i64::MAX as u64 {
            bail!(
                "cannot read the archive: {} claims to be too large",
                String::from_utf8_lossy(&member.path)
            );
        }
        member.offset = self.offset;
        self.content = member.size;
        self.padding = member.size.next_multiple_of(512) - member.size;
        Ok(member)
    }

    /// The content of the current member; may be left unread.
    pub fn content(&mut self) -> Content<'_, R> {
        Content { members: self }
    }

    /// The stream, after the last member.
    pub fn into_inner(self) -> R {
        self.input
    }
}

fn member(entry: &ParsedEntry<'_>) -> Member {
    let target = || entry.link_target.as_deref().unwrap_or_default().to_vec();
    let kind = match () {
        () if entry.is_file() => Kind::File,
        () if entry.is_symlink() => Kind::Symlink(target()),
        () if entry.is_hard_link() => Kind::HardLink(target()),
        () => Kind::Other,
    };
    Member { path: entry.path.to_vec(), kind, size: entry.size, offset: 0 }
}

/// Reads one member's content.
pub struct Content<'a, R> {
    members: &'a mut Members<R>,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.members.content).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let n = self.members.input.read(&mut buffer[..most])?;
        if n == 0 {
            // The end of the archive is not the end of the member.
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut off"));
        }
        self.members.content -= n as u64;
        self.members.offset += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(3);
        header.set_mode(0o644);
        builder.append_data(&mut header, format!("{}/a", "long".repeat(40)), &b"abc"[..]).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, "l", "../a").unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(600);
        builder.append_data(&mut header, "b", [7u8; 600].as_slice()).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn members_come_with_their_content() {
        let bytes = archive();
        let input: Box<dyn Read + Send> = Box::new(bytes.as_slice());
        let mut members = Members::new(input);
        let a = members.advance().unwrap().unwrap();
        let mut text = String::new();
        members.content().read_to_string(&mut text).unwrap();
        assert_eq!((a.kind, a.size, text.as_str()), (Kind::File, 3, "abc"));
        assert_eq!(&bytes[a.offset as usize..][..3], b"abc");
        assert_eq!(members.advance().unwrap().unwrap().kind, Kind::Symlink(b"../a".to_vec()));
        let b = members.advance().unwrap().unwrap();
        assert_eq!((b.path.as_slice(), b.size), (&b"b"[..], 600));
        assert_eq!(members.advance().unwrap(), None);
    }

    #[test]
    fn every_prefix_returns() {
        let bytes = archive();
        for len in (0..bytes.len()).step_by(7) {
            let input: Box<dyn Read + Send> = Box::new(&bytes[..len]);
            let mut members = Members::new(input);
            while let Ok(Some(_)) = members.advance() {}
        }
    }
}
