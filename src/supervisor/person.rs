//! Making a person at home in a container: known by name there, with a shell, a time zone and a locale that it has.
//!
//! What is written goes to the container's own layer, never to the image: so `useradd` and `passwd` work there afterwards,
//! which a file bound over /etc/passwd would not let them.

use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::Mode;

use super::identity::{drop_capabilities, read_inside};
use crate::fs;
use crate::oci::runtime::Process;
use crate::runtime::rootfs::Root;
use crate::spec::person;
use crate::store::person::Person;

/// Makes `process` the person's: ids, groups, shell, and a locale that the container has. No command: the shell.
pub fn become_person(process: &mut Process, person: &Person, root: &Root) {
    let user = process.user_mut();
    user.set_uid(person.uid);
    user.set_gid(person.gid);
    // The caller's own groups, by which they may open what is shared with them: the kernel lets nobody take on others.
    user.set_additional_gids(None);
    if person.uid != 0 {
        drop_capabilities(process);
    }
    let shell = shell_of(person, root);
    if person.runs_shell {
        process.set_args(Some(vec![shell.clone()]));
    }
    if let Some(env) = process.env_mut() {
        if !env.iter().any(|e| e.starts_with("SHELL=")) {
            env.push(format!("SHELL={shell}"));
        }
        // In a copy of the machine /run is the machine's, where not everybody may make one.
        if root.locate(&runtime_dir(person.uid)).is_err() {
            env.retain(|e| !e.starts_with("XDG_RUNTIME_DIR="));
        }
        keep_known_locales(env, root);
    }
}

/// Writes down in the container who the person is, and what time it is here; what cannot be written is told.
pub fn introduce(person: &Person, root: &Root, warn: &mut dyn FnMut(String)) {
    let Person { name, uid, gid, group, home, .. } = person;
    let line = format!("{name}:x:{uid}:{gid}::{}:{}", home.display(), shell_of(person, root));
    let passwd = person::passwd(&read_inside(root, "/etc/passwd"), name, *uid, &line);
    let groups = person::group(&read_inside(root, "/etc/group"), group, *gid);
    let texts = [("/etc/passwd", passwd), ("/etc/group", groups)];
    let write = || {
        for (path, text) in texts {
            if let Some(text) = text {
                root.create_dir_all(Path::new("/etc"), Mode::from_raw_mode(0o755))?;
                root.replace_file(Path::new(path), text.as_bytes())?;
            }
        }
        set_zone(root)
    };
    let _ = make_runtime_dir(person, root);
    if let Err(error) = write() {
        warn(format!("{name} is not wholly at home here: {}", crate::error::chain(&error)));
    }
}

/// The person's own shell, else what nearly every image has.
fn shell_of(person: &Person, root: &Root) -> String {
    let all = [person.shell.as_str(), "/bin/bash", "/usr/bin/bash"];
    let found = all.into_iter().find(|shell| shell.starts_with('/') && root.locate(Path::new(shell)).is_ok());
    found.unwrap_or("/bin/sh").to_owned()
}

/// Programs complain, line by line, about a locale that is not there; one that always is keeps at least UTF-8.
fn keep_known_locales(env: &mut [String], root: &Root) {
    let has = |path: &str| root.locate(Path::new(path)).is_ok();
    if has("/usr/lib/locale/locale-archive") {
        return;
    }
    for entry in env {
        let Some((key, value)) = entry.split_once('=') else { continue };
        let is_locale = key == "LANG" || key.starts_with("LC_");
        let is_everywhere = value.is_empty() || value == "C" || value == "POSIX" || value.starts_with("C.");
        if is_locale && !is_everywhere && (value.contains('/') || !has(&format!("/usr/lib/locale/{value}"))) {
            *entry = format!("{key}=C.UTF-8");
        }
    }
}

/// More than any zone has.
const MAX_ZONE: u64 = 64 << 10;

/// The machine's /etc/localtime as a file: a link would lead to what the image need not have.
fn set_zone(root: &Root) -> Result<()> {
    let path = Path::new("/etc/localtime");
    if fs::metadata(path)?.is_none() {
        return Ok(());
    }
    let mut zone = Vec::new();
    fs::open(path)?.take(MAX_ZONE).read_to_end(&mut zone).context("cannot read /etc/localtime")?;
    let Ok(file) = root.open_file(path) else {
        // Who finds no zone takes it to be this one (tzset(3)); its rule stands at the end of the file (RFC 8536, 3.3).
        let is_utc = zone.ends_with(b"\nUTC0\n");
        return if is_utc { Ok(()) } else { root.replace_file(path, &zone) };
    };
    let mut there = Vec::new();
    let _ = std::fs::File::from(file).take(MAX_ZONE).read_to_end(&mut there);
    if there == zone { Ok(()) } else { root.replace_file(path, &zone) }
}

/// $XDG_RUNTIME_DIR, which has to belong to its user and to nobody else (XDG Base Directory Specification).
fn make_runtime_dir(person: &Person, root: &Root) -> Result<()> {
    let dir = root.create_dir_all(&runtime_dir(person.uid), Mode::from_raw_mode(0o755))?;
    let by_number = format!("/proc/self/fd/{}", dir.as_raw_fd());
    rustix::fs::chmod(by_number, Mode::from_raw_mode(0o700)).context("cannot set the mode of /run/user")
}

/// Where a person's runtime directory is.
pub fn runtime_dir(uid: u32) -> PathBuf {
    PathBuf::from(format!("/run/user/{uid}"))
}
