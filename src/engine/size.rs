//! What a container takes beside its image, as docker counts it: the sizes of files, not their blocks.

use anyhow::Result;

use crate::store::Store;
use crate::store::container::{ContainerDir, Record, Source};
use crate::store::layer;
use crate::store::layer::usage;

/// Bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// What was written or changed in the container.
    pub rw: u64,
    /// That and the image together.
    pub root: u64,
}

/// The size of a container. What lies in memory (an overlay that is thrown away) and what is a directory of the host is
/// not counted. Files of other users are read: in a user name space by its root.
pub fn of(store: &Store, record: &Record) -> Result<Size> {
    let dir = ContainerDir::of(store, &record.id);
    let mut image = 0;
    if let Source::Image { diff_ids, .. } = &record.source {
        for diff_id in diff_ids {
            image += layer::find(store, diff_id)?.map_or(0, |layer| layer.size);
        }
    }
    let changed = usage::apparent_if_exists(&dir.file("upper"))?;
    // Where overlay is refused, the whole root is a copy.
    let copied = usage::apparent_if_exists(&dir.file("rootfs"))?.saturating_sub(image);
    let rw = changed + copied;
    Ok(Size { rw, root: rw + image })
}
