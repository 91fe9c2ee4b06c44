//! Image config + options + facts -> the OCI runtime spec. Pure: nothing is opened here.

pub mod capabilities;
mod hidden;
pub mod mount;
pub mod mounts;
pub mod options;
pub mod person;
mod process;
pub mod resources;
pub mod seccomp;
pub mod share;
pub mod user;

use std::path::Path;

use anyhow::{Context, Result};

use crate::oci::image::ImageConfiguration;
use crate::oci::runtime::{
    Capabilities, Linux, LinuxBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType,
    LinuxSeccomp, RootBuilder, Spec, SpecBuilder, get_default_maskedpaths, get_default_readonly_paths,
};
pub use options::Options;
use options::{Network, Seccomp, Share};

/// What the machine contributes.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The bundle: hosts, hostname and resolv.conf lie there.
    pub dir: &'a Path,
    /// Capabilities that can be given.
    pub capabilities: Capabilities,
    /// Whether we are root of the machine, and so the one to guard its devices.
    pub guards_devices: bool,
    /// Devices that were asked for, looked up on the host; with `privileged` all of them.
    pub devices: Vec<crate::oci::runtime::LinuxDevice>,
    /// Devices that are bound, not made: path on the host, path in the container.
    pub device_binds: Vec<(std::path::PathBuf, std::path::PathBuf)>,
    /// Where the values of secrets lie.
    pub secrets: std::path::PathBuf,
    /// Whether the bundle has the time zone's file, `localtime`.
    pub has_zone: bool,
    /// Whether the host's message queues are mounted on /dev/mqueue.
    pub has_mqueue: bool,
    /// The machine's name.
    pub host_name: String,
    /// What volumes and images are as mounts.
    pub places: mounts::Places,
}

/// Builds the spec. The user stays root here: names can only be looked up once the root is mounted.
pub fn build(image: Option<&ImageConfiguration>, options: &Options, facts: &Facts<'_>) -> Result<Spec> {
    let caps =
        capabilities::choose(&options.cap_add, &options.cap_drop, options.privileged, &facts.capabilities)?;
    let seccomp = choose_seccomp(options, &caps)?;
    let hostname = hostname(options, facts);
    let root = RootBuilder::default().path("merged").readonly(options.read_only).build()?;
    let mut spec = SpecBuilder::default()
        .version("1.2.0")
        .root(root)
        .process(process::build(image, options, &hostname, caps)?)
        .mounts(mounts::build(options, facts))
        .linux(linux(options, facts, seccomp)?)
        .build()
        .context("cannot build the container's spec")?;
    // The host's name is the host's to set.
    spec.set_hostname(options.uts.is_own().then(|| hostname.clone()));
    if let Some(name) = &options.domainname {
        spec.set_domainname(Some(name.clone()));
    }
    if !options.annotations.is_empty() {
        spec.set_annotations(Some(options.annotations.clone().into_iter().collect()));
    }
    Ok(spec)
}

/// What /etc/hostname will say.
pub fn hostname(options: &Options, facts: &Facts<'_>) -> String {
    match (&options.hostname, &options.network) {
        (Some(name), _) => name.clone(),
        (None, Network::Host) if options.uts.is_own() => facts.host_name.clone(),
        (None, _) if !options.uts.is_own() => facts.host_name.clone(),
        (None, _) => facts.id[..12].to_owned(),
    }
}

fn choose_seccomp(options: &Options, caps: &Capabilities) -> Result<Option<LinuxSeccomp>> {
    Ok(match &options.seccomp {
        _ if options.privileged => None,
        Seccomp::Unconfined => None,
        Seccomp::Default => Some(seccomp::default_profile(caps)),
        Seccomp::Profile { path, text } => {
            Some(seccomp::from_text(text, caps).with_context(|| format!("cannot use {path}"))?)
        }
    })
}

fn linux(options: &Options, facts: &Facts<'_>, seccomp: Option<LinuxSeccomp>) -> Result<Linux> {
    let mut masked = hidden::paths(masked_paths(), options);
    masked.extend(options.mask.iter().cloned());
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(options)?)
        .cgroups_path(format!("{}/{}", options.cgroup_parent.as_deref().unwrap_or("dhow"), facts.id))
        .resources(resources::build(options, facts)?)
        .devices(facts.devices.clone())
        .masked_paths(masked)
        .readonly_paths(hidden::paths(get_default_readonly_paths(), options))
        .sysctl(options.sysctls.clone().into_iter().collect::<std::collections::HashMap<_, _>>())
        .build()?;
    if options.no_cgroup {
        linux.set_resources(None);
    }
    linux.set_seccomp(seccomp);
    Ok(linux)
}

fn namespaces(options: &Options) -> Result<Vec<LinuxNamespace>> {
    let network = match &options.network {
        Network::Host => Share::Host,
        Network::Container(id) => Share::Container(id.clone()),
        _ => Share::Private,
    };
    let cgroups = if options.host_cgroups { Share::Host } else { Share::Private };
    let kinds = [
        (LinuxNamespaceType::Pid, &options.pid),
        (LinuxNamespaceType::Mount, &Share::Private),
        (LinuxNamespaceType::Uts, &options.uts),
        (LinuxNamespaceType::Ipc, &options.ipc),
        (LinuxNamespaceType::Cgroup, &cgroups),
        (LinuxNamespaceType::Network, &network),
    ];
    let kinds = kinds.into_iter().filter(|(_, share)| **share != Share::Host);
    let namespace = |(kind, share): (LinuxNamespaceType, &Share)| {
        let namespace = LinuxNamespaceBuilder::default().typ(kind);
        // The path of another container's is known when that runs: see the supervisor.
        let path = share.container().map(|id| format!("{}{id}", share::OF_CONTAINER));
        let namespace = match path {
            Some(path) => namespace.path(path),
            None => namespace,
        };
        Ok(namespace.build()?)
    };
    kinds.map(namespace).collect()
}

/// Docker hides these; the crate's list lacks the newer ones.
fn masked_paths() -> Vec<String> {
    let mut paths = get_default_maskedpaths();
    for path in [
        "/proc/interrupts",
        "/sys/devices/virtual/powercap",
        "/proc/asound",
        "/proc/acpi",
        "/proc/latency_stats",
    ] {
        if !paths.iter().any(|p| p == path) {
            paths.push(path.to_owned());
        }
    }
    paths
}
