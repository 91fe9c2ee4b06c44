//! A container's cgroup: limits on it, and a handle on all of its processes. v1 and v2, written as files; systemd is
//! not asked.
//!
//! ```text
//! hierarchy  which trees there are and where we are in them
//! convert    resources -> files and values        devices  device rules -> v1 text or v2 program
//! v1, v2     making it, asking it, removing it    dir      a cgroup as a directory
//! update     other limits while it has processes
//! usable     which limits can be had
//! ```
//!
//! Invariant: a limit that was asked for holds, or the caller hears of it, once, by its name and with the reason.

mod convert;
mod devices;
mod dir;
mod hierarchy;
#[cfg(test)]
mod tests;
mod update;
mod usable;
mod usage;
mod v1;
mod v2;

use std::io;
use std::os::fd::OwnedFd;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use serde::Deserialize;
use serde::Serialize;

pub use hierarchy::Hierarchy;
pub use hierarchy::Place;
pub use hierarchy::parse;
pub use hierarchy::probe;
pub use usable::usable;
pub use usage::Usage;

use crate::fs;
use crate::oci::runtime::LinuxResources;
use convert::Setting;

/// What a container's cgroup is to be.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Where: `dhow/ID`, below our own cgroup (v1) or below what is ours to write to (v2, see `v2::base`). With a slash
    /// in front: below the root of the mount.
    pub path: &'a str,
    /// The limits and device rules.
    pub resources: &'a LinuxResources,
    /// Whether the device rules are to be enforced; not so for a privileged container.
    pub devices_needed: bool,
    /// Whether the container makes cgroups of its own in it: then it is there in every tree, limits or not.
    pub delegated: bool,
}

/// A container's cgroup: what to enter, ask and, in the end, remove. Lives in the container's state file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup(Kind);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    V1(v1::Trees),
    V2(PathBuf),
}

/// Makes a container's cgroup. `None` if there is no place to make one.
///
/// Limits that cannot be had are one `warn`ing, or an error if `strict`; the rest of them hold. If nothing was asked
/// for and nothing can be made, that is silent.
pub fn create(
    hierarchy: &Hierarchy,
    wanted: &Wanted<'_>,
    warn: &mut dyn FnMut(String),
    strict: bool,
) -> Result<Option<Cgroup>> {
    let is_plain = |c: Component<'_>| matches!(c, Component::Normal(_));
    let relative = wanted.path.strip_prefix('/').unwrap_or(wanted.path);
    if relative.is_empty() || !Path::new(relative).components().all(is_plain) {
        bail!("cannot create cgroup {:?}: not a path below another", wanted.path);
    }
    let mut short = Shortfall::default();
    let kind = match hierarchy {
        Hierarchy::V1 { mounts } => v1::create(mounts, wanted, &mut short)?.map(Kind::V1),
        Hierarchy::V2 { root, own } => v2::create(root, own, wanted, &mut short)?.map(Kind::V2),
        Hierarchy::None(why) => {
            let plan = convert::v2(wanted.resources);
            short.refused(plan.refused);
            let has_rules = wanted.devices_needed && wanted.resources.devices().is_some();
            let limits = plan.settings.iter().map(|s| s.limit.as_str());
            short.push_denied(limits.chain(has_rules.then_some("device rules")), why);
            None
        }
    };
    let cgroup = kind.map(Cgroup);
    if let Some(text) = short.text() {
        if strict {
            if let Some(cgroup) = &cgroup {
                cgroup.remove()?;
            }
            bail!(text);
        }
        warn(text);
    }
    Ok(cgroup)
}

/// All that [`create`] may make for this path, to be noted before it does: what a crash leaves is removed by that note.
pub fn planned(hierarchy: &Hierarchy, path: &str) -> Result<Option<Cgroup>> {
    Ok(match hierarchy {
        Hierarchy::V1 { mounts } => Some(Cgroup(Kind::V1(v1::planned(mounts, path)))),
        Hierarchy::V2 { root, own } => v2::planned(root, own, path)?.map(|path| Cgroup(Kind::V2(path))),
        Hierarchy::None(_) => None,
    })
}

/// To be called in the pid name space of the user's command, before [`create`] is in one below it: makes way for limits
/// where the processes around us are in their way (v2, below the root of the tree). Free of cost where none are asked for.
pub fn prepare(resources: &LinuxResources) -> Result<()> {
    let settings = convert::v2(resources).settings;
    if settings.is_empty() {
        return Ok(());
    }
    match probe()? {
        Hierarchy::V2 { root, own } => v2::prepare(&root, &own, &settings),
        Hierarchy::V1 { .. } | Hierarchy::None(_) => Ok(()),
    }
}

/// The calling thread goes through the doors of a cgroup (see [`Cgroup::doors`]). Fit for a forked child: it takes no
/// locks and no memory.
pub fn enter(doors: &[OwnedFd]) -> io::Result<()> {
    for door in doors {
        rustix::io::retry_on_intr(|| rustix::io::write(door, b"0"))?;
    }
    Ok(())
}

impl Cgroup {
    /// Moves a process, with all its threads, into the cgroup.
    ///
    /// This costs about 10 ms, whatever the machine's speed. To start a process, [`Cgroup::v2_dir`] with
    /// CLONE_INTO_CGROUP and, on v1, [`Cgroup::doors`] cost microseconds.
    pub fn add(&self, pid: i32) -> Result<()> {
        match &self.0 {
            Kind::V1(trees) => trees.add(pid),
            Kind::V2(path) => v2::add(path, pid),
        }
    }

