//! /dev of a container: the devices that every container has, those that were asked for, and the links.
//! Source: OCI runtime-spec config-linux.md "Default Devices", and the links that runc makes.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::mount::{attach, clone_tree, parse_options};
use super::rootfs::Root;
use crate::error::ResultExt;
use crate::host::{self, Ids};
use crate::oci::runtime::{LinuxDevice, LinuxDeviceType};

const DEFAULT: &[(&str, u32, u32)] =
    &[("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
];

/// One device to be: its path, type and numbers, mode and owner.
struct Device<'a> {
    path: &'a Path,
    kind: FileType,
    numbers: (u32, u32),
    mode: u32,
    owner: (u32, u32),
}

/// Fills /dev. In a user name space the host's devices are bound in their places: mknod(2) is refused there, or worse,
/// answered by the emulation of a dhow around us, with a file that only looks like a device.
pub fn populate(root: &Root, devices: &[LinuxDevice]) -> Result<()> {
    let can_make = host::current_ids()? == Ids::Root;
    for (name, major, minor) in DEFAULT {
        let path = PathBuf::from("/dev").join(name);
        let device = Device {
            path: &path,
            kind: FileType::CharacterDevice,
            numbers: (*major, *minor),
            mode: 0o666,
            owner: (0, 0),
        };
        make(root, &device, can_make)?;
    }
    for device in devices {
        make(root, &from_spec(device), can_make)?;
    }
    for (target, path) in LINKS {
        root.symlink(target, Path::new(path))?;
    }
    Ok(())
}

/// The same where nothing can be mounted: nodes if they can be made, and else a file in the place of /dev/null, which
/// every shell script writes to. The links of /dev lead to /proc, which is not there.
pub fn populate_by_hand(root: &Root) -> Result<()> {
    let dir = root.create_dir_all(Path::new("/dev"), Mode::from_raw_mode(0o755))?;
    for (name, major, minor) in DEFAULT {
        let mode = Mode::from_raw_mode(0o666);
        let number = rustix::fs::makedev(*major, *minor);
        let mut made = rustix::fs::mknodat(&dir, *name, FileType::CharacterDevice, mode, number);
        // The emulation of a dhow around us gave a file that stands for it.
        if made.is_ok()
            && !rustix::fs::statat(&dir, *name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|s| s.st_rdev == number)
        {
            let _ = rustix::fs::unlinkat(&dir, *name, AtFlags::empty());
            made = Err(Errno::PERM);
        }
        match made {
            Err(Errno::PERM) if *name == "null" => {
                let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::openat(&dir, *name, flags, mode)
                    .context("cannot make /dev/null in the container")?;
            }
            Ok(()) | Err(Errno::PERM | Errno::EXIST) => {}
            Err(e) => return Err(e).with_context(|| format!("cannot make /dev/{name} in the container")),
        }
    }
    Ok(())
}

fn from_spec(device: &LinuxDevice) -> Device<'_> {
    Device {
        path: device.path(),
        kind: match device.typ() {
            LinuxDeviceType::B => FileType::BlockDevice,
            LinuxDeviceType::P => FileType::Fifo,
            _ => FileType::CharacterDevice,
        },
        numbers: (device.major() as u32, device.minor() as u32),
        mode: device.file_mode().unwrap_or(0o666),
        owner: (device.uid().unwrap_or(0), device.gid().unwrap_or(0)),
    }
}

fn make(root: &Root, device: &Device<'_>, can_make: bool) -> Result<()> {
    let path = device.path;
    let about = || format!("cannot make device {} in the container", path.display());
    if !can_make && device.kind != FileType::Fifo {
        return bind(root, path).with_context(about);
    }
    let dir = root.create_dir_all(path.parent().unwrap_or(Path::new("/")), Mode::from_raw_mode(0o755))?;
    let name = path.file_name().unwrap_or_default();
    let number = rustix::fs::makedev(device.numbers.0, device.numbers.1);
    match rustix::fs::mknodat(&dir, name, device.kind, Mode::from_raw_mode(device.mode), number) {
        // The umask took bits off, and the mode is part of what was asked for.
        Ok(()) => {
            rustix::fs::chmodat(&dir, name, Mode::from_raw_mode(device.mode), AtFlags::empty())
                .with_context(about)?;
            if device.owner != (0, 0) {
                let (uid, gid) =
                    (rustix::fs::Uid::from_raw(device.owner.0), rustix::fs::Gid::from_raw(device.owner.1));
                rustix::fs::chownat(&dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                    .with_context(about)?;
            }
            Ok(())
        }
        Err(Errno::EXIST) => Ok(()),
        Err(Errno::PERM) => bind(root, path).with_context(about),
        Err(e) => Err(e).with_context(about),
    }
}

/// Binds the host's device of the same path.
fn bind(root: &Root, path: &Path) -> Result<()> {
    let host = clone_tree(path, &parse_options(&["nosuid".into(), "noexec".into()]))?;
    attach(&host.tree, root.create_file(path)?)?;
    Ok(())
}

/// Makes `path` the terminal, as the OCI spec asks of /dev/console; `slave` is the pty's own side.
pub fn console(root: &Root, slave: impl AsFd) -> Result<()> {
    // CVE-2025-52565: what is bound is a clone of the descriptor that was opened, never a name inside the container.
    let tree = super::mount::clone_at(slave).context("cannot clone the terminal")?;
    let target = root.create_file(Path::new("/dev/console"))?;
    attach(tree, target).context("cannot mount the terminal on /dev/console").hint("run it without -t")
}
