//! Bundle -> process: what runc does. Knows no images, names, networks or logs.
//!
//! `create` clones the container's init, which sets itself up from the spec (`init`) and waits; `start` lets it exec.
//! `exec` puts one more process into a container that runs. The ladder between the two sides is drawn in `sync`.
//!
//! Invariant: whatever of dhow can be seen inside a container runs from `sealed::executable()`.

mod apparmor;
pub mod cgroup;
pub mod chroot;
pub mod create;
mod dev;
pub mod emulate;
pub mod exec;
mod idmap;
mod init;
pub mod inner;
mod inside;
pub mod kin;
mod mask;
pub mod mount;
pub mod preserved;
mod process;
pub mod reaper;
pub mod role;
pub mod rootfs;
pub mod sealed;
pub mod seccomp;
mod secrets;
pub mod sync;
mod tend;
mod terminal;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::oci::runtime::Spec;

pub use create::{Init, Join, create};
pub use inside::Inside;
pub use process::reap;

/// What a container is made from.
#[derive(Debug)]
pub struct Bundle<'a> {
    /// The directory of the bundle.
    pub dir: &'a Path,
    /// Its config.json, complete: users are numbers.
    pub spec: &'a Spec,
    /// Its root file system.
    pub rootfs: Rootfs,
}

/// Where a root file system comes from.
#[derive(Debug)]
pub enum Rootfs {
    /// A detached mount, to be attached at this directory in the container's own mount name space.
    Mount(OwnedFd, PathBuf),
    /// A directory.
    Dir(PathBuf),
}

/// The standard streams that a container's process gets.
#[derive(Debug)]
pub enum Stdio {
    /// Three descriptors.
    Fds([OwnedFd; 3]),
    /// A new pty in the container; rows and columns to start with.
    Terminal {
        /// Rows.
        rows: u16,
        /// Columns.
        columns: u16,
    },
}

/// How far a container is kept apart from us; decided once, by whoever starts its supervisor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Isolation {
    /// Name spaces and mounts of its own.
    #[default]
    Full,
    /// Files only: see [`chroot`].
    Chroot,
}

/// Ids around a container's inner user name space, of user and group.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub struct Outside {
    /// Those of its root.
    pub root: (u32, u32),
    /// Those of its program's user.
    pub user: (u32, u32),
}

/// What creating needs besides bundle and streams.
#[derive(Debug, Default)]
pub struct CreateOptions {
    /// Our sealed executable, if the built-in init is to be pid 1 (`--init`).
    pub reaper: Option<OwnedFd>,
    /// The gate of a built-in init that asks before it ends: see [`reaper`].
    pub gate: Option<OwnedFd>,
    /// Host directories to show (read-only) under /sys/fs/cgroup: name, path. One with an empty name is the whole tree (v2).
    pub cgroup_dirs: Vec<(String, PathBuf)>,
    /// The doors of the cgroup (v1) that init goes through by itself.
    pub cgroup_doors: Vec<OwnedFd>,
    /// The user has one id only: root's calls are answered by emulation.
    pub emulate: bool,
    /// How far it is kept apart.
    pub isolation: Isolation,
    /// Its program lives in an inner user name space, with these ids.
    pub inner: Option<inner::Inner>,
    /// That name space is another container's.
    pub inner_of: Option<std::fs::File>,
    /// It is to be joined to networks: [`create()`] gets [`Inside`] for whom that does.
    pub is_joined: bool,
    /// Descriptors that its program gets besides the standard streams.
    pub preserved: preserved::Preserved,
    /// Whose what is made in it is to be, where that is not ours.
    pub outside: Option<Outside>,
}
