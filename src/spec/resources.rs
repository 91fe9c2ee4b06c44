//! The cgroup part of the spec: limits, and which devices may be used.

use anyhow::{Context, Result, bail};

use super::Facts;
use super::options::{Limits, Options};
use crate::error::ResultExt;
use crate::oci::runtime::{
    LinuxCpu, LinuxCpuBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxMemory,
    LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources,
};

const PERIOD: u64 = 100_000;
/// Docker's least memory limit.
const LEAST_MEMORY: i64 = 6 << 20;

pub(super) fn build(options: &Options, facts: &Facts<'_>) -> Result<LinuxResources> {
    let mut resources = limited(&options.limits)?;
    if facts.guards_devices {
        resources.set_devices(Some(devices(options, facts)?));
    }
    Ok(resources)
}

/// The limits alone, with no device rules.
pub fn limited(limits: &Limits) -> Result<LinuxResources> {
    let mut resources = LinuxResources::default();
    resources.set_memory(memory(limits)?);
    resources.set_cpu(cpu(limits)?);
    if let Some(pids) = limits.pids.filter(|n| *n != 0) {
        resources.set_pids(Some(LinuxPidsBuilder::default().limit(pids).build()?));
    }
    Ok(resources)
}

fn memory(limits: &Limits) -> Result<Option<LinuxMemory>> {
    let Limits { memory, memory_swap, memory_reservation, .. } = limits;
    if memory.is_none() && memory_swap.is_none() && memory_reservation.is_none() {
        return Ok(None);
    }
    if memory.is_some_and(|m| m < LEAST_MEMORY) {
        bail!("cannot limit memory to {} bytes: the least is 6 MiB", memory.unwrap_or(0));
    }
    let mut built = LinuxMemoryBuilder::default();
    match (*memory, *memory_swap) {
        (None, Some(_)) => {
            return Err(anyhow::anyhow!("cannot limit swap alone")).hint("give --memory too");
        }
        (Some(m), Some(swap)) if swap != -1 && swap < m => {
            return Err(anyhow::anyhow!("cannot limit memory and swap together to less than memory alone"))
                .hint("--memory-swap counts memory too; give at least --memory, or -1");
        }
        // Docker's default: as much swap as memory.
        (Some(m), None) => built = built.limit(m).swap(default_swap(m)),
        (Some(m), Some(swap)) => built = built.limit(m).swap(swap),
        (None, None) => {}
    }
    if let Some(reservation) = *memory_reservation {
        if memory.is_some_and(|m| m < reservation) {
            return Err(anyhow::anyhow!("cannot reserve more memory than the limit"))
                .hint("give --memory at least as much as --memory-reservation");
        }
        built = built.reservation(reservation);
    }
    Ok(Some(built.build()?))
}

/// Memory and swap together, where only memory was limited.
pub fn default_swap(memory: i64) -> i64 {
    memory.saturating_mul(2)
}

fn cpu(limits: &Limits) -> Result<Option<LinuxCpu>> {
    let mut built = LinuxCpuBuilder::default();
    let mut asked = false;
    if let Some(nano) = limits.nano_cpus.filter(|n| *n != 0) {
        if limits.cpu_quota.is_some() || limits.cpu_period.is_some() {
            bail!("cannot use --cpus together with --cpu-quota or --cpu-period");
        }
        built = built.quota((nano / (1_000_000_000 / PERIOD)) as i64).period(PERIOD);
        asked = true;
    }
    if let Some(quota) = limits.cpu_quota {
        built = built.quota(quota);
        asked = true;
    }
    if let Some(period) = limits.cpu_period {
        built = built.period(period);
        asked = true;
    }
    if let Some(shares) = limits.cpu_shares.filter(|n| *n != 0) {
        built = built.shares(shares);
        asked = true;
    }
    if let Some(cpus) = &limits.cpuset_cpus {
        built = built.cpus(number_list(cpus).context("cannot use --cpuset-cpus")?);
        asked = true;
    }
    if let Some(mems) = &limits.cpuset_mems {
        built = built.mems(number_list(mems).context("cannot use --cpuset-mems")?);
        asked = true;
    }
    Ok(if asked { Some(built.build()?) } else { None })
}

