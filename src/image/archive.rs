//! An archive's members by name, whatever the archive is: a directory, a tar that can be read anywhere, or a stream.
//!
//! A stream is read once, from beginning to end, whatever the order of its members: small ones are kept in memory,
//! compressed layers go to where blobs are made, uncompressed ones are unpacked on the way, since a copy would be of no
//! further use. A tar in a file that can be read anywhere is only indexed; its members are read later, side by side.
//!
//! Invariant: no name of a member ever names a file of this machine, except beneath an archive that is a directory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::event::Event;
use crate::event::Sink;
use crate::fs;
use crate::oci::{Algorithm, DiffId, Digest};
use crate::store::Store;
use crate::store::blob;
use crate::store::image::DOCUMENT_LIMIT;
use crate::store::layer;
use crate::store::pin::Pins;

use super::Input;
use super::compression;
use super::compression::{Compression, Windows};
use super::section::Section;
use super::tar_members::Kind;
use super::tar_members::Member;
use super::tar_members::Members;

/// The most members that an archive may have, and the most bytes of a stream's small members that are kept.
const MEMBERS_LIMIT: usize = 100_000;
const KEPT_LIMIT: u64 = 64 << 20;

/// What a name stands for.
#[derive(Debug, Clone)]
pub enum Item {
    /// Bytes that are in memory.
    Bytes(Arc<[u8]>),
    /// Bytes in a file.
    Section(Section),
    /// A compressed layer of a stream: in [`Archive::blobs`], or in the store and pinned.
    Blob(Digest),
    /// An uncompressed layer of a stream, in [`Archive::layers`].
    Layer(DiffId),
    /// Another name.
    Link(String),
}

/// An archive that is open.
#[derive(Debug, Default)]
pub struct Archive {
    members: BTreeMap<String, Item>,
    dir: Option<OwnedFd>,
    /// Blobs that were verified but not yet published.
    pub blobs: BTreeMap<Digest, blob::Sealed>,
    /// Layers that were unpacked but not yet published.
    pub layers: BTreeMap<DiffId, layer::Unpacked>,
    kept: u64,
}

impl Archive {
    /// Opens an archive; reads all of it if it is a stream.
    pub fn open(store: &Store, pins: &Pins, input: &Input, events: Sink<'_>) -> Result<Archive> {
        let mut file = match input {
            Input::Path(path) if fs::metadata(path)?.is_some_and(|m| m.is_dir()) => {
                return Archive::directory(path);
            }
            Input::Path(path) => fs::open(path)?,
            Input::Stream(file) => file.try_clone().context("cannot duplicate a descriptor")?,
        };
        let mut archive = Archive::default();
        let is_file = file.metadata().is_ok_and(|m| m.is_file());
        if is_file {
            // Standard input may be a file of which somebody has read the beginning.
            let at = file.stream_position().context("cannot read")?;
            let mut all = Section::whole(file.try_clone().context("cannot duplicate a descriptor")?)?;
            all.skip(at);
            let mut start = Vec::new();
            all.clone().take(8).read_to_end(&mut start).context("cannot read")?;
            if compression::sniff(&start)? == Compression::None {
                archive.index(all)?;
                return Ok(archive);
            }
        }
        let (_, stream) = compression::decompress(file, &layer::windows(store))?;
        archive.read_through(store, pins, stream, events)?;
        Ok(archive)
    }

    /// Opens an archive that nothing is taken out of but what is asked for: a directory, or a tar, which is read where it
    /// is. One that is compressed, or cannot be read anywhere, is copied to an unnamed file in `spool` first.
    pub fn open_in_place(path: &Path, spool: &Path) -> Result<Archive> {
        if fs::metadata(path)?.is_some_and(|m| m.is_dir()) {
            return Archive::directory(path);
        }
        let file = fs::open(path)?;
        let is_file = file.metadata().is_ok_and(|m| m.is_file());
        let about = || format!("cannot read {}", path.display());
        let (compression, mut plain) =
            compression::decompress(&file, &Windows::new(spool)).with_context(about)?;
        let mut archive = Archive::default();
        if is_file && compression == Compression::None {
            drop(plain);
            archive.index(Section::whole(file).with_context(about)?)?;
        } else {
            let mut copy = fs::create_unnamed(spool)?;
            io::copy(&mut plain, &mut copy).with_context(about)?;
            archive.index(Section::whole(copy).with_context(about)?)?;
        }
        Ok(archive)
    }

