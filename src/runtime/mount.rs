//! Mounts of a container: options as text -> attributes, and putting them beneath its root. New mount API throughout:
//! what is mounted and where it goes are both descriptors, so no name is resolved twice.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use super::rootfs::{Root, is_dir, is_proc};
use super::secrets;
use crate::error::ResultExt;
use crate::fs;
use crate::oci::runtime::Mount;
use crate::oci::words::{OPTIONAL, OWN, READ_ONLY_ALONE, SUBPATH};
use crate::sys::mount::{MountAttr, mount_setattr};
use crate::sys::process::join_namespaces;

const ATIME_MASK: u64 = 0x70;
const AT_RECURSIVE: u32 = libc::AT_RECURSIVE as u32;
const AT_EMPTY_PATH: u32 = libc::AT_EMPTY_PATH as u32;

/// What the options of a mount mean, apart from the file system's own.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
pub struct Options {
    /// MOUNT_ATTR_* to set.
    pub set: u64,
    /// MOUNT_ATTR_* to clear.
    pub clear: u64,
    /// MS_PRIVATE and the like, 0 where nothing was said.
    pub propagation: u64,
    /// Whether it is a bind mount.
    pub bind: bool,
    /// Whether submounts come along.
    pub recursive: bool,
    /// What is mounted of the source; all of it without.
    pub subpath: Option<PathBuf>,
    /// Whether submounts stay writable.
    pub read_only_alone: bool,
    /// What is left for the file system: `size=64m`.
    pub data: Vec<String>,
}

/// The option words of mount(8): word, bits set, bits cleared.
const ATTRIBUTES: &[(&str, u64, u64)] = &[
    ("ro", 1, 0),
    ("rw", 0, 1),
    ("nosuid", 2, 0),
    ("suid", 0, 2),
    ("nodev", 4, 0),
    ("dev", 0, 4),
    ("noexec", 8, 0),
    ("exec", 0, 8),
    ("relatime", 0, ATIME_MASK),
    ("noatime", 0x10, ATIME_MASK),
    ("strictatime", 0x20, ATIME_MASK),
    ("nodiratime", 0x80, 0),
    ("diratime", 0, 0x80),
    ("nosymfollow", 0x20_0000, 0),
    ("symfollow", 0, 0x20_0000),
];

const PROPAGATIONS: &[(&str, u64)] = &[
    ("private", libc::MS_PRIVATE),
    ("shared", libc::MS_SHARED),
    ("slave", libc::MS_SLAVE),
    ("unbindable", libc::MS_UNBINDABLE),
];

/// Sorts option words by what they are about. Words with an `r` in front of a propagation mean the same here: trees are
/// always changed whole.
pub fn parse_options(words: &[String]) -> Options {
    let mut options = Options::default();
    for word in words {
        let bare =
            word.strip_prefix('r').filter(|w| PROPAGATIONS.iter().any(|(p, _)| p == w)).unwrap_or(word);
        if let Some((_, set, clear)) = ATTRIBUTES.iter().find(|(name, ..)| name == word) {
            options.set = (options.set & !clear) | set;
            options.clear = (options.clear & !set) | clear;
        } else if let Some((_, flag)) = PROPAGATIONS.iter().find(|(name, _)| *name == bare) {
            options.propagation = *flag;
        } else {
            match word.as_str() {
                "bind" => options.bind = true,
                "rbind" => (options.bind, options.recursive) = (true, true),
                "defaults" | "async" | "nomand" | "idmap" | "ridmap" | OWN | OPTIONAL => {}
                READ_ONLY_ALONE => options.read_only_alone = true,
                _ if word.starts_with(SUBPATH) => options.subpath = Some(word[SUBPATH.len()..].into()),
                _ => options.data.push(word.clone()),
            }
        }
    }
    options
}

/// A mount that is made but not yet anywhere.
#[derive(Debug)]
pub struct Detached {
    /// The mount.
    pub tree: OwnedFd,
    /// Whether its root is a directory.
    pub is_dir: bool,
}

/// Clones the mount tree at a host path, with these options. Done before propagation from the host is cut, so that a
/// `shared` volume stays a peer of the host's.
pub fn clone_tree(source: &Path, options: &Options) -> Result<Detached> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if options.recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let about = || format!("cannot bind {}", source.display());
    let tree = match &options.subpath {
        None => rustix::mount::open_tree(CWD, source, flags).with_context(about)?,
        // By descriptor: what is in the source may be changed while we look (CVE-2024-23651).
        Some(path) => {
            let inner = locate_beneath(&Root::open_host(source)?, path).with_context(about)?;
            rustix::mount::open_tree(&inner, c"", flags | OpenTreeFlags::AT_EMPTY_PATH).with_context(about)?
        }
    };
    let is_dir = is_dir(&tree)?;
    let about = || format!("cannot set mount options on {}", source.display());
    if options.read_only_alone {
        let all = Options { set: options.set & !1, ..options.clone() };
        set_attributes(&tree, &all, options.recursive).with_context(about)?;
        read_only(&tree, false).with_context(about)?;
    } else {
        set_attributes(&tree, options, options.recursive).with_context(about)?;
    }
    Ok(Detached { tree, is_dir })
}

