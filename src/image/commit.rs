//! `commit`: an image on top of another: one more layer, what the container was told to run, one more step in the history.

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::oci::image::ImageManifest;
use crate::oci::{Digest, Reference};
use crate::spec::Options;
use crate::store::Store;
use crate::store::blob;
use crate::store::image::{self, DOCUMENT_LIMIT, Document, Parts};
use crate::store::layer::Unpacked;

use super::Platform;
use super::change;
use super::manifest::{self, LayerEntry};

/// The image beneath.
#[derive(Debug, Clone, Copy)]
pub struct Base<'a> {
    /// Its manifest.
    pub manifest: &'a Digest,
    /// Its config.
    pub config: &'a [u8],
}

/// What comes on top.
#[derive(Debug)]
pub struct Made {
    /// The config's `config`, from [`config`].
    pub config: Map<String, Value>,
    /// The layer; `None` if nothing was changed.
    pub layer: Option<Unpacked>,
    /// Who made it; may be empty.
    pub author: String,
    /// Why; may be empty.
    pub message: String,
    /// What ran.
    pub created_by: String,
}

/// What a container of the new image runs: as the old one's config has it, what this container was told in place of that,
/// and then the changes.
pub fn config(base: Option<&[u8]>, asked: &Options, changes: &[String]) -> Result<Map<String, Value>> {
    let document: Value = match base {
        Some(bytes) => serde_json::from_slice(bytes).context("cannot read the image's config")?,
        None => json!({}),
    };
    let mut config = document.get("config").and_then(Value::as_object).cloned().unwrap_or_default();
    if let Some(entrypoint) = &asked.entrypoint {
        config
            .insert("Entrypoint".into(), if entrypoint.is_empty() { Value::Null } else { json!(entrypoint) });
        // The command was the other program's.
        config.insert("Cmd".into(), Value::Null);
    }
    if !asked.command.is_empty() {
        config.insert("Cmd".into(), json!(asked.command));
    }
    for variable in &asked.env {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        change::set_variable(&mut config, name, value);
    }
    for (name, value) in
        [("WorkingDir", &asked.workdir), ("User", &asked.user), ("StopSignal", &asked.stop_signal)]
    {
        if let Some(value) = value {
            config.insert(name.into(), Value::from(value.as_str()));
        }
    }
    for (name, value) in &asked.labels {
        change::object(&mut config, "Labels").insert(name.clone(), Value::from(value.as_str()));
    }
    change::apply_texts(&mut config, changes)?;
    Ok(config)
}

/// The command as the history shows it.
pub fn created_by(asked: &Options) -> String {
    asked.command.join(" ")
}

/// Puts the image in its place; returns its id. The caller holds the layers of the base.
pub fn publish(
    store: &Store,
    base: Option<Base<'_>>,
    made: Made,
    reference: Option<&Reference>,
) -> Result<Digest> {
    let mut document: Value = match &base {
        Some(base) => serde_json::from_slice(base.config).context("cannot read the image's config")?,
        None => {
            let platform = Platform::host();
            json!({"architecture": platform.architecture, "os": platform.os, "history": []})
        }
    };
    let mut layers = match &base {
        Some(base) => entries(store, base.manifest)?,
        None => Vec::new(),
    };
    let created = Timestamp::now().to_string();
    let fields = document.as_object_mut().context("the image's config is not an object")?;
    let mut step = json!({"created": created});
    for (name, value) in
        [("created_by", &made.created_by), ("author", &made.author), ("comment", &made.message)]
    {
        if !value.is_empty() {
            step[name] = Value::from(value.as_str());
        }
    }
    // What docker keeps of the last step beside the history would be an older one's.
    for name in ["container", "container_config", "docker_version", "comment", "author", "id", "parent"] {
        fields.remove(name);
    }
    for (name, value) in [("author", &made.author), ("comment", &made.message)] {
        if !value.is_empty() {
            fields.insert(name.into(), Value::from(value.as_str()));
        }
    }
    fields.insert("created".into(), Value::from(created));
    fields.insert("config".into(), Value::Object(made.config));
    let mut diff_ids = match fields.get("rootfs").and_then(|rootfs| rootfs.get("diff_ids")) {
        Some(Value::Array(ids)) => ids.clone(),
        _ => Vec::new(),
    };
    match &made.layer {
        Some(unpacked) => {
            let digest = unpacked.layer.diff_id.0.clone();
            diff_ids.push(Value::from(digest.to_string()));
            let size = unpacked.layer.size;
            layers.push(LayerEntry { media_type: manifest::LAYER_TAR.to_owned(), digest, size });
        }
        None => step["empty_layer"] = Value::from(true),
    }
    fields.insert("rootfs".into(), json!({"type": "layers", "diff_ids": diff_ids}));
    match fields.get_mut("history").and_then(Value::as_array_mut) {
        Some(history) => history.push(step),
        None => _ = fields.insert("history".into(), json!([step])),
    }
    let config = document.to_string().into_bytes();
    let manifest = Document::of(manifest::build(&config, &layers));
    let config = Document::of(config);
    let id = config.digest.clone();
    let layers = made.layer.into_iter().collect();
    let parts = Parts { manifest, config, blobs: Vec::new(), layers, index: None };
    image::publish(store, parts, reference.map_or(&[], std::slice::from_ref))?;
    Ok(id)
}

/// The layers of an image as its manifest has them, in the specification's words.
fn entries(store: &Store, digest: &Digest) -> Result<Vec<LayerEntry>> {
    let about = || format!("cannot read the manifest {digest}");
    let bytes = blob::read(store, digest, DOCUMENT_LIMIT).with_context(about)?;
    let parsed: ImageManifest = serde_json::from_slice(&bytes).with_context(about)?;
    let entry = |layer: &crate::oci::image::Descriptor| {
        Ok(LayerEntry {
            media_type: manifest::oci_layer(layer.media_type().as_ref())?.to_owned(),
            digest: manifest::digest(layer)?,
            size: layer.size(),
        })
    };
    parsed.layers().iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_container_was_told_comes_before_the_changes() {
        let base =
            json!({"config": {"Cmd": ["sh"], "Env": ["PATH=/bin", "A=1"], "Labels": {"a": "1"}, "Odd": 7}});
        let check = |asked: Options, changes: &[&str], want: Value| {
            let changes: Vec<String> = changes.iter().map(|c| (*c).to_owned()).collect();
            let found = config(Some(base.to_string().as_bytes()), &asked, &changes).unwrap();
            assert_eq!(Value::Object(found), want);
        };
        check(Options::default(), &[], base["config"].clone());
        check(
            Options {
                command: vec!["top".into()],
                env: vec!["A=2".into(), "B=3".into()],
                workdir: Some("/w".into()),
                labels: [("b".to_owned(), "2".to_owned())].into(),
                ..Options::default()
            },
            &["ENV B=4", "USER nobody"],
            json!({"Cmd": ["top"], "Env": ["PATH=/bin", "A=2", "B=4"], "Labels": {"a": "1", "b": "2"}, "Odd": 7,
                "WorkingDir": "/w", "User": "nobody"}),
        );
        let asked = Options { entrypoint: Some(vec!["e".into()]), ..Options::default() };
        let found = config(Some(base.to_string().as_bytes()), &asked, &[]).unwrap();
        assert_eq!((&found["Entrypoint"], &found["Cmd"]), (&json!(["e"]), &Value::Null));
        assert!(config(None, &Options::default(), &["NONSENSE x".to_owned()]).is_err());
    }
}
