//! `pull`: a name in a registry -> an image of the store.
//!
//! 1. [`up_to_date`]: what the store has under the name, if the registry still says the same of it.
//! 2. [`resolve()`]: the manifest, through an index if there is one: the image for the platform wanted.
//! 3. The config; with it, what the layers have to be when they are unpacked.
//! 4. [`layers::get`]: those that the store lacks.
//! 5. `store::image::publish`: all of it, or nothing; what was fetched of a layer stays for the next pull.
//!
//! Invariant: every byte is verified against a digest, from the one that was asked for down, before anything can see it.

use anyhow::{Context, Result, bail};

use crate::error::{NotFound, is_disk_full};
use crate::event::{Event, Sink};
use crate::oci::Digest;
use crate::oci::Reference;
use crate::oci::image::{Descriptor, ImageManifest};
use crate::registry::{Action, Client, Repository};
use crate::store::Store;
use crate::store::blob;
use crate::store::draft;
use crate::store::image::DOCUMENT_LIMIT;
use crate::store::image::{self, Document, Parts, names, parse_config};
use crate::store::journal;
use crate::store::layer;
use crate::store::partial;
use crate::store::pin::Pins;
use crate::store::shipped::{self, Form};

use super::Platform;
use super::choice::{check_platform, is_for, resolve};
use super::compression::Compression;
use super::fetch::{Fetch, Opened, Stop};
use super::layers;
use super::layers::Wanted;
use super::manifest;
use super::rewrite;

/// What overlay stacks at most; no image of more can be run.
const LAYERS_LIMIT: usize = 500;
/// Addresses of a layer that are tried.
const URLS_LIMIT: usize = 8;
/// The specification's, docker's, and what some registries make of both.
const CONFIGS: [&str; 3] =
    [manifest::CONFIG, "application/vnd.docker.container.image.v1+json", "application/octet-stream"];

/// How to pull.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// For which platform; `None` for the machine's own.
    pub platform: Option<Platform>,
}

/// An image that is now here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// Its name: with a tag or with a digest.
    pub reference: Reference,
    /// The digest by which the registry knows it: of the index, if there is one.
    pub digest: Digest,
    /// The digest of its manifest.
    pub manifest: Digest,
    /// The image id.
    pub id: Digest,
    /// Whether it was not here, or another was under its name.
    pub is_new: bool,
}

/// Pulls an image by tag or digest. With both, the digest is what counts, as in docker.
pub fn pull(
    store: &Store,
    client: &Client,
    reference: &Reference,
    options: &Options,
    events: Sink<'_>,
) -> Result<Pulled> {
    let reference = name_to_give(reference);
    let pulled = pull_named(store, client, &reference, options, events)
        .with_context(|| format!("cannot pull {}", reference.familiar()))?;
    // As docker: what was pulled is called by its name.
    journal::note(store, &journal::Event::of_image("pull", reference.familiar(), Some(&reference)));
    Ok(pulled)
}

/// Pulls every tag of a repository.
pub fn pull_all(
    store: &Store,
    client: &Client,
    reference: &Reference,
    options: &Options,
    events: Sink<'_>,
) -> Result<Vec<Pulled>> {
    let about = || format!("cannot pull all tags of {}", reference.familiar_repository());
    if reference.tag.is_some() || reference.digest.is_some() {
        bail!("{}: {} names one of them", about(), reference.familiar());
    }
    let tags = client.repository(reference, Action::Pull).and_then(|r| r.tags()).with_context(about)?;
    if tags.is_empty() {
        return Err(NotFound { kind: "tag", name: reference.familiar_repository() }).with_context(about);
    }
    let pull_tag = |tag: &String| {
        // What a registry lists goes through the same reading as what a person types.
        let text = format!("{}/{}:{tag}", reference.registry, reference.repository);
        let reference: Reference = text.parse().with_context(about)?;
        pull(store, client, &reference, options, events)
    };
    tags.iter().map(pull_tag).collect()
}

/// The digest that the registry has for a name now; `None` where it has none.
pub fn remote_digest(client: &Client, reference: &Reference) -> Result<Option<Digest>> {
    let reference = name_to_give(reference);
    if let Some(digest) = reference.digest {
        return Ok(Some(digest));
    }
    client.repository(&reference, Action::Pull)?.head_manifest(reference.tag_or_latest().unwrap_or_default())
}

/// A name has a tag or a digest; a digest beside a tag says more than the tag.
fn name_to_give(reference: &Reference) -> Reference {
    let mut reference = reference.clone().with_default_tag();
    if reference.digest.is_some() {
        reference.tag = None;
    }
    reference
}

