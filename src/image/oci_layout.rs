//! What is in an OCI layout: `index.json` and blobs by their digests. The layout that `skopeo copy dir:` makes, one
//! `manifest.json` with files called by bare hex digits, is the same with other names.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::event::Event;
use crate::event::Sink;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::oci::image::Descriptor;
use crate::oci::image::ImageIndex;
use crate::oci::image::ImageManifest;
use crate::store::image::{Document, parse_config};

use super::Platform;
use super::archive::Archive;
use super::candidate::Candidate;
use super::candidate::Listed;
use super::manifest;

/// The specification's annotation for a name or a tag.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Containerd's annotation for a name.
pub(super) const IMAGE_NAME: &str = "io.containerd.image.name";

/// The images that this index lists, of several platforms only the one wanted.
pub fn candidates(
    archive: &Archive,
    index_json: &[u8],
    platform: &Platform,
    events: Sink<'_>,
) -> Result<Vec<Candidate>> {
    let index: ImageIndex = serde_json::from_slice(index_json).context("cannot read index.json")?;
    let mut candidates: Vec<Candidate> = Vec::new();
    for (group, names) in groups(index.manifests(), events) {
        let descriptor = choose(&group, platform)?;
        let found = candidate(archive, descriptor, platform, names, 0)?;
        // One entry a name: the same image comes once for each.
        match candidates.iter_mut().find(|c| c.manifest == found.manifest) {
            Some(known) => known.names.extend(found.names),
            None => candidates.push(found),
        }
    }
    Ok(candidates)
}

/// The image of a `dir:` layout.
pub fn single(archive: &Archive, manifest_json: Vec<u8>, platform: &Platform) -> Result<Candidate> {
    match serde_json::from_slice::<ImageIndex>(&manifest_json) {
        Ok(index) => {
            let all: Vec<&Descriptor> = index.manifests().iter().filter(|d| is_image(d)).collect();
            candidate(archive, choose(&all, platform)?, platform, Vec::new(), 0)
        }
        Err(_) => from_manifest(archive, Document::of(manifest_json), Vec::new()),
    }
}

/// The entries of an index that belong together: one image, or one for each of several platforms under one name.
fn groups<'a>(manifests: &'a [Descriptor], events: Sink<'_>) -> Vec<(Vec<&'a Descriptor>, Vec<Reference>)> {
    let mut groups: Vec<(Vec<&Descriptor>, Vec<Reference>)> = Vec::new();
    for descriptor in manifests.iter().filter(|d| is_image(d)) {
        let names: Vec<Reference> = name(descriptor, events).into_iter().collect();
        let has_platform = |d: &Descriptor| d.platform().is_some();
        let same = groups.iter_mut().find(|(group, other)| {
            *other == names && has_platform(descriptor) && group.iter().all(|d| has_platform(d))
        });
        match same {
            Some((group, _)) => group.push(descriptor),
            None => groups.push((vec![descriptor], names)),
        }
    }
    groups
}

/// Attestations and other artifacts lie in an index like images, with a platform that is none.
fn is_image(descriptor: &Descriptor) -> bool {
    let unknown = |p: &crate::oci::image::Platform| p.architecture().to_string() == "unknown";
    let annotated = annotation(descriptor, "vnd.docker.reference.type").is_some();
    !annotated && !descriptor.platform().as_ref().is_some_and(unknown)
}

/// The one to take of several; a lone one is taken whatever it is for, since somebody wanted it in the archive.
fn choose<'a>(group: &[&'a Descriptor], wanted: &Platform) -> Result<&'a Descriptor> {
    if let [only] = group {
        return Ok(only);
    }
    let platforms: Vec<_> = group.iter().map(|d| d.platform().as_ref().map(Platform::from)).collect();
    // Of several variants the one without a name is the most modest, so it runs everywhere.
    let exact = platforms.iter().position(|p| p.as_ref() == Some(wanted));
    let fit = || platforms.iter().position(|p| p.as_ref().is_some_and(|p| wanted.accepts(p)));
    match exact.or_else(fit) {
        Some(at) => Ok(group[at]),
        None => {
            let there: Vec<_> = platforms.iter().flatten().map(Platform::to_string).collect();
            bail!("cannot find an image for {wanted}: there is {}", there.join(", "))
        }
    }
}

fn candidate(
    archive: &Archive,
    descriptor: &Descriptor,
    platform: &Platform,
    names: Vec<Reference>,
    depth: u32,
) -> Result<Candidate> {
    let found = document(archive, descriptor)?;
    match descriptor.media_type().to_string().as_str() {
        manifest::INDEX | manifest::DOCKER_INDEX if depth < 4 => {
            let about = || format!("cannot read the index {}", descriptor.digest());
            let index: ImageIndex = serde_json::from_slice(&found.bytes).with_context(about)?;
            let all: Vec<&Descriptor> = index.manifests().iter().filter(|d| is_image(d)).collect();
            candidate(archive, choose(&all, platform)?, platform, names, depth + 1)
        }
        manifest::MANIFEST | manifest::DOCKER_MANIFEST => from_manifest(archive, found, names),
        other => bail!("cannot use {}: {other} is not the manifest of an image", descriptor.digest()),
    }
}

