//! What a listing needs to know of an image, kept in the file of each of its names, so that a thousand images are listed
//! by reading a thousand small files and no document; and so that it is still known which layers an image needs when
//! one of its documents was lost.
//!
//! Invariant: it follows from the manifest's digest alone, so it cannot be stale.

use std::collections::BTreeMap;

use anyhow::Result;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::oci::DiffId;
use crate::oci::Digest;
use crate::store::Store;
use crate::store::layer;

use super::Description;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The digest of the config.
    pub id: Digest,
    /// The digests of the layers as the manifest has them, lowest first.
    pub layers: Vec<Digest>,
    /// The layers, lowest first.
    pub diff_ids: Vec<DiffId>,
    /// The sum of the uncompressed layers in bytes.
    pub size: u64,
    /// When the image was made, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl Summary {
    /// Reads the documents of an image. The second part is whether all of its layers were there: otherwise the size is
    /// not to be kept.
    pub fn of(store: &Store, manifest: &Digest) -> Result<(Summary, bool)> {
        let Description { id, layers, diff_ids, config, .. } = super::describe(store, manifest)?;
        let (size, is_whole) = size_of(store, &diff_ids);
        let labels = config.config().as_ref().and_then(|c| c.labels().clone()).unwrap_or_default();
        let created = config.created().as_ref().and_then(|c| c.parse().ok());
        Ok((Summary { id, layers, diff_ids, size, created, labels: labels.into_iter().collect() }, is_whole))
    }
}

/// The sum of the layers that are there, and whether all are.
pub(super) fn size_of(store: &Store, diff_ids: &[DiffId]) -> (u64, bool) {
    let (mut size, mut is_whole) = (0, true);
    for diff_id in diff_ids {
        match layer::find(store, diff_id) {
            Ok(Some(layer)) => size += layer.size,
            _ => is_whole = false,
        }
    }
    (size, is_whole)
}
