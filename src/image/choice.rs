//! Which manifest a name in a registry leads to: through an index if there is one, to the image for a platform.

use anyhow::{Context, Result, bail};

use crate::event::{Event, Sink};
use crate::oci::Digest;
use crate::oci::image::{Descriptor, ImageConfiguration, ImageIndex};
use crate::registry::{Manifest, Repository};

use super::Platform;
use super::manifest;
use super::select::{fit, select};

/// An index in an index in an index is somebody's joke.
const DEPTH_LIMIT: usize = 4;

/// Whether an image is one for this platform.
pub fn is_for(config: &ImageConfiguration, wanted: &Platform) -> bool {
    platform_of(config).is_some_and(|own| fit(wanted, &own).is_some())
}

/// What a config says; `None` where it says nothing.
pub fn platform_of(config: &ImageConfiguration) -> Option<Platform> {
    let (os, architecture) = (config.os().to_string(), config.architecture().to_string());
    let variant = config.variant().as_ref().filter(|v| !v.is_empty());
    let text = match variant {
        Some(variant) => format!("{os}/{architecture}/{variant}"),
        None => format!("{os}/{architecture}"),
    };
    text.parse().ok()
}

/// What was asked for is an error where it is not given; what was only assumed is worth a word, unless an index said that
/// it is right.
pub(super) fn check_platform(
    config: &ImageConfiguration,
    wanted: &Platform,
    was_asked: bool,
    is_lone: bool,
    events: Sink<'_>,
) -> Result<()> {
    let Some(own) = platform_of(config) else { return Ok(()) };
    if !is_lone || fit(wanted, &own).is_some() {
        return Ok(());
    }
    if was_asked {
        bail!("there is no image for {wanted}: there is {own}");
    }
    events(Event::Warning(format!("the image is for {own}, and this machine is {wanted}")));
    Ok(())
}

/// The digest of what was asked for, and the manifest of the image that it leads to.
pub(super) fn resolve(
    repository: &Repository<'_>,
    asked: &str,
    wanted: &Platform,
) -> Result<(Digest, Manifest)> {
    let mut found = repository.manifest(asked)?;
    let top = found.digest.clone();
    for _ in 0..DEPTH_LIMIT {
        let about = || format!("cannot use the manifest {}", found.digest);
        // The registry's room has seen to it that a document is what it is called.
        if ![manifest::INDEX, manifest::DOCKER_INDEX].contains(&found.media_type.as_str()) {
            return Ok((top, found));
        }
        let index: ImageIndex = serde_json::from_slice(&found.bytes).with_context(about)?;
        let chosen = select(&index, wanted)?;
        found = chosen_manifest(repository, chosen)?;
    }
    bail!("cannot use the index {top}: there are indexes in it, more than {DEPTH_LIMIT} deep")
}

fn chosen_manifest(repository: &Repository<'_>, chosen: &Descriptor) -> Result<Manifest> {
    let digest = manifest::digest(chosen)?;
    let found = repository.manifest(&digest.to_string())?;
    if found.digest != digest {
        bail!("cannot use the manifest {digest}: the registry sent {} in its place", found.digest);
    }
    if found.bytes.len() as u64 != chosen.size() {
        bail!("cannot use the manifest {digest}: it has {} bytes, not {}", found.bytes.len(), chosen.size());
    }
    if found.media_type != chosen.media_type().to_string() {
        let (own, said) = (&found.media_type, chosen.media_type());
        bail!("cannot use the manifest {digest}: the index says that it is {said}, and it is {own}");
    }
    Ok(found)
}
