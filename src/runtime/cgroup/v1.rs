//! cgroup v1: one tree a controller, and only those that are needed get a directory.
//!
//! Moving another process by its pid costs about 10 ms, because the kernel stops all forking and waits for an RCU grace
//! period; a thread that writes "0" into `tasks` moves itself in 6 us, because nothing but itself can race with it.
//! Hence `doors`: the container's first process walks in on its own.
//!
//! Invariant: a freezer is made when it is first asked for, unless there is no other directory to count processes by.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use serde::Deserialize;
use serde::Serialize;

use super::Shortfall;
use super::Wanted;
use super::convert;
use super::convert::Setting;
use super::devices;
use super::dir;
use super::dir::Dir;
use super::hierarchy::Place;
use super::update::{apply_twice, tree_of};
use crate::oci::runtime::LinuxResources;

/// The directories of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trees {
    /// Those that were made, at least one.
    pub made: Vec<Tree>,
    /// Where the freezer is, or will be.
    pub freezer: Option<PathBuf>,
}

/// A directory in one tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// The controllers of this tree.
    pub controllers: Vec<String>,
    /// The container's cgroup in it.
    pub path: PathBuf,
}

/// The name that device rules go by in warnings.
const DEVICE_RULES: &str = "device rules";

/// Makes what is wanted; `None` if nothing could be made.
pub fn create(
    mounts: &BTreeMap<String, Place>,
    wanted: &Wanted<'_>,
    short: &mut Shortfall,
) -> Result<Option<Trees>> {
    let plan = convert::v1(wanted.resources);
    short.refused(plan.refused);
    let mut settings = plan.settings;
    settings.extend(device_settings(wanted, short));

    let freezer = mounts.get("freezer").map(|place| path_in(place, wanted.path));
    let mut trees = Trees { made: Vec::new(), freezer };
    let created = make_trees(mounts, wanted, &settings, &mut trees, short);
    if let Err(e) = created {
        // What was made before is of no use; why it failed matters more than whether it could be undone.
        let _ = trees.remove();
        return Err(e);
    }
    if trees.made.is_empty()
        && let Some(path) = &trees.freezer
        && dir::make(path).is_ok()
    {
        trees.made.push(Tree { controllers: vec!["freezer".to_owned()], path: path.clone() });
    }
    Ok(if trees.made.is_empty() { None } else { Some(trees) })
}

/// Every directory that `create` may make.
pub fn planned(mounts: &BTreeMap<String, Place>, path: &str) -> Trees {
    let mut paths: Vec<PathBuf> = mounts.values().map(|place| path_in(place, path)).collect();
    paths.sort();
    paths.dedup();
    let made = paths.into_iter().map(|path| Tree { controllers: Vec::new(), path }).collect();
    Trees { made, freezer: None }
}

/// Changes the limits of one that is there. A tree that none was in before is made, and all processes are moved there.
pub fn update(
    trees: &mut Trees,
    mounts: &BTreeMap<String, Place>,
    path: &str,
    settings: &[Setting],
    short: &mut Shortfall,
) -> Result<()> {
    let (there, absent): (Vec<&Setting>, Vec<&Setting>) =
        settings.iter().partition(|setting| tree_of(trees, &setting.controller).is_some());
    let paths: BTreeSet<PathBuf> =
        there.iter().filter_map(|setting| tree_of(trees, &setting.controller).cloned()).collect();
    for tree in paths {
        let settings: Vec<&Setting> = there
            .iter()
            .copied()
            .filter(|setting| tree_of(trees, &setting.controller) == Some(&tree))
            .collect();
        apply_twice(&tree, &settings, short)?;
    }
    if absent.is_empty() {
        return Ok(());
    }
    let absent: Vec<Setting> = absent.into_iter().cloned().collect();
    let wanted =
        Wanted { path, resources: &LinuxResources::default(), devices_needed: false, delegated: false };
    let mut added = Trees { made: Vec::new(), freezer: None };
    let made = make_trees(mounts, &wanted, &absent, &mut added, short)
        .and_then(|()| added.made.iter().try_for_each(|tree| trees.gather(&tree.path)));
    // Also those that not all could be moved to: they are to be removed with the rest.
    trees.made.append(&mut added.made);
    made
}

fn path_in(place: &Place, path: &str) -> PathBuf {
    match path.strip_prefix('/') {
        Some(absolute) => place.root.join(absolute),
        None => place.root.join(&place.own).join(path),
    }
}

