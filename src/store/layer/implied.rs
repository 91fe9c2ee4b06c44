//! Implied directories: those that a layer's archive did not describe, but whose contents it has.
//!
//! An archive that names `a/b/c` and neither `a/` nor `a/b/` says nothing about their modes and owners; whatever the
//! layers beneath say stays in force. But a layer is named by its own digest alone and unpacked once, beneath whichever
//! layers it will lie, and overlay takes a directory's attributes from the top-most layer that has it. So each layer
//! records its implied directories (`stacking`), and where such a layer lies on others, one more directory is stacked
//! above it: `layers/CHAIN_ID.dirs/diff`, which has only those directories, with the attributes from beneath. Named by
//! the chain, it is as immutable as a layer, and made once.
//!
//! `layers/CHAIN_ID.dirs/` has `stack`, the chain's diff ids, a line each, and `diff/`, which is missing where nothing
//! beneath has such a directory.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{
    Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, fchmod, fchown, fgetxattr, flistxattr,
    fsetxattr, fstat, futimens, mkdirat, openat,
};
use rustix::io::Errno;

use crate::fs;
use crate::oci::{ChainId, DiffId};

use super::super::Store;
use super::super::draft::{self, Draft, Removed};
use super::attributes::{CANNOT_LIST, CANNOT_READ, set_xattr, xattr_names, xattr_value};
use super::overlay::Overlay;
use super::{beneath, layout, stacking};

const STACK: &str = "stack";

/// The directories to stack for these layers, lowest first both.
pub(super) fn stack(store: &Store, layers: &[(DiffId, PathBuf)]) -> Result<Vec<PathBuf>> {
    let diff_ids: Vec<DiffId> = layers.iter().map(|(diff_id, _)| diff_id.clone()).collect();
    let chain_ids = ChainId::stack(&diff_ids);
    let mut dirs = Vec::with_capacity(layers.len());
    for (n, (_, layer)) in layers.iter().enumerate() {
        let mut extra = None;
        if let Some(stacking) = stacking::Reader::open(layer)? {
            if stacking.is_opaque {
                dirs.clear();
            }
            if !dirs.is_empty() {
                let chain = Chain { layers: &layers[..=n], id: &chain_ids[n] };
                extra = extra_dir(store, &chain, &dirs, stacking)?;
            }
        }
        dirs.push(layer.join(layout::DIFF));
        dirs.extend(extra);
    }
    Ok(dirs)
}

/// Takes away the extra directories of all chains that have one of these layers.
pub(super) fn take_away(store: &Store, gone: &HashSet<DiffId>) -> Result<Vec<Removed>> {
    let layers = store.data.join(layout::LAYERS);
    let mut removed = Vec::new();
    for name in names(store)? {
        let path = layers.join(name);
        if chain_of(&path)?.is_some_and(|stack| stack.iter().any(|diff_id| gone.contains(diff_id))) {
            removed.extend(draft::take_away(store, &path)?);
        }
    }
    Ok(removed)
}

/// The names of all extra directories.
pub(super) fn names(store: &Store) -> Result<Vec<String>> {
    let names =
        fs::read_dir(&store.data.join(layout::LAYERS))?.into_iter().filter_map(|n| n.into_string().ok());
    Ok(names.filter(|name| name.ends_with(layout::DIRS_SUFFIX)).collect())
}

/// The layers of the chain that an extra directory belongs to; `None` where it does not say so.
pub(super) fn chain_of(path: &Path) -> Result<Option<Vec<DiffId>>> {
    let Some(stack) = fs::read_to_string_if_exists(&path.join(STACK))? else { return Ok(None) };
    Ok(stack
        .lines()
        .map(|line| line.parse().ok().map(DiffId))
        .collect::<Option<Vec<_>>>()
        .filter(|s| !s.is_empty()))
}

/// Some layers, lowest first, and their chain id.
struct Chain<'a> {
    layers: &'a [(DiffId, PathBuf)],
    id: &'a ChainId,
}

/// The extra directory above the last layer of a chain, if one is needed; `dirs` is what lies beneath that layer.
fn extra_dir(
    store: &Store,
    chain: &Chain<'_>,
    dirs: &[PathBuf],
    stacking: stacking::Reader,
) -> Result<Option<PathBuf>> {
    let path = store.data.join(layout::LAYERS).join(format!("{}{}", chain.id.0.hex(), layout::DIRS_SUFFIX));
    if fs::symlink_metadata(&path)?.is_none() {
        let make = || -> Result<()> {
            let draft = Draft::new(store)?;
            let made = draft.path().join("dirs");
            fs::create_dir(&made, 0o700)?;
            let stack: String = chain.layers.iter().map(|(diff_id, _)| format!("{}\n", diff_id.0)).collect();
            fs::write(&made.join(STACK), stack.as_bytes())?;
            fill(&Overlay::new(&store.ids), dirs, stacking, &made)?;
            store.sync()?;
            draft.publish("dirs".as_ref(), &path).map(drop)
        };
        make().with_context(|| format!("cannot make {}", path.display()))?;
    }
    let diff = path.join(layout::DIFF);
    Ok(fs::symlink_metadata(&diff)?.is_some().then_some(diff))
}

