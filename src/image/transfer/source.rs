//! A source: documents and blobs by their digests, wherever an image is copied from.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::error::ResultExt;
use crate::event::Sink;
use crate::fs;
use crate::image::archive::{Archive, Item};
use crate::image::compression;
use crate::image::compression::{Compression, Windows};
use crate::image::docker_archive;
use crate::image::manifest;
use crate::image::manifest::LayerEntry;
use crate::image::oci_layout;
use crate::image::packing;
use crate::image::packing::Packing;
use crate::image::section::Section;
use crate::oci::Reference;
use crate::oci::image::{Descriptor, ImageIndex};
use crate::oci::{Algorithm, Digest};
use crate::registry::{Action, Client, Manifest, Repository};
use crate::store::image::{DOCUMENT_LIMIT, Document};

use super::fetch::{Fetch, Hashed, Verified};
use super::location::Location;

/// See the module.
pub(super) enum Source<'a> {
    /// A repository, and the tag or digest in it.
    Registry(Repository<'a>, String),
    /// An OCI layout or a directory of skopeo's: both have blobs by their digests. The document at its top.
    Layout(Archive, Manifest),
    /// A docker archive, which has no manifest: one was made. Its blobs.
    Made(Manifest, HashMap<Digest, Section>),
}

/// What has to be known to open a source.
pub(super) struct Opening<'a> {
    pub(super) client: &'a Client,
    /// Where unnamed files can be made.
    pub(super) spool: &'a Path,
    /// How layers that have no compressed form are to be packed.
    pub(super) packing: Packing,
}

impl<'a> Source<'a> {
    pub(super) fn open(location: &Location, opening: &Opening<'a>, events: Sink<'_>) -> Result<Source<'a>> {
        match location {
            Location::Registry(reference) => {
                let from = opening.client.repository(reference, Action::Pull)?;
                let what = reference.digest.as_ref().map(Digest::to_string);
                let what = what.or(reference.tag_or_latest().map(str::to_owned)).unwrap_or_default();
                Ok(Source::Registry(from, what))
            }
            Location::OciDirectory(path, tag) | Location::OciArchive(path, tag) => {
                let archive = Archive::open_in_place(path, opening.spool)?;
                let index = need(&archive, "index.json")?;
                let index: ImageIndex = serde_json::from_slice(&index).context("cannot read index.json")?;
                let descriptor = named(index.manifests(), tag.as_deref())?;
                let found = oci_layout::document(&archive, descriptor)?;
                let top = document(found, Some(descriptor.media_type().to_string()))?;
                Ok(Source::Layout(archive, top))
            }
            Location::Directory(path) => {
                let archive = Archive::open_in_place(path, opening.spool)?;
                let top = document(Document::of(need(&archive, "manifest.json")?), None)?;
                Ok(Source::Layout(archive, top))
            }
            Location::DockerArchive(path, name) => {
                let archive = Archive::open_in_place(path, opening.spool)?;
                made(&archive, name.as_ref(), opening, events)
            }
        }
    }

    /// The manifest or index that stands for the image.
    pub(super) fn top(&self) -> Result<Manifest> {
        match self {
            Source::Registry(from, what) => from.manifest(what),
            Source::Layout(_, top) | Source::Made(top, _) => Ok(top.clone()),
        }
    }

    /// A manifest or index that an index names.
    pub(super) fn manifest(&self, descriptor: &Descriptor) -> Result<Manifest> {
        let digest = manifest::digest(descriptor)?;
        let found = match self {
            Source::Registry(from, _) => from.manifest(&digest.to_string())?,
            Source::Layout(archive, _) => {
                let found = oci_layout::document(archive, descriptor)?;
                document(found, Some(descriptor.media_type().to_string()))?
            }
            Source::Made(..) => bail!("cannot find the manifest {digest}"),
        };
        if found.digest != digest {
            bail!("cannot use the manifest {digest}: its content has digest {}", found.digest);
        }
        Ok(found)
    }

    /// The bytes of a blob in a file, if it is in one; not verified.
    pub(super) fn section(&self, digest: &Digest) -> Result<Option<Section>> {
        match self {
            Source::Registry(..) => Ok(None),
            Source::Layout(archive, _) => match archive.item(&oci_layout::member(archive, digest)?)? {
                Some(Item::Section(section)) => Ok(Some(section)),
                _ => bail!("cannot find blob {digest}"),
            },
            Source::Made(_, blobs) => match blobs.get(digest) {
                Some(section) => Ok(Some(section.clone())),
                None => bail!("cannot find blob {digest}"),
            },
        }
    }

    /// The bytes of a blob from an offset on; not verified.
    pub(super) fn blob(&self, digest: &Digest, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        Ok(match (self, self.section(digest)?) {
            (_, Some(section)) => Box::new(section.part(from, section.size().saturating_sub(from))),
            (Source::Registry(repository, _), None) => Box::new(Fetch::new(repository, digest, from)),
            (_, None) => bail!("cannot find blob {digest}"),
        })
    }

    /// A config, verified.
    pub(super) fn config(&self, digest: &Digest, size: u64) -> Result<Document> {
        let about = || format!("cannot read the config {digest}");
        if size > DOCUMENT_LIMIT {
            bail!("{}: {size} bytes are too many", about());
        }
        let mut bytes = Vec::new();
        Verified::new(self.blob(digest, 0)?, digest, size).read_to_end(&mut bytes).with_context(about)?;
        Ok(Document { digest: digest.clone(), bytes })
    }
}

