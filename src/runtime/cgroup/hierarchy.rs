//! Which cgroup file systems there are, and where in them we are: /proc/self/mountinfo against /proc/self/cgroup.
//!
//! `parse` is pure. Nothing here says whether a place may be written to: `v1` and `v2` find out by trying.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Result;

use crate::fs;

/// The machine's cgroups as this process sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hierarchy {
    /// One tree a controller. A machine that has both kinds (systemd's "hybrid") counts as v1, because a controller
    /// can be in one kind only and the useful ones are in v1 then.
    V1 {
        /// Controller -> where it is mounted and where we are in it.
        mounts: BTreeMap<String, Place>,
    },
    /// One tree for all.
    V2 {
        /// Where the tree is mounted.
        root: PathBuf,
        /// Our own cgroup, relative to `root`; empty at the root itself.
        own: PathBuf,
    },
    /// None that we could use, and why.
    None(String),
}

/// A mounted v1 tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The mount point.
    pub root: PathBuf,
    /// Our own cgroup, relative to `root`.
    pub own: PathBuf,
}

/// The controllers that make a machine a v1 machine; net_cls alone, say, does not.
const MAIN_CONTROLLERS: &[&str] = &["memory", "pids", "cpu", "devices", "freezer", "cpuset"];

/// Looks at this machine.
pub fn probe() -> Result<Hierarchy> {
    let read = |path: &str| -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(Path::new(path))?).into_owned())
    };
    let mountinfo = read("/proc/self/mountinfo")?;
    // A kernel without cgroups has no such file.
    let own = fs::read_to_string_if_exists(Path::new("/proc/self/cgroup"))?.unwrap_or_default();
    Ok(parse(&mountinfo, &own))
}

/// A line of mountinfo that is a cgroup file system.
struct Mount<'a> {
    root: String,
    point: String,
    is_v2: bool,
    options: Vec<&'a str>,
}

/// The hierarchy that these two files describe.
pub fn parse(mountinfo: &str, self_cgroup: &str) -> Hierarchy {
    let mounts = visible_mounts(mountinfo);
    if mounts.is_empty() {
        return Hierarchy::None("no cgroup file system is mounted".to_owned());
    }
    let mut foreign = None;
    let mut v1 = BTreeMap::new();
    let mut v2 = None;
    for line in self_cgroup.lines() {
        // hierarchy-id:controller,controller:path - only the path may hold further colons.
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(names), Some(own)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        for mount in &mounts {
            let is_ours = if mount.is_v2 {
                names.is_empty()
            } else {
                names.split(',').any(|n| mount.options.contains(&n))
            };
            if !is_ours {
                continue;
            }
            let Some(own) = beneath(&mount.root, own) else {
                foreign = Some(mount.point.clone());
                continue;
            };
            let root = PathBuf::from(&mount.point);
            if mount.is_v2 {
                v2 = Some(Hierarchy::V2 { root, own });
                continue;
            }
            for name in names.split(',').filter(|n| !n.starts_with("name=")) {
                v1.insert(name.to_owned(), Place { root: root.clone(), own: own.clone() });
            }
        }
    }
    if v1.keys().any(|name| MAIN_CONTROLLERS.contains(&name.as_str())) {
        return Hierarchy::V1 { mounts: v1 };
    }
    v2.unwrap_or_else(|| {
        Hierarchy::None(match foreign {
            Some(point) => format!("what is mounted on {point} belongs to another cgroup name space"),
            None => "the mounted cgroup file systems are not those that this process is in".to_owned(),
        })
    })
}

/// The cgroup mounts that no other mount covers. Which of two was mounted first cannot be told from the order of the
/// lines (since Linux 6.8 they are sorted by id, and a mount may be made long before it is attached), so covering is
/// reckoned from who is mounted on whom.
fn visible_mounts(mountinfo: &str) -> Vec<Mount<'_>> {
    let mut all: BTreeMap<&str, (&str, String)> = BTreeMap::new();
    let mut found: Vec<(&str, Mount<'_>)> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let (Some(id), Some(parent), Some(root)) = (left.first(), left.get(1), left.get(3)) else { continue };
        let (Some(point), Some(kind)) = (left.get(4), right.first()) else { continue };
        let point = unescape(point);
        all.insert(id, (parent, point.clone()));
        if matches!(*kind, "cgroup" | "cgroup2") {
            let options = right.get(2).map(|o| o.split(',').collect()).unwrap_or_default();
            found.push((id, Mount { root: unescape(root), point, is_v2: *kind == "cgroup2", options }));
        }
    }
    found.into_iter().filter(|(id, _)| is_visible(&all, id)).map(|(_, mount)| mount).collect()
}

