//! Which limits can be had here, without making anything.

use std::path::PathBuf;

use anyhow::Result;
use rustix::fs::{Access, AtFlags, CWD};

use super::{Hierarchy, v2};
use crate::fs;

/// The controllers of the limits that docker has.
const KNOWN: &[&str] = &["cpu", "cpuset", "io", "blkio", "memory", "pids", "devices", "freezer"];

/// The controllers with which a container of ours can be limited, sorted; none where there is no place for its cgroup.
pub fn usable(hierarchy: &Hierarchy) -> Result<Vec<String>> {
    let mut usable = match hierarchy {
        Hierarchy::None(_) => Vec::new(),
        Hierarchy::V1 { mounts } => {
            let may =
                |dir: &PathBuf| rustix::fs::accessat(CWD, dir, Access::WRITE_OK, AtFlags::EACCESS).is_ok();
            let known = mounts.iter().filter(|(name, _)| KNOWN.contains(&name.as_str()));
            known
                .filter(|(_, place)| may(&place.root.join(&place.own)))
                .map(|(name, _)| name.clone())
                .collect()
        }
        Hierarchy::V2 { root, own } => match v2::base(root, own)? {
            Some(base) => {
                let text =
                    fs::read_to_string_if_exists(&base.join("cgroup.controllers"))?.unwrap_or_default();
                text.split_whitespace().filter(|name| KNOWN.contains(name)).map(str::to_owned).collect()
            }
            None => Vec::new(),
        },
    };
    usable.sort();
    Ok(usable)
}
