//! `import`: the tar of a root file system -> an image of one layer.

use std::fs::File;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::event::Sink;
use crate::fs;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::store::Store;
use crate::store::draft;
use crate::store::image;
use crate::store::image::names;
use crate::store::image::{Document, Parts};
use crate::store::journal::{self, Event};
use crate::store::layer;

use super::Input;
use super::Platform;
use super::change;
use super::compression;
use super::manifest;
use super::manifest::LayerEntry;
use super::parallel;
use super::parallel::Watched;

/// What to import.
#[derive(Debug)]
pub struct Options {
    /// The tar, plain or compressed.
    pub input: Input,
    /// The image's name; without one it stays untagged.
    pub reference: Option<Reference>,
    /// Instructions that change the config, as `--change` has them.
    pub changes: Vec<String>,
    /// The comment in the history.
    pub message: Option<String>,
    /// What the file system was made for; `None` for the machine's own.
    pub platform: Option<Platform>,
}

/// The image that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The image id.
    pub id: Digest,
    /// Its manifest.
    pub manifest: Digest,
}

/// Makes an image of a tar.
pub fn import(store: &Store, options: &Options, events: Sink<'_>) -> Result<Imported> {
    if let Some(reference) = &options.reference {
        names::check_can_be_given(reference)?;
    }
    // First, because a wrong change should not cost the reading of a large tar.
    let mut config = Map::new();
    change::apply_texts(&mut config, &options.changes)?;
    let about = || format!("cannot import {}", options.input.name());
    // What a killed one left may be what fills the disk. That it cannot be removed is no reason not to import.
    let _ = draft::sweep(store);
    let layer = unpack(store, &options.input, events).with_context(about)?;
    let entry = LayerEntry {
        media_type: manifest::LAYER_TAR.to_owned(),
        digest: layer.layer.diff_id.0.clone(),
        size: layer.layer.size,
    };
    let config = document(options, config, &entry.digest);
    let manifest = Document::of(manifest::build(&config, &[entry]));
    let config = Document::of(config);
    let id = config.digest.clone();
    let parts = Parts { manifest, config, blobs: Vec::new(), layers: vec![layer], index: None };
    let manifest = image::publish(store, parts, options.reference.as_slice()).with_context(about)?;
    journal::note(store, &Event::of_image("import", &id, options.reference.as_ref()));
    Ok(Imported { id, manifest })
}

fn unpack(store: &Store, input: &Input, events: Sink<'_>) -> Result<layer::Unpacked> {
    let file = match input {
        Input::Path(path) => fs::open(path)?,
        Input::Stream(file) => file.try_clone().context("cannot duplicate a descriptor")?,
    };
    let total = file.metadata().ok().filter(|m| m.is_file()).map_or(0, |m| m.len());
    // One job, but on a thread of its own, so that there is somebody to listen to its progress.
    let work = |file: File, progress: &parallel::Progress| {
        let (start, stream) = compression::peek(file, 1).context("cannot read")?;
        if start.is_empty() {
            bail!("it is empty");
        }
        let watched = Watched::new(stream, &input.name(), total, progress);
        let (_, tar) = compression::decompress(watched, &layer::windows(store))?;
        layer::extract(store, tar, None)
    };
    let mut layers = parallel::map(vec![file], events, work)?;
    layers.pop().context("cannot read")
}

/// The image's config.
fn document(options: &Options, config: Map<String, Value>, diff_id: &Digest) -> Vec<u8> {
    let platform = options.platform.clone().unwrap_or_else(Platform::host);
    let created = Timestamp::now().to_string();
    // Docker's CLI sends the archive as standard input, so this is what its history says, whatever the file was.
    let comment = options.message.clone().unwrap_or_else(|| "Imported from -".to_owned());
    let mut document = json!({"created": created, "architecture": platform.architecture});
    if let Some(variant) = platform.variant {
        document["variant"] = Value::from(variant);
    }
    document["os"] = Value::from(platform.os);
    document["comment"] = Value::from(comment.as_str());
    document["config"] = Value::Object(config);
    document["rootfs"] = json!({"type": "layers", "diff_ids": [diff_id.to_string()]});
    document["history"] = json!([{"created": created, "comment": comment}]);
    document.to_string().into_bytes()
}
