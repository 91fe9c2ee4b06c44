//! `save`: images of the store -> an archive.
//!
//! The docker archive is the one of docker 25 and later, which is an OCI layout too, so that every tool finds what it
//! looks for: `manifest.json` for docker, `index.json` for the others. Its layers are uncompressed, which the oldest
//! reader understands. An OCI archive or directory has the layers as the store has them, and the manifests unchanged.
//!
//! Invariant: the same images give the same bytes.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::fs;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::oci::image::ImageManifest;
use crate::store::Store;
use crate::store::blob;
use crate::store::image;
use crate::store::image::{DOCUMENT_LIMIT, Document, Image};
use crate::store::journal::{self, Event};
use crate::store::layer;

use super::compression;
use super::compression::Compression;
use super::content::blob_or_layer;
use super::docker_archive::Entry;
use super::manifest;
use super::manifest::LayerEntry;

/// What a header of a tar can hold of a name.
const NAME_LIMIT: usize = 100;

/// The form of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// What `docker save` makes.
    DockerArchive,
    /// An OCI layout in a tar.
    OciArchive,
    /// An OCI layout in a directory.
    OciDirectory,
}

/// What to save.
#[derive(Debug, Clone)]
pub struct Options {
    /// Names and ids. A repository without a tag stands for all its tags.
    pub images: Vec<String>,
    /// The form of the archive.
    pub format: Format,
    /// Whether the archive as a whole is compressed; not for a directory.
    pub compression: Compression,
}

