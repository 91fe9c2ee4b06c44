//! `load`: an archive -> images of the store.
//!
//! 1. [`Archive::open`]: members by name; a stream is read through once.
//! 2. [`candidates`]: which images there are.
//! 3. For each: the layers that the store lacks are unpacked side by side, digests and sizes verified.
//! 4. `store::image::publish`: all of one image, or nothing.

use std::collections::HashSet;
use std::io::{self, Read};

use anyhow::{Context, Result, bail};

use crate::error::ResultExt;
use crate::event::Sink;
use crate::oci::DiffId;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::store::Store;
use crate::store::blob;
use crate::store::draft;
use crate::store::image;
use crate::store::image::{Document, Parts};
use crate::store::journal::{self, Event};
use crate::store::layer;
use crate::store::pin::Pins;

use super::Input;
use super::Platform;
use super::archive::Archive;
use super::archive::Item;
use super::candidate::Candidate;
use super::candidate::Listed;
use super::compression;
use super::compression::{Compression, Windows};
use super::docker_archive;
use super::manifest;
use super::manifest::LayerEntry;
use super::oci_layout;
use super::parallel;
use super::parallel::Progress;
use super::parallel::Watched;
use super::section::Section;

/// What to load.
#[derive(Debug)]
pub struct Options {
    /// The archive.
    pub input: Input,
    /// Which image of a multi-platform one; `None` for the machine's own.
    pub platform: Option<Platform>,
}

/// An image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The image id.
    pub id: Digest,
    /// Its manifest.
    pub manifest: Digest,
    /// The names that the archive gave it; none leaves it untagged.
    pub names: Vec<Reference>,
}

/// Loads all images of an archive.
pub fn load(store: &Store, options: &Options, events: Sink<'_>) -> Result<Vec<Loaded>> {
    let about = || format!("cannot load {}", options.input.name());
    // What a killed one left may be what fills the disk. That it cannot be removed is no reason not to load.
    let _ = draft::sweep(store);
    let pins = Pins::new(store)?;
    let mut archive = Archive::open(store, &pins, &options.input, events).with_context(about)?;
    let platform = options.platform.clone().unwrap_or_else(Platform::host);
    let candidates = candidates(&archive, &platform, events).with_context(about)?;
    let mut loaded = Vec::new();
    for candidate in candidates {
        let one = load_one(store, &pins, &mut archive, candidate, events).with_context(about)?;
        journal::note(store, &Event::of_image("load", &one.id, one.names.first()));
        loaded.push(one);
    }
    Ok(loaded)
}

