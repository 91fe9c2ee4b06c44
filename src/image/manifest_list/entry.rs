//! An entry of a manifest list: an image as it was when it was added, and what was said of it since.

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::{NotFound, ResultExt};
use crate::image::Platform;
use crate::image::manifest;
use crate::image::remote;
use crate::image::select::is_image;
use crate::image::transfer;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::registry::Client;
use crate::store::Store;
use crate::store::blob;
use crate::store::image;
use crate::store::image::DOCUMENT_LIMIT;

use super::List;

/// An image of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The name or id under which it was added.
    pub image: String,
    /// Whether the store had it.
    pub local: bool,
    /// What the index is to say of it: media type, digest, size, platform, annotations.
    pub descriptor: Map<String, Value>,
}

/// What is to be said of an entry otherwise than its config does.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// `--os`
    pub os: Option<String>,
    /// `--arch`
    pub architecture: Option<String>,
    /// `--variant`
    pub variant: Option<String>,
    /// `--os-version`
    pub os_version: Option<String>,
    /// `--os-features`
    pub os_features: Vec<String>,
    /// `--features`
    pub features: Vec<String>,
    /// `--annotation`
    pub annotations: Vec<(String, String)>,
}

/// What an image makes in a list.
pub(super) fn entries(
    store: &Store,
    client: &Client,
    image: &str,
    all: bool,
    changes: &Changes,
) -> Result<Vec<Entry>> {
    let (transport, name) = match image.strip_prefix("docker://") {
        Some(name) => (true, name),
        None => (false, image),
    };
    if !transport {
        match local(store, name) {
            Ok(entry) => return Ok(vec![entry]),
            Err(error) if error.is::<NotFound>() => {}
            Err(error) => return Err(error),
        }
    }
    let reference = name.parse::<Reference>()?.with_default_tag();
    let entry = |descriptor: Value| -> Result<Entry> {
        let Value::Object(descriptor) = descriptor else { bail!("a descriptor is not an object") };
        Ok(Entry { image: reference.to_string(), local: false, descriptor })
    };
    let top = remote::document(client, &reference)?;
    if all && transfer::is_index(&top) {
        return transfer::read_index(&top)?
            .manifests()
            .iter()
            .filter(|d| is_image(d))
            .map(|d| entry(serde_json::to_value(d).context("cannot read the index")?))
            .collect();
    }
    // Where it is for many, what is said of it says which one is meant.
    let host = Platform::host();
    let platform = Platform {
        os: changes.os.clone().unwrap_or(host.os),
        architecture: changes.architecture.clone().unwrap_or(host.architecture),
        variant: changes.variant.clone(),
    };
    let found = remote::image(client, &reference, &platform)?;
    let mut descriptor = remote::descriptor(&found.manifest);
    descriptor["platform"] = remote::platform_of(&found.config.bytes)?;
    Ok(vec![entry(descriptor)?])
}

/// The entry for an image of the store.
fn local(store: &Store, name: &str) -> Result<Entry> {
    let (image, by) = image::find::find_by(store, name)?;
    let bytes = blob::read(store, &image.manifest, DOCUMENT_LIMIT)?;
    let mut descriptor = Map::new();
    descriptor.insert("mediaType".to_owned(), json!(manifest::media_type(&bytes)?));
    descriptor.insert("digest".to_owned(), json!(image.manifest.to_string()));
    descriptor.insert("size".to_owned(), json!(bytes.len()));
    descriptor.insert("platform".to_owned(), remote::platform_of(&image.config_bytes)?);
    let name = match by {
        image::find::By::Name(name) => name.to_string(),
        _ => name.to_owned(),
    };
    Ok(Entry { image: name, local: true, descriptor })
}

pub(super) fn change(descriptor: &mut Map<String, Value>, changes: &Changes) {
    let Changes { os, architecture, variant, os_version, os_features, features, annotations } = changes;
    let texts =
        [("os", os), ("architecture", architecture), ("variant", variant), ("os.version", os_version)];
    let lists = [("os.features", os_features), ("features", features)];
    let has_any = texts.iter().any(|(_, v)| v.is_some()) || lists.iter().any(|(_, v)| !v.is_empty());
    if has_any {
        let platform = descriptor.entry("platform").or_insert_with(|| json!({"architecture": "", "os": ""}));
        for (name, value) in texts {
            if let Some(value) = value {
                platform[name] = json!(value);
            }
        }
        for (name, value) in lists.into_iter().filter(|(_, value)| !value.is_empty()) {
            platform[name] = json!(value);
        }
    }
    if !annotations.is_empty() {
        let own = descriptor.entry("annotations").or_insert_with(|| json!({}));
        for (key, value) in annotations {
            own[key] = json!(value);
        }
    }
}

/// The entry that is meant: as it was added, by its digest, or by the name of an image of the store.
pub(super) fn position(list: &List, image: &str) -> Result<usize> {
    let wanted = image.strip_prefix("docker://").unwrap_or(image);
    let reference = wanted.parse::<Reference>().ok().map(Reference::with_default_tag);
    let fits = |entry: &Entry| {
        let digest = entry.descriptor.get("digest").and_then(Value::as_str).unwrap_or_default();
        let by_digest = digest == wanted || Digest::bare(digest) == wanted;
        let by_name = reference.as_ref().is_some_and(|r| match &r.digest {
            Some(own) => own.to_string() == digest,
            None => r.to_string() == entry.image,
        });
        by_digest || by_name || entry.image == wanted
    };
    let found: Vec<usize> = (0..list.entries.len()).filter(|at| fits(&list.entries[*at])).collect();
    match found[..] {
        [at] => Ok(at),
        [] => Err(NotFound { kind: "image in the list", name: image.to_owned() }.into()),
        _ => Err(anyhow!("{} images in the list are called so", found.len())).hint("name it by its digest"),
    }
}

pub(super) fn digest_of(entry: &Entry) -> Result<Digest> {
    let text = entry.descriptor.get("digest").and_then(Value::as_str).unwrap_or_default();
    text.parse().with_context(|| format!("cannot use {}", entry.image))
}
