//! Other limits for a cgroup that has processes in it.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::convert::{self, Setting};
use super::dir::Dir;
use super::{Cgroup, Hierarchy, Kind, Shortfall, v1, v2};
use crate::oci::runtime::LinuxResources;

impl Cgroup {
    /// Sets these limits, and lifts those that are asked to be lifted (-1); device rules stay what they are. `path` is where
    /// the cgroup was made, as in [`super::Wanted`]. An error names every limit that could not be had; the others hold.
    pub fn update(&mut self, hierarchy: &Hierarchy, path: &str, resources: &LinuxResources) -> Result<()> {
        let mut short = Shortfall::default();
        match (&mut self.0, hierarchy) {
            (Kind::V1(trees), Hierarchy::V1 { mounts }) => {
                let plan = convert::v1(resources);
                short.refused(plan.refused);
                let settings = [plan.settings, lifted(resources, false)].concat();
                v1::update(trees, mounts, path, &settings, &mut short)?;
            }
            (Kind::V2(at), Hierarchy::V2 { root, own }) => {
                let plan = convert::v2(resources);
                short.refused(plan.refused);
                let settings = [plan.settings, lifted(resources, true)].concat();
                v2::update(root, own, (path, at), &settings, &mut short)?;
            }
            _ => bail!("cannot set limits: the cgroups of this machine have changed"),
        }
        match short.text() {
            Some(text) => bail!(text),
            None => Ok(()),
        }
    }
}

/// What a new cgroup has anyway, and one that had a limit is to have again.
fn lifted(resources: &LinuxResources, is_v2: bool) -> Vec<Setting> {
    let mut all = Vec::new();
    let mut lift = |limit: &str, (file, value): (&str, &str)| {
        all.push(Setting {
            limit: limit.to_owned(),
            controller: file.split('.').next().unwrap_or_default().to_owned(),
            file: file.to_owned(),
            value: value.to_owned(),
            instead: None,
        });
    };
    if resources.pids().is_some_and(|pids| pids.limit() <= 0) {
        lift("pids limit", ("pids.max", "max"));
    }
    if resources.memory().is_some_and(|memory| memory.swap() == Some(-1)) {
        let v1 = ("memory.memsw.limit_in_bytes", "-1");
        lift("swap limit", if is_v2 { ("memory.swap.max", "max") } else { v1 });
    }
    if let Some(cpu) = resources.cpu()
        && cpu.quota().is_some_and(|quota| quota <= 0)
    {
        lift("cpu quota", if is_v2 { ("cpu.max", "max") } else { ("cpu.cfs_quota_us", "-1") });
    }
    all
}

/// Writes the settings. One limit may stand in the way of another (memory may not exceed memory and swap), which has then to
/// be changed first: what fails is tried once more after the rest.
pub(super) fn apply_twice(path: &Path, settings: &[&Setting], short: &mut Shortfall) -> Result<()> {
    let mut dir =
        Dir::open(path)?.with_context(|| format!("cannot change cgroup {}: it is gone", path.display()))?;
    let failed: Vec<&&Setting> = settings.iter().filter(|setting| dir.apply(setting).is_err()).collect();
    for setting in failed {
        if let Err(error) = dir.apply(setting) {
            short.push(&setting.limit, &refusal(path, setting, &error));
        }
    }
    Ok(())
}

fn refusal(path: &Path, setting: &Setting, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EBUSY) if setting.controller == "memory" => {
            "more is in use than that, and it could not be freed".to_owned()
        }
        _ => super::why(path, setting, error),
    }
}

/// The directory that has a file of this controller, of those that there are.
pub(super) fn tree_of<'a>(trees: &'a v1::Trees, controller: &str) -> Option<&'a PathBuf> {
    trees.made.iter().find(|tree| tree.controllers.iter().any(|c| c == controller)).map(|tree| &tree.path)
}
