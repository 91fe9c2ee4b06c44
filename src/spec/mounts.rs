//! The mounts of the spec: what every container has, then what was asked for.

use std::path::{Path, PathBuf};

use super::Facts;
use super::options::{self, Options};
use crate::oci::runtime::Mount;

/// Docker's size of /dev/shm.
const SHM_SIZE: u64 = 64 << 20;

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
    let shm = format!("size={}", options.shm_size.unwrap_or(SHM_SIZE));
    let mut mounts = vec![
        fs("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        fs("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        fs("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
        fs("/sys", "sysfs", &["nosuid", "noexec", "nodev", write]),
        fs("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", write]),
        fs("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        fs("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", &shm]),
    ];
    let wanted: Vec<&Path> = options.mounts.iter().map(target).collect();
    for name in ["resolv.conf", "hostname", "hosts"] {
        let target = Path::new("/etc").join(name);
        if !wanted.contains(&target.as_path()) {
            mounts.push(mount(&target, "bind", &facts.dir.join(name), &["rbind", "rprivate"]));
        }
    }
    // Shorter paths first, so that a mount below another is not hidden by it.
    let mut asked: Vec<&options::Mount> = options.mounts.iter().collect();
    asked.sort_by_key(|m| target(m).components().count());
    mounts.retain(|m| !wanted.contains(&m.destination().as_path()));
    mounts.extend(asked.into_iter().map(from_option));
    let bound =
        |(host, target): &(PathBuf, PathBuf)| mount(target, "bind", host, &["bind", "nosuid", "noexec"]);
    mounts.extend(facts.device_binds.iter().map(bound));
    mounts
}

fn target(mount: &options::Mount) -> &Path {
    match mount {
        options::Mount::Bind { target, .. } | options::Mount::Tmpfs { target, .. } => target,
    }
}

fn from_option(asked: &options::Mount) -> Mount {
    match asked {
        options::Mount::Bind { source, target, read_only, propagation, non_recursive, .. } => {
            let words = [
                if *non_recursive { "bind" } else { "rbind" },
                if *read_only { "ro" } else { "rw" },
                propagation.as_deref().unwrap_or("rprivate"),
            ];
            mount(target, "bind", source, &words)
        }
        options::Mount::Tmpfs { target, options } => {
            let mut words = vec!["nosuid", "nodev", "noexec"];
            words.retain(|w| !options.iter().any(|o| w.strip_prefix("no") == Some(o)));
            words.extend(options.iter().map(String::as_str));
            mount(target, "tmpfs", &PathBuf::from("tmpfs"), &words)
        }
    }
}
