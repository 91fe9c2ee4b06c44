//! What lies where in `layers/`.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::fs;
use crate::oci::DiffId;

use super::super::Store;
use super::super::draft::Draft;

/// All layers, beneath DATA.
pub(super) const LAYERS: &str = "layers";
/// In a layer: its tree, as overlay takes it.
pub(super) const DIFF: &str = "diff";
/// In a layer: the archive without the contents of files.
pub(super) const SPLIT: &str = "split";
/// In a layer: contents that are in the archive, but not in the tree.
pub(super) const REPLACED: &str = "replaced";
/// In a layer: how it lies on others, where that is not the usual way.
pub(super) const STACKING: &str = "stacking";
/// In a layer: what [`super::find`] returns.
pub(super) const RECORD: &str = "record.json";
/// What follows the chain id in the name of an extra directory.
pub(super) const DIRS_SUFFIX: &str = ".dirs";

/// The directory of a layer.
pub(super) fn layer(store: &Store, diff_id: &DiffId) -> PathBuf {
    store.data.join(LAYERS).join(diff_id.0.hex())
}

/// Removes a directory as one step, as seen from outside: first it is nowhere, then it is taken apart.
pub(super) fn remove(store: &Store, path: &Path) -> Result<()> {
    if fs::symlink_metadata(path)?.is_some() {
        let draft = Draft::new(store)?;
        fs::rename(path, &draft.path().join("removed"))?;
    }
    Ok(())
}