/// Makes the implied directories that something beneath has.
fn fill(overlay: &Overlay, dirs: &[PathBuf], mut stacking: stacking::Reader, made: &Path) -> Result<()> {
    let layer = beneath::root(&stacking.layer.join(layout::DIFF))?;
    // Top-most first, as overlay looks them up.
    let lowers = dirs.iter().rev().map(|dir| beneath::root(dir)).collect::<Result<Vec<_>>>()?;
    let mut extra: Option<Extra> = None;
    while let Some(path) = stacking.next()? {
        let Some(found) = look_up(overlay, &layer, &lowers, path)? else { continue };
        let extra = match &mut extra {
            Some(extra) => extra,
            None => extra.insert(Extra::new(&made.join(layout::DIFF))?),
        };
        // Above these too, the attributes are those of the top-most directory; the implied ones among them came before.
        for (slash, _) in path.iter().enumerate().filter(|(_, b)| **b == b'/') {
            let parent = beneath::open(&layer, &path[..slash], OFlags::RDONLY | OFlags::DIRECTORY)?;
            extra.add(&path[..slash], &parent)?;
        }
        extra.add(path, &found)?;
    }
    extra.map_or(Ok(()), |extra| extra.finish())
}

/// What the layers beneath have at `path`, if it is a directory there and not hidden.
fn look_up(overlay: &Overlay, layer: &OwnedFd, lowers: &[OwnedFd], path: &[u8]) -> Result<Option<OwnedFd>> {
    let (parent, _) = beneath::parent_and_name(path);
    // An opaque parent in the layer itself hides them; that the directory itself is opaque hides only its contents.
    if let Look::Hidden = look(overlay, layer, parent, true)? {
        return Ok(None);
    }
    for lower in lowers {
        match look(overlay, lower, path, false)? {
            Look::Here(fd) => return Ok(Some(fd)),
            Look::Hidden => return Ok(None),
            Look::Beneath => {}
        }
    }
    Ok(None)
}

enum Look {
    Here(OwnedFd),
    /// Something in the way: a file, a whiteout, an opaque directory.
    Hidden,
    Beneath,
}

fn look(overlay: &Overlay, root: &OwnedFd, path: &[u8], is_last_hiding: bool) -> Result<Look> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut dir = openat(root, ".", flags, Mode::empty())?;
    let mut is_opaque = false;
    for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
        dir = match openat(&dir, name, flags, Mode::empty()) {
            Ok(next) => next,
            Err(Errno::NOENT) if !is_opaque => return Ok(Look::Beneath),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Look::Hidden),
            Err(error) => return Err(error).context("cannot look into a layer"),
        };
        is_opaque |= overlay.is_opaque(&dir)?;
    }
    Ok(if is_opaque && is_last_hiding { Look::Hidden } else { Look::Here(dir) })
}

/// An extra directory that is being made.
struct Extra {
    root: OwnedFd,
    /// Set when all is made, because making a directory changes the time of the one around it.
    times: Vec<(Vec<u8>, Timestamps)>,
}

impl Extra {
    fn new(path: &Path) -> Result<Extra> {
        fs::create_dir(path, 0o755)?;
        Ok(Extra { root: beneath::root(path)?, times: Vec::new() })
    }

    /// Adds a directory with the attributes of another, if it is not there; its parent is.
    fn add(&mut self, path: &[u8], like: &OwnedFd) -> Result<()> {
        let (parent, name) = beneath::parent_and_name(path);
        let parent = beneath::directory(&self.root, parent)?;
        match mkdirat(&parent, name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let dir = beneath::open(&parent, name, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let times = copy_attributes(like, &dir)?;
        self.times.push((path.to_vec(), times));
        Ok(())
    }

    fn finish(self) -> Result<()> {
        for (path, times) in self.times.iter().rev() {
            let dir = beneath::open(&self.root, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            futimens(&dir, times)?;
        }
        Ok(())
    }
}

/// Copies all but overlay's marks and the times, which are returned.
fn copy_attributes(from: impl AsFd, to: impl AsFd) -> Result<Timestamps> {
    let stat = fstat(&from)?;
    fchown(&to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(&to, Mode::from_raw_mode(stat.st_mode))?;
    for name in xattr_names(|buffer| flistxattr(&from, buffer)).context(CANNOT_LIST)? {
        let value = xattr_value(|buffer| fgetxattr(&from, &name, buffer)).context(CANNOT_READ)?;
        set_xattr(name.to_bytes(), || fsetxattr(&to, &name, &value, XattrFlags::empty()))?;
    }
    Ok(Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime as i64, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime as i64, tv_nsec: stat.st_mtime_nsec as _ },
    })
}