/// A list such as `0-3,8` (cpuset(7), "List format"). What is no list would be refused by the kernel without a word why.
fn number_list(text: &str) -> Result<String> {
    if ranges(text).is_none() {
        return Err(anyhow::anyhow!("{text:?} is no list of numbers")).hint("write it like 0-3,8");
    }
    Ok(text.to_owned())
}

/// First and last of each range of a list; `None` if it is no list.
fn ranges(text: &str) -> Option<Vec<(u16, u16)>> {
    let range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some((first.parse().ok()?, last.parse().ok()?)).filter(|(first, last)| first <= last)
    };
    text.split(',').map(range).collect()
}

/// The first number of the list `wanted` that is not in the list `there`; `None` too where one of them is no list.
pub fn first_absent(wanted: &str, there: &str) -> Option<u16> {
    let (wanted, there) = (ranges(wanted)?, ranges(there)?);
    let is_there = |n: &u16| there.iter().any(|(first, last)| (first..=last).contains(&n));
    wanted.iter().flat_map(|(first, last)| *first..=*last).find(|n| !is_there(n))
}

fn rule(
    allow: bool,
    kind: LinuxDeviceType,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> Result<LinuxDeviceCgroup> {
    let mut built = LinuxDeviceCgroupBuilder::default().allow(allow).typ(kind).access(access);
    if let Some(major) = major {
        built = built.major(major);
    }
    if let Some(minor) = minor {
        built = built.minor(minor);
    }
    Ok(built.build()?)
}

/// Docker's rules: nodes of any kind may be made, only the harmless ones and those asked for may be used.
fn devices(options: &Options, facts: &Facts<'_>) -> Result<Vec<LinuxDeviceCgroup>> {
    if options.privileged {
        return Ok(vec![rule(true, LinuxDeviceType::A, None, None, "rwm")?]);
    }
    let c = LinuxDeviceType::C;
    let mut rules = vec![
        rule(false, LinuxDeviceType::A, None, None, "rwm")?,
        rule(true, c, None, None, "m")?,
        rule(true, LinuxDeviceType::B, None, None, "m")?,
    ];
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        rules.push(rule(true, c, Some(major), Some(minor), "rwm")?);
    }
    rules.push(rule(true, c, Some(136), None, "rwm")?);
    for device in &facts.devices {
        let asked = options
            .devices
            .iter()
            .find(|d| d.container == *device.path() || device.path().starts_with(&d.container));
        let access = asked.map_or("rwm", |d| d.access.as_str());
        rules.push(rule(true, device.typ(), Some(device.major()), Some(device.minor()), access)?);
    }
    for asked in &options.device_rules {
        let kind = match asked.kind {
            'b' => LinuxDeviceType::B,
            'c' => LinuxDeviceType::C,
            _ => LinuxDeviceType::A,
        };
        rules.push(rule(true, kind, asked.major.map(i64::from), asked.minor.map(i64::from), &asked.access)?);
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_numbers() {
        for good in ["0", "0-3,8", "1,1-1"] {
            assert_eq!(number_list(good).unwrap(), good);
        }
        for bad in ["", "x", "3-1", "1,", "-1", "1-", "1-2-3", "99999", "0 "] {
            assert!(number_list(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_not_there() {
        for (wanted, there, absent) in [
            ("0", "0-1", None),
            ("0-2", "0-1", Some(2)),
            ("1,5", "0-1,5", None),
            ("65535", "0-1", Some(65535)),
            ("x", "0-1", None),
            ("3", "", None),
        ] {
            assert_eq!(first_absent(wanted, there), absent, "{wanted} of {there}");
        }
    }
}