fn candidates(archive: &Archive, platform: &Platform, events: Sink<'_>) -> Result<Vec<Candidate>> {
    // An OCI index goes first: docker 25 and later write both, and it has the manifests.
    if let Some(index) = archive.document("index.json")? {
        let found = oci_layout::candidates(archive, &index, platform, events)?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    let found = match archive.document("manifest.json")? {
        Some(list) if list.trim_ascii_start().starts_with(b"[") => {
            docker_archive::candidates(archive, &list, events)?
        }
        Some(manifest) => vec![oci_layout::single(archive, manifest, platform)?],
        None => {
            return Err(anyhow::anyhow!("it has neither index.json nor manifest.json"))
                .hint("the tar of a root file system becomes an image by dhow import");
        }
    };
    if found.is_empty() {
        bail!("there is no image in it");
    }
    Ok(found)
}

/// A layer that has to be read.
struct Job {
    listed: Listed,
    source: Section,
    /// Whether the source is to become a blob.
    keep: bool,
}

/// What came of a layer.
struct Done {
    layer: layer::Unpacked,
    blob: Option<blob::Sealed>,
}

fn load_one(
    store: &Store,
    pins: &Pins,
    archive: &mut Archive,
    candidate: Candidate,
    events: Sink<'_>,
) -> Result<Loaded> {
    let jobs = jobs(store, pins, archive, &candidate)?;
    let windows = layer::windows(store);
    let done = parallel::map(jobs, events, |job, progress| read_layer(store, job, &windows, progress))?;
    let (mut layers, mut blobs) = (Vec::new(), Vec::new());
    for one in done {
        layers.push(one.layer);
        blobs.extend(one.blob);
    }
    for listed in &candidate.layers {
        layers.extend(archive.layers.remove(&listed.diff_id));
        // One that is named by its diff id is the layer itself.
        let blob = listed.blob.as_ref().filter(|(digest, _)| *digest != listed.diff_id.0);
        blobs.extend(blob.and_then(|(digest, _)| archive.blobs.remove(digest)));
    }
    let manifest = match &candidate.manifest {
        Some(manifest) => manifest.clone(),
        None => Document::of(plain_manifest(store, &candidate, &layers)?),
    };
    let id = candidate.config.digest.clone();
    let parts = Parts { manifest, config: candidate.config, blobs, layers, index: None };
    let manifest = image::publish(store, parts, &candidate.names)?;
    Ok(Loaded { id, manifest, names: candidate.names })
}

/// The layers that have to be read, each once. What the store has is pinned before it is looked for.
fn jobs(store: &Store, pins: &Pins, archive: &Archive, candidate: &Candidate) -> Result<Vec<Job>> {
    let mut jobs = Vec::new();
    let mut seen = HashSet::new();
    for listed in &candidate.layers {
        if !seen.insert((&listed.diff_id, &listed.blob)) {
            continue;
        }
        let about = || format!("cannot use the layer {}", listed.member);
        let Some(item) = archive.item(&listed.member)? else {
            bail!("cannot find the layer {}", listed.member);
        };
        pins.hold(store, &listed.diff_id.0)?;
        let has_layer =
            archive.layers.contains_key(&listed.diff_id) || layer::exists(store, &listed.diff_id)?;
        let source = match item {
            Item::Layer(diff_id) => {
                check_layer(archive, &diff_id, listed)?;
                continue;
            }
            Item::Blob(digest) => {
                let file = match archive.blobs.get(&digest) {
                    Some(sealed) => Some(sealed.open()?),
                    None => blob::open(store, &digest)?,
                };
                let Some(file) = file else { bail!("cannot find blob {digest}") };
                Section::whole(file).with_context(about)?
            }
            Item::Section(section) => section,
            Item::Bytes(_) | Item::Link(_) => bail!("cannot use {}: it is not a layer", listed.member),
        };
        let mut keep = false;
        if let Some((digest, size)) = &listed.blob {
            if source.size() != *size {
                bail!("cannot use blob {digest}: it has {} bytes, not {size}", source.size());
            }
            let is_virtual = *digest == listed.diff_id.0;
            if !is_virtual {
                pins.hold(store, digest)?;
                keep = !archive.blobs.contains_key(digest) && !blob::exists(store, digest)?;
            }
        }
        if !has_layer || keep {
            jobs.push(Job { listed: listed.clone(), source, keep });
        }
    }
    Ok(jobs)
}

/// A layer that was unpacked while the archive was read, before anybody knew what it should be.
fn check_layer(archive: &Archive, found: &DiffId, listed: &Listed) -> Result<()> {
    let Listed { member, diff_id, blob } = listed;
    if found.0.algorithm() != diff_id.0.algorithm() {
        return Err(anyhow::anyhow!(
            "cannot use the layer {member}: it was compared with a sha256 digest as it came, and should be {}",
            diff_id.0
        ))
        .hint("load the archive from a file: it is then known before what its layers should be");
    }
    if found != diff_id {
        bail!("cannot use the layer {member}: its content has digest {}, not {}", found.0, diff_id.0);
    }
    if let (Some((digest, size)), Some(unpacked)) = (blob, archive.layers.get(found))
        && unpacked.layer.size != *size
    {
        bail!("cannot use blob {digest}: it has {} bytes, not {size}", unpacked.layer.size);
    }
    Ok(())
}

/// Reads a layer once: hashed and stored as it is, hashed and unpacked as it uncompresses.
fn read_layer(store: &Store, job: Job, windows: &Windows, progress: &Progress) -> Result<Done> {
    let Job { listed, source, keep } = job;
    let about = || format!("cannot use the layer {}", listed.member);
    let total = source.size();
    let copy = match &listed.blob {
        Some((digest, _)) if keep => Some(blob::Writer::new(store, digest.algorithm())?),
        _ => None,
    };
    let mut tee = Tee { input: Watched::new(source, listed.diff_id.0.short(), total, progress), copy };
    let (compression, tar) = compression::decompress(&mut tee, windows).with_context(about)?;
    if let Some((digest, _)) = &listed.blob
        && compression == Compression::None
        && digest.algorithm() == listed.diff_id.0.algorithm()
        && *digest != listed.diff_id.0
    {
        bail!("cannot use blob {digest}: it is not compressed, so its digest should be {}", listed.diff_id.0);
    }
    let layer = layer::extract(store, tar, Some(&listed.diff_id)).with_context(about)?;
    // What a decompressor leaves over belongs to the blob all the same.
    io::copy(&mut tee, &mut io::sink()).with_context(about)?;
    let blob = match (tee.copy, &listed.blob) {
        (Some(writer), Some((digest, _))) => Some(writer.seal(Some(digest))?),
        _ => None,
    };
    Ok(Done { layer, blob })
}

/// The manifest of an image that came without one: its layers are the uncompressed tars.
fn plain_manifest(store: &Store, candidate: &Candidate, unpacked: &[layer::Unpacked]) -> Result<Vec<u8>> {
    let mut entries = Vec::new();
    for Listed { diff_id, .. } in &candidate.layers {
        let own = unpacked.iter().map(|u| &u.layer).find(|l| l.diff_id == *diff_id).cloned();
        let Some(layer) = own.map_or_else(|| layer::find(store, diff_id), |l| Ok(Some(l)))? else {
            bail!("cannot find the layer {}", diff_id.0);
        };
        let media_type = manifest::LAYER_TAR.to_owned();
        entries.push(LayerEntry { media_type, digest: diff_id.0.clone(), size: layer.size });
    }
    Ok(manifest::build(&candidate.config.bytes, &entries))
}

/// Reads, and writes what was read.
struct Tee<R> {
    input: R,
    copy: Option<blob::Writer>,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        if let Some(copy) = &mut self.copy {
            io::Write::write_all(copy, &buffer[..n])?;
        }
        Ok(n)
    }
}
