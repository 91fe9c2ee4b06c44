//! Looking at an image in a registry without pulling it: its documents, and what `inspect` says of them.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::oci::Reference;
use crate::oci::image::Descriptor;
use crate::registry::{Action, Client, Manifest};
use crate::store::image::Document;

use super::Platform;
use super::inspect;
use super::manifest;
use super::transfer;

/// An image of a registry: its documents, verified.
#[derive(Debug, Clone)]
pub struct Remote {
    /// What the name stands for: the manifest, or an index.
    pub top: Manifest,
    /// The manifest of the image.
    pub manifest: Manifest,
    /// The config, as it is.
    pub config: Document,
}

/// What a name stands for: the manifest, or an index, byte for byte.
pub fn document(client: &Client, reference: &Reference) -> Result<Manifest> {
    let about = || format!("cannot get {}", reference.familiar());
    let from = client.repository(reference, Action::Pull).with_context(about)?;
    from.manifest(&tag_or_digest(reference))
}

/// The image for a platform.
pub fn image(client: &Client, reference: &Reference, platform: &Platform) -> Result<Remote> {
    let about = || format!("cannot get {}", reference.familiar());
    let from = client.repository(reference, Action::Pull).with_context(about)?;
    transfer::look(from, tag_or_digest(reference), platform)
}

/// What `inspect` says of it: docker's fields, as far as a registry knows them. `Size` is what a pull would fetch.
pub fn describe(reference: &Reference, remote: &Remote) -> Result<Value> {
    let about = || format!("cannot read {}", reference.familiar());
    let document: Value = serde_json::from_slice(&remote.config.bytes).with_context(about)?;
    let parsed: Value = serde_json::from_slice(&remote.manifest.bytes).with_context(about)?;
    let layers = parsed.get("layers").and_then(Value::as_array).cloned().unwrap_or_default();
    let size = layers.iter().filter_map(|l| l["size"].as_u64()).fold(0u64, u64::saturating_add);
    let tags: Vec<String> =
        reference.tag.iter().map(|t| format!("{}:{t}", reference.familiar_repository())).collect();
    let mut value = inspect::of_config(&document);
    let fields = [
        ("Id", json!(remote.config.digest.to_string())),
        ("RepoTags", json!(tags)),
        ("RepoDigests", json!([format!("{}@{}", reference.familiar_repository(), remote.top.digest)])),
        ("Size", json!(size)),
        ("RootFS", json!({"Type": "layers", "Layers": document["rootfs"]["diff_ids"]})),
        ("Descriptor", descriptor(&remote.manifest)),
        ("Layers", layers.iter().map(|l| l["digest"].clone()).collect()),
    ];
    for (name, field) in fields {
        value.insert(name.to_owned(), field);
    }
    Ok(Value::Object(value))
}

/// What an index says of a document.
pub fn descriptor(document: &Manifest) -> Value {
    json!({
        "mediaType": document.media_type,
        "digest": document.digest.to_string(),
        "size": document.bytes.len(),
    })
}

/// The platform that a config is for, as an index says it.
pub fn platform_of(config: &[u8]) -> Result<Value> {
    let document: Value = serde_json::from_slice(config).context("cannot read the config")?;
    let mut platform = json!({
        "architecture": document["architecture"].as_str().unwrap_or_default(),
        "os": document["os"].as_str().unwrap_or_default(),
    });
    for name in ["os.version", "os.features", "variant"] {
        if let Some(value) = document.get(name).filter(|v| !v.is_null() && *v != "") {
            platform[name] = value.clone();
        }
    }
    Ok(platform)
}

/// The documents that docker's `manifest inspect -v` shows: of an index, all that it names.
pub fn verbose(client: &Client, reference: &Reference) -> Result<Value> {
    let top = document(client, reference)?;
    if !transfer::is_index(&top) {
        return one(client, reference, &top, None);
    }
    let index = transfer::read_index(&top)?;
    let mut all = Vec::new();
    for entry in index.manifests() {
        let own = Reference { tag: None, digest: Some(manifest::digest(entry)?), ..reference.clone() };
        all.push(one(client, &own, &document(client, &own)?, Some(entry))?);
    }
    Ok(Value::Array(all))
}

fn one(
    client: &Client,
    reference: &Reference,
    found: &Manifest,
    entry: Option<&Descriptor>,
) -> Result<Value> {
    let own = Reference { digest: Some(found.digest.clone()), ..reference.clone() };
    let mut about = descriptor(found);
    let listed = entry.and_then(|e| e.platform().as_ref()).map(serde_json::to_value).transpose()?;
    let platform = match listed {
        Some(platform) => Some(platform),
        // An index in an index has none.
        None => {
            image(client, &own, &Platform::host()).ok().map(|i| platform_of(&i.config.bytes)).transpose()?
        }
    };
    if let Some(platform) = platform {
        about["platform"] = platform;
    }
    let content: Value = serde_json::from_slice(&found.bytes).context("cannot read the manifest")?;
    let kind = if found.media_type.starts_with("application/vnd.docker.") {
        "SchemaV2Manifest"
    } else {
        "OCIManifest"
    };
    Ok(json!({"Ref": own.to_string(), "Descriptor": about, kind: content}))
}

/// What to ask a repository for.
fn tag_or_digest(reference: &Reference) -> String {
    match &reference.digest {
        Some(digest) => digest.to_string(),
        None => reference.tag_or_latest().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_tells_its_platform() {
        let check = |config: Value, want: Value| {
            assert_eq!(platform_of(config.to_string().as_bytes()).unwrap(), want);
        };
        check(
            json!({"os": "linux", "architecture": "arm", "variant": "v7", "config": {}}),
            json!({"architecture": "arm", "os": "linux", "variant": "v7"}),
        );
        check(json!({"os": "linux", "variant": ""}), json!({"architecture": "", "os": "linux"}));
        assert!(platform_of(b"").is_err());
    }
}
