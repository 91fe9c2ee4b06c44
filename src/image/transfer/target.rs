//! A target: takes blobs, then manifests, the one at the top last, so that nothing it has names what it has not.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::event::Pushing;
use crate::fs;
use crate::image::manifest;
use crate::image::oci_layout;
use crate::image::parallel::Progress;
use crate::image::push;
use crate::image::upload;
use crate::image::upload::Wanted;
use crate::oci::Digest;
use crate::registry::{Action, Client, Manifest, Repository};

use super::archive_file::ArchiveFile;
use super::directory::Directory;
use super::fetch::{Received, Verified};
use super::location::Location;
use super::source::Source;

/// What the version file of a `dir:` has.
const DIR_VERSION: &str = "Directory Transport Version: 1.1\n";
/// Bytes that one thread reads ahead for another.
const CHUNK: usize = 256 << 10;

/// See the module.
pub(super) enum Target<'a> {
    /// A repository, and the tag or digest under which the top goes.
    Registry(Repository<'a>, Option<String>),
    /// An OCI layout in a directory, and the tag.
    OciDirectory(PathBuf, Option<String>),
    /// The same in a tar.
    OciArchive(ArchiveFile, Option<String>),
    /// A `dir:`.
    Directory(Directory),
}

impl<'a> Target<'a> {
    /// Opens a target; a docker archive is not one, because it is made of other blobs than the source has.
    pub(super) fn open(location: &Location, client: &'a Client) -> Result<Target<'a>> {
        Ok(match location {
            Location::Registry(reference) => {
                let what = reference.digest.as_ref().map(Digest::to_string);
                let what = what.or(reference.tag_or_latest().map(str::to_owned));
                Target::Registry(client.repository(reference, Action::Push)?, what)
            }
            Location::OciDirectory(path, tag) => {
                claim(path, "oci-layout", LAYOUT)?;
                Target::OciDirectory(path.clone(), tag.clone())
            }
            Location::OciArchive(path, tag) => Target::OciArchive(ArchiveFile::create(path)?, tag.clone()),
            Location::Directory(path) => {
                claim(path, "version", DIR_VERSION.as_bytes())?;
                Target::Directory(Directory::new(path))
            }
            Location::DockerArchive(..) => bail!("a docker archive is written by other means"),
        })
    }

    /// Whether it takes manifests only in the specification's words.
    pub(super) fn is_oci(&self) -> bool {
        matches!(self, Target::OciDirectory(..) | Target::OciArchive(..))
    }

    /// How many blobs it takes at once.
    pub(super) fn at_once(&self) -> usize {
        if matches!(self, Target::OciArchive(..)) { 1 } else { 4 }
    }

    /// Copies a blob from the source, unless it is there.
    pub(super) fn take(
        &self,
        source: &Source<'_>,
        lender: Option<&str>,
        digest: &Digest,
        size: u64,
        progress: &Progress,
    ) -> Result<Pushing> {
        match self {
            Target::Registry(to, _) => {
                let mounts: Vec<String> = lender.map(str::to_owned).into_iter().collect();
                let wanted = Wanted { what: digest.short(), digest, size, mounts: &mounts };
                match upload::without_bytes(to, &wanted)? {
                    Some(how) => Ok(how),
                    None => send(to, source, wanted, progress),
                }
            }
            Target::OciDirectory(path, _) => into_file(source, digest, size, &layout_blob(path, digest)?),
            Target::Directory(directory) => into_file(source, digest, size, &directory.blob(digest)),
            Target::OciArchive(archive, _) => {
                let content = Verified::new(source.blob(digest, 0)?, digest, size);
                archive.member(&format!("blobs/{}", digest.path()), size, content)?;
                Ok(Pushing::Pushed)
            }
        }
    }

    /// Takes a manifest or index of an index.
    pub(super) fn put(&self, document: &Manifest) -> Result<()> {
        let Manifest { bytes, digest, .. } = document;
        match self {
            Target::Registry(to, _) => push::put_manifest(to, None, document).map(drop),
            Target::OciDirectory(path, _) => write(&layout_blob(path, digest)?, bytes),
            Target::OciArchive(archive, _) => {
                archive.member(&format!("blobs/{}", digest.path()), bytes.len() as u64, bytes.as_slice())
            }
            Target::Directory(directory) => write(&directory.manifest(digest), bytes),
        }
    }

    /// Takes what is at the top, and ends. Returns the digest by which the target has it.
    pub(super) fn finish(self, top: &Manifest) -> Result<Digest> {
        let own = || top.digest.clone();
        match &self {
            Target::Registry(to, what) => Ok(push::put_manifest(to, what.as_deref(), top)?.digest),
            Target::OciDirectory(path, tag) => {
                self.put(top)?;
                let entries = entries(read_index(path)?.unwrap_or_default(), top, tag.as_deref());
                write(&path.join("index.json"), index(&entries).as_bytes()).map(|()| own())
            }
            Target::OciArchive(_, _) => {
                self.put(top)?;
                let Target::OciArchive(archive, tag) = self else { return Ok(own()) };
                let index = index(&entries(Vec::new(), top, tag.as_deref()));
                for (name, bytes) in [("oci-layout", LAYOUT), ("index.json", index.as_bytes())] {
                    archive.member(name, bytes.len() as u64, bytes)?;
                }
                archive.finish().map(|()| own())
            }
            Target::Directory(directory) => directory.finish(top).map(|()| own()),
        }
    }
}

const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// The file of a blob in a layout, in a directory that is there.
fn layout_blob(path: &Path, digest: &Digest) -> Result<PathBuf> {
    let blobs = path.join("blobs");
    fs::create_dir_all(&blobs.join(digest.algorithm().name()), 0o755)?;
    Ok(blobs.join(digest.path()))
}

/// Makes a directory one of a kind by the file that says so, first of all, so that a copy that was ended half-way can be
/// begun again. One that has other things in it is not ours to write to.
fn claim(path: &Path, mark: &str, content: &[u8]) -> Result<()> {
    let mark = path.join(mark);
    if fs::symlink_metadata(&mark)?.is_some() {
        return Ok(());
    }
    if !fs::read_dir(path)?.is_empty() {
        bail!("cannot write to {}: it is neither empty nor of this kind", path.display());
    }
    fs::create_dir_all(path, 0o755)?;
    write(&mark, content)
}

/// Sends a blob. What comes from another registry is read by a thread of its own, so that neither waits for the other.
fn send(
    to: &Repository<'_>,
    source: &Source<'_>,
    wanted: Wanted<'_>,
    progress: &Progress,
) -> Result<Pushing> {
    if let Some(section) = source.section(wanted.digest)? {
        if section.size() != wanted.size {
            bail!("blob {} has {} bytes, not {}", wanted.digest, section.size(), wanted.size);
        }
        return upload::send(to, wanted, &mut upload::from_section(&section), progress);
    }
    let Wanted { digest, size, .. } = wanted;
    thread::scope(|scope| {
        let mut open = |from: u64| -> Result<Box<dyn Read + Send>> {
            let (sender, receiver) = mpsc::sync_channel(8);
            let mut blob = source.blob(digest, from)?;
            scope.spawn(move || {
                let result = if from == 0 {
                    read_ahead(&mut Verified::new(blob, digest, size), &sender)
                } else {
                    // Its digest is the registry's to compare: it has seen the beginning.
                    read_ahead(&mut blob, &sender)
                };
                // Where nobody listens any more, nobody wants to know.
                let _ = sender.send(result.map(|()| Vec::new()));
            });
            Ok(Box::new(Received::new(receiver)))
        };
        upload::send(to, wanted, &mut open, progress)
    })
}

fn read_ahead(input: &mut impl Read, sender: &mpsc::SyncSender<io::Result<Vec<u8>>>) -> io::Result<()> {
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        input.by_ref().take(CHUNK as u64).read_to_end(&mut chunk)?;
        if chunk.is_empty() || sender.send(Ok(chunk)).is_err() {
            return Ok(());
        }
    }
}

