//! The ways: which of several each part of dhow goes on this machine, found by trying, and why not a better one.
//! What was made to try it is gone again at the end.

use anyhow::Result;
use rustix::process::{WaitId, WaitIdOptions};

use super::Engine;
use crate::error;
use crate::fs;
use crate::host::{Host, Ids};
use crate::runtime::cgroup::{self, Hierarchy};
use crate::runtime::chroot;
use crate::store::rootfs;
use crate::sys::process::{self, Forked};
use crate::userns;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// What it is about.
    pub of: &'static str,
    /// Which way it is.
    pub is: String,
    /// Why.
    pub why: String,
}

/// All of them, and what they are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ways {
    /// `overlay`, `overlay-memory` or `copy`.
    pub driver: String,
    /// `1`, `2`, or nothing.
    pub cgroup_version: &'static str,
    /// The controllers that limits can be had of.
    pub controllers: Vec<String>,
    /// Whether a system call filter can be had.
    pub has_seccomp: bool,
    /// Whether containers are kept apart by more than their files.
    pub has_name_spaces: bool,
    /// How each part goes.
    pub all: Vec<Way>,
}

/// Finds out. `engine` is root of a user name space where it could be, otherwise `refused` says why not.
pub fn find(engine: &Engine, refused: Option<&anyhow::Error>) -> Result<Ways> {
    let mut all = vec![ids(&engine.host, &engine.store.ids, refused)];
    let (driver, why) = match refused {
        Some(_) => ("copy", "there is no user name space to mount in".to_owned()),
        None => rootfs::try_out(&engine.store)?,
    };
    all.push(Way { of: "root file system", is: driver.into(), why });
    let hierarchy = cgroup::probe()?;
    let controllers = cgroup::usable(&hierarchy)?;
    let (cgroup_version, why) = match &hierarchy {
        Hierarchy::V1 { .. } => ("1", "each controller has a tree of its own"),
        Hierarchy::V2 { .. } => ("2", "there is one tree"),
        Hierarchy::None(why) => ("", why.as_str()),
    };
    let why = match controllers[..] {
        [] if cgroup_version.is_empty() => why.to_owned(),
        [] => format!("{why}, and our place in it is not ours to write to"),
        _ => format!("{why}; limits of {}", controllers.join(", ")),
    };
    let is = if cgroup_version.is_empty() || controllers.is_empty() { "none" } else { cgroup_version };
    all.push(Way { of: "cgroups", is: is.into(), why });
    let isolation = isolation();
    let has_name_spaces = isolation.is == "full";
    all.push(isolation);
    let has_seccomp = has_filter_mode();
    let (is, why) = if has_seccomp {
        ("builtin", "docker's default profile")
    } else {
        ("none", "the kernel has no filters")
    };
    all.push(Way { of: "seccomp", is: is.into(), why: why.into() });
    all.push(Way {
        of: "network",
        is: "host".into(),
        why: "where nothing else is said; --network bridge, none, or one that dhow network create made"
            .into(),
    });
    let uname = rustix::system::uname();
    all.push(Way {
        of: "kernel",
        is: uname.release().to_string_lossy().into_owned(),
        why: uname.machine().to_string_lossy().into_owned(),
    });
    Ok(Ways { driver: driver.into(), cgroup_version, controllers, has_seccomp, has_name_spaces, all })
}

fn ids(host: &Host, ids: &Ids, refused: Option<&anyhow::Error>) -> Way {
    let (is, why) = match (ids, refused) {
        (_, Some(error)) => ("none", error::chain(error)),
        (Ids::Root, _) => ("root", "all ids of the machine".into()),
        (Ids::Ranges { uids, gids }, _) => {
            let count =
                |ranges: &[crate::host::IdRange]| ranges.iter().map(|r| u64::from(r.count)).sum::<u64>();
            (
                "ranges",
                format!(
                    "{} user ids and {} group ids of /etc/subuid and /etc/subgid",
                    count(uids),
                    count(gids)
                ),
            )
        }
        (Ids::Single, _) if !host.is_rootless() => {
            ("one", "the user name space around us has no more".into())
        }
        (Ids::Single, _) => ("one", userns::why_one_id(host)),
    };
    Way { of: "ids", is: is.into(), why }
}

/// Whether a process can be had that is kept apart, by making one.
fn isolation() -> Way {
    let kinds = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;
    let tried = process::fork(kinds as u64, None);
    let (is, why) = match tried {
        Ok(Forked::Child) => process::exit_now(0),
        Ok(Forked::Parent { pidfd, .. }) => {
            use std::os::fd::AsFd;
            let _ = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            ("full", "name spaces and mounts can be made".to_owned())
        }
        Err(error) => {
            let error = anyhow::Error::from(error);
            let why = format!("name spaces cannot be made: {}", error::chain(&error));
            if chroot::is_refusal(&error) { ("chroot", why) } else { ("none", why) }
        }
    };
    Way { of: "isolation", is: is.into(), why }
}

/// Whether the kernel was built with seccomp filters (seccomp(2)).
fn has_filter_mode() -> bool {
    fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail".as_ref())
        .is_ok_and(|text| text.contains("errno"))
}
