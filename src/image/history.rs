//! `history`: how an image came about, the newest step first.

use anyhow::Result;

use crate::oci::DiffId;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::store::Store;
use crate::store::image;
use crate::store::layer;

/// One row of docker's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The image, which only the newest step has; shown as `<missing>` otherwise.
    pub id: Option<Digest>,
    /// When, RFC 3339; as it is in the config.
    pub created: Option<String>,
    /// The command.
    pub created_by: String,
    /// The size of the layer's uncompressed tar; 0 for a step that made none.
    pub size: u64,
    /// The comment.
    pub comment: String,
    /// The names, which only the newest step has.
    pub names: Vec<Reference>,
    /// The layer that the step made.
    pub diff_id: Option<DiffId>,
}

/// The steps of an image.
pub fn history(store: &Store, name_or_id: &str) -> Result<Vec<Step>> {
    let image = image::find(store, name_or_id)?;
    let mut layers = image.diff_ids.iter();
    let mut steps = Vec::new();
    for entry in image.config.history().iter().flatten() {
        let diff_id = if entry.empty_layer() == Some(true) { None } else { layers.next() };
        steps.push(Step {
            id: None,
            created: entry.created().clone(),
            created_by: entry.created_by().clone().unwrap_or_default(),
            size: size(store, diff_id)?,
            comment: entry.comment().clone().unwrap_or_default(),
            names: Vec::new(),
            diff_id: diff_id.cloned(),
        });
    }
    // A history is optional, and nobody makes tools keep it in step: layers that it does not tell of are rows too.
    for diff_id in layers {
        steps.push(Step {
            id: None,
            created: image.config.created().clone(),
            created_by: String::new(),
            size: size(store, Some(diff_id))?,
            comment: String::new(),
            names: Vec::new(),
            diff_id: Some(diff_id.clone()),
        });
    }
    steps.reverse();
    if let Some(newest) = steps.first_mut() {
        newest.id = Some(image.id);
        newest.names = image.names;
    }
    Ok(steps)
}

fn size(store: &Store, diff_id: Option<&DiffId>) -> Result<u64> {
    let Some(diff_id) = diff_id else { return Ok(0) };
    Ok(layer::find(store, diff_id)?.map_or(0, |l| l.size))
}
