//! Mounts that show a file system with other owners (mount_setattr(2), MOUNT_ATTR_IDMAP): the spec's `uidMappings` and
//! `gidMappings` of a mount.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::mount::Detached;
use crate::error::ResultExt;
use crate::fs;
use crate::host;
use crate::oci::runtime::{LinuxIdMapping, Mount};
use crate::sys::mount::{MountAttr, mount_setattr};
use crate::sys::spawn::Holder;

const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// Maps the owners in a mount that is attached nowhere yet, if the spec asks for it.
pub(super) fn map_owners(tree: &Detached, mount: &Mount, source: &Path) -> Result<()> {
    let (Some(uids), Some(gids)) = (mount.uid_mappings(), mount.gid_mappings()) else { return Ok(()) };
    let about = || format!("cannot map the owners in {}", source.display());
    let userns = name_space(uids, gids).with_context(about)?;
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

/// A user name space that is nothing but its maps.
fn name_space(uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<OwnedFd> {
    let holder = Holder::new(libc::CLONE_NEWUSER).context("cannot make a user name space")?;
    let pid = host::visible_pid_of(holder.pidfd.as_fd())?.context("its holder ended")?;
    let proc = PathBuf::from(format!("/proc/{pid}"));
    for (file, mappings) in [("uid_map", uids), ("gid_map", gids)] {
        let line = |m: &LinuxIdMapping| format!("{} {} {}\n", m.container_id(), m.host_id(), m.size());
        let text: String = mappings.iter().map(line).collect();
        fs::write(&proc.join(file), text.as_bytes())?;
    }
    Ok(fs::open(&proc.join("ns/user"))?.into())
}