/// Writes a blob's file, which appears once it is whole and was verified.
fn into_file(source: &Source<'_>, digest: &Digest, size: u64, path: &Path) -> Result<Pushing> {
    if fs::symlink_metadata(path)?.is_some_and(|m| m.len() == size) {
        return Ok(Pushing::Exists);
    }
    let about = || format!("cannot write {}", path.display());
    let draft = path.with_extension(format!("{}.draft", std::process::id()));
    let mut file = fs::create_new(&draft, 0o644)?;
    let copied = source
        .blob(digest, 0)
        .and_then(|blob| io::copy(&mut Verified::new(blob, digest, size), &mut file).with_context(about))
        .and_then(|_| fs::rename(&draft, path));
    if copied.is_err() {
        let _ = fs::remove_file(&draft);
    }
    copied.map(|()| Pushing::Pushed)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write_atomic(path, bytes)
}

/// The entries of a layout's index; `None` where there is no layout.
fn read_index(path: &Path) -> Result<Option<Vec<Value>>> {
    let path = path.join("index.json");
    let Some(text) = fs::read_to_string_if_exists(&path)? else { return Ok(None) };
    let about = || format!("cannot read {}", path.display());
    let index: Value = serde_json::from_str(&text).with_context(about)?;
    match index.get("manifests").and_then(Value::as_array) {
        Some(entries) => Ok(Some(entries.clone())),
        None => bail!("{}: it lists nothing", about()),
    }
}

/// The entries with one more, in the place of those that it makes needless.
fn entries(mut old: Vec<Value>, top: &Manifest, tag: Option<&str>) -> Vec<Value> {
    let mut new = json!({
        "mediaType": top.media_type, "digest": top.digest.to_string(), "size": top.bytes.len(),
    });
    let of = |entry: &Value| entry["annotations"][oci_layout::REF_NAME].as_str().map(str::to_owned);
    if let Some(tag) = tag {
        new["annotations"] = json!({oci_layout::REF_NAME: tag});
    }
    old.retain(|entry| match of(entry) {
        Some(name) => Some(name.as_str()) != tag,
        None => entry["digest"] != new["digest"],
    });
    old.push(new);
    old
}

fn index(entries: &[Value]) -> String {
    json!({"schemaVersion": 2, "mediaType": manifest::INDEX, "manifests": entries}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_stands_for_one_image() {
        let top = |text: &[u8]| Manifest {
            bytes: text.to_vec(),
            media_type: manifest::MANIFEST.to_owned(),
            digest: Digest::of(text),
        };
        let one = entries(Vec::new(), &top(b"1"), Some("a"));
        assert_eq!(one.len(), 1);
        let again = entries(one.clone(), &top(b"2"), Some("a"));
        assert_eq!((again.len(), &again[0]["digest"]), (1, &json!(Digest::of(b"2").to_string())));
        let two = entries(one, &top(b"1"), Some("b"));
        assert_eq!(two.len(), 2);
        let untagged = entries(entries(two, &top(b"3"), None), &top(b"3"), None);
        assert_eq!(untagged.len(), 3);
    }
}
