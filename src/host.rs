//! Facts about the machine and the caller, read once at start. No other room reads the environment.
//!
//! Invariant: nothing here changes the system; entering a user name space is `userns`, and it updates `Host::ids`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::error::ResultExt;
use crate::fs;
use crate::sys::spawn::Holder;

/// How ids inside containers relate to ids on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ids {
    /// We are root over all ids that we see.
    Root,
    /// A user with subordinate ids: 0 is the caller, 1.. are the ranges.
    Ranges {
        /// Host ranges for user ids 1..
        uids: Vec<IdRange>,
        /// Host ranges for group ids 1..
        gids: Vec<IdRange>,
    },
    /// A user with one id: 0 is the caller, there is no other. Ownership is kept out of band.
    Single,
}

/// The ids that the caller has in a container's inner user name space, where it is not root's. `None`: the caller has none
/// there, so that nothing of theirs can be touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct InnerIds {
    /// User.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

/// One line of a map of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct IdMapping {
    /// First id inside.
    pub inside: u32,
    /// The id that it is in the name space around.
    pub outside: u32,
    /// How many follow.
    pub count: u32,
}

impl IdMapping {
    /// As the kernel reads it (user_namespaces(7)).
    pub fn text(lines: &[IdMapping]) -> String {
        lines.iter().map(|line| format!("{} {} {}\n", line.inside, line.outside, line.count)).collect()
    }

    /// The id around that is `id` inside, if it is any.
    pub fn outside_of(lines: &[IdMapping], id: u32) -> Option<u32> {
        let of = |line: &IdMapping| {
            let n = id.checked_sub(line.inside).filter(|n| *n < line.count)?;
            line.outside.checked_add(n)
        };
        lines.iter().find_map(of)
    }

    /// The id inside that is `id` around, if it is any.
    pub fn inside_of(lines: &[IdMapping], id: u32) -> Option<u32> {
        let turned = |line: &IdMapping| IdMapping { inside: line.outside, outside: line.inside, ..*line };
        let lines: Vec<IdMapping> = lines.iter().map(turned).collect();
        IdMapping::outside_of(&lines, id)
    }
}

/// The ids of a container that has a user name space of its own: only what is listed exists there.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OwnIds {
    /// Users.
    pub uids: Vec<IdMapping>,
    /// Groups.
    pub gids: Vec<IdMapping>,
}

impl OwnIds {
    /// The ids around of a user and a group inside; for one that does not exist, 0.
    pub fn outside(&self, (uid, gid): (u32, u32)) -> (u32, u32) {
        let of = |lines: &[IdMapping], id| IdMapping::outside_of(lines, id).unwrap_or(0);
        (of(&self.uids, uid), of(&self.gids, gid))
    }

    /// A user name space that is nothing but these maps, for showing a mount with other owners.
    pub fn name_space(&self) -> Result<OwnedFd> {
        let holder = Holder::new(libc::CLONE_NEWUSER).context("cannot make a user name space")?;
        let pid = visible_pid_of(holder.pidfd.as_fd())?.context("its holder ended")?;
        let proc = PathBuf::from(format!("/proc/{pid}"));
        for (file, lines) in [("uid_map", &self.uids), ("gid_map", &self.gids)] {
            fs::write(&proc.join(file), IdMapping::text(lines).as_bytes())?;
        }
        Ok(fs::open(&proc.join("ns/user"))?.into())
    }
}

/// Which id of the name space around (whose map is given, as in /proc/PID/uid_map) is root in the inner one, where the
/// caller is `own`: that very id, or the last there is if that is none. `None` if there is only the caller's.
pub fn place_of_root(map: &str, own: Option<u32>) -> Option<u32> {
    let ends = extents(map).map(|(start, count)| (start, start + count));
    let last = ends.clone().map(|(_, end)| end - 1).max()?;
    let is_mapped = |id: u64| ends.clone().any(|(start, end)| (start..end).contains(&id));
    let place = own.map(u64::from).filter(|own| is_mapped(*own)).unwrap_or(last);
    u32::try_from(place).ok().filter(|place| *place > 0 || own == Some(0))
}

/// First id inside and count, of each line of a map (user_namespaces(7)).
pub fn extents(map: &str) -> impl Iterator<Item = (u64, u64)> + Clone {
    let numbers = |line: &str| -> Option<(u64, u64)> {
        let mut words = line.split_whitespace();
        Some((words.next()?.parse().ok()?, words.nth(1)?.parse().ok()?))
    };
    map.lines().filter_map(numbers).filter(|(_, count)| *count > 0)
}

/// A range of ids on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// First id.
    pub start: u32,
    /// How many.
    pub count: u32,
}

