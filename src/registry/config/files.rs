//! Where the configuration of registries is looked for.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::fs;
use crate::host::Host;

/// What [`registries_conf`] found, in the order of reading: all of `required`, then all of `optional`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Must be there: the user named it.
    pub(super) required: Vec<PathBuf>,
    /// May be missing.
    pub(super) optional: Vec<PathBuf>,
}

/// The files of registries.conf, podman's and then ours.
pub(super) fn registries_conf(host: &Host) -> Result<Found> {
    let mut found = Found::default();
    let (system, user) = (Path::new("/etc"), host.config_dir());
    let of_user = |dir: &str| user.as_ref().map(|u| u.join(dir));
    let mut drop_ins = vec![system.join("containers/registries.conf.d")];
    if let Some(path) = host.env("CONTAINERS_REGISTRIES_CONF") {
        found.required.push(path.into());
    } else {
        match of_user("containers/registries.conf") {
            // As podman: who has a file of their own does without the machine's.
            Some(own) if fs::metadata(&own)?.is_some() => {
                found.optional.push(own);
                drop_ins.clear();
            }
            _ => found.optional.push(system.join("containers/registries.conf")),
        }
    }
    drop_ins.extend(of_user("containers/registries.conf.d"));
    for dir in drop_ins {
        found.optional.extend(conf_files(&dir)?);
    }
    for dir in std::iter::once(system.to_owned()).chain(user) {
        found.optional.push(dir.join("dhow/registries.conf"));
        found.optional.extend(conf_files(&dir.join("dhow/registries.conf.d"))?);
    }
    Ok(found)
}

/// docker's file, and that of a rootless docker.
pub(super) fn daemon_json(host: &Host) -> Vec<PathBuf> {
    let user = host.config_dir().filter(|_| host.is_rootless()).map(|c| c.join("docker/daemon.json"));
    std::iter::once(PathBuf::from("/etc/docker/daemon.json")).chain(user).collect()
}

/// `*.conf` of a directory, by name.
fn conf_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut names = fs::read_dir(dir)?;
    names.sort();
    let paths = names.into_iter().map(|name| dir.join(name));
    Ok(paths.filter(|p| p.extension().is_some_and(|e| e == "conf")).collect())
}
