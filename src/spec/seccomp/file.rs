//! Reads profile files. Docker's format is OCI's with conditions: `archMap` instead of `architectures`, and on each entry of
//! `syscalls` an `includes` and an `excludes`, and an old `name` beside `names`. Fields that neither format has are passed
//! over, as docker does.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error, StrDeserializer};

use super::{Machine, is_held, kernel_version, machine_name};
use crate::oci::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSyscall,
};

/// The file. Lists may be `null`, which is what Go writes for an empty one.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: Option<LinuxSeccompAction>,
    default_errno_ret: Option<u32>,
    default_errno: Option<String>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<ArchEntry>>,
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    listener_path: Option<PathBuf>,
    listener_metadata: Option<String>,
    syscalls: Option<Vec<Entry>>,
}

/// Names are read as text: most are of machines that we need not know.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchEntry {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    errno: Option<String>,
    args: Option<Vec<LinuxSeccompArg>>,
    includes: Option<Filter>,
    excludes: Option<Filter>,
}

/// A list of conditions; what is empty says nothing.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// Reads `json` for `machine`; entries that are not for it are left out.
pub(super) fn read(json: &str, machine: &Machine<'_>) -> Result<LinuxSeccomp> {
    let file: Profile = serde_json::from_str(json)?;
    let Some(default_action) = file.default_action else { bail!("it has no defaultAction") };
    no_errno_name(file.default_errno, file.default_errno_ret)?;
    let mut syscalls = Vec::new();
    for (n, entry) in file.syscalls.into_iter().flatten().enumerate() {
        syscalls.extend(resolve(entry, machine).with_context(|| format!("syscalls[{n}]"))?);
    }
    let mut profile = LinuxSeccomp::default();
    profile.set_default_action(default_action);
    profile.set_default_errno_ret(file.default_errno_ret);
    profile.set_architectures(architectures(file.architectures, file.arch_map, machine)?);
    profile.set_flags(file.flags);
    profile.set_listener_path(file.listener_path);
    profile.set_listener_metadata(file.listener_metadata);
    profile.set_syscalls(Some(syscalls));
    Ok(profile)
}

fn architectures(
    list: Option<Vec<String>>,
    map: Option<Vec<ArchEntry>>,
    machine: &Machine<'_>,
) -> Result<Option<Vec<Arch>>> {
    let (list, map) = (list.unwrap_or_default(), map.unwrap_or_default());
    if !list.is_empty() && !map.is_empty() {
        bail!("it has both architectures and archMap: keep one");
    }
    let native = machine.arch.to_string();
    let names = match map.into_iter().find(|entry| entry.architecture == native) {
        Some(entry) => [vec![native], entry.sub_architectures.unwrap_or_default()].concat(),
        None => list,
    };
    let arch = |name: String| {
        let text: StrDeserializer<'_, Error> = name.as_str().into_deserializer();
        Arch::deserialize(text).map_err(|_| anyhow!("no such architecture: {name}"))
    };
    let arches: Vec<Arch> = names.into_iter().map(arch).collect::<Result<_>>()?;
    Ok((!arches.is_empty()).then_some(arches))
}

fn resolve(entry: Entry, machine: &Machine<'_>) -> Result<Option<LinuxSyscall>> {
    let names = match (entry.name.filter(|name| !name.is_empty()), entry.names.unwrap_or_default()) {
        (Some(_), names) if !names.is_empty() => bail!("it has both name and names: keep one"),
        (Some(name), _) => vec![name],
        (None, names) if names.is_empty() => bail!("it names no system call"),
        (None, names) => names,
    };
    let excluded = entry.excludes.map(|filter| filter.answers(machine)).transpose().context("excludes")?;
    let included = entry.includes.map(|filter| filter.answers(machine)).transpose().context("includes")?;
    if excluded.into_iter().flatten().any(|yes| yes) || !included.into_iter().flatten().all(|yes| yes) {
        return Ok(None);
    }
    no_errno_name(entry.errno, entry.errno_ret)?;
    let mut syscall = LinuxSyscall::default();
    syscall.set_names(names);
    syscall.set_action(entry.action);
    syscall.set_errno_ret(entry.errno_ret);
    syscall.set_args(entry.args.filter(|args| !args.is_empty()));
    Ok(Some(syscall))
}

impl Filter {
    /// Whether each single condition is met. `includes` wants all, `excludes` any.
    fn answers(self, machine: &Machine<'_>) -> Result<Vec<bool>> {
        let caps = self.caps.unwrap_or_default();
        let mut answers: Vec<bool> = caps.iter().map(|name| is_held(name, machine.capabilities)).collect();
        if let Some(arches) = self.arches.filter(|arches| !arches.is_empty()) {
            answers.push(arches.iter().any(|name| name == machine_name(machine.arch)));
        }
        if let Some(version) = self.min_kernel.filter(|version| !version.is_empty()) {
            let Some(version) = kernel_version(&version) else {
                bail!("minKernel: {version:?} is not a version")
            };
            answers.push(machine.kernel >= version);
        }
        Ok(answers)
    }
}

/// Podman's profiles have the errno a second time as a name. We read the number; a name alone would be read as EPERM.
fn no_errno_name(name: Option<String>, number: Option<u32>) -> Result<()> {
    match name {
        Some(name) if !name.is_empty() && number.is_none() => {
            bail!("it has the errno {name} as a name only: add errnoRet")
        }
        _ => Ok(()),
    }
}
