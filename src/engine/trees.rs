//! What a container's root is made of, read without mounting anything: for diff, export and commit, of containers that
//! run and of others.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::{Engine, files, reap};
use crate::fs;
use crate::store::container::{self, ContainerDir, Record, State, Status};
use crate::store::layer;
use crate::store::layer::files::changes::{self, Change, Compared};
use crate::store::layer::files::{Inode, Source, inode};
use crate::store::mapped::{self, Moves};
use crate::supervisor::moves_of;
use crate::userns;

/// A container's tree.
#[derive(Debug)]
pub struct Trees {
    /// Its record.
    pub record: Record,
    /// All that it has.
    pub now: Source,
    /// What it changed, where that is kept apart; otherwise [`Trees::now`] is all of it.
    upper: Option<Source>,
    /// What it began with; `None` where its root is a directory of the host.
    before: Option<Source>,
    /// Which owners are others than they are in the container.
    pub moves: Option<Moves>,
    /// Which paths a start makes for its mounts.
    ignored: HashSet<Vec<u8>>,
}

/// Opens the tree of a container. Who is not root enters a user name space by this, so that it can be done once only.
pub fn open(engine: &mut Engine, wanted: &str) -> Result<Trees> {
    let dir = engine.find(wanted)?;
    let record = dir.record()?;
    let status = reap::decided(&engine.store, &dir)?;
    files::take_descriptors();
    // What is in memory is seen from inside, with the owners that it has there.
    let in_memory = status.run().filter(|state| state.driver == "overlay-memory");
    if let Some(state) = in_memory {
        let root = root_in_memory(engine, &record, state)?;
        let moves = files::outside_moves(engine, &dir, &record)?;
        let before = Some(layers(engine, &record, moves.clone())?);
        return trees(&dir, record, (Source::one_mount(root), None, before), moves);
    }
    if matches!(status, Status::Restarting(..)) {
        anyhow::bail!("it is restarting: wait until it runs");
    }
    userns::enter(&mut engine.host)?;
    engine.store.ids = engine.host.ids.clone();
    let moves = moves_of(&engine.store, &dir, &record)?;
    let copied = dir.file("rootfs");
    if fs::metadata(&copied)?.is_some() {
        let before = Some(layers(engine, &record, moves.clone())?);
        return trees(&dir, record, (Source::plain(open_dir(&copied)?), None, before), moves);
    }
    if let container::Source::Dir { path, throw_away: false } = &record.source {
        let now = Source::plain(open_dir(path)?);
        return trees(&dir, record, (now, None, None), None);
    }
    let upper = dir.file("upper");
    let lower = lower(engine, &record, moves.clone())?;
    let stack = || std::iter::once(upper.as_path()).chain(lower.iter().map(PathBuf::as_path));
    let ids = &engine.store.ids;
    let now = Source::stacked(ids, stack())?;
    let changed = Some(Source::stacked(ids, stack().take(1))?);
    let before = Some(Source::stacked(ids, stack().skip(1))?);
    trees(&dir, record, (now, changed, before), moves)
}

fn trees(
    dir: &ContainerDir,
    record: Record,
    (now, upper, before): (Source, Option<Source>, Option<Source>),
    moves: Option<Moves>,
) -> Result<Trees> {
    let ignored = ignored(dir)?;
    Ok(Trees { record, now, upper, before, moves, ignored })
}

impl Trees {
    /// What it changed, each directory before what is in it.
    pub fn changes(&self) -> Result<Vec<(Change, Vec<u8>)>> {
        let old = self.before.as_ref().context("its root is a directory, and no image is beneath it")?;
        changes::changes(&Compared {
            new: self.changed(),
            is_upper: self.upper.is_some(),
            old,
            ignored: &self.ignored,
        })
    }

    /// Reads an inode of these trees, as it is in the container.
    pub fn read(&self, parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<Inode> {
        let mut inode = inode::read(parent, name, path)?;
        inode.undo(self.moves.as_ref());
        Ok(inode)
    }

    /// The tree that has what it changed.
    pub fn changed(&self) -> &Source {
        self.upper.as_ref().unwrap_or(&self.now)
    }
}

fn open_dir(path: &Path) -> Result<OwnedFd> {
    openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("cannot open {}", path.display()))
}

fn lower(engine: &Engine, record: &Record, moves: Option<Moves>) -> Result<Vec<PathBuf>> {
    match &record.source {
        container::Source::Image { diff_ids, .. } => match moves {
            Some(moves) => Ok(vec![mapped::tree(&engine.store, diff_ids, moves)?]),
            None => layer::lower_dirs(&engine.store, diff_ids),
        },
        container::Source::Dir { path, .. } => Ok(vec![path.clone()]),
    }
}

fn layers(engine: &Engine, record: &Record, moves: Option<Moves>) -> Result<Source> {
    let lower = lower(engine, record, moves)?;
    Source::stacked(&engine.store.ids, lower.iter().map(PathBuf::as_path))
}

/// The changes are in memory, and only to be seen from inside.
fn root_in_memory(engine: &mut Engine, record: &Record, state: &State) -> Result<OwnedFd> {
    let process = container::open_process(files::seen_from(record, state));
    userns::join(&engine.host, &process.ok_or_else(|| anyhow!("it has just ended"))?)?;
    engine.store.ids = crate::host::current_ids()?;
    let root = open_dir(Path::new(&format!("/proc/{}/root", state.init.pid)))?;
    container::open_process(state.init).context("it has just ended")?;
    Ok(root)
}

/// Docker makes these in a layer beneath that is no part of an image, dhow in the container's own: they are no change.
fn ignored(dir: &ContainerDir) -> Result<HashSet<Vec<u8>>> {
    use std::os::unix::ffi::OsStrExt;
    let spec = files::spec(dir)?;
    let is_ours = |mount: &&crate::oci::runtime::Mount| {
        let to = mount.destination();
        mount.source().as_ref().is_some_and(|source| source.starts_with(&dir.path))
            || ["/proc", "/sys", "/dev"].iter().any(|top| to.starts_with(top))
    };
    let path = |mount: &crate::oci::runtime::Mount| {
        mount.destination().as_os_str().as_bytes().strip_prefix(b"/").unwrap_or_default().to_vec()
    };
    Ok(spec.mounts().iter().flatten().filter(is_ours).map(path).collect())
}
