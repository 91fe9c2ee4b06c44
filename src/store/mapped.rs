//! Images with other owners: a copy of all layers as one tree, for containers in which a user's own id is not root's.
//!
//! A user's layers are stored with the caller as the owner of what is root's, because to the kernel the caller is root of
//! the name space. In a container where the caller is to be themselves (`--userns keep-id`, `own`), root needs another id
//! and what is root's another owner. The kernel lets a user map the ids of no mount that shows a file system of the
//! machine (mount_setattr(2), MOUNT_ATTR_IDMAP wants CAP_SYS_ADMIN where that was mounted), and overlay as a whole cannot
//! be mapped by anyone; so the layers are copied once for each mapping, sharing blocks where the file system can.
//!
//! `mapped/HEX/`: `root/` the tree, `record.json` the layers it was made from; HEX stands for layers and mapping.
//! Invariant: one in its place is whole and was durable before it was named. It goes with the last of its layers.

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::draft::{self, Draft, Removed};
use super::{Store, container, layer};
use crate::fs;
use crate::host::IdMapping;
use crate::oci::{DiffId, Digest};

/// Which owners are others in the copy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Who gets what is root's.
    pub root: u32,
    /// Whether root gets what is theirs.
    pub swap: bool,
    /// In place of both: what everybody's ids are, nobody's else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<IdMapping>,
}

/// The kernel's id for what has none (/proc/sys/kernel/overflowuid).
const NOBODY: u32 = 65_534;

impl Move {
    /// Who owns in the copy what `id` owns.
    pub fn apply(&self, id: u64) -> u64 {
        if !self.lines.is_empty() {
            let place = u32::try_from(id).ok().and_then(|id| IdMapping::outside_of(&self.lines, id));
            return place.unwrap_or(NOBODY).into();
        }
        match id {
            0 => self.root.into(),
            id if self.swap && id == u64::from(self.root) => 0,
            id => id,
        }
    }
}

impl Move {
    /// Whose it is in the image what `id` owns in the copy.
    pub fn undo(&self, id: u64) -> u64 {
        if !self.lines.is_empty() {
            let place = u32::try_from(id).ok().and_then(|id| IdMapping::inside_of(&self.lines, id));
            return place.map_or(id, u64::from);
        }
        match id {
            id if id == u64::from(self.root) => 0,
            0 if self.swap => self.root.into(),
            id => id,
        }
    }
}

/// For users and for groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moves {
    /// Users.
    pub uid: Move,
    /// Groups.
    pub gid: Move,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    diff_ids: Vec<DiffId>,
    moves: Moves,
}

/// The tree of these layers, lowest first, with their owners moved; made if it is not there. Takes its time then.
pub fn tree(store: &Store, diff_ids: &[DiffId], moves: Moves) -> Result<PathBuf> {
    let record = Record { diff_ids: diff_ids.to_vec(), moves };
    let text = serde_json::to_vec(&record).context("cannot encode a mapping of ids")?;
    let home = store.data.join("mapped").join(Digest::of(&text).hex());
    let root = home.join("root");
    if fs::metadata(&root)?.is_some() {
        return Ok(root);
    }
    fs::create_dir_all(&store.data.join("mapped"), 0o700)?;
    let draft = Draft::new(store)?;
    let inner = draft.path().join("mapped");
    fs::create_dir(&inner, 0o700)?;
    let lower = layer::lower_dirs(store, diff_ids)?;
    layer::copy_moved(store, &lower, &inner.join("root"), record.moves)?;
    fs::write(&inner.join("record.json"), &text)?;
    store.sync()?;
    // Another may have been quicker.
    draft.publish("mapped".as_ref(), &home)?;
    Ok(root)
}

/// Takes away the trees of which a layer is not needed any more.
pub(super) fn take_away(store: &Store, needed: &HashSet<Digest>) -> Result<Vec<Removed>> {
    let mut taken = Vec::new();
    for name in fs::read_dir(&store.data.join("mapped"))? {
        let home = store.data.join("mapped").join(name);
        let record: Option<Record> = container::read_json(&home.join("record.json")).unwrap_or(None);
        if record.is_none_or(|record| record.diff_ids.iter().any(|d| !needed.contains(&d.0))) {
            taken.extend(draft::take_away(store, &home)?);
        }
    }
    Ok(taken)
}
