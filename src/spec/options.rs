//! What a container is asked to be: flags after parsing, before they meet image and host. Plain data, kept in the record.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use super::mount::{Mount, Origin, Recursive};
pub use super::share::Share;
pub use crate::endpoint::{Endpoint, Link, Network, Port};
use crate::host::{IdMapping, OwnIds};

/// Everything that `run` and `create` can ask for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// Replaces the image's command.
    pub command: Vec<String>,
    /// Replaces the image's entrypoint; `Some(vec![])` takes it away.
    pub entrypoint: Option<Vec<String>>,
    /// `KEY=VALUE`, later ones win.
    pub env: Vec<String>,
    /// Working directory.
    pub workdir: Option<String>,
    /// `user[:group]`, names or numbers.
    pub user: Option<String>,
    /// Supplementary groups, names or numbers.
    pub group_add: Vec<String>,
    /// Host name.
    pub hostname: Option<String>,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// A pty.
    pub terminal: bool,
    /// stdin stays open.
    pub interactive: bool,
    /// The streams that whoever makes it is there for; of older versions it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attached: Option<Streams>,
    /// The root is read-only.
    pub read_only: bool,
    /// All mounts, in order; once the container is planned also those of the image and of other containers.
    pub mounts: Vec<Mount>,
    /// Containers whose mounts it gets: `NAME[:ro]`.
    pub volumes_from: Vec<String>,
    /// Who the caller is inside.
    pub userns: Userns,
    /// A user that the image does not know gets no entry in /etc/passwd.
    pub no_passwd: bool,
    /// What becomes of the image's volumes.
    pub image_volumes: ImageVolumes,
    /// Capabilities to add, without CAP_; `ALL` too.
    pub cap_add: Vec<String>,
    /// Capabilities to drop.
    pub cap_drop: Vec<String>,
    /// All of the caller's rights.
    pub privileged: bool,
    /// System call filter.
    pub seccomp: Seccomp,
    /// No new privileges by execve.
    pub no_new_privileges: bool,
    /// Paths of /proc and /sys stay visible and writable.
    pub unmask: bool,
    /// Paths, or patterns of paths, that are neither hidden nor made read-only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unmasked: Vec<String>,
    /// Paths that are hidden besides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mask: Vec<String>,
    /// Options of the mount on /proc.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub proc_options: Vec<String>,
    /// AppArmor's profile, or `unconfined`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apparmor: Option<String>,
    /// Words about SELinux's labels, which mean nothing where there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub selinux: Vec<String>,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// Resource limits: name without RLIMIT_, soft, hard.
    pub ulimits: Vec<(String, u64, u64)>,
    /// Kernel parameters of the container's name spaces.
    pub sysctls: BTreeMap<String, String>,
    /// Size of /dev/shm in bytes.
    pub shm_size: Option<u64>,
    /// cgroup limits.
    pub limits: Limits,
    /// Less than name spaces and mounts of its own is an error.
    pub full_isolation: bool,
    /// Limits that cannot be had are an error.
    pub strict_limits: bool,
    /// The built-in init.
    pub init: bool,
    /// Which network name space.
    pub network: Network,
    /// The networks to be joined to, by name, with `Network::Own` only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Endpoint>,
    /// --link.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// Whose processes it sees.
    #[serde(skip_serializing_if = "Share::is_private")]
    pub pid: Share,
    /// Whose IPC objects and /dev/shm it sees.
    #[serde(skip_serializing_if = "Share::is_private")]
    pub ipc: Share,
    /// Whose host name it has.
    #[serde(skip_serializing_if = "Share::is_private")]
    pub uts: Share,
    /// Extra lines of /etc/hosts: name, and an address or `host-gateway`.
    pub add_hosts: Vec<(String, String)>,
    /// Name servers in place of the host's.
    pub dns: Vec<String>,
    /// Search domains in place of the host's; `.` for none.
    pub dns_search: Vec<String>,
    /// Options of resolv.conf in place of the host's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_options: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Name or number.
    pub stop_signal: Option<String>,
    /// Seconds.
    pub stop_timeout: Option<u64>,
    /// `KEY=VALUE` that the image's variables go before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env_beneath: Vec<String>,
    /// Variables of the image, or of ours, that are taken away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unset_env: Vec<String>,
    /// All of them are.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unset_env_all: bool,
    /// The umask of its program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    /// Annotations of the runtime spec.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// `PORT/PROTOCOL` that it listens on, beside the image's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expose: Vec<String>,
    /// Ports that are to be published.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<Port>,
    /// All exposed ports are to be published.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub publish_all: bool,
    /// Secrets; their values are kept elsewhere, by their number here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<Secret>,
    /// Time zone: what TZ says.
    pub time_zone: Option<String>,
    /// The file that its id was written to, as typed.
    pub cid_file: Option<String>,
    /// It sees the cgroups of the host, not its own as the root of all.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub host_cgroups: bool,
    /// It has no cgroup of its own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_cgroup: bool,
    /// The cgroup in which its own is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_parent: Option<String>,
    /// Rules about devices, as v1 has them: `c 1:3 rwm`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_rules: Vec<DeviceRule>,
    /// Files of /etc that stay the image's: `hosts`, `hostname`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub of_image: Vec<String>,
    /// `KEY=VALUE` in which the image's variables are to be filled in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env_merge: Vec<String>,
    /// The line of /etc/passwd for a user that is only a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passwd_entry: Option<String>,
    /// The line of /etc/group for a group that is only a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_entry: Option<String>,
    /// Badness for the kernel's choice of whom to kill.
    pub oom_score_adj: Option<i32>,
}