/// What is known about machine and caller.
#[derive(Debug, Clone)]
pub struct Host {
    /// The caller's effective user id, as seen before any user name space was entered.
    pub uid: u32,
    /// The caller's effective group id, likewise.
    pub gid: u32,
    /// The caller's name, if /etc/passwd has one.
    pub user: Option<String>,
    /// The caller's home: HOME, else from /etc/passwd.
    pub home: Option<PathBuf>,
    /// Where all state lies: see the table in the crate documentation.
    pub data: PathBuf,
    /// The environment at start.
    pub env: BTreeMap<OsString, OsString>,
    /// How ids are mapped.
    pub ids: Ids,
    /// Nobody in any user name space of ours can write to the file that we run from, whatever way to it they get hold of:
    /// it is root's, and root is not mapped there.
    pub executable_is_out_of_reach: bool,
}

impl Host {
    /// Reads the facts. `root` is `--root`; without it DHOW_ROOT, then the caller's default.
    #[expect(clippy::disallowed_methods, reason = "the one reader of the environment")]
    pub fn probe(root: Option<&Path>) -> Result<Host> {
        let env: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let passwd = fs::read_to_string_if_exists(Path::new("/etc/passwd"))?.unwrap_or_default();
        let entry = passwd
            .lines()
            .map(|l| l.split(':').collect::<Vec<_>>())
            .find(|f| f.len() >= 6 && f[2].parse() == Ok(uid));
        let user = entry.as_ref().map(|f| f[0].to_owned());
        let home = non_empty(&env, "HOME")
            .map(PathBuf::from)
            .filter(|h| h.is_absolute())
            .or_else(|| entry.as_ref().map(|f| PathBuf::from(f[5])));
        let data = data_dir(root, &env, uid, home.as_deref())?;
        let ids = if uid == 0 { current_ids()? } else { subordinate_ids(uid, user.as_deref())? };
        let executable_is_out_of_reach = uid != 0 && is_roots_alone(Path::new("/proc/self/exe"));
        Ok(Host { uid, gid, user, home, data, env, ids, executable_is_out_of_reach })
    }

    /// A variable of the environment, if set and not empty.
    pub fn env(&self, name: &str) -> Option<&OsStr> {
        non_empty(&self.env, name)
    }

    /// Where the caller's configuration lies: $XDG_CONFIG_HOME, else ~/.config.
    pub fn config_dir(&self) -> Option<PathBuf> {
        let xdg = self.env("XDG_CONFIG_HOME").map(PathBuf::from).filter(|d| d.is_absolute());
        xdg.or_else(|| self.home.as_ref().map(|h| h.join(".config")))
    }

    /// A path of a configuration file, in which `~/x` and `$HOME/x` are beneath the caller's home.
    pub fn at_home(&self, path: PathBuf) -> PathBuf {
        match (path.strip_prefix("~").or_else(|_| path.strip_prefix("$HOME")), &self.home) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => path,
        }
    }

    /// Whether the caller is not root of this machine (or of the container we are in).
    pub fn is_rootless(&self) -> bool {
        self.uid != 0
    }
}

fn non_empty<'a>(env: &'a BTreeMap<OsString, OsString>, name: &str) -> Option<&'a OsStr> {
    env.get(OsStr::new(name)).map(OsString::as_os_str).filter(|v| !v.is_empty())
}

fn data_dir(
    root: Option<&Path>,
    env: &BTreeMap<OsString, OsString>,
    uid: u32,
    home: Option<&Path>,
) -> Result<PathBuf> {
    if let Some(dir) = root.or_else(|| non_empty(env, "DHOW_ROOT").map(Path::new)) {
        return std::path::absolute(dir).with_context(|| format!("cannot resolve {}", dir.display()));
    }
    if uid == 0 {
        return Ok(PathBuf::from("/var/lib/dhow"));
    }
    if let Some(dir) = non_empty(env, "XDG_DATA_HOME").map(Path::new).filter(|d| d.is_absolute()) {
        return Ok(dir.join("dhow"));
    }
    let Some(home) = home else {
        return Err(anyhow::anyhow!(
            "cannot find a home for uid {uid}: HOME is not set and /etc/passwd has no such user"
        ))
        .hint("set HOME, or name a directory of yours with --root DIR");
    };
    Ok(home.join(".local/share/dhow"))
}

/// Whether a file is root's, and nobody else may write to it. An access list cannot give more than the group's bits say
/// (acl(5), the mask).
fn is_roots_alone(path: &Path) -> bool {
    let meta = fs::metadata(path).ok().flatten();
    meta.is_some_and(|m| m.uid() == 0 && m.mode() & 0o022 == 0)
}

/// The ranges of /etc/subuid and /etc/subgid for this user, `Single` where there are none or no tool to use them.
fn subordinate_ids(uid: u32, user: Option<&str>) -> Result<Ids> {
    let read = |path: &str| -> Result<Vec<IdRange>> {
        Ok(parse_ranges(&fs::read_to_string_if_exists(Path::new(path))?.unwrap_or_default(), uid, user))
    };
    let (uids, gids) = (read("/etc/subuid")?, read("/etc/subgid")?);
    if uids.is_empty() || gids.is_empty() {
        return Ok(Ids::Single);
    }
    Ok(Ids::Ranges { uids, gids })
}

