//! AppArmor: the profile that the program is to have from its execve(2) on.
//!
//! The kernel's file is opened while /proc is still the host's, because nothing that an image or a volume puts on /proc may
//! catch what is written (CVE-2019-16884); who opened it has to be who writes.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

use crate::error::ResultExt;
use crate::oci::runtime::Process;

/// A profile that was asked for, and where it is to be written.
#[derive(Debug)]
pub(super) struct Profile {
    name: String,
    file: File,
}

/// Opens the file, if the process is to have a profile.
pub(super) fn open(process: &Process) -> Result<Option<Profile>> {
    let Some(name) = process.apparmor_profile().clone().filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let path = Path::new("/proc/thread-self/attr/apparmor/exec");
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, rustix::fs::Mode::empty())
        .with_context(|| format!("cannot use the AppArmor profile {name}: cannot open {}", path.display()))
        .hint("this machine has no AppArmor; leave --security-opt apparmor out")?;
    Ok(Some(Profile { name, file: file.into() }))
}

impl Profile {
    /// The next execve(2) of this process changes to the profile.
    pub(super) fn apply(mut self) -> Result<()> {
        self.file
            .write_all(format!("exec {}", self.name).as_bytes())
            .with_context(|| format!("cannot use the AppArmor profile {}", self.name))
            .hint("load it first: apparmor_parser -r FILE")
    }
}
