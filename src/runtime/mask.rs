//! Hiding and write-protecting parts of /proc and /sys.
//!
//! Everything is opened once as a location and checked and mounted upon through that descriptor: a container that shares
//! the mount cannot swap a path between the look and the mount (CVE-2025-31133, CVE-2025-52881).

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::mount::{Options, attach, clone_at, make, read_only};
use super::rootfs::{Root, is_dir};

/// Hides `paths`: a directory behind an empty read-only tmpfs, a file behind /dev/null. Missing ones are fine.
pub fn hide(root: &Root, paths: &[String]) -> Result<()> {
    if paths.is_empty() {
        return Ok(());
    }
    let null = null_device(root)?;
    // One tmpfs serves all directories: cloned, it is the same empty place again.
    let mut empty: Option<OwnedFd> = None;
    for path in paths {
        let about = || format!("cannot hide {path} in the container");
        let target = match root.locate(Path::new(path)) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => continue,
            other => other.with_context(about)?,
        };
        if !is_dir(&target)? {
            attach(clone_at(&null).with_context(about)?, &target).with_context(about)?;
            continue;
        }
        let tree = match &empty {
            Some(first) => clone_at(first).with_context(about)?,
            None => {
                let options = Options { set: 1, ..Options::default() };
                make("tmpfs", Some("tmpfs"), &options).with_context(about)?
            }
        };
        let keep = clone_at(&tree).ok();
        attach(tree, &target).with_context(about)?;
        empty = empty.or(keep);
    }
    Ok(())
}

/// Makes `paths` read-only by mounting each onto itself. Missing ones are fine.
pub fn protect(root: &Root, paths: &[String]) -> Result<()> {
    for path in paths {
        let about = || format!("cannot make {path} read-only in the container");
        let target = match root.locate(Path::new(path)) {
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            other => other.with_context(about)?,
        };
        let tree = clone_at(&target).with_context(about)?;
        read_only(&tree, false).with_context(about)?;
        attach(tree, &target).with_context(about)?;
    }
    Ok(())
}

/// The container's /dev/null, proven to be the device 1:3 and not something that the image put there.
fn null_device(root: &Root) -> Result<OwnedFd> {
    let null = root.locate(Path::new("/dev/null")).context("cannot open /dev/null in the container")?;
    let stat =
        rustix::fs::statat(null.as_fd(), c"", AtFlags::EMPTY_PATH).context("cannot look at /dev/null")?;
    let is_char = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_char_device();
    if !is_char || stat.st_rdev != rustix::fs::makedev(1, 3) {
        bail!("cannot hide paths of /proc: /dev/null in the container is not the null device");
    }
    Ok(null)
}
