//! `inspect` of an image, with docker's field names in docker's order.

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::oci::Digest;
use crate::oci::image::ImageManifest;
use crate::store::Store;
use crate::store::blob;
use crate::store::image;
use crate::store::image::DOCUMENT_LIMIT;
use crate::store::image::Image;

use super::manifest;

/// What docker says for a time that never was.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// All that there is to say about an image.
pub fn inspect(store: &Store, name_or_id: &str) -> Result<Value> {
    describe(store, &image::find(store, name_or_id)?)
}

/// [`inspect`] of an image that was found already.
pub fn describe(store: &Store, image: &Image) -> Result<Value> {
    let document: Value = serde_json::from_slice(&image.config_bytes)
        .with_context(|| format!("cannot read the config {}", image.id))?;
    let mut value = of_config(&document);
    let fields = [
        ("Id", json!(image.id.to_string())),
        ("RepoTags", json!(repo_tags(image))),
        ("RepoDigests", json!(repo_digests(image))),
        ("Size", json!(image.size)),
        (
            "RootFS",
            json!({
                "Type": "layers",
                "Layers": image.diff_ids.iter().map(|d| d.0.to_string()).collect::<Vec<_>>(),
            }),
        ),
        ("Metadata", json!({"LastTagTime": last_tag_time(image)})),
        ("Descriptor", descriptor(store, &image.manifest)?),
    ];
    for (name, field) in fields {
        value.insert(name.to_owned(), field);
    }
    Ok(Value::Object(value))
}

/// What a config says, under docker's names, with room left for what it does not say, in docker's order.
pub(super) fn of_config(document: &Value) -> Map<String, Value> {
    let text = |name: &str| json!(document.get(name).and_then(Value::as_str).unwrap_or_default());
    let mut value = Map::new();
    let created = document.get("created").and_then(Value::as_str).unwrap_or(NEVER);
    let fields = [
        ("Id", Value::Null),
        ("RepoTags", Value::Null),
        ("RepoDigests", Value::Null),
        ("Comment", json!(comment(document))),
        ("Created", json!(created)),
        ("Author", text("author")),
        ("Config", config(document.get("config"))),
        ("Architecture", text("architecture")),
        ("Variant", text("variant")),
        ("Os", text("os")),
    ];
    for (name, field) in fields {
        value.insert(name.to_owned(), field);
    }
    if let Some(version) = document.get("os.version").and_then(Value::as_str) {
        value.insert("OsVersion".to_owned(), json!(version));
    }
    value
}

/// The names that have a tag.
pub fn repo_tags(image: &Image) -> Vec<String> {
    let tagged = image.names.iter().filter(|r| r.tag.is_some());
    tagged.map(|r| format!("{}:{}", r.familiar_repository(), r.tag_or_latest().unwrap_or_default())).collect()
}

/// For each repository the digest by which the image is known there.
pub fn repo_digests(image: &Image) -> Vec<String> {
    let mut all: Vec<String> =
        image.named.iter().map(|n| format!("{}@{}", n.reference.familiar_repository(), n.digest())).collect();
    all.sort();
    all.dedup();
    all
}

/// Docker's comment is the last one of the history; older images have it beside it.
fn comment(document: &Value) -> &str {
    let last = document.get("history").and_then(Value::as_array).and_then(|h| h.last());
    let comment = last.and_then(|l| l.get("comment")).or_else(|| document.get("comment"));
    comment.and_then(Value::as_str).unwrap_or_default()
}

/// The config with the fields that templates ask for always there, in docker's order; others follow as they came.
fn config(config: Option<&Value>) -> Value {
    let empty = Map::new();
    let config = config.and_then(Value::as_object).unwrap_or(&empty);
    let mut ordered = Map::new();
    let always = [
        ("User", json!("")),
        ("ExposedPorts", Value::Null),
        ("Env", Value::Null),
        ("Entrypoint", Value::Null),
        ("Cmd", Value::Null),
        ("Volumes", Value::Null),
        ("WorkingDir", json!("")),
        ("Labels", Value::Null),
    ];
    for (name, default) in always {
        let value = config.get(name).cloned().unwrap_or(default);
        // Docker leaves a missing list of ports out, where it writes null for the others.
        if name != "ExposedPorts" || !value.is_null() {
            ordered.insert(name.to_owned(), value);
        }
    }
    for (name, value) in config {
        if !ordered.contains_key(name) && name != "ExposedPorts" {
            ordered.insert(name.clone(), value.clone());
        }
    }
    Value::Object(ordered)
}

fn last_tag_time(image: &Image) -> String {
    image.named.iter().map(|n| n.created).max().map_or_else(|| NEVER.to_owned(), |t| t.to_string())
}

fn descriptor(store: &Store, digest: &Digest) -> Result<Value> {
    let about = || format!("cannot read the manifest {digest}");
    let bytes = blob::read(store, digest, DOCUMENT_LIMIT).with_context(about)?;
    let parsed: ImageManifest = serde_json::from_slice(&bytes).with_context(about)?;
    let media_type =
        parsed.media_type().as_ref().map_or_else(|| manifest::MANIFEST.to_owned(), |m| m.to_string());
    Ok(json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_has_dockers_fields_first() {
        let check = |config_json: Value, want: &[&str]| {
            let got = config(Some(&config_json));
            assert_eq!(got.as_object().unwrap().keys().collect::<Vec<_>>(), want, "{config_json}");
        };
        check(Value::Null, &["User", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels"]);
        check(
            json!({"Healthcheck": {}, "ExposedPorts": {"1/tcp": {}}, "Cmd": ["a"]}),
            &[
                "User",
                "ExposedPorts",
                "Env",
                "Entrypoint",
                "Cmd",
                "Volumes",
                "WorkingDir",
                "Labels",
                "Healthcheck",
            ],
        );
    }

    #[test]
    fn the_comment_is_the_last_of_the_history() {
        assert_eq!(comment(&json!({"comment": "a", "history": [{"comment": "b"}]})), "b");
        assert_eq!(comment(&json!({"comment": "a", "history": [{}]})), "a");
        assert_eq!(comment(&json!({})), "");
    }
}