fn from_manifest(archive: &Archive, found: Document, names: Vec<Reference>) -> Result<Candidate> {
    let about = || format!("cannot read the manifest {}", found.digest);
    // Docker's first format has no config, which as an error of the JSON reader would be hard to understand.
    let version = serde_json::from_slice::<Value>(&found.bytes).with_context(about)?["schemaVersion"].clone();
    if version != 2 {
        bail!("{}: its schemaVersion is {version}, not 2", about());
    }
    let parsed: ImageManifest = serde_json::from_slice(&found.bytes).with_context(about)?;
    let config = document(archive, parsed.config())?;
    let (_, diff_ids) =
        parse_config(&config.bytes).with_context(|| format!("cannot read the config {}", config.digest))?;
    if parsed.layers().len() != diff_ids.len() {
        bail!(
            "cannot match the layers of {}: the manifest has {} and the config {}",
            parsed.config().digest(),
            parsed.layers().len(),
            diff_ids.len()
        );
    }
    let mut layers = Vec::new();
    for (descriptor, diff_id) in parsed.layers().iter().zip(diff_ids) {
        manifest::oci_layer(descriptor.media_type().as_ref()).with_context(about)?;
        let digest = manifest::digest(descriptor)?;
        let member = member(archive, &digest)?;
        layers.push(Listed { member, diff_id, blob: Some((digest, descriptor.size())) });
    }
    Ok(Candidate { manifest: Some(found), config, layers, names })
}

/// A document, with its size and digest verified.
pub(super) fn document(archive: &Archive, descriptor: &Descriptor) -> Result<Document> {
    let digest = manifest::digest(descriptor)?;
    let Some(bytes) = archive.document(&member(archive, &digest)?)? else {
        bail!("cannot find blob {digest}");
    };
    if bytes.len() as u64 != descriptor.size() {
        bail!("cannot use blob {digest}: it has {} bytes, not {}", bytes.len(), descriptor.size());
    }
    let found = digest.algorithm().digest(&bytes);
    if found != digest {
        bail!("cannot use blob {digest}: its content has digest {found}");
    }
    Ok(Document { digest, bytes })
}

/// The member that should hold these bytes.
pub(super) fn member(archive: &Archive, digest: &Digest) -> Result<String> {
    let hex = digest.hex();
    for name in [format!("blobs/{}", digest.path()), hex.to_owned(), format!("{hex}.manifest.json")] {
        if archive.item(&name)?.is_some() {
            return Ok(name);
        }
    }
    bail!("cannot find blob {digest}")
}

/// The name that an index gives an image. Containerd's annotation has it in full. The specification's may hold a name,
/// as podman and skopeo write it, or a mere tag, which names nothing; of those `latest` is told by its looks.
fn name(descriptor: &Descriptor, events: Sink<'_>) -> Option<Reference> {
    let text = annotation(descriptor, IMAGE_NAME).or_else(|| annotation(descriptor, REF_NAME))?;
    if text == "latest" {
        return None;
    }
    match text.parse::<Reference>() {
        Ok(name) if name.digest.is_none() => Some(name.with_default_tag()),
        Ok(_) => None,
        Err(error) => {
            events(Event::Warning(format!("a name in the archive is left out: {error}")));
            None
        }
    }
}

pub(super) fn annotation<'a>(descriptor: &'a Descriptor, key: &str) -> Option<&'a str> {
    descriptor.annotations().as_ref()?.get(key).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn descriptor(platform: Option<&str>, annotations: &[(&str, &str)]) -> Descriptor {
        let mut value = json!({
            "mediaType": manifest::MANIFEST, "size": 1, "digest": Digest::of(b"x").to_string(),
            "annotations": annotations.iter().copied().collect::<std::collections::BTreeMap<_, _>>(),
        });
        if let Some((os, architecture)) = platform.and_then(|p| p.split_once('/')) {
            value["platform"] = json!({"os": os, "architecture": architecture});
        }
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn names_come_from_two_annotations() {
        let check = |annotations: &[(&str, &str)], want: Option<&str>, warnings: usize| {
            let mut n = 0;
            let got = name(&descriptor(None, annotations), &mut |_| n += 1);
            assert_eq!((got.map(|r| r.familiar()).as_deref(), n), (want, warnings), "{annotations:?}");
        };
        check(&[], None, 0);
        check(&[(REF_NAME, "localhost/a:1")], Some("localhost/a:1"), 0);
        check(&[(REF_NAME, "a")], Some("a:latest"), 0);
        check(&[(REF_NAME, "latest")], None, 0);
        check(&[(REF_NAME, "1.0"), (IMAGE_NAME, "docker.io/library/b:1.0")], Some("b:1.0"), 0);
        check(&[(REF_NAME, "Not A Name")], None, 1);
    }

    #[test]
    fn several_platforms_under_one_name_are_one_image() {
        let named = [(REF_NAME, "a:1")];
        let all = [
            descriptor(Some("linux/amd64"), &named),
            descriptor(Some("linux/arm64"), &named),
            descriptor(Some("unknown/unknown"), &named),
            descriptor(None, &[(REF_NAME, "b:1")]),
            descriptor(None, &[]),
            descriptor(None, &[]),
        ];
        let groups = groups(&all, &mut |_| {});
        assert_eq!(groups.iter().map(|(g, _)| g.len()).collect::<Vec<_>>(), [2, 1, 1, 1]);
        let arm: Platform = "linux/arm64".parse().unwrap();
        assert_eq!(choose(&groups[0].0, &arm).unwrap(), &all[1]);
        assert!(choose(&groups[0].0, &"linux/386".parse().unwrap()).is_err());
        assert!(choose(&groups[1].0, &arm).is_ok());
    }
}