    fn directory(path: &Path) -> Result<Archive> {
        let dir = fs::open(path)?;
        Ok(Archive { dir: Some(dir.into()), ..Archive::default() })
    }

    /// What this name stands for; links are followed.
    pub fn item(&self, name: &str) -> Result<Option<Item>> {
        let Some(mut name) = normal(name.as_bytes(), "") else { return Ok(None) };
        if let Some(dir) = &self.dir {
            return beneath(dir, &name);
        }
        for _ in 0..16 {
            match self.members.get(&name) {
                Some(Item::Link(target)) => name.clone_from(target),
                item => return Ok(item.cloned()),
            }
        }
        bail!("cannot read {name}: it is a link that leads nowhere");
    }

    /// A document: a whole member of at most 8 MiB.
    pub fn document(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let section = match self.item(name)? {
            None => return Ok(None),
            Some(Item::Bytes(bytes)) => return Ok(Some(bytes.to_vec())),
            Some(Item::Section(section)) => section,
            Some(_) => bail!("cannot read {name}: it is not a document"),
        };
        if section.size() > DOCUMENT_LIMIT {
            bail!("cannot read {name}: {} bytes are too many for a document", section.size());
        }
        let mut bytes = Vec::new();
        section
            .take(DOCUMENT_LIMIT)
            .read_to_end(&mut bytes)
            .with_context(|| format!("cannot read {name}"))?;
        Ok(Some(bytes))
    }

    /// Remembers where the members of a tar are.
    fn index(&mut self, tar: Section) -> Result<()> {
        let mut members = Members::new(tar.clone());
        while let Some(member) = members.advance()? {
            if let Some(item) = link(&member) {
                self.insert(&member, item)?;
            } else if member.kind == Kind::File {
                self.insert(&member, Item::Section(tar.part(member.offset, member.size)))?;
            }
        }
        Ok(())
    }

    /// Takes in a stream.
    fn read_through(
        &mut self,
        store: &Store,
        pins: &Pins,
        stream: Box<dyn Read + Send + '_>,
        events: Sink<'_>,
    ) -> Result<()> {
        let mut members = Members::new(stream);
        while let Some(member) = members.advance()? {
            if let Some(item) = link(&member) {
                self.insert(&member, item)?;
                continue;
            }
            if member.kind != Kind::File {
                continue;
            }
            let name = String::from_utf8_lossy(&member.path).into_owned();
            let item = self
                .take_in(store, pins, &member, members.content(), events)
                .with_context(|| format!("cannot read {name}"))?;
            if let Some(item) = item {
                self.insert(&member, item)?;
            }
        }
        // Whoever writes into the pipe must not be ended by a signal because of padding that we do not want.
        let _ = io::copy(&mut members.into_inner(), &mut io::sink());
        Ok(())
    }

    /// Takes in one member of a stream.
    fn take_in(
        &mut self,
        store: &Store,
        pins: &Pins,
        member: &Member,
        content: impl Read + Send,
        events: Sink<'_>,
    ) -> Result<Option<Item>> {
        let (start, mut content) = compression::peek(content, 512)?;
        let name = normal(&member.path, "").unwrap_or_default();
        let named: Option<Digest> =
            name.strip_prefix("blobs/").and_then(|path| path.replacen('/', ":", 1).parse().ok());
        if compression::sniff(&start)? != Compression::None {
            let Some(digest) = named else {
                return self.unpack(store, None, content, &name, member.size, events).map(Some);
            };
            self.spool(store, pins, &digest, &mut content)?;
            return Ok(Some(Item::Blob(digest)));
        }
        if let Some(digest) =
            named.as_ref().filter(|d| d.algorithm() != Algorithm::default() && is_tar(&start))
        {
            // Its diff id is mostly of another algorithm, and only its config says which.
            self.spool(store, pins, digest, &mut content)?;
            return Ok(Some(Item::Blob(digest.clone())));
        }
        if is_tar(&start) {
            let diff_id = named.map(DiffId);
            if let Some(diff_id) = &diff_id {
                pins.hold(store, &diff_id.0)?;
            }
            return self.unpack(store, diff_id.as_ref(), content, &name, member.size, events).map(Some);
        }
        if member.size > DOCUMENT_LIMIT {
            return Ok(None);
        }
        self.kept += member.size;
        if self.kept > KEPT_LIMIT {
            bail!("the archive has more than {KEPT_LIMIT} bytes of documents");
        }
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        Ok(Some(Item::Bytes(bytes.into())))
    }

