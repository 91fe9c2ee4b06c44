//! Seccomp profiles: docker's default one, and files in docker's format or OCI's. A profile here may depend on the machine and
//! on the container's capabilities; what comes out is an `oci::runtime::LinuxSeccomp` that depends on nothing.
//!
//! Compiling it is `runtime::seccomp`. "No profile" (`unconfined`, privileged containers) is the caller's decision.
//!
//! Invariant: capabilities are those of the bounding set, the most that a process in the container can ever have.

mod default;
mod file;
#[cfg(test)]
mod tests;

use anyhow::{Context, Result};

use crate::oci::runtime::{Arch, Capabilities, Capability, LinuxSeccomp};
use crate::runtime::seccomp::{NATIVE, compile};

/// What a conditional rule may ask about.
struct Machine<'a> {
    arch: Arch,
    /// The kernel's version and major revision: (6, 18).
    kernel: (u32, u32),
    capabilities: &'a Capabilities,
}

/// Docker's default profile for a container with `capabilities` on this machine.
pub fn default_profile(capabilities: &Capabilities) -> LinuxSeccomp {
    default::profile(NATIVE, capabilities)
}

/// A profile as text: docker's format (`archMap`, `includes`, `excludes`, `name`) or OCI's, of which the former is a superset.
/// Compiles it once, so that a profile that no container could start with is refused here, where a person can be told.
pub fn from_text(json: &str, capabilities: &Capabilities) -> Result<LinuxSeccomp> {
    let machine = Machine { arch: NATIVE, kernel: running_kernel(), capabilities };
    let profile = file::read(json, &machine).context("cannot read the seccomp profile")?;
    compile(&profile)?;
    Ok(profile)
}

fn running_kernel() -> (u32, u32) {
    kernel_version(&rustix::system::uname().release().to_string_lossy()).unwrap_or_default()
}

/// The two leading numbers of `6.1.0-13-amd64` or `4.8`.
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let (version, rest) = release.split_once('.')?;
    let revision = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((version.parse().ok()?, revision.parse().ok()?))
}

/// What docker's profiles call the machine (the Go toolchain's words).
fn machine_name(arch: Arch) -> &'static str {
    if arch == Arch::ScmpArchAarch64 { "arm64" } else { "amd64" }
}

/// Whether the capability of that name, `CAP_` included, is among `capabilities`. A name we do not know is not.
fn is_held(name: &str, capabilities: &Capabilities) -> bool {
    let known = name.strip_prefix("CAP_").and_then(|name| name.parse::<Capability>().ok());
    known.is_some_and(|capability| capabilities.contains(&capability))
}