/// Standard streams.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Streams {
    /// stdin.
    pub stdin: bool,
    /// stdout.
    pub stdout: bool,
    /// stderr.
    pub stderr: bool,
}

/// cgroup limits.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Limits {
    /// Bytes.
    pub memory: Option<i64>,
    /// Bytes of memory and swap together; -1 for unlimited swap.
    pub memory_swap: Option<i64>,
    /// Bytes, soft.
    pub memory_reservation: Option<i64>,
    /// Billionths of a CPU.
    pub nano_cpus: Option<u64>,
    /// Relative weight.
    pub cpu_shares: Option<u64>,
    /// Microseconds a period.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// CPUs to run on.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes.
    pub cpuset_mems: Option<String>,
    /// Processes; -1 for no limit.
    pub pids: Option<i64>,
}

/// Who a caller who is not root is inside.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
pub enum Userns {
    /// Root.
    #[default]
    Host,
    /// Themselves, or with these ids.
    KeepId {
        /// User.
        uid: Option<u32>,
        /// Group.
        gid: Option<u32>,
    },
    /// Nobody.
    NoMap,
    /// Whoever they are in another container: its id, once the container is planned; before that, as typed.
    Container(String),
    /// Nobody, in a range of ids that no other container has.
    Auto {
        /// How many ids.
        size: Option<u32>,
        /// Users that are to be who they are told to be.
        uids: Vec<IdMapping>,
        /// Groups likewise.
        gids: Vec<IdMapping>,
    },
    /// Who these maps say.
    Mapped(OwnIds),
}

/// What becomes of an image's volumes on which nothing is mounted.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, PartialEq, Eq)]
pub enum ImageVolumes {
    /// An anonymous volume each.
    #[default]
    Volume,
    /// A tmpfs each.
    Tmpfs,
    /// Nothing.
    Ignore,
}

/// How a secret is given.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Secret {
    /// What it is called.
    pub name: String,
    /// The file's absolute path, or the variable.
    pub target: String,
    /// As a variable, not as a file.
    pub is_env: bool,
    /// The file's owner.
    pub uid: u32,
    /// The file's group.
    pub gid: u32,
    /// The file's mode.
    pub mode: u32,
}

/// A rule about devices that have no name of their own in the container.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct DeviceRule {
    /// a, b or c.
    pub kind: char,
    /// Any without.
    pub major: Option<u32>,
    /// Any without.
    pub minor: Option<u32>,
    /// Some of `rwm`.
    pub access: String,
}

/// A device of the host.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Device {
    /// Path on the host.
    pub host: PathBuf,
    /// Path in the container.
    pub container: PathBuf,
    /// Some of `rwm`.
    pub access: String,
}

/// Which system call filter.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
pub enum Seccomp {
    /// Docker's default profile.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// A profile file.
    Profile {
        /// As it was typed.
        path: String,
        /// What it holds.
        text: String,
    },
}
