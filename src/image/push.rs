//! `push`: an image of the store -> a repository of a registry.
//!
//! 1. [`plan`]: what is to become of each layer. One that came compressed goes as it came; one that was made here, and so
//!    is in the store unpacked only, is packed.
//! 2. The layers side by side, a few at once: what the registry has is not sent; what the registry has elsewhere is lent;
//!    what was packed before is not packed again to find that out ([`shipped`]).
//! 3. The config, and then, when all that it names is there, the manifest: byte for byte the one of the store, unless a
//!    layer had to be packed.
//!
//! Invariant: the same image and packing give the same manifest, on any machine.

use std::collections::HashMap;
use std::io::{self, Write};

use anyhow::{Context, Result, bail};

use crate::event::{Event, Pushing, Sink};
use crate::oci::Reference;
use crate::oci::image::ImageManifest;
use crate::oci::{Algorithm, DiffId, Digest};
use crate::registry::{Action, Backoff, BlobUnknown, Client, Manifest, Repository};
use crate::store::Store;
use crate::store::blob;
use crate::store::image;
use crate::store::image::DOCUMENT_LIMIT;
use crate::store::image::Image;
use crate::store::image::names;
use crate::store::journal;
use crate::store::pin::Pins;
use crate::store::shipped;
use crate::store::shipped::Form;

use super::Platform;
use super::compression;
use super::compression::Compression;
use super::content::{Content, blob_or_layer};
use super::lenders::Lenders;
use super::manifest;
use super::manifest::LayerEntry;
use super::packing;
use super::packing::Packing;
use super::parallel;
use super::parallel::Progress;
use super::rewrite;
use super::section::Section;
use super::upload;
use super::upload::Wanted;

/// How many layers are on their way at once.
const AT_ONCE: usize = 4;
/// How often a manifest is put whose parts the registry does not know though it has them.
const PUT_ATTEMPTS: u32 = 4;

/// How to push.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How all layers are to be packed. `None`: those that came packed stay as they are, the others get the default.
    pub packing: Option<Packing>,
    /// The image must be for this platform.
    pub platform: Option<Platform>,
}

/// What the registry has now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The digest of the manifest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its size in bytes.
    pub size: u64,
}

/// Pushes an image under a tag.
pub fn push(
    store: &Store,
    client: &Client,
    image: &Image,
    destination: &Reference,
    options: &Options,
    events: Sink<'_>,
) -> Result<Pushed> {
    let about = || format!("cannot push {}", destination.familiar());
    if destination.digest.is_some() {
        bail!("{}: a digest cannot be given to what is pushed, it is found out", about());
    }
    if let Some(wanted) = &options.platform {
        let config = &image.config;
        let own: Platform =
            format!("{}/{}", config.os(), config.architecture()).parse().with_context(about)?;
        if own.os != wanted.os || own.architecture != wanted.architecture {
            bail!("{}: the image is for {own}, not for {wanted}", about());
        }
    }
    let to = client.repository(destination, Action::Push).with_context(about)?;
    let tag = destination.tag_or_latest();
    let pushed =
        ship(store, &to, destination, &image.manifest, tag, options.packing, events).with_context(about)?;
    // The registry has it whatever becomes of this.
    let _ = remember(store, destination, &image.manifest, &pushed.digest);
    journal::note(store, &journal::Event::of_image("push", destination.familiar(), Some(destination)));
    Ok(pushed)
}

/// Writes down by which digest the registry knows a name of ours now, as a pull would have.
fn remember(store: &Store, name: &Reference, manifest: &Digest, pushed: &Digest) -> Result<()> {
    let lock = names::Lock::new(store)?;
    let index = (pushed != manifest).then_some(pushed);
    let is_own = names::has_file(store, name)?;
    match names::record(store, name)? {
        Some(record) if is_own && record.manifest == *manifest && record.index.as_ref() != index => {
            names::assign_chosen(store, &lock, name, manifest, index)
        }
        _ => Ok(()),
    }
}