/// Where it goes.
pub enum Output<'a> {
    /// A file, which appears once it is whole, or a new directory.
    Path(&'a Path),
    /// A stream, such as standard output.
    Stream(&'a mut dyn Write),
}

/// Saves images.
pub fn save(store: &Store, options: &Options, output: Output<'_>) -> Result<()> {
    let saved = saved(store, options)?;
    write_out(store, &saved, options, output)?;
    let event = |one: &Saved| Event::of_image("save", one.config.digest.clone(), one.names.first());
    journal::note_all(store, &saved.iter().map(event).collect::<Vec<_>>());
    Ok(())
}

fn write_out(store: &Store, saved: &[Saved], options: &Options, output: Output<'_>) -> Result<()> {
    match (options.format, output) {
        (Format::OciDirectory, Output::Path(path)) => directory(store, saved, path),
        (Format::OciDirectory, Output::Stream(_)) => bail!("cannot save a directory to standard output"),
        (_, Output::Path(path)) => file(path, |out| archive(store, saved, options, out)),
        (_, Output::Stream(out)) => archive(store, saved, options, out).context("cannot save"),
    }
}

/// An image that is to be written.
pub(super) struct Saved {
    pub(super) names: Vec<Reference>,
    pub(super) manifest: Document,
    pub(super) config: Document,
    pub(super) layers: Vec<LayerEntry>,
}

fn saved(store: &Store, options: &Options) -> Result<Vec<Saved>> {
    let mut chosen: Vec<(Image, Vec<Reference>)> = Vec::new();
    for name_or_id in &options.images {
        for (image, name) in matches(store, name_or_id)? {
            match chosen.iter_mut().find(|(i, _)| i.manifest == image.manifest) {
                Some((_, names)) => names.extend(name.filter(|n| !names.contains(n))),
                None => chosen.push((image, name.into_iter().collect())),
            }
        }
    }
    let mut all: Vec<Saved> = Vec::new();
    for (image, names) in chosen {
        let about = || format!("cannot save {}", image.id);
        let (manifest, config, layers) = match options.format {
            Format::DockerArchive => uncompressed(store, &image).with_context(about)?,
            _ => as_it_is(store, &image).with_context(about)?,
        };
        // Two manifests of one image may have become the same.
        match all.iter_mut().find(|s| s.manifest == manifest) {
            Some(known) => known.names.extend(names),
            None => all.push(Saved { names, manifest, config, layers }),
        }
    }
    Ok(all)
}

/// The images that a name or an id stands for, and the name under which to save each.
fn matches(store: &Store, name_or_id: &str) -> Result<Vec<(Image, Option<Reference>)>> {
    if let Ok(repository) = name_or_id.parse::<Reference>()
        && repository.tag.is_none()
        && repository.digest.is_none()
    {
        let names = image::names::Names::visible(store)?.named;
        let mut all = Vec::new();
        for named in names {
            let same = named.reference.registry == repository.registry
                && named.reference.repository == repository.repository;
            if same && named.reference.tag.is_some() {
                all.push((image::find(store, &named.reference.to_string())?, Some(named.reference)));
            }
        }
        if !all.is_empty() {
            return Ok(all);
        }
    }
    let (image, by) = image::find::find_by(store, name_or_id)?;
    let name = match by {
        image::find::By::Name(name) => Some(name),
        _ => None,
    };
    Ok(vec![(image, name)])
}

/// A manifest, and the config and the layers that it names.
type Documents = (Document, Document, Vec<LayerEntry>);

/// A manifest whose layers are the uncompressed tars.
fn uncompressed(store: &Store, image: &Image) -> Result<Documents> {
    let mut layers = Vec::new();
    for diff_id in &image.diff_ids {
        let Some(layer) = layer::find(store, diff_id)? else { bail!("its layer {} is missing", diff_id.0) };
        let media_type = manifest::LAYER_TAR.to_owned();
        layers.push(LayerEntry { media_type, digest: diff_id.0.clone(), size: layer.size });
    }
    Ok(built(image, layers))
}

/// The manifest that is made for these layers.
fn built(image: &Image, layers: Vec<LayerEntry>) -> Documents {
    let manifest = Document::of(manifest::build(&image.config_bytes, &layers));
    (manifest, Document::of(image.config_bytes.clone()), layers)
}

/// The manifest that the store has; one in docker's words is said again in the specification's.
fn as_it_is(store: &Store, image: &Image) -> Result<Documents> {
    let bytes = blob::read(store, &image.manifest, DOCUMENT_LIMIT)?;
    let parsed: ImageManifest = serde_json::from_slice(&bytes)?;
    let mut layers = Vec::new();
    for descriptor in parsed.layers() {
        let media_type = manifest::oci_layer(descriptor.media_type().as_ref())?.to_owned();
        layers.push(LayerEntry {
            media_type,
            digest: manifest::digest(descriptor)?,
            size: descriptor.size(),
        });
    }
    let is_docker = parsed.media_type().as_ref().is_some_and(|m| m.to_string() == manifest::DOCKER_MANIFEST);
    if is_docker {
        return Ok(built(image, layers));
    }
    let config = Document { digest: image.id.clone(), bytes: image.config_bytes.clone() };
    Ok((Document { digest: image.manifest.clone(), bytes }, config, layers))
}

/// The documents at the top of the layout.
pub(super) fn documents(saved: &[Saved], format: Format) -> Vec<(&'static str, Vec<u8>)> {
    let mut manifests = Vec::new();
    for image in saved {
        let descriptor = json!({
            "mediaType": manifest::MANIFEST,
            "digest": image.manifest.digest.to_string(),
            "size": image.manifest.bytes.len(),
        });
        for name in &image.names {
            let mut named = descriptor.clone();
            // In full in both: a mere tag is taken for a name by podman.
            named["annotations"] = json!({
                "io.containerd.image.name": name.to_string(),
                "org.opencontainers.image.ref.name": name.to_string(),
            });
            manifests.push(named);
        }
        if image.names.is_empty() {
            manifests.push(descriptor);
        }
    }
    let index = json!({"schemaVersion": 2, "mediaType": manifest::INDEX, "manifests": manifests});
    let mut all = vec![
        ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ("index.json", index.to_string().into_bytes()),
    ];
    if format == Format::DockerArchive {
        let list: Vec<Value> = saved.iter().map(|image| json!(entry(image))).collect();
        all.push(("manifest.json", Value::from(list).to_string().into_bytes()));
    }
    all
}

fn entry(image: &Saved) -> Entry {
    let member = |digest: &Digest| format!("blobs/{}", digest.path());
    Entry {
        config: member(&image.config.digest),
        repo_tags: (!image.names.is_empty()).then(|| image.names.iter().map(Reference::familiar).collect()),
        layers: Some(image.layers.iter().map(|l| member(&l.digest)).collect()),
    }
}

/// Writes a tar, compressed as asked for.
fn archive(store: &Store, saved: &[Saved], options: &Options, out: &mut dyn Write) -> Result<()> {
    compression::encode(options.compression, out, |out| {
        for (name, bytes) in documents(saved, options.format) {
            member(out, name, bytes.len() as u64, |out| Ok(out.write_all(&bytes)?))?;
        }
        blobs(store, saved, |digest, size, write| {
            member(out, &format!("blobs/{}", digest.path()), size, write)
        })?;
        // Two empty blocks end a tar.
        out.write_all(&[0; 1024]).context("cannot write the archive")
    })
}

type WriteContent<'a> = &'a mut dyn FnMut(&mut dyn Write) -> Result<()>;

/// Gives every blob once.
fn blobs(
    store: &Store,
    saved: &[Saved],
    mut each: impl FnMut(&Digest, u64, WriteContent<'_>) -> Result<()>,
) -> Result<()> {
    let mut seen = BTreeSet::new();
    for image in saved {
        for Document { digest, bytes } in [&image.manifest, &image.config] {
            if seen.insert(digest.clone()) {
                each(digest, bytes.len() as u64, &mut |out| Ok(out.write_all(bytes)?))?;
            }
        }
        for LayerEntry { digest, size, .. } in &image.layers {
            if !seen.insert(digest.clone()) {
                continue;
            }
            let mut content = Some(blob_or_layer(store, digest)?);
            if content.as_ref().is_some_and(|c| c.size() != *size) {
                bail!("cannot save blob {digest}: its manifest has another size");
            }
            each(digest, *size, &mut |out| match content.take() {
                Some(content) => content.write_to(store, out),
                None => Ok(()),
            })?;
        }
    }
    Ok(())
}

/// One member: a header of fixed owner, mode and time, the content, padding.
pub(super) fn member(
    out: &mut dyn Write,
    name: &str,
    size: u64,
    mut write: impl FnMut(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let about = || format!("cannot write {name}");
    header(out, name, size)?;
    write(out).with_context(about)?;
    let padding = size.next_multiple_of(512) - size;
    out.write_all(&[0; 512][..padding as usize]).with_context(about)
}

/// A member's header.
pub(super) fn header(out: &mut dyn Write, name: &str, size: u64) -> Result<()> {
    let about = || format!("cannot write {name}");
    if name.len() > NAME_LIMIT {
        // A member before it has the name: GNU tar's way, which every reader knows.
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::GNULongName);
        member_of(out, link, "././@LongLink", name.len() as u64 + 1).with_context(about)?;
        let mut content = name.as_bytes().to_vec();
        content.resize((name.len() + 1).next_multiple_of(512), 0);
        out.write_all(&content).with_context(about)?;
    }
    member_of(out, tar::Header::new_gnu(), &name[..name.len().min(NAME_LIMIT)], size).with_context(about)
}

fn member_of(out: &mut dyn Write, mut header: tar::Header, name: &str, size: u64) -> Result<()> {
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    Ok(out.write_all(header.as_bytes())?)
}

/// Writes a file that appears once it is whole; what is not a regular file is written to as it is.
fn file(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let about = || format!("cannot save to {}", path.display());
    let special = fs::metadata(path)?.is_some_and(|m| !m.is_file());
    if special {
        let mut file = fs::open_or_create(path, 0o600)?;
        return write(&mut file).with_context(about);
    }
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}.draft", std::process::id()));
    let draft = PathBuf::from(draft);
    let mut file: File = fs::create_new(&draft, 0o600)?;
    let written = write(&mut file).with_context(about).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written
}

/// Writes a layout into a directory that is new or empty; `index.json` comes last.
fn directory(store: &Store, saved: &[Saved], path: &Path) -> Result<()> {
    if !fs::read_dir(path)?.is_empty() {
        bail!("cannot save to {}: the directory is not empty", path.display());
    }
    fs::create_dir_all(&path.join("blobs/sha256"), 0o755)?;
    blobs(store, saved, |digest, _, write| {
        let blob = path.join("blobs").join(digest.path());
        fs::create_dir_all(&path.join("blobs").join(digest.algorithm().name()), 0o755)?;
        let mut out = io::BufWriter::new(fs::create_new(&blob, 0o644)?);
        write(&mut out)?;
        out.flush().with_context(|| format!("cannot write {}", blob.display()))
    })?;
    for (name, bytes) in documents(saved, Format::OciDirectory) {
        fs::write(&path.join(name), &bytes)?;
    }
    Ok(())
}
