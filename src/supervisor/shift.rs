//! A container with ids of its own (`--userns auto`): what is made for it is to be its root's, who is somebody else for us.
//!
//! Its layers are shown with other owners (`store::shifted`, `store::mapped`). What is seen to here: file systems in memory,
//! secrets, files of the bundle, volumes that nobody has used yet.

use std::path::Path;

use anyhow::{Result, anyhow};
use rustix::fs::{AtFlags, CWD, Gid, Uid};

use super::Begin;
use crate::error::ResultExt;
use crate::fs;
use crate::host::{IdMapping, OwnIds};
use crate::oci::runtime::{Mount, Spec};
use crate::oci::words::SECRETS;
use crate::runtime::{Isolation, Outside};
use crate::store::Store;
use crate::store::container::{ContainerDir, Record};

/// Who root and the program's user of the container are for us, if they are others. The user of the spec has to be looked
/// up already.
pub(super) fn outside(record: &Record, spec: &Spec) -> Option<Outside> {
    let ids = record.ids.as_ref()?;
    let user = spec.process().as_ref().map_or((0, 0), |p| (p.user().uid(), p.user().gid()));
    Some(Outside { root: ids.outside((0, 0)), user: ids.outside(user) })
}

/// Gives to the container what is made for it.
pub(super) fn owners(
    spec: &mut Spec,
    (store, dir): (&Store, &ContainerDir),
    record: &Record,
    begin: &Begin,
) -> Result<()> {
    let Some(ids) = &record.ids else { return Ok(()) };
    if begin.isolation == Isolation::Chroot {
        return Err(anyhow!("cannot give the container ids of its own: this sandbox allows no name spaces"))
            .hint("leave --userns out");
    }
    let root = ids.outside((0, 0));
    for name in ["hosts", "hostname", "resolv.conf"] {
        give(&dir.file(name), root)?;
    }
    let volumes = store.data.join("volumes");
    for mount in spec.mounts_mut().iter_mut().flatten() {
        match mount.typ().as_deref() {
            Some("tmpfs") => shift_options(mount, ids),
            Some(SECRETS) => shift_secrets(mount, ids),
            Some("bind") => {
                let source = mount.source().as_ref().filter(|source| source.starts_with(&volumes));
                if let Some(source) = source.filter(|source| is_unused(source)) {
                    give(source, root)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a directory is empty and still whose it was when it was made.
fn is_unused(dir: &Path) -> bool {
    let is_ours = rustix::fs::stat(dir).is_ok_and(|stat| (stat.st_uid, stat.st_gid) == (0, 0));
    is_ours && fs::read_dir(dir).is_ok_and(|names| names.is_empty())
}

fn give(path: &Path, (uid, gid): (u32, u32)) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    match rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => {
            Err(anyhow::Error::from(error)
                .context(format!("cannot give {} to the container", path.display())))
        }
    }
}

/// A tmpfs takes its owner as it is for who mounts it; without one, its root.
fn shift_options(mount: &mut Mount, ids: &OwnIds) {
    let mut words = mount.options().clone().unwrap_or_default();
    for (key, lines) in [("uid=", &ids.uids), ("gid=", &ids.gids)] {
        let asked = words.iter().rev().find_map(|word| word.strip_prefix(key)?.parse().ok());
        words.retain(|word| !word.starts_with(key));
        words.push(format!("{key}{}", IdMapping::outside_of(lines, asked.unwrap_or(0)).unwrap_or(0)));
    }
    mount.set_options(Some(words));
}

/// `N:UID:GID:MODE:TARGET` (`runtime::secrets`).
fn shift_secrets(mount: &mut Mount, ids: &OwnIds) {
    let shift = |word: String| {
        let parts: Vec<&str> = word.splitn(4, ':').collect();
        match parts[..] {
            [number, uid, gid, rest] => match (uid.parse(), gid.parse()) {
                (Ok(uid), Ok(gid)) => {
                    let (uid, gid) = ids.outside((uid, gid));
                    format!("{number}:{uid}:{gid}:{rest}")
                }
                _ => word,
            },
            _ => word,
        }
    };
    let words = mount.options().clone().unwrap_or_default();
    mount.set_options(Some(words.into_iter().map(shift).collect()));
}