fn pull_named(
    store: &Store,
    client: &Client,
    reference: &Reference,
    options: &Options,
    events: Sink<'_>,
) -> Result<Pulled> {
    let repository = client.repository(reference, Action::Pull)?;
    if let Some(found) = up_to_date(store, &repository, reference, options)? {
        events(pulling_from(reference));
        return Ok(found);
    }
    get(store, &repository, reference, options, std::slice::from_ref(reference), events)
}

/// Brings what the store lacks of an image, by `repository@digest`, and gives it no name: for repairs.
pub fn refetch(store: &Store, client: &Client, reference: &Reference, events: Sink<'_>) -> Result<()> {
    let about = || format!("cannot fetch {}", reference.familiar());
    let repository = client.repository(reference, Action::Pull).with_context(about)?;
    get(store, &repository, reference, &Options::default(), &[], events).with_context(about).map(drop)
}

/// As docker, this is told once the registry is known to have it.
fn pulling_from(reference: &Reference) -> Event {
    Event::PullingFrom { tag: asked(reference), repository: reference.repository.clone() }
}

/// What the registry is asked for.
fn asked(reference: &Reference) -> String {
    match &reference.digest {
        Some(digest) => digest.to_string(),
        None => reference.tag_or_latest().unwrap_or_default().to_owned(),
    }
}

/// Fetches what the store lacks, and publishes the image under these names.
fn get(
    store: &Store,
    repository: &Repository<'_>,
    reference: &Reference,
    options: &Options,
    names: &[Reference],
    events: Sink<'_>,
) -> Result<Pulled> {
    let asked = asked(reference);
    // What killed ones left may be what fills the disk. That it cannot be removed is no reason not to pull.
    let _ = draft::sweep(store);
    let _ = partial::sweep(store, partial::KEPT);
    let pins = Pins::new(store)?;
    let wanted = options.platform.clone().unwrap_or_else(Platform::host);
    let (top, found) = resolve(repository, &asked, &wanted)?;
    events(pulling_from(reference));
    if let Some(digest) = &reference.digest
        && *digest != top
    {
        bail!("the registry sent {top} in its place");
    }
    pins.hold(store, &found.digest)?;
    let about = || format!("cannot use the manifest {}", found.digest);
    let parsed: ImageManifest = serde_json::from_slice(&found.bytes).with_context(about)?;
    let config = config(store, &pins, repository, parsed.config())?;
    let (image_config, diff_ids) =
        parse_config(&config.bytes).with_context(|| format!("cannot read the config {}", config.digest))?;
    check_platform(&image_config, &wanted, options.platform.is_some(), top == found.digest, events)?;
    if parsed.layers().len() != diff_ids.len() {
        bail!(
            "cannot match the layers of {}: the manifest has {} and the config {}",
            found.digest,
            parsed.layers().len(),
            diff_ids.len()
        );
    }
    if diff_ids.len() > LAYERS_LIMIT {
        bail!("{}: it has {} layers, and {LAYERS_LIMIT} can be stacked", about(), diff_ids.len());
    }
    let mut layers = Vec::new();
    let mut plain = Vec::new();
    for (descriptor, diff_id) in parsed.layers().iter().zip(diff_ids) {
        let digest = manifest::digest(descriptor)?;
        if digest == diff_id.0 {
            plain.push((diff_id.clone(), descriptor.size()));
        }
        pins.hold(store, &digest)?;
        pins.hold(store, &diff_id.0)?;
        layers.push(Wanted {
            compression: compression(descriptor)?,
            urls: urls(descriptor),
            size: descriptor.size(),
            digest,
            diff_id,
        });
    }
    let open = |layer: &Wanted, from| open(repository, layer, from);
    let got = layers::get(store, layers, &open, events)?;
    let id = config.digest.clone();
    let index = (top != found.digest).then(|| top.clone());
    // Its partials stay locked until everything is in its place.
    let layers::Got { layers, blobs, held: _held } = got;
    let manifest = Document { digest: found.digest, bytes: found.bytes };
    let parts = Parts { manifest, config, blobs, layers, index };
    let published = image::publish(store, parts, names);
    let manifest =
        published.or_else(|error| if is_disk_full(&error) { layer::explain(error) } else { Err(error) })?;
    for (diff_id, size) in plain {
        // That the bare tar is what a registry has: a push is to leave it so. Only a hint.
        let repositories = vec![repository.name()];
        let form = Form { digest: diff_id.0.clone(), size, packing: None, repositories };
        let _ = shipped::note(store, &diff_id, form);
    }
    Ok(Pulled { reference: reference.clone(), digest: top, manifest, id, is_new: true })
}