fn device_settings(wanted: &Wanted<'_>, short: &mut Shortfall) -> Vec<Setting> {
    let rules = wanted.resources.devices().as_deref().unwrap_or_default();
    if !wanted.devices_needed || rules.is_empty() {
        return Vec::new();
    }
    match devices::rules(rules).and_then(|rules| devices::v1_text(&rules)) {
        Err(e) => {
            short.push(DEVICE_RULES, &format!("{e:#}"));
            Vec::new()
        }
        Ok(lines) => lines
            .into_iter()
            .map(|(file, value)| Setting {
                limit: DEVICE_RULES.to_owned(),
                controller: "devices".to_owned(),
                file: file.to_owned(),
                value,
                instead: None,
            })
            .collect(),
    }
}

fn make_trees(
    mounts: &BTreeMap<String, Place>,
    wanted: &Wanted<'_>,
    settings: &[Setting],
    trees: &mut Trees,
    short: &mut Shortfall,
) -> Result<()> {
    // Two controllers may share a tree (cpu,cpuacct): one directory for both.
    let mut by_root: Vec<(&Place, Vec<&Setting>)> = Vec::new();
    for setting in settings {
        let Some(place) = mounts.get(&setting.controller) else {
            short.push(&setting.limit, &format!("there is no {} controller here", setting.controller));
            continue;
        };
        match by_root.iter_mut().find(|(other, _)| other.root == place.root) {
            Some((_, list)) => list.push(setting),
            None => by_root.push((place, vec![setting])),
        }
    }
    if wanted.delegated {
        for place in mounts.values() {
            if by_root.iter().all(|(other, _)| other.root != place.root) {
                by_root.push((place, Vec::new()));
            }
        }
    }
    for (place, settings) in by_root {
        let path = path_in(place, wanted.path);
        match dir::make(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
                bail!("cannot create cgroup {}: it exists and has processes in it", path.display());
            }
            Err(e) => {
                let why = format!("cannot create cgroup {}: {e}", path.display());
                short.push_denied(settings.iter().map(|s| s.limit.as_str()), &why);
                continue;
            }
        }
        let controllers: Vec<String> =
            mounts.iter().filter(|(_, p)| p.root == place.root).map(|(name, _)| name.clone()).collect();
        let is_cpuset = controllers.iter().any(|c| c == "cpuset");
        trees.made.push(Tree { controllers, path: path.clone() });
        if is_cpuset {
            inherit_cpuset(&place.root, &path)?;
        }
        apply(&path, &settings, short)?;
    }
    Ok(())
}

fn apply(path: &Path, settings: &[&Setting], short: &mut Shortfall) -> Result<()> {
    let Some(mut dir) = Dir::open(path)? else {
        bail!("cannot set up cgroup {}: it is gone", path.display())
    };
    for setting in settings {
        match dir.apply(setting) {
            Ok(()) => {}
            // A device that our own cgroup does not have cannot be given on. The container is held closer than it
            // asked for, not less close.
            Err(e) if setting.file == "devices.allow" && e.raw_os_error() == Some(libc::EPERM) => {}
            Err(e) => short.push(&setting.limit, &super::why(path, setting, &e)),
        }
    }
    Ok(())
}

/// A new cpuset is empty, and no process can enter an empty one: fill it from its parent, from the top down.
fn inherit_cpuset(root: &Path, leaf: &Path) -> Result<()> {
    let mut levels: Vec<&Path> = leaf.ancestors().take_while(|p| *p != root).collect();
    levels.reverse();
    let mut above = Dir::open(root)?;
    for level in levels {
        let (Some(from), Some(mut to)) = (above, Dir::open(level)?) else { return Ok(()) };
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let about = || format!("cannot fill {file} of cgroup {}", level.display());
            if to.read(file).with_context(about)?.trim().is_empty() {
                let value = from.read(file).with_context(about)?;
                to.write(file, value.trim()).with_context(about)?;
            }
        }
        above = Some(to);
    }
    Ok(())
}

impl Trees {
    /// All directories that there are now.
    fn paths(&self) -> impl Iterator<Item = &Path> {
        let made = self.made.iter().map(|tree| tree.path.as_path());
        let lazy = self.freezer.as_deref().filter(|f| self.made.iter().all(|tree| tree.path != *f));
        made.chain(lazy)
    }

