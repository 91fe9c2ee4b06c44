//! What lies where in `layers/`.

use std::path::{Path, PathBuf};

use crate::oci::DiffId;

use super::super::Store;

/// All layers, beneath DATA.
pub(super) const LAYERS: &str = "layers";
/// In a layer: its tree, as overlay takes it.
pub(super) const DIFF: &str = "diff";
/// In a layer: the archive without the contents of files.
pub(in crate::store) const SPLIT: &str = "split";
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
    layer_in(&store.data, diff_id)
}

/// The directory of a layer in the store that lies there.
pub(super) fn layer_in(data: &Path, diff_id: &DiffId) -> PathBuf {
    data.join(LAYERS).join(diff_id.0.hex())
}
