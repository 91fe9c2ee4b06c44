//! What is in an archive that docker saved: `manifest.json`, a list of images, each with a config, layers and tags.
//!
//! Both layouts are read here: the one with a directory per layer, and the one of docker 25, which is an OCI layout with
//! a `manifest.json` beside it, where the OCI index is preferred. What came before manifest.json (docker 1.9) is not read.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::event::Sink;
use crate::oci::Reference;
use crate::store::image::{Document, parse_config};

use super::archive::Archive;
use super::candidate::Candidate;
use super::candidate::Listed;

/// One image in `manifest.json`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Entry {
    /// The member with the config.
    pub config: String,
    /// The names; `null` for none.
    #[serde(default)]
    pub repo_tags: Option<Vec<String>>,
    /// The members with the layers, lowest first; `null` for none.
    #[serde(default)]
    pub layers: Option<Vec<String>>,
}

/// The images that this `manifest.json` lists.
pub fn candidates(archive: &Archive, manifest_json: &[u8], events: Sink<'_>) -> Result<Vec<Candidate>> {
    let entries: Vec<Entry> = serde_json::from_slice(manifest_json).context("cannot read manifest.json")?;
    entries.into_iter().map(|entry| candidate(archive, entry, events)).collect()
}

fn candidate(archive: &Archive, entry: Entry, events: Sink<'_>) -> Result<Candidate> {
    let Some(config) = archive.document(&entry.config)? else {
        bail!("cannot find {}, which manifest.json names", entry.config);
    };
    let (_, diff_ids) = parse_config(&config).with_context(|| format!("cannot read {}", entry.config))?;
    let members = entry.layers.unwrap_or_default();
    if members.len() != diff_ids.len() {
        bail!(
            "cannot match the layers of {}: manifest.json has {} and the config {}",
            entry.config,
            members.len(),
            diff_ids.len()
        );
    }
    let layers = members
        .into_iter()
        .zip(diff_ids)
        .map(|(member, diff_id)| Listed { member, diff_id, blob: None })
        .collect();
    let names = names(entry.repo_tags.unwrap_or_default(), events);
    Ok(Candidate { manifest: None, config: Document::of(config), layers, names })
}

/// The tags that are references; the others are left out, aloud, since the image is as good without.
fn names(tags: Vec<String>, events: Sink<'_>) -> Vec<Reference> {
    let mut names = Vec::new();
    for tag in tags {
        match tag.parse::<Reference>() {
            Ok(name) if name.digest.is_none() => names.push(name.with_default_tag()),
            Ok(_) => {}
            Err(error) => events(Event::Warning(format!("a name in the archive is left out: {error}"))),
        }
    }
    names
}
