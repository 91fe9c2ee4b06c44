//! Secrets in a container: files on a file system in memory. A mount of the type [`SECRETS`] has as its source the
//! directory where the values lie, and an option word for each: `N:UID:GID:MODE:TARGET`, N its name there.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};

use super::mount::{Options, attach, clone_at, make, read_only};
use super::rootfs::Root;
use crate::fs;
use crate::oci::runtime::Mount;
use crate::oci::words::SECRETS;

/// Whether the mount is one of these.
pub fn is_one(mount: &Mount) -> bool {
    mount.typ().as_deref() == Some(SECRETS)
}

struct Given<'a> {
    number: &'a str,
    uid: u32,
    gid: u32,
    mode: u32,
    target: &'a Path,
}

fn parse(word: &str) -> Option<Given<'_>> {
    let mut parts = word.splitn(5, ':');
    Some(Given {
        number: parts.next().filter(|n| n.parse::<u32>().is_ok())?,
        uid: parts.next()?.parse().ok()?,
        gid: parts.next()?.parse().ok()?,
        mode: u32::from_str_radix(parts.next()?, 8).ok()?,
        target: Path::new(parts.next()?),
    })
}

/// Mounts them beneath the root.
pub fn place(root: &Root, mount: &Mount) -> Result<()> {
    let source = mount.source().as_deref().context("secrets lie nowhere")?;
    let dir = mount.destination();
    let words = mount.options().clone().unwrap_or_default();
    let about = || format!("cannot mount secrets on {} in the container", dir.display());
    let attributes = Options {
        // nosuid, nodev, noexec.
        set: 2 | 4 | 8,
        data: vec!["mode=755".into(), format!("size={}", words.len() * 0x80_000 + 0x10_000)],
        ..Options::default()
    };
    let tree = make("tmpfs", Some("tmpfs"), &attributes).with_context(about)?;
    let target = root.create_dir_all(dir, Mode::from_raw_mode(0o755))?;
    attach(&tree, &target).with_context(about)?;
    for word in &words {
        let given = parse(word).with_context(about)?;
        let value = fs::read(&source.join(given.number)).with_context(about)?;
        // One that belongs elsewhere is bound there, and its name here goes.
        let inner = given.target.strip_prefix(dir).ok();
        let own_name = format!(".{}", given.number);
        let name = inner.unwrap_or(Path::new(&own_name));
        let file = write(&tree, name, &value, &given).with_context(about)?;
        if inner.is_none() {
            let bound = clone_at(&file).with_context(about)?;
            read_only(&bound, false).with_context(about)?;
            let place = root.create_file(given.target)?;
            attach(&bound, &place).with_context(|| format!("cannot mount on {}", given.target.display()))?;
            rustix::fs::unlinkat(&tree, name, AtFlags::empty()).with_context(about)?;
        }
    }
    read_only(&tree, false).with_context(about)
}

/// Makes the file, and returns its location.
fn write(tree: &OwnedFd, name: &Path, value: &[u8], given: &Given<'_>) -> Result<OwnedFd> {
    let inside = Root::from(tree.try_clone()?);
    if let Some(parent) = name.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        inside.create_dir_all(&Path::new("/").join(parent), Mode::from_raw_mode(0o755))?;
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
    let mut file = File::from(inside.open(&Path::new("/").join(name), flags, Mode::from_raw_mode(0o600))?);
    file.write_all(value)?;
    let (uid, gid) = (Uid::from_raw(given.uid), Gid::from_raw(given.gid));
    match rustix::fs::fchown(&file, Some(uid), Some(gid)) {
        // A user with one id: all users of the container are that one.
        Err(rustix::io::Errno::INVAL) => {}
        other => other?,
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(given.mode))?;
    Ok(inside.locate(&Path::new("/").join(name))?)
}
