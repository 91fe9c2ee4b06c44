//! What of the options can be refused before anything is looked up or made: what the machine does not have, and what the
//! kernel would refuse with no more than "invalid argument".

use anyhow::{Result, anyhow};

use crate::error::ResultExt;
use crate::fs;
use crate::spec::options::{Limits, Network, Options};
use crate::spec::resources::first_absent;
use crate::supervisor::KEEP_GROUPS;

/// What is wrong with the options whatever the image, if anything is.
pub(super) fn check(options: &Options) -> Result<()> {
    if let Some(name) = &options.hostname
        && (name.is_empty() || name.len() > 64)
    {
        anyhow::bail!("cannot use the hostname {name:?}: it has 1 to 64 characters");
    }
    check_limits(&options.limits)?;
    check_security(options)?;
    if options.group_add.len() > 1 && options.group_add.iter().any(|group| group == KEEP_GROUPS) {
        return Err(anyhow!("cannot keep the caller's groups and add others"))
            .hint("the kernel lets a user have the one or the other: use --group-add keep-groups alone");
    }
    for key in options.sysctls.keys() {
        let is_private = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|p| key.starts_with(p))
            || matches!(key.as_str(), "kernel.sem" | "kernel.domainname" | "kernel.hostname")
            || (key.starts_with("net.") && options.network != Network::Host);
        if !is_private {
            return Err(anyhow!("cannot set sysctl {key}: it is not a parameter of the container alone")).hint(
                "what has a name space can be set: kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.*, and net.* with a network of its own",
            );
        }
    }
    Ok(())
}

/// Whether the machine has what is asked of its security modules. Words about labels are refused only where they would
/// have a meaning: where there are no labels, none is what they get, as with the peers.
fn check_security(options: &Options) -> Result<()> {
    let is_there = |path: &str| fs::metadata(path.as_ref()).is_ok_and(|meta| meta.is_some());
    if let Some(profile) = options.apparmor.as_ref().filter(|profile| *profile != "unconfined")
        && !is_there("/proc/self/attr/apparmor")
    {
        return Err(anyhow!("cannot use the AppArmor profile {profile}: this machine has no AppArmor"))
            .hint("leave --security-opt apparmor out");
    }
    if let Some(word) = options.selinux.iter().find(|word| *word != "disable")
        && is_there("/sys/fs/selinux/enforce")
    {
        return Err(anyhow!("cannot use the label {word}: containers of dhow have the caller's label"))
            .hint("leave --security-opt label out, or use label=disable, which says so");
    }
    Ok(())
}

/// Whether the processors and memory nodes are there.
pub(super) fn check_limits(limits: &Limits) -> Result<()> {
    refuse_absent("cpuset-cpus", limits.cpuset_cpus.as_deref(), "/sys/devices/system/cpu/online")?;
    refuse_absent("cpuset-mems", limits.cpuset_mems.as_deref(), "/sys/devices/system/node/online")
}

/// The kernel would refuse a processor or node that is not there with no more than "invalid argument".
fn refuse_absent(flag: &str, wanted: Option<&str>, online: &str) -> Result<()> {
    let Some(wanted) = wanted else { return Ok(()) };
    let there = fs::read_to_string_if_exists(online.as_ref())?.unwrap_or_default();
    let Some(absent) = first_absent(wanted, there.trim()) else { return Ok(()) };
    Err(anyhow!("cannot use --{flag} {wanted}: there is no {absent}"))
        .hint(format!("this machine has {}", there.trim()))
}