/// The /dev/shm of the container whose mount name space is at this path: only there can it be cloned (open_tree(2)). We go
/// there for a moment, and are single-threaded.
pub fn shm_of(namespace: &Path) -> Result<Detached> {
    let about = "cannot take the other container's /dev/shm";
    let (own, other) = (fs::open(Path::new("/proc/self/ns/mnt"))?, fs::open(namespace)?);
    let cwd = rustix::fs::open(".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).context(about)?;
    join_namespaces(&other, libc::CLONE_NEWNS).context(about)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(CWD, "/dev/shm", flags | OpenTreeFlags::AT_SYMLINK_NOFOLLOW);
    join_namespaces(&own, libc::CLONE_NEWNS).context("cannot come back to our own mounts")?;
    rustix::process::fchdir(&cwd).context("cannot come back to our own mounts")?;
    let tree = tree.context(about)?;
    Ok(Detached { is_dir: is_dir(&tree)?, tree })
}

/// What a subpath leads to; its symlinks lead nowhere else.
fn locate_beneath(root: &Root, path: &Path) -> Result<OwnedFd> {
    let about = || format!("cannot use its subpath {}", path.display());
    root.locate(path).with_context(about).hint("a subpath must exist; its links are followed inside only")
}

/// Changes a detached tree's attributes and propagation.
pub fn set_attributes(tree: impl AsFd, options: &Options, recursive: bool) -> Result<()> {
    let flags = AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    if options.propagation != 0 {
        let attr = MountAttr { propagation: options.propagation, ..MountAttr::default() };
        mount_setattr(&tree, c"", flags, &attr)?;
    }
    // Only what takes rights away is applied: a mount that came with nosuid or nodev is locked that way in a user name
    // space, and giving back is not ours to do.
    let atime = options.set & ATIME_MASK != 0 || options.clear & ATIME_MASK == ATIME_MASK;
    let clear = if atime { ATIME_MASK } else { 0 };
    if options.set == 0 {
        return Ok(());
    }
    let attr = MountAttr { attr_set: options.set, attr_clr: clear, ..MountAttr::default() };
    mount_setattr(&tree, c"", flags, &attr)?;
    Ok(())
}

/// Makes a new file system of this type.
pub fn make(fs_type: &str, source: Option<&str>, options: &Options) -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(fs_type, FsOpenFlags::FSOPEN_CLOEXEC)?;
    if let Some(source) = source {
        rustix::mount::fsconfig_set_string(&context, "source", source)?;
    }
    for word in &options.data {
        match word.split_once('=') {
            Some((key, value)) => rustix::mount::fsconfig_set_string(&context, key, value)?,
            None => rustix::mount::fsconfig_set_flag(&context, word.as_str())?,
        }
    }
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::from_bits_retain(options.set as u32);
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Puts a detached mount on top of a location.
pub fn attach(tree: impl AsFd, target: impl AsFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(&tree, c"", &target, c"", flags)
}

/// A part of a file system that was just made. What is mounted nowhere cannot be cloned (open_tree(2)), so it covers the
/// container's root for that moment.
fn part_of(root: &Root, tree: OwnedFd, path: &Path) -> Result<(OwnedFd, bool)> {
    attach(&tree, root).context("cannot look into it")?;
    let tree = Root::from(tree);
    let part = locate_beneath(&tree, path).and_then(|inner| Ok((clone_at(&inner)?, is_dir(&inner)?)));
    let by_number = format!("/proc/self/fd/{}", tree.as_fd().as_raw_fd());
    rustix::mount::unmount(by_number, rustix::mount::UnmountFlags::DETACH)
        .context("cannot take it away again")?;
    part
}

/// Puts a mount that the spec asks for beneath the root. `detached` is its tree if it is a bind mount.
pub fn place(root: &Root, mount: &Mount, detached: Option<Detached>) -> Result<()> {
    if secrets::is_one(mount) {
        return secrets::place(root, mount);
    }
    let destination = mount.destination();
    let about = || format!("cannot mount on {} in the container", destination.display());
    let (tree, is_dir) = match detached {
        Some(d) => (d.tree, d.is_dir),
        None => {
            let tree = file_system(mount).with_context(about)?;
            match parse_options(mount.options().as_deref().unwrap_or_default()).subpath {
                None => (tree, true),
                Some(path) => part_of(root, tree, &path).with_context(about)?,
            }
        }
    };
    let target = if is_dir {
        root.create_dir_all(destination, Mode::from_raw_mode(0o755))?
    } else {
        root.create_file(destination)?
    };
    check_target(root, mount, &target).with_context(about)?;
    if is_dir != self::is_dir(&target)? {
        return Err(anyhow::anyhow!("one of source and destination is a directory, the other is not"))
            .with_context(about);
    }
    attach(&tree, &target).with_context(about)
}

/// An image that has a symlink where proc belongs, or one into proc where a file of ours goes, has the wrong thing
/// covered or masked (CVE-2019-16884, CVE-2023-28642).
fn check_target(root: &Root, mount: &Mount, target: &OwnedFd) -> Result<()> {
    let destination = mount.destination();
    if matches!(mount.typ().as_deref(), Some("proc" | "sysfs")) {
        anyhow::ensure!(!root.is_symlink(destination)?, "it is a symlink in the image");
    }
    if !destination.starts_with("/proc") {
        anyhow::ensure!(!is_proc(target)?, "a symlink of the image leads into /proc from there");
    }
    Ok(())
}

/// Makes the file system of a mount that is no bind mount. Where the kernel refuses proc or sysfs (we are in a container
/// whose own are masked, or on a network that is not ours) the outer one is bound instead: less private, but it works.
pub fn file_system(mount: &Mount) -> Result<OwnedFd> {
    let words = mount.options().clone().unwrap_or_default();
    let options = parse_options(&words);
    let fs_type = mount.typ().as_deref().unwrap_or("none");
    let source = mount.source().as_ref().and_then(|s| s.to_str());
    let outer = match fs_type {
        "proc" => Some(Path::new("/proc")),
        "sysfs" => Some(Path::new("/sys")),
        "mqueue" => Some(Path::new("/dev/mqueue")),
        _ => None,
    };
    match (make(fs_type, source, &options), outer) {
        (Ok(tree), _) => Ok(tree),
        (Err(Errno::PERM | Errno::ACCESS | Errno::BUSY), Some(outer)) => {
            let bound = Options { recursive: true, data: Vec::new(), ..options };
            Ok(clone_tree(outer, &bound)?.tree)
        }
        (Err(Errno::NODEV), _) => Err(anyhow::anyhow!("this kernel has no file system {fs_type}")),
        (Err(Errno::INVAL), _) => {
            Err(anyhow::anyhow!("{fs_type} does not take the options {}", words.join(",")))
                .hint("look at the options of --tmpfs or --mount")
        }
        (Err(e), _) => Err(e).with_context(|| format!("cannot make a {fs_type}")),
    }
}

/// Cuts propagation between our mount name space and the one that it was copied from.
pub fn cut_propagation() -> Result<()> {
    let attr = MountAttr { propagation: libc::MS_SLAVE, ..MountAttr::default() };
    mount_setattr(CWD, c"/", AT_RECURSIVE, &attr).context("cannot cut mount propagation from the host")
}

/// Makes the mount at `path` (and below) read-only, as the masks and `--read-only` do.
pub fn read_only(location: impl AsFd, recursive: bool) -> Result<()> {
    let options = Options { set: 1, ..Options::default() };
    set_attributes(location, &options, recursive)
}

/// Clones the tree at a location, without submounts.
pub fn clone_at(location: impl AsFd) -> rustix::io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(location, c"", flags)
}

/// A path as the C string that the kernel takes.
pub fn c_path(path: &Path) -> Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).with_context(|| format!("{} holds a NUL byte", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_sort_into_attributes_propagation_and_data() {
        let check = |text: &str, want: Options| {
            let words: Vec<String> = text.split(',').map(str::to_owned).collect();
            assert_eq!(parse_options(&words), want, "{text}");
        };
        check("ro,nosuid", Options { set: 3, ..Options::default() });
        check("ro,rw", Options { clear: 1, ..Options::default() });
        check(
            "rbind,rprivate",
            Options { bind: true, recursive: true, propagation: libc::MS_PRIVATE, ..Options::default() },
        );
        check(
            "size=64k,mode=1777",
            Options { data: vec!["size=64k".into(), "mode=1777".into()], ..Options::default() },
        );
        check("noatime", Options { set: 0x10, clear: ATIME_MASK, ..Options::default() });
    }
}