    /// The cgroup's directory for CLONE_INTO_CGROUP; `None` on v1, which has no such thing.
    pub fn v2_dir(&self) -> Result<Option<OwnedFd>> {
        match &self.0 {
            Kind::V1(_) => Ok(None),
            Kind::V2(path) => v2::dir_fd(path).map(Some),
        }
    }

    /// Descriptors through which a single-threaded process can [`enter`] on its own, even when it can no longer see
    /// the cgroup file system. The way in on v1; on v2 it works but is as slow as [`Cgroup::add`].
    pub fn doors(&self) -> Result<Vec<OwnedFd>> {
        match &self.0 {
            Kind::V1(trees) => trees.doors(),
            Kind::V2(path) => Ok(vec![v2::door(path)?]),
        }
    }

    /// How many processes the kernel has killed here for want of memory.
    pub fn oom_kills(&self) -> Result<u64> {
        match &self.0 {
            Kind::V1(trees) => trees.oom_kills(),
            Kind::V2(path) => count(path, "memory.events"),
        }
    }

    /// Kills every process and waits until they are gone.
    pub fn kill_all(&self) -> Result<()> {
        match &self.0 {
            Kind::V1(trees) => trees.kill_all(),
            Kind::V2(path) => v2::kill_all(path),
        }
    }

    /// Stops every process, or lets them go on, and waits until it is so.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        match &self.0 {
            Kind::V1(trees) => trees.freeze(frozen),
            Kind::V2(path) => v2::freeze(path, frozen),
        }
    }

    /// The processes, as our pid name space numbers them.
    pub fn pids(&self) -> Result<Vec<i32>> {
        match &self.0 {
            Kind::V1(trees) => trees.pids(),
            Kind::V2(path) => dir::pids(path),
        }
    }

    /// Removes the cgroup, waiting a while for dying processes. One that is gone already is fine.
    pub fn remove(&self) -> Result<()> {
        match &self.0 {
            Kind::V1(trees) => trees.remove(),
            Kind::V2(path) => dir::remove(path),
        }
    }

    /// What a container should see at /sys/fs/cgroup: (name of the directory there, path here). On v2 it is one, and
    /// the name is empty: it is /sys/fs/cgroup itself.
    pub fn mounts(&self) -> Vec<(String, PathBuf)> {
        match &self.0 {
            Kind::V1(trees) => trees
                .made
                .iter()
                .flat_map(|tree| tree.controllers.iter().map(|name| (name.clone(), tree.path.clone())))
                .collect(),
            Kind::V2(path) => vec![(String::new(), path.clone())],
        }
    }
}

/// The figure after `oom_kill` in a file of a cgroup; 0 where there is none.
fn count(path: &Path, file: &str) -> Result<u64> {
    let Some(dir) = dir::Dir::open(path)? else { return Ok(0) };
    let text = match dir.read(file) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => return Ok(0),
        text => text.with_context(|| format!("cannot read {file} of cgroup {}", path.display()))?,
    };
    Ok(text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0))
}

/// What the kernel's refusal of a setting means.
fn why(path: &Path, setting: &Setting, error: &io::Error) -> String {
    let file = path.join(&setting.file);
    let file = file.display();
    match error.raw_os_error() {
        Some(libc::ENOENT) => format!("this kernel has no {file}"),
        _ => format!("cannot write {:?} to {file}: {error}", setting.value),
    }
}

/// The limits that could not be had, each with the reason.
#[derive(Debug, Default)]
struct Shortfall(Vec<(String, Vec<String>)>);

impl Shortfall {
    fn push(&mut self, limit: &str, why: &str) {
        let at = self.0.iter().position(|(reason, _)| reason == why).unwrap_or_else(|| {
            self.0.push((why.to_owned(), Vec::new()));
            self.0.len() - 1
        });
        let limits = &mut self.0[at].1;
        // Whoever limits memory limits swap along with it, and did not ask for that by name.
        let goes_without_saying = |l: &String| l == limit || (l == "memory limit" && limit == "swap limit");
        if !limits.iter().any(goes_without_saying) {
            limits.push(limit.to_owned());
        }
    }

    fn refused(&mut self, refused: Vec<(String, String)>) {
        for (limit, why) in refused {
            self.push(&limit, &why);
        }
    }

    /// For want of rights. Device rules are then no loss in a user name space, where no device can be made and each one
    /// that is there was put there by us.
    fn push_denied<'a>(&mut self, limits: impl IntoIterator<Item = &'a str>, why: &str) {
        for limit in limits {
            if limit != "device rules" || !in_user_namespace() {
                self.push(limit, why);
            }
        }
    }

    fn text(&self) -> Option<String> {
        let groups: Vec<String> =
            self.0.iter().map(|(why, limits)| format!("{}: {why}", limits.join(", "))).collect();
        (!groups.is_empty()).then(|| format!("cannot enforce {}", groups.join("; ")))
    }
}

/// Whether ids here are not the machine's own.
fn in_user_namespace() -> bool {
    let map = fs::read_to_string_if_exists(Path::new("/proc/self/uid_map")).ok().flatten();
    map.is_some_and(|map| !map.split_whitespace().eq(["0", "0", "4294967295"]))
}