fn document(Document { digest, bytes }: Document, media_type: Option<String>) -> Result<Manifest> {
    let media_type = media_type.map_or_else(|| manifest::media_type(&bytes), Ok)?;
    Ok(Manifest { digest, media_type, bytes })
}

fn need(archive: &Archive, name: &str) -> Result<Vec<u8>> {
    match archive.document(name)? {
        Some(bytes) => Ok(bytes),
        None => bail!("there is no {name} in it"),
    }
}

/// The entry of an `index.json` that is meant: of this name, or the only one.
fn named<'d>(all: &'d [Descriptor], tag: Option<&str>) -> Result<&'d Descriptor> {
    let Some(tag) = tag else {
        return match all {
            [only] => Ok(only),
            [] => bail!("there is no image in it"),
            _ => Err(anyhow::anyhow!("there are {} images in it", all.len()))
                .hint("say which one after a colon, by its tag"),
        };
    };
    let names = |d: &'d Descriptor| -> Vec<&'d str> {
        let keys = [oci_layout::REF_NAME, oci_layout::IMAGE_NAME];
        keys.into_iter().filter_map(|key| oci_layout::annotation(d, key)).collect()
    };
    let wanted = tag.parse::<Reference>().ok().map(Reference::with_default_tag);
    let exact = |name: &str| name == tag;
    let same = |name: &str| {
        wanted.is_some() && name.parse::<Reference>().ok().map(Reference::with_default_tag) == wanted
    };
    let tagged = |name: &str| name.parse::<Reference>().is_ok_and(|r| r.tag.as_deref() == Some(tag));
    for fits in [&exact as &dyn Fn(&str) -> bool, &same, &tagged] {
        if let Some(found) = all.iter().find(|d| names(d).into_iter().any(fits)) {
            return Ok(found);
        }
    }
    bail!("there is no image called {tag:?} in it")
}

