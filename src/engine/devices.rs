//! `--device` and the devices of a privileged container: looked up on the host.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use crate::error::ResultExt;
use crate::fs;
use crate::host::Ids;
use crate::oci::runtime::{LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType};
use crate::spec::options::Options;

/// A device of the host, and what it is to be in the container.
pub(super) type Found = (PathBuf, LinuxDevice);

/// All devices that the container is to have besides the usual ones.
pub(super) fn look_up(options: &Options, ids: &Ids) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    // In a user name space a device can only be bound, and only what the caller may open is of use: the asked-for ones.
    if options.privileged && *ids == Ids::Root {
        walk(Path::new("/dev"), Path::new("/dev"), &mut found)?;
    }
    for asked in &options.devices {
        let host = fs::canonicalize(&asked.host)
            .with_context(|| format!("cannot add device {}", asked.host.display()))?;
        let before = found.len();
        if fs::metadata(&host)?.is_some_and(|m| m.is_dir()) {
            walk(&host, &asked.container, &mut found)?;
        } else {
            found.extend(device(&host, &asked.container)?.map(|d| (host, d)));
        }
        if found.len() == before {
            return Err(anyhow!("cannot add device {}: it is not a device", asked.host.display()))
                .hint("use -v for files and directories");
        }
    }
    Ok(found)
}

/// What is in /dev but belongs to each container on its own.
const PRIVATE: &[&str] = &["pts", "shm", "mqueue", "fd", ".lxc", ".lxd-mounts", ".udev"];
const USUAL: &[&str] = &["null", "zero", "full", "random", "urandom", "tty", "ptmx", "console"];

fn walk(from: &Path, to: &Path, found: &mut Vec<Found>) -> Result<()> {
    for name in fs::read_dir(from)? {
        let text = name.to_string_lossy();
        if from == Path::new("/dev") && (PRIVATE.contains(&&*text) || USUAL.contains(&&*text)) {
            continue;
        }
        let (host, container) = (from.join(&name), to.join(&name));
        let Some(meta) = fs::symlink_metadata(&host)? else { continue };
        if meta.is_dir() {
            walk(&host, &container, found)?;
        } else if !meta.file_type().is_symlink() {
            found.extend(device(&host, &container)?.map(|d| (host, d)));
        }
    }
    Ok(())
}

fn device(host: &Path, container: &Path) -> Result<Option<LinuxDevice>> {
    let Some(meta) = fs::metadata(host)? else { return Ok(None) };
    let kind = match meta.file_type() {
        t if t.is_char_device() => LinuxDeviceType::C,
        t if t.is_block_device() => LinuxDeviceType::B,
        _ => return Ok(None),
    };
    let number = meta.rdev();
    let built = LinuxDeviceBuilder::default()
        .path(container)
        .typ(kind)
        .major(i64::from(rustix::fs::major(number)))
        .minor(i64::from(rustix::fs::minor(number)))
        .file_mode(meta.mode() & 0o7777)
        .uid(meta.uid())
        .gid(meta.gid())
        .build()
        .with_context(|| format!("cannot add device {}", host.display()))?;
    Ok(Some(built))
}
