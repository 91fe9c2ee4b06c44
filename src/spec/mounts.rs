//! The mounts of the spec: what every container has, then what was asked for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Facts;
use super::mount::{Mount as Asked, Origin, Recursive};
use super::options::{Options, Secret, Share};
use super::share::OF_CONTAINER;
use crate::oci::runtime::Mount;
use crate::oci::words::{OPTIONAL, OWN, READ_ONLY_ALONE, SECRETS, SHM_OF, SUBPATH};

/// Docker's size of /dev/shm.
const SHM_SIZE: u64 = 64 << 20;

/// What volumes and images are as mounts: found by the engine, because it takes looking into the store.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// By the volume's name: type, source, option words.
    pub volumes: BTreeMap<String, (String, PathBuf, Vec<String>)>,
    /// By the image as typed: directories, top-most first.
    pub images: BTreeMap<String, Vec<PathBuf>>,
    /// Whether overlay takes its marks from `user.` attributes.
    pub userxattr: bool,
}

fn mount(target: &Path, fs_type: &str, source: &Path, words: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount.set_destination(target.to_owned());
    mount.set_typ(Some(fs_type.to_owned()));
    mount.set_source(Some(source.to_owned()));
    mount.set_options(Some(words.iter().map(|w| (*w).to_owned()).collect()));
    mount
}

pub(super) fn build(options: &Options, facts: &Facts<'_>) -> Vec<Mount> {
    let fs =
        |target: &str, kind: &str, words: &[&str]| mount(Path::new(target), kind, Path::new(kind), words);
    let write = if options.privileged { "rw" } else { "ro" };
    let is_cgroup = |pattern: &String| super::hidden::fits(pattern, "/sys/fs/cgroup");
    let cgroup = if options.unmasked.iter().any(is_cgroup) { "rw" } else { write };
    let mut proc = vec!["nosuid", "noexec", "nodev"];
    proc.extend(options.proc_options.iter().map(String::as_str));
    let shm = format!("size={}", options.shm_size.unwrap_or(SHM_SIZE));
    let mut mounts = vec![
        fs("/proc", "proc", &proc),
        fs("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        fs("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
        fs("/sys", "sysfs", &["nosuid", "noexec", "nodev", write]),
        fs("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", cgroup]),
    ];
    match &options.ipc {
        Share::Host if facts.has_mqueue => {
            let target = Path::new("/dev/mqueue");
            mounts.push(mount(target, "bind", target, &["rbind", "rprivate"]));
        }
        // The host has not mounted its own, and a user may not.
        Share::Host => {}
        _ => mounts.push(fs("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"])),
    }
    let shm_target = Path::new("/dev/shm");
    match &options.ipc {
        Share::Private | Share::Shareable => {
            mounts.push(fs("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", &shm]));
        }
        Share::Nothing => {}
        Share::Host => mounts.push(mount(shm_target, "bind", shm_target, &["rbind", "rprivate"])),
        Share::Container(id) => {
            let source = PathBuf::from(format!("{OF_CONTAINER}{id}"));
            mounts.push(mount(shm_target, SHM_OF, &source, &[]));
        }
    }
    let wanted: Vec<&Path> = options.mounts.iter().map(Asked::target).collect();
    for name in ["resolv.conf", "hostname", "hosts"] {
        let target = Path::new("/etc").join(name);
        if !wanted.contains(&target.as_path()) && !options.of_image.iter().any(|own| own == name) {
            mounts.push(mount(&target, "bind", &facts.dir.join(name), &["rbind", "rprivate"]));
        }
    }
    // Among the zones: /etc/localtime is a link to there.
    if let Some(zone) = options.time_zone.as_ref().filter(|_| facts.has_zone) {
        let target = Path::new("/usr/share/zoneinfo").join(zone);
        mounts.push(mount(&target, "bind", &facts.dir.join("localtime"), &["bind", "rprivate", "ro"]));
    }
    // Shorter paths first, so that a mount below another is not hidden by it.
    let mut asked: Vec<&Asked> = options.mounts.iter().collect();
    asked.sort_by_key(|m| m.target().components().count());
    mounts.retain(|m| !wanted.contains(&m.destination().as_path()));
    mounts.extend(asked.into_iter().map(|m| from_option(m, &facts.places)));
    let bound =
        |(host, target): &(PathBuf, PathBuf)| mount(target, "bind", host, &["bind", "nosuid", "noexec"]);
    mounts.extend(facts.device_binds.iter().map(bound));
    let as_files = options.secrets.iter().enumerate().filter(|(_, secret)| !secret.is_env);
    let word = |(n, s): (usize, &Secret)| format!("{n}:{}:{}:{:o}:{}", s.uid, s.gid, s.mode, s.target);
    let secrets: Vec<String> = as_files.map(word).collect();
    if !secrets.is_empty() {
        let words: Vec<&str> = secrets.iter().map(String::as_str).collect();
        mounts.push(mount(Path::new("/run/secrets"), SECRETS, &facts.secrets, &words));
    }
    mounts
}

fn from_option(asked: &Asked, places: &Places) -> Mount {
    match asked {
        Asked::Bind { source, target, read_only, propagation, non_recursive, recursive, own, .. } => {
            let mut words = vec![
                if *non_recursive { "bind" } else { "rbind" },
                if *read_only { "ro" } else { "rw" },
                propagation.as_deref().unwrap_or("rprivate"),
            ];
            let alone = *read_only && *recursive == Recursive::Writable;
            for (is_set, word) in [(alone, READ_ONLY_ALONE), (*own, OWN)] {
                if is_set {
                    words.push(word);
                }
            }
            mount(target, "bind", source, &words)
        }
        Asked::Volume { name, target, read_only, subpath, propagation, origin, .. } => {
            let plain = || ("bind".to_owned(), PathBuf::new(), Vec::new());
            let (fs_type, source, options) = places.volumes.get(name).cloned().unwrap_or_else(plain);
            let mut words: Vec<&str> = options.iter().map(String::as_str).collect();
            if fs_type == "bind" {
                words.extend(["rbind", propagation.as_deref().unwrap_or("rprivate")]);
            }
            if *read_only {
                words.push("ro");
            }
            if *origin == Origin::Image {
                words.push(OPTIONAL);
            }
            let subpath = subpath.as_ref().map(|path| format!("{SUBPATH}{}", path.display()));
            words.extend(subpath.as_deref());
            mount(target, &fs_type, &source, &words)
        }
        Asked::Image { image, target, subpath } => {
            let dirs = places.images.get(image).map(Vec::as_slice).unwrap_or_default();
            let subpath = subpath.as_ref().map(|path| format!("{SUBPATH}{}", path.display()));
            if let [only] = dirs {
                let mut words = vec!["bind", "ro", "rprivate"];
                words.extend(subpath.as_deref());
                return mount(target, "bind", only, &words);
            }
            let layers: Vec<String> = dirs.iter().map(|dir| format!("lowerdir+={}", dir.display())).collect();
            let mut words = vec!["ro"];
            words.extend(layers.iter().map(String::as_str));
            if places.userxattr {
                words.push("userxattr");
            }
            words.extend(subpath.as_deref());
            mount(target, "overlay", Path::new("overlay"), &words)
        }
        Asked::Tmpfs { target, options, .. } => {
            let mut words = vec!["nosuid", "nodev", "noexec"];
            words.retain(|w| !options.iter().any(|o| w.strip_prefix("no") == Some(o)));
            words.extend(options.iter().map(String::as_str));
            mount(target, "tmpfs", &PathBuf::from("tmpfs"), &words)
        }
    }
}
