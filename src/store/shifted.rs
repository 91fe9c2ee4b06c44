//! Layers shown with other owners, nothing copied: mounts of root's whose ids the kernel maps (mount_setattr(2),
//! MOUNT_ATTR_IDMAP; beneath overlay since Linux 5.19). Who is not root may map no mount of a file system of the machine's,
//! and has copies (`mapped`).

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context, Result};
use rustix::fs::CWD;
use rustix::mount::OpenTreeFlags;

use super::mapped::Moves;
use super::{Store, layer};
use crate::host::OwnIds;
use crate::oci::DiffId;
use crate::sys::mount::{MOUNT_ATTR_IDMAP, MountAttr, mount_setattr};

/// Mounts that are attached nowhere, and go with this.
#[derive(Debug)]
pub(super) struct Shifted(Vec<OwnedFd>);

impl Shifted {
    /// The layers, lowest first, with owners moved.
    pub fn new(store: &Store, diff_ids: &[DiffId], moves: &Moves) -> Result<Shifted> {
        let ids = OwnIds { uids: moves.uid.lines.clone(), gids: moves.gid.lines.clone() };
        let userns = ids.name_space()?;
        let attr = MountAttr {
            attr_set: MOUNT_ATTR_IDMAP,
            userns_fd: userns.as_raw_fd() as u64,
            ..MountAttr::default()
        };
        let mount = |path: PathBuf| {
            let about = || format!("cannot show {} with other owners", path.display());
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            let tree = rustix::mount::open_tree(CWD, &path, flags).with_context(about)?;
            mount_setattr(&tree, c"", libc::AT_EMPTY_PATH as u32, &attr).with_context(about)?;
            Ok(tree)
        };
        layer::lower_dirs(store, diff_ids)?.into_iter().map(mount).collect::<Result<_>>().map(Shifted)
    }

    /// Where they are found, top-most first, by this process and for as long as this lives.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.0.iter().map(|fd| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))).collect()
    }
}
