//! Layers seen as one tree, for reading: what a container of them would find before it changes anything.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context, Result};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::draft::Draft;
use super::{Store, layer, rootfs};
use crate::host::Ids;

/// A tree to read from, for as long as this lives.
#[derive(Debug)]
pub struct View {
    /// Its root.
    pub root: OwnedFd,
    /// Where it is a copy.
    _draft: Option<Draft>,
}

/// Opens the tree of these directories, top-most first. Where overlay cannot be had it is a copy, which takes its time.
pub fn open(store: &Store, lower: &[PathBuf]) -> Result<View> {
    if let [only] = lower {
        return Ok(View { root: directory(only)?, _draft: None });
    }
    if let Ok(root) = overlay(store, lower) {
        return Ok(View { root, _draft: None });
    }
    let draft = Draft::new(store)?;
    let copied = draft.path().join("view");
    layer::copy(store, lower, &copied)?;
    Ok(View { root: directory(&copied)?, _draft: Some(draft) })
}

fn directory(path: &std::path::Path) -> Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("cannot open {}", path.display()))
}

/// Read-only overlay: no upper directory. Mounted nowhere, so it is gone with its descriptor.
fn overlay(store: &Store, lower: &[PathBuf]) -> Result<OwnedFd> {
    anyhow::ensure!(rootfs::is_linux_since(6, 7), "cannot hand over layers one by one");
    let layers = lower.iter().map(|path| directory(path)).collect::<Result<Vec<_>>>()?;
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for layer in &layers {
        let name = format!("/proc/self/fd/{}", layer.as_raw_fd());
        rustix::mount::fsconfig_set_string(&context, "lowerdir+", name)?;
    }
    if store.ids != Ids::Root {
        rustix::mount::fsconfig_set_flag(&context, "userxattr")?;
    }
    rustix::mount::fsconfig_create(&context)?;
    let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY;
    Ok(rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, read_only)?)
}