/// Puts everything that a manifest of the store names, and then the manifest, under a tag or only under its digest.
pub fn ship(
    store: &Store,
    to: &Repository<'_>,
    destination: &Reference,
    manifest_digest: &Digest,
    tag: Option<&str>,
    packing: Option<Packing>,
    events: Sink<'_>,
) -> Result<Pushed> {
    // Removed while it is on its way, it would be gone in the middle.
    let pins = Pins::new(store)?;
    pins.hold(store, manifest_digest)?;
    let bytes = blob::read(store, manifest_digest, DOCUMENT_LIMIT)?;
    let described = image::describe(store, manifest_digest)?;
    for digest in
        described.layers.iter().chain(described.diff_ids.iter().map(|d| &d.0)).chain([&described.id])
    {
        pins.hold(store, digest)?;
    }
    let layers = plan(store, &bytes, &described.diff_ids, packing)?;
    for layer in &layers {
        events(Event::Pushing { what: layer.what.clone(), state: Pushing::Preparing });
    }
    let lenders = Lenders::new(store, destination);
    let entries = parallel::map_on(AT_ONCE, distinct(&layers), events, |layer, progress| {
        let about = || format!("cannot push layer {}", layer.entry.digest);
        let (entry, how) = ship_layer(store, to, &lenders, layer, progress).with_context(about)?;
        let _ = progress.send(Event::Pushing { what: layer.what.clone(), state: how });
        Ok((&layer.entry.digest, entry))
    })?;
    let entries: HashMap<&Digest, LayerEntry> = entries.into_iter().collect();
    let entries: Vec<LayerEntry> =
        layers.iter().map(|l| entries.get(&l.entry.digest).unwrap_or(&l.entry).clone()).collect();
    ship_config(to, &lenders, &described.id, &described.config_bytes)?;
    let is_as_it_was = entries.iter().zip(&layers).all(|(new, old)| new.digest == old.entry.digest);
    let bytes = if is_as_it_was { bytes } else { rewrite::with_layers(&bytes, &entries)? };
    let digest = if is_as_it_was { manifest_digest.clone() } else { Digest::of(&bytes) };
    put_manifest(to, tag, &Manifest { digest, media_type: manifest::media_type(&bytes)?, bytes })
}

/// Puts a manifest whose parts are there already, under a tag or only under its digest.
pub fn put_manifest(to: &Repository<'_>, tag: Option<&str>, manifest: &Manifest) -> Result<Pushed> {
    let Manifest { digest, media_type, bytes } = manifest;
    let name = tag.map_or_else(|| digest.to_string(), str::to_owned);
    let mut backoff = Backoff::new();
    let mut put = || -> Result<Digest> {
        for _ in 1..PUT_ATTEMPTS {
            match to.put_manifest(&name, media_type, bytes) {
                // While another push brings the same blob, docker-registry may for a moment not know it.
                Err(error) if error.is::<BlobUnknown>() && backoff.wait(None) => {}
                done => return done,
            }
        }
        to.put_manifest(&name, media_type, bytes)
    };
    Ok(Pushed { digest: put()?, media_type: media_type.clone(), size: bytes.len() as u64 })
}

fn ship_config(to: &Repository<'_>, lenders: &Lenders, digest: &Digest, bytes: &[u8]) -> Result<()> {
    // A few bytes are not worth a bar of their own: nobody hears of them.
    let (progress, _) = std::sync::mpsc::channel();
    let mounts = lenders.siblings(digest);
    let wanted = Wanted { what: digest.short(), digest, size: bytes.len() as u64, mounts };
    upload::upload(to, wanted, &mut upload::from_bytes(bytes), &progress)
        .map(drop)
        .with_context(|| format!("cannot push the config {digest}"))
}

/// A layer of the manifest, and what is to become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Layer {
    /// What reports call it.
    what: String,
    entry: LayerEntry,
    diff_id: DiffId,
    how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// Not at all: it is to be had elsewhere.
    Foreign,
    /// As the manifest names it.
    AsItIs,
    /// Packed, from its tar.
    Packed(Packing),
}

/// What is to become of each layer.
fn plan(store: &Store, bytes: &[u8], diff_ids: &[DiffId], packing: Option<Packing>) -> Result<Vec<Layer>> {
    let parsed: ImageManifest = serde_json::from_slice(bytes).context("cannot read the manifest")?;
    if parsed.layers().len() != diff_ids.len() {
        bail!("its manifest has {} layers, its config {}", parsed.layers().len(), diff_ids.len());
    }
    let mut layers = Vec::new();
    for (descriptor, diff_id) in parsed.layers().iter().zip(diff_ids) {
        let media_type = descriptor.media_type().to_string();
        let digest = manifest::digest(descriptor)?;
        let has_urls = descriptor.urls().as_ref().is_some_and(|urls| !urls.is_empty());
        let how = if has_urls && rewrite::is_foreign(&media_type) {
            How::Foreign
        } else {
            how(store, &digest, diff_id, packing)?
        };
        let what = diff_id.0.short().to_owned();
        let entry = LayerEntry { media_type, digest, size: descriptor.size() };
        layers.push(Layer { what, entry, diff_id: diff_id.clone(), how });
    }
    Ok(layers)
}

fn how(store: &Store, digest: &Digest, diff_id: &DiffId, packing: Option<Packing>) -> Result<How> {
    let is_packed = *digest != diff_id.0;
    Ok(match packing {
        None if is_packed || came_as_it_is(store, diff_id) => How::AsItIs,
        None => How::Packed(Packing::default()),
        Some(packing) if is_packed && compression_of(store, digest)? == Some(packing.compression()) => {
            How::AsItIs
        }
        Some(packing) => How::Packed(packing),
    })
}

/// Whether a registry had the bare tar: then the manifest that says so is not ours to change.
fn came_as_it_is(store: &Store, diff_id: &DiffId) -> bool {
    let is_pulled = |f: &Form| f.packing.is_none() && f.digest == diff_id.0;
    shipped::forms(store, diff_id).iter().any(is_pulled)
}