/// The ranges of /etc/subuid and /etc/subgid for somebody else, by name.
pub fn ranges_of(user: &str) -> Result<(Vec<IdRange>, Vec<IdRange>)> {
    let read = |path: &str| -> Result<Vec<IdRange>> {
        let text = fs::read_to_string_if_exists(Path::new(path))?.unwrap_or_default();
        Ok(parse_ranges(&text, u32::MAX, Some(user)))
    };
    Ok((read("/etc/subuid")?, read("/etc/subgid")?))
}

/// Lines `name-or-uid:start:count` (subuid(5)) of this user; malformed lines are passed over, as newuidmap does.
fn parse_ranges(text: &str, uid: u32, user: Option<&str>) -> Vec<IdRange> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            let mine = Some(owner) == user || owner.parse() == Ok(uid);
            let range = IdRange { start: fields.next()?.parse().ok()?, count: fields.next()?.parse().ok()? };
            (mine && range.count > 0 && range.start.checked_add(range.count).is_some()).then_some(range)
        })
        .collect()
}

/// The environment as `KEY=VALUE`, for the built-in init, which hands on what it was given.
#[expect(clippy::disallowed_methods, reason = "the one reader of the environment")]
pub fn raw_environment() -> Vec<String> {
    let text = |s: OsString| s.to_string_lossy().into_owned();
    std::env::vars_os().map(|(k, v)| format!("{}={}", text(k), text(v))).collect()
}

/// How ids are mapped in the user name space that we are in now.
pub fn current_ids() -> Result<Ids> {
    Ok(ids_of_map(&fs::read_to_string(Path::new("/proc/self/uid_map"))?))
}

/// The initial name space maps everything onto itself; a map of one id is a single-id user's (user_namespaces(7)).
fn ids_of_map(map: &str) -> Ids {
    let counts: Vec<u64> = map.lines().filter_map(|l| l.split_whitespace().nth(2)?.parse().ok()).collect();
    match counts[..] {
        [4_294_967_295] => Ids::Root,
        [1] => Ids::Single,
        _ => Ids::Ranges { uids: Vec::new(), gids: Vec::new() },
    }
}

/// Our pid as /proc shows it, which may be of an outer pid name space.
pub fn visible_pid() -> Option<i32> {
    fs::read_link(Path::new("/proc/self")).ok()??.to_str()?.parse().ok()
}

/// The pid behind a pidfd, as /proc shows it; `None` once it was reaped.
pub fn visible_pid_of(pidfd: std::os::fd::BorrowedFd<'_>) -> Result<Option<i32>> {
    use std::os::fd::AsRawFd;
    let text = fs::read_to_string(&PathBuf::from(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())))?;
    let pid = text.lines().find_map(|l| l.strip_prefix("Pid:")).and_then(|p| p.trim().parse().ok());
    Ok(pid.filter(|p| *p > 0))
}

/// The boot id of the running kernel: what tells a record of before the last boot from one of now.
pub fn boot_id() -> Result<String> {
    let text = fs::read_to_string(Path::new("/proc/sys/kernel/random/boot_id"))?;
    if text.trim().is_empty() {
        bail!("cannot tell which boot this is: /proc/sys/kernel/random/boot_id is empty");
    }
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_belong_to_name_or_uid() {
        let text = "al:100000:65536\n1001:200000:10\nbo:1:1\n# x\nal:bad:1\nal:4294967295:9\n";
        let r = |start, count| IdRange { start, count };
        assert_eq!(parse_ranges(text, 1001, Some("al")), [r(100_000, 65536), r(200_000, 10)]);
        assert_eq!(parse_ranges(text, 7, None), []);
    }

    #[test]
    fn the_map_tells_who_we_are() {
        assert_eq!(ids_of_map("         0          0 4294967295\n"), Ids::Root);
        assert_eq!(ids_of_map("         0       1000          1\n"), Ids::Single);
        assert!(matches!(ids_of_map("0 1000 1\n1 100000 65536\n"), Ids::Ranges { .. }));
    }

    #[test]
    fn data_lies_where_the_documentation_says() {
        let env = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.into(), v.into())).collect();
        let check = |pairs: &[(&str, &str)], uid, home: Option<&str>, want: &str| {
            assert_eq!(data_dir(None, &env(pairs), uid, home.map(Path::new)).unwrap(), Path::new(want));
        };
        check(&[], 0, None, "/var/lib/dhow");
        check(&[("XDG_DATA_HOME", "/x")], 0, None, "/var/lib/dhow");
        check(&[("XDG_DATA_HOME", "/x")], 5, None, "/x/dhow");
        check(&[("XDG_DATA_HOME", "x")], 5, Some("/h"), "/h/.local/share/dhow");
        check(&[("DHOW_ROOT", "/r"), ("XDG_DATA_HOME", "/x")], 5, None, "/r");
        assert!(data_dir(None, &env(&[]), 5, None).is_err());
    }
}