/// `all` is parent and mount point by id.
fn is_visible(all: &BTreeMap<&str, (&str, String)>, id: &str) -> bool {
    let Some((_, point)) = all.get(id) else { return false };
    if all.values().any(|(parent, other)| *parent == id && other == point) {
        return false;
    }
    let mut child = id;
    // As many steps as there are mounts: a file that was cut short may hold a circle.
    for _ in 0..all.len() {
        let Some((parent, point)) = all.get(child) else { return true };
        let covers = |(other, (on, at)): (&&str, &(&str, String))| {
            *other != child && on == parent && Path::new(point).starts_with(at)
        };
        if all.iter().any(covers) {
            return false;
        }
        child = parent;
    }
    true
}

/// `own` relative to the part of the tree that is mounted; `None` if we are outside of it, which /proc shows as `/..`.
fn beneath(mounted: &str, own: &str) -> Option<PathBuf> {
    if Path::new(mounted).join(own).components().any(|c| c == std::path::Component::ParentDir)
        || mounted.starts_with("/..")
    {
        return None;
    }
    Path::new(own).strip_prefix(mounted).ok().map(Path::to_owned)
}

/// Undoes the octal escapes of mountinfo (blank, tab, newline, backslash).
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 4).filter(|d| d.iter().all(|b| (b'0'..=b'7').contains(b)));
        match (byte, digits) {
            (b'\\', Some(d)) => {
                out.push(d.iter().fold(0u8, |n, b| n.wrapping_mul(8).wrapping_add(b - b'0')));
                at += 4;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "22 1 0:20 / /sys rw - sysfs sysfs rw\n30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        32 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        33 31 0:31 /docker/a /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        34 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
        35 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    fn v1(list: &[(&str, &str, &str)]) -> Hierarchy {
        let place = |root: &str, own: &str| Place { root: root.into(), own: own.into() };
        Hierarchy::V1 { mounts: list.iter().map(|(c, r, o)| ((*c).to_owned(), place(r, o))).collect() }
    }

    fn v2(root: &str, own: &str) -> Hierarchy {
        Hierarchy::V2 { root: root.into(), own: own.into() }
    }

    #[test]
    fn what_the_two_files_say() {
        let hybrid_own = "4:cpu,cpuacct:/\n3:memory:/docker/a/sub\n1:name=systemd:/x\n0::/x\n";
        // A tmpfs with a later id beneath them, as dhow makes it.
        let later = HYBRID
            .lines()
            .skip(1)
            .chain(HYBRID.lines().take(1))
            .collect::<Vec<_>>()
            .join("\n")
            .replace("31 ", "41 ");
        assert_eq!(parse(&later, hybrid_own), parse(HYBRID, hybrid_own));
        let covered = format!("{V2}40 30 0:50 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n");
        let blank = V2.replace("/sys/fs/cgroup", "/a\\040b");
        let check = |mountinfo: &str, own: &str, expected: Hierarchy| {
            assert_eq!(parse(mountinfo, own), expected, "{mountinfo}{own}");
        };
        check(V2, "0::/\n", v2("/sys/fs/cgroup", ""));
        check(V2, "0::/user.slice/a:b.scope\n", v2("/sys/fs/cgroup", "user.slice/a:b.scope"));
        check(&blank, "0::/\n", v2("/a b", ""));
        check(&V2.replace("0:26 /", "0:26 /kube/x"), "0::/kube/x/y\n", v2("/sys/fs/cgroup", "y"));
        check(
            HYBRID,
            hybrid_own,
            v1(&[
                ("cpu", "/sys/fs/cgroup/cpu,cpuacct", ""),
                ("cpuacct", "/sys/fs/cgroup/cpu,cpuacct", ""),
                ("memory", "/sys/fs/cgroup/memory", "sub"),
            ]),
        );
        // Only the named tree is v1: the controllers are in v2.
        let named =
            HYBRID.lines().filter(|l| l.contains("systemd") || l.contains("unified")).collect::<Vec<_>>();
        check(&named.join("\n"), hybrid_own, v2("/sys/fs/cgroup/unified", "x"));
        for (mountinfo, own) in [
            ("", "0::/\n"),
            (covered.as_str(), "0::/\n"),
            (V2, ""),
            (V2, "0::/../../x\n"),
            (&V2.replace("0:26 /", "0:26 /.."), "0::/\n"),
            (&V2.replace("0:26 /", "0:26 /docker/b"), "0::/docker/a\n"),
        ] {
            assert!(matches!(parse(mountinfo, own), Hierarchy::None(_)), "{mountinfo}{own}");
        }
    }

    #[test]
    fn every_prefix_is_survived() {
        let own = "4:cpu,cpuacct:/\n3:memory:/docker/a/sub\n0::/x\n";
        for n in 0..HYBRID.len() {
            parse(&HYBRID[..n], own);
        }
        for n in 0..own.len() {
            parse(HYBRID, &own[..n]);
        }
        assert_eq!(unescape("a\\04"), "a\\04");
        assert_eq!(unescape("\\777"), "\u{fffd}");
    }
}
