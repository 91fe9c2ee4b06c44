//! Mounts that show a file system with other owners (mount_setattr(2), MOUNT_ATTR_IDMAP): the spec's `uidMappings` and
//! `gidMappings` of a mount.

use std::path::Path;

use anyhow::{Context, Result};

use super::mount::Detached;
use crate::error::ResultExt;
use crate::host::{IdMapping, OwnIds};
use crate::oci::runtime::{LinuxIdMapping, Mount};
use crate::sys::mount::{MOUNT_ATTR_IDMAP, MountAttr, mount_setattr};

fn line(mapping: &LinuxIdMapping) -> IdMapping {
    IdMapping { inside: mapping.container_id(), outside: mapping.host_id(), count: mapping.size() }
}

/// Maps the owners in a mount that is attached nowhere yet, if the spec asks for it.
pub(super) fn map_owners(tree: &Detached, mount: &Mount, source: &Path) -> Result<()> {
    let (Some(uids), Some(gids)) = (mount.uid_mappings(), mount.gid_mappings()) else { return Ok(()) };
    let about = || format!("cannot map the owners in {}", source.display());
    let lines = |all: &[LinuxIdMapping]| all.iter().map(line).collect();
    let userns = OwnIds { uids: lines(uids), gids: lines(gids) }.name_space().with_context(about)?;
    let attr = MountAttr {
        attr_set: MOUNT_ATTR_IDMAP,
        userns_fd: std::os::fd::AsRawFd::as_raw_fd(&userns) as u64,
        ..MountAttr::default()
    };
    let is_recursive = mount.options().iter().flatten().any(|word| word == "rbind");
    let flags = libc::AT_EMPTY_PATH | if is_recursive { libc::AT_RECURSIVE } else { 0 };
    mount_setattr(&tree.tree, c"", flags as u32, &attr).with_context(about).hint(
        "its file system, or one mounted beneath it, cannot show other owners (Linux 5.12 with ext4, xfs, btrfs, or tmpfs since 6.3); leave out own, or run the container as the owner: -u UID:GID",
    )
}