/// The image of a docker archive, with a manifest made for it.
fn made<'a>(
    archive: &Archive,
    name: Option<&Reference>,
    opening: &Opening<'_>,
    events: Sink<'_>,
) -> Result<Source<'a>> {
    let mut all = docker_archive::candidates(archive, &need(archive, "manifest.json")?, events)?;
    if let Some(name) = name {
        all.retain(|candidate| candidate.names.contains(name));
    }
    let candidate = match (all.len(), name) {
        (1, _) => all.remove(0),
        (0, Some(name)) => bail!("there is no image called {} in it", name.familiar()),
        (0, None) => bail!("there is no image in it"),
        (n, _) => {
            return Err(anyhow::anyhow!("there are {n} images in it"))
                .hint("say which one after a colon, by its name");
        }
    };
    let mut blobs = HashMap::new();
    let mut entries = Vec::new();
    for layer in &candidate.layers {
        let about = || format!("cannot use the layer {}", layer.member);
        let Some(Item::Section(section)) = archive.item(&layer.member)? else {
            bail!("cannot find the layer {}", layer.member);
        };
        let (entry, section) = packed(section, &layer.diff_id.0, opening).with_context(about)?;
        blobs.insert(entry.digest.clone(), section);
        entries.push(entry);
    }
    let Document { digest, bytes } = &candidate.config;
    let top = Document::of(manifest::build(bytes, &entries));
    let top = document(top, Some(manifest::MANIFEST.to_owned()))?;
    blobs.insert(digest.clone(), in_file(bytes, opening.spool)?);
    Ok(Source::Made(top, blobs))
}

fn in_file(bytes: &[u8], spool: &Path) -> Result<Section> {
    let mut file = fs::create_unnamed(spool)?;
    io::Write::write_all(&mut file, bytes).context("cannot write a copy")?;
    Section::whole(file).context("cannot read a copy")
}

/// A layer in the form in which it is to be shipped.
fn packed(section: Section, diff_id: &Digest, opening: &Opening<'_>) -> Result<(LayerEntry, Section)> {
    let (compression, mut tar) = compression::decompress(section.clone(), &Windows::new(opening.spool))?;
    let section = if compression == Compression::None {
        section.clone()
    } else {
        // How large it is has to be known before it is packed anew.
        let mut copy = fs::create_unnamed(opening.spool)?;
        io::copy(&mut tar, &mut copy).context("cannot decompress")?;
        Section::whole(copy).context("cannot read a copy")?
    };
    let size = section.size();
    if opening.packing.compression() == Compression::None {
        // Its digest is compared when it is copied.
        let media_type = manifest::LAYER_TAR.to_owned();
        return Ok((LayerEntry { media_type, digest: diff_id.clone(), size }, section));
    }
    let mut out = Hashed::new(fs::create_unnamed(opening.spool)?, Algorithm::default());
    packing::pack(opening.packing, packing::threads(), size, &mut out, |to| {
        io::copy(&mut Verified::new(section, diff_id, size), to).context("cannot compress").map(drop)
    })?;
    let (file, digest, size) = out.end();
    let media_type = opening.packing.media_type().to_owned();
    Ok((LayerEntry { media_type, digest, size }, Section::whole(file).context("cannot read a copy")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_image_of_a_layout_is_found_by_its_tag() {
        let entry = |n: u64, name: Option<&str>| -> Descriptor {
            let annotations = name.map(|name| json!({oci_layout::REF_NAME: name}));
            serde_json::from_value(json!({
                "mediaType": manifest::MANIFEST, "size": n, "digest": Digest::of(b"x").to_string(),
                "annotations": annotations,
            }))
            .unwrap()
        };
        let all = [
            entry(0, Some("v1")),
            entry(1, Some("docker.io/library/busybox:v2")),
            entry(2, Some("reg/a/b:latest")),
            entry(3, None),
        ];
        let check = |tag: Option<&str>, want: Option<u64>| {
            assert_eq!(named(&all, tag).ok().map(Descriptor::size), want, "{tag:?}");
        };
        check(Some("v1"), Some(0));
        check(Some("busybox:v2"), Some(1));
        check(Some("v2"), Some(1));
        check(Some("latest"), Some(2));
        check(Some("v3"), None);
        check(None, None);
        assert_eq!(named(&all[3..], None).unwrap().size(), 3);
        assert!(named(&[], None).is_err());
    }
}