    fn spool(&mut self, store: &Store, pins: &Pins, digest: &Digest, content: &mut impl Read) -> Result<()> {
        pins.hold(store, digest)?;
        if self.blobs.contains_key(digest) || blob::exists(store, digest)? {
            return Ok(());
        }
        let mut writer = blob::Writer::new(store, digest.algorithm())?;
        io::copy(content, &mut writer).with_context(|| format!("cannot write blob {digest}"))?;
        self.blobs.insert(digest.clone(), writer.seal(Some(digest))?);
        Ok(())
    }

    fn unpack(
        &mut self,
        store: &Store,
        expected: Option<&DiffId>,
        content: impl Read + Send,
        name: &str,
        total: u64,
        events: Sink<'_>,
    ) -> Result<Item> {
        events(Event::Unpacking { what: name.to_owned(), done: 0, total });
        let (_, tar) = compression::decompress(content, &layer::windows(store))?;
        let unpacked = layer::extract(store, tar, expected)?;
        events(Event::Unpacking { what: name.to_owned(), done: total, total });
        let diff_id = unpacked.layer.diff_id.clone();
        self.layers.entry(diff_id.clone()).or_insert(unpacked);
        Ok(Item::Layer(diff_id))
    }

    fn insert(&mut self, member: &Member, item: Item) -> Result<()> {
        if self.members.len() >= MEMBERS_LIMIT {
            bail!("cannot read the archive: it has more than {MEMBERS_LIMIT} members");
        }
        // A name that leads out of the archive is nobody's: manifests are looked up by normal names.
        if let Some(name) = normal(&member.path, "") {
            self.members.insert(name, item);
        }
        Ok(())
    }
}

/// A regular file beneath a directory. Symlinks may lead about in there, but not out.
fn beneath(dir: &OwnedFd, name: &str) -> Result<Option<Item>> {
    let about = || format!("cannot open {name}");
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = match rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve) {
        Ok(fd) => File::from(fd),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(error).with_context(about),
    };
    if !file.metadata().with_context(about)?.is_file() {
        bail!("cannot open {name}: it is not a regular file");
    }
    Ok(Some(Item::Section(Section::whole(file).with_context(about)?)))
}

fn link(member: &Member) -> Option<Item> {
    let target = match &member.kind {
        // A symlink is relative to the directory that it is in, a hard link to the archive.
        Kind::Symlink(target) => {
            normal(target, normal(&member.path, "")?.rsplit_once('/').map_or("", |(d, _)| d))
        }
        Kind::HardLink(target) => normal(target, ""),
        _ => None,
    };
    target.map(Item::Link)
}

/// A path within the archive in its normal form, read from the directory `base`; `None` if it leads out of the archive.
fn normal(path: &[u8], base: &str) -> Option<String> {
    let path = std::str::from_utf8(path).ok()?;
    let base = if path.starts_with('/') { "" } else { base };
    let mut parts: Vec<&str> = Vec::new();
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop()?,
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// Whether these are the first 512 bytes of a tar; one of no members begins with zeros.
fn is_tar(start: &[u8]) -> bool {
    start.len() == 512
        && (&start[257..262] == b"ustar" || start.iter().all(|b| *b == 0) || has_old_header(start))
}

/// A header of before 1988, which has no magic, but a checksum.
fn has_old_header(start: &[u8]) -> bool {
    <&[u8; 512]>::try_from(start).is_ok_and(|h| tar_core::Header::from_bytes(h).verify_checksum().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_within_the_archive() {
        let check = |path: &str, base: &str, want: Option<&str>| {
            assert_eq!(normal(path.as_bytes(), base).as_deref(), want, "{path} in {base}");
        };
        check("./a//b", "", Some("a/b"));
        check("/a", "x", Some("a"));
        check("../b/layer.tar", "a", Some("b/layer.tar"));
        check("../../b", "a", None);
        check("..", "", None);
        check(".", "", None);
        check("a/../../b", "", None);
        assert_eq!(normal(b"\xff", ""), None);
    }

    #[test]
    fn links_are_followed_but_not_for_ever() {
        let mut archive = Archive::default();
        archive.members.insert("a".to_owned(), Item::Link("b".to_owned()));
        archive.members.insert("b".to_owned(), Item::Bytes(b"x".as_slice().into()));
        archive.members.insert("c".to_owned(), Item::Link("c".to_owned()));
        assert_eq!(archive.document("./a").unwrap().unwrap(), b"x");
        assert!(archive.document("../a").unwrap().is_none());
        assert!(archive.document("c").is_err());
    }
}
