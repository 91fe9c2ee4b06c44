//! The machine as the doctor finds it. Looks, and judges nothing.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Engine;
use super::ways::{self, Ways};
use crate::error;
use crate::fs;
use crate::userns;

/// What was seen.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The caller's name, or number where it has none.
    pub user: String,
    /// Whether the caller is not root.
    pub is_rootless: bool,
    /// Why there is no user name space.
    pub refused: Option<String>,
    /// /etc/subuid and /etc/subgid.
    pub subordinate: [String; 2],
    /// newuidmap and newgidmap: path, and whether they carry a privilege.
    pub tools: [Option<(PathBuf, bool)>; 2],
    /// The kernel's switches that forbid user name spaces here, as `name=value` to put them right.
    pub switches: Vec<&'static str>,
    /// Whether AppArmor keeps programs without a profile from having rights in one.
    pub is_apparmor_strict: bool,
    /// This program.
    pub program: PathBuf,
    /// ID and ID_LIKE of os-release.
    pub systems: String,
    /// What is tried.
    pub ways: Option<Ways>,
    /// Whether systemd runs this machine.
    pub has_systemd: bool,
    /// Whether logind ends what a user left running.
    pub kills_user_processes: bool,
}

/// Looks. `engine` and `refused` as in [`ways::find`].
pub fn facts(engine: &Engine, refused: Option<&anyhow::Error>) -> Result<Facts> {
    let host = &engine.host;
    let read = |path: &str| fs::read_to_string_if_exists(Path::new(path)).ok().flatten().unwrap_or_default();
    let is = |path: &str, value: &str| read(path).trim() == value;
    let switches = [
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces=15000"),
    ];
    let release = read("/etc/os-release");
    let of_release =
        release.lines().filter_map(|l| l.strip_prefix("ID=").or_else(|| l.strip_prefix("ID_LIKE=")));
    let logind = read("/etc/systemd/logind.conf");
    Ok(Facts {
        user: host.user.clone().unwrap_or_else(|| host.uid.to_string()),
        is_rootless: host.is_rootless(),
        refused: refused.map(error::chain),
        subordinate: [read("/etc/subuid"), read("/etc/subgid")],
        tools: ["newuidmap", "newgidmap"].map(|name| {
            userns::find_tool(name).map(|path| (is_privileged(&path), path)).map(|(is, path)| (path, is))
        }),
        switches: switches.iter().filter(|(path, bad, _)| is(path, bad)).map(|(_, _, fix)| *fix).collect(),
        is_apparmor_strict: is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
        program: fs::read_link(Path::new("/proc/self/exe"))?.unwrap_or_default(),
        systems: of_release.map(|word| word.trim_matches('"')).collect::<Vec<_>>().join(" "),
        ways: Some(ways::find(engine, refused)?),
        has_systemd: fs::metadata(Path::new("/run/systemd/system"))?.is_some(),
        kills_user_processes: logind.lines().any(|l| l.trim().eq_ignore_ascii_case("KillUserProcesses=yes")),
    })
}

/// newuidmap has to be set-uid root, or to have CAP_SETUID as a file.
fn is_privileged(path: &Path) -> bool {
    let is_set_id = fs::metadata(path).ok().flatten().is_some_and(|m| m.permissions().mode() & 0o4000 != 0);
    let mut none: [u8; 0] = [];
    is_set_id || rustix::fs::getxattr(path, "security.capability", &mut none).is_ok_and(|n| n > 0)
}