    /// `tasks` of every directory, open for writing.
    pub fn doors(&self) -> Result<Vec<OwnedFd>> {
        self.open_all("tasks")
    }

    fn open_all(&self, file: &str) -> Result<Vec<OwnedFd>> {
        let mut fds = Vec::new();
        for path in self.paths() {
            let Some(dir) = Dir::open(path)? else {
                if Some(path) == self.freezer.as_deref() {
                    continue;
                }
                bail!("cannot enter cgroup {}: it is gone", path.display());
            };
            fds.push(
                dir.open_to_write(file).with_context(|| format!("cannot enter cgroup {}", path.display()))?,
            );
        }
        Ok(fds)
    }

    /// Moves a process in.
    pub fn add(&self, pid: i32) -> Result<()> {
        for fd in self.open_all("cgroup.procs")? {
            rustix::io::write(&fd, pid.to_string().as_bytes())
                .with_context(|| format!("cannot move process {pid} into a cgroup"))?;
        }
        Ok(())
    }

    /// The processes.
    pub fn pids(&self) -> Result<Vec<i32>> {
        self.made.first().map_or_else(|| Ok(Vec::new()), |tree| dir::pids(&tree.path))
    }

    /// How many processes the kernel killed for want of memory.
    pub fn oom_kills(&self) -> Result<u64> {
        let Some(tree) = self.made.iter().find(|t| t.controllers.iter().any(|c| c == "memory")) else {
            return Ok(0);
        };
        super::count(&tree.path, "memory.oom_control")
    }

    /// Kills all.
    pub fn kill_all(&self) -> Result<()> {
        let Some(tree) = self.made.first() else { return Ok(()) };
        dir::kill_until_empty(&tree.path, || {
            match self.freezer.as_deref().map(Dir::open).transpose()?.flatten() {
                Some(mut freezer) => {
                    freezer.write("freezer.state", "THAWED").context("cannot thaw what was killed")
                }
                None => Ok(()),
            }
        })
    }

    /// Stops or resumes all.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let verb = if frozen { "freeze" } else { "thaw" };
        let Some(path) = &self.freezer else { bail!("cannot {verb}: there is no freezer controller here") };
        let about = || format!("cannot {verb} cgroup {}", path.display());
        if frozen {
            self.move_into_freezer(path).with_context(about)?;
        }
        let Some(mut dir) = Dir::open(path)? else { return Ok(()) };
        let state = if frozen { "FROZEN" } else { "THAWED" };
        let done = dir::await_condition(Instant::now() + dir::PATIENCE, || {
            // Written each time: a task that could not be frozen at once is tried again only then.
            dir.write("freezer.state", state).with_context(about)?;
            Ok(dir.read("freezer.state").with_context(about)?.trim() == state)
        })?;
        if !done {
            let _ = dir.write("freezer.state", "THAWED");
            bail!("{}: some processes do not stop", about());
        }
        Ok(())
    }

    /// Makes the freezer if need be, and moves all processes there.
    fn move_into_freezer(&self, path: &Path) -> Result<()> {
        if self.made.iter().any(|tree| tree.path == path) {
            return Ok(());
        }
        if Dir::open(path)?.is_none() {
            dir::make(path)?;
        }
        self.gather(path)
    }

    /// Moves all processes to this directory too, until none is born outside any more.
    fn gather(&self, path: &Path) -> Result<()> {
        let mut to = Dir::open(path)?.context("it is gone")?;
        let moved = dir::await_condition(Instant::now() + dir::PATIENCE, || {
            let inside = dir::pids(path)?;
            let outside: Vec<i32> = self.pids()?.into_iter().filter(|pid| !inside.contains(pid)).collect();
            for pid in &outside {
                match to.write("cgroup.procs", &pid.to_string()) {
                    Err(e) if e.raw_os_error() != Some(libc::ESRCH) => {
                        return Err(e).context("cannot move a process");
                    }
                    _ => {}
                }
            }
            Ok(outside.is_empty())
        })?;
        if !moved {
            bail!("new processes are made faster than they can be moved");
        }
        Ok(())
    }

    /// Removes all directories; goes on after a failure and returns the first.
    pub fn remove(&self) -> Result<()> {
        let mut result = Ok(());
        for path in self.paths() {
            result = result.and(dir::remove(path));
        }
        result
    }
}