/// What the store has under this name, if that is whole and what the registry would give.
fn up_to_date(
    store: &Store,
    repository: &Repository<'_>,
    reference: &Reference,
    options: &Options,
) -> Result<Option<Pulled>> {
    let Some(record) = names::record(store, reference)? else { return Ok(None) };
    let known = reference.digest.as_ref().or(record.index.as_ref()).unwrap_or(&record.manifest);
    // Anything that cannot be read here is there to be pulled again.
    let Ok(described) = image::describe(store, &record.manifest) else { return Ok(None) };
    let wanted = options.platform.clone().unwrap_or_else(Platform::host);
    let is_choice =
        record.index.is_some() || reference.digest.as_ref().is_some_and(|d| *d != record.manifest);
    if (is_choice || options.platform.is_some()) && !is_for(&described.config, &wanted) {
        return Ok(None);
    }
    for (digest, diff_id) in described.layers.iter().zip(&described.diff_ids) {
        let is_there =
            layer::exists(store, diff_id)? && (*digest == diff_id.0 || blob::exists(store, digest)?);
        if !is_there {
            return Ok(None);
        }
    }
    if reference.digest.is_none() {
        let tag = reference.tag_or_latest().unwrap_or_default();
        if repository.head_manifest(tag)?.as_ref() != Some(known) {
            return Ok(None);
        }
    }
    Ok(Some(Pulled {
        reference: reference.clone(),
        digest: known.clone(),
        manifest: record.manifest.clone(),
        id: described.id,
        is_new: false,
    }))
}

/// The config: the store's, or the registry's.
fn config(
    store: &Store,
    pins: &Pins,
    repository: &Repository<'_>,
    descriptor: &Descriptor,
) -> Result<Document> {
    let digest = manifest::digest(descriptor)?;
    let media_type = descriptor.media_type().to_string();
    if !CONFIGS.contains(&media_type.as_str()) {
        bail!("it is not a container image: its config is {media_type}");
    }
    let size = descriptor.size();
    if size > DOCUMENT_LIMIT {
        bail!("cannot use blob {digest}: {size} bytes are too many for a config");
    }
    pins.hold(store, &digest)?;
    if blob::exists(store, &digest)?
        && let Ok(bytes) = blob::read(store, &digest, DOCUMENT_LIMIT)
    {
        return Ok(Document { digest, bytes });
    }
    let open = |from| repository.blob(&digest, from).map(Opened::from);
    let bytes = Fetch::new(&digest, size, 0, &open, &Stop::default()).read_all()?;
    let found = digest.algorithm().digest(&bytes);
    if found != digest {
        bail!("cannot use blob {digest}: its content has digest {found}");
    }
    Ok(Document { digest, bytes })
}

/// How a layer says that it is packed.
fn compression(descriptor: &Descriptor) -> Result<Compression> {
    let media_type = descriptor.media_type().to_string();
    let about = || format!("cannot use blob {}", descriptor.digest());
    let plain = manifest::oci_layer(&media_type).with_context(about)?;
    match plain.rsplit_once(".tar").map(|(_, suffix)| suffix) {
        Some("") => Ok(Compression::None),
        Some("+gzip") => Ok(Compression::Gzip),
        Some("+zstd") => Ok(Compression::Zstd),
        _ => bail!("{}: a layer of type {media_type} cannot be unpacked", about()),
    }
}

/// Where else a layer can be had: only one of those that are not shipped may say so.
fn urls(descriptor: &Descriptor) -> Vec<String> {
    let urls = descriptor.urls().iter().flatten().take(URLS_LIMIT).cloned();
    if rewrite::is_foreign(descriptor.media_type().as_ref()) { urls.collect() } else { Vec::new() }
}

/// A layer's blob, from the registry, or where the manifest says that it is to be had.
fn open(repository: &Repository<'_>, layer: &Wanted, from: u64) -> Result<Opened> {
    let found = repository.blob(&layer.digest, from).map(Opened::from);
    match found {
        Err(error) if error.is::<NotFound>() && !layer.urls.is_empty() => {
            let mut last = error;
            for url in &layer.urls {
                match repository.blob_at(url, &layer.digest, from) {
                    Ok(stream) => return Ok(stream.into()),
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
        found => found,
    }
}