fn compression_of(store: &Store, digest: &Digest) -> Result<Option<Compression>> {
    let Some(file) = blob::open(store, digest)? else { return Ok(None) };
    let (start, _) = compression::peek(file, 8).with_context(|| format!("cannot read blob {digest}"))?;
    compression::sniff(&start).map(Some)
}

/// Each layer once: an image may have one several times.
fn distinct(layers: &[Layer]) -> Vec<&Layer> {
    let mut all: Vec<&Layer> = Vec::new();
    for layer in layers {
        if !all.iter().any(|l| l.entry.digest == layer.entry.digest) {
            all.push(layer);
        }
    }
    all
}

/// Ships a layer. Returns what the manifest has to say of it now.
fn ship_layer(
    store: &Store,
    to: &Repository<'_>,
    lenders: &Lenders,
    layer: &Layer,
    progress: &Progress,
) -> Result<(LayerEntry, Pushing)> {
    let (entry, how, packing) = match layer.how {
        How::Foreign => return Ok((layer.entry.clone(), Pushing::Foreign)),
        How::AsItIs => {
            let how = ship_as_it_is(store, to, lenders, layer, progress)?;
            (layer.entry.clone(), how, None)
        }
        How::Packed(packing) => {
            let (entry, how) = ship_packed(store, to, lenders, layer, packing, progress)?;
            (entry, how, Some(packing.key()))
        }
    };
    let form =
        Form { digest: entry.digest.clone(), size: entry.size, packing, repositories: vec![to.name()] };
    // A hint for the next time, and no reason to fail.
    let _ = shipped::note(store, &layer.diff_id, form);
    Ok((entry, how))
}

fn ship_as_it_is(
    store: &Store,
    to: &Repository<'_>,
    lenders: &Lenders,
    layer: &Layer,
    progress: &Progress,
) -> Result<Pushing> {
    let LayerEntry { digest, size, .. } = &layer.entry;
    let mounts = lenders.of(store, &layer.diff_id, digest);
    let wanted = Wanted { what: &layer.what, digest, size: *size, mounts: &mounts };
    // What the registry has is not looked for here: it may have been removed from a store that is short of space.
    if let Some(how) = upload::without_bytes(to, &wanted)? {
        return Ok(how);
    }
    match blob_or_layer(store, digest)? {
        Content::Blob { file, .. } => {
            let section = Section::whole(file).context("cannot read it")?;
            upload::send(to, wanted, &mut upload::from_section(&section), progress)
        }
        content @ Content::Layer(_) => {
            let none = Packing::new(Compression::None, None)?;
            let sealed = pack(store, layer, none, content, progress)?;
            let section = Section::whole(sealed.open()?).context("cannot read it")?;
            upload::send(to, wanted, &mut upload::from_section(&section), progress)
        }
    }
}

fn ship_packed(
    store: &Store,
    to: &Repository<'_>,
    lenders: &Lenders,
    layer: &Layer,
    packing: Packing,
    progress: &Progress,
) -> Result<(LayerEntry, Pushing)> {
    let entry = |digest: &Digest, size: u64| LayerEntry {
        media_type: packing.media_type().to_owned(),
        digest: digest.clone(),
        size,
    };
    let known = shipped::forms(store, &layer.diff_id);
    for form in known.iter().filter(|f| f.packing.as_ref() == Some(&packing.key())) {
        let mounts = lenders.of(store, &layer.diff_id, &form.digest);
        let wanted = Wanted { what: &layer.what, digest: &form.digest, size: form.size, mounts: &mounts };
        if let Some(how) = upload::without_bytes(to, &wanted)? {
            return Ok((entry(&form.digest, form.size), how));
        }
    }
    let content = blob_or_layer(store, &layer.diff_id.0)?;
    let sealed = pack(store, layer, packing, content, progress)?;
    let section = Section::whole(sealed.open()?).context("cannot read it")?;
    let wanted = Wanted { what: &layer.what, digest: &sealed.digest, size: sealed.size, mounts: &[] };
    let how = upload::upload(to, wanted, &mut upload::from_section(&section), progress)?;
    Ok((entry(&sealed.digest, sealed.size), how))
}

/// Packs a layer's tar into a draft, since its digest and size are needed before the first byte is sent.
fn pack(
    store: &Store,
    layer: &Layer,
    packing: Packing,
    content: Content,
    progress: &Progress,
) -> Result<blob::Sealed> {
    let mut draft = blob::Writer::new(store, Algorithm::default())?;
    let total = content.size();
    packing::pack(packing, packing::threads(), total, &mut draft, |out| {
        content.write_to(store, &mut Reported { out, what: &layer.what, done: 0, total, progress })
    })?;
    draft.seal(None)
}

/// Writes, and reports how much.
struct Reported<'a> {
    out: &'a mut dyn Write,
    what: &'a str,
    done: u64,
    total: u64,
    progress: &'a Progress,
}

impl Write for Reported<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        let before = self.done;
        self.done += n as u64;
        if self.done >> 22 != before >> 22 || before == 0 {
            let state = Pushing::Compressing { done: self.done, total: self.total };
            let _ = self.progress.send(Event::Pushing { what: self.what.to_owned(), state });
        }
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
