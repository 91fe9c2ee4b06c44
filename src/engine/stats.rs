//! stats: what a container uses at one moment. From its cgroup what that counts, the rest from its processes.

use std::path::Path;

use anyhow::Result;

use super::processes::{self, Process, TICKS};
use super::{Engine, reap};
use crate::fs;
use crate::runtime::cgroup::{Cgroup, Usage};
use crate::store::container::{ContainerDir, Record, State};

/// What is used. Nothing at all by a container that does not run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// Processor time so far in nanoseconds.
    pub cpu_nanoseconds: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// How many it may have: its limit, or what the machine has.
    pub memory_limit: u64,
    /// Bytes received and sent; of a container with a network of its own only.
    pub network: (u64, u64),
    /// Bytes read from and written to block devices.
    pub block: (u64, u64),
    /// Processes and threads.
    pub n_pids: u64,
}

/// What a container uses now.
pub fn sample(engine: &Engine, record: &Record) -> Result<Sample> {
    let dir = ContainerDir::of(&engine.store, &record.id);
    let status = reap::settled(&engine.store, &dir)?;
    Ok(status.run().map_or_else(Sample::default, |state| of_running(record, state)))
}

fn of_running(record: &Record, state: &State) -> Sample {
    let cgroup: Option<Cgroup> = state.cgroup.clone().and_then(|cgroup| serde_json::from_value(cgroup).ok());
    let counted = cgroup.map(|cgroup| cgroup.usage()).unwrap_or_default();
    let all = match is_complete(&counted) {
        true => Vec::new(),
        false => processes::of(state).unwrap_or_default(),
    };
    let sum = |of: &dyn Fn(&Process) -> u64| all.iter().map(of).sum::<u64>();
    let machine = processes::total_memory();
    let block = || {
        let each = all.iter().map(|process| processes::block_bytes(process.pid));
        each.fold((0, 0), |(read, written), (r, w)| (read + r, written + w))
    };
    // Docker counts nothing of a network that is somebody else's.
    let is_own = matches!(record.options.get("network").and_then(|n| n.as_str()), Some("None" | "Own"));
    Sample {
        cpu_nanoseconds: counted.cpu_nanoseconds.unwrap_or_else(|| sum(&|p| p.cpu) * (1_000_000_000 / TICKS)),
        memory: counted.memory.unwrap_or_else(|| sum(&|p| p.resident)),
        memory_limit: counted.memory_limit.map_or(machine, |limit| limit.min(machine)),
        network: if is_own { network(state.init.pid) } else { (0, 0) },
        block: counted.block.unwrap_or_else(block),
        n_pids: counted.n_pids.unwrap_or_else(|| sum(&|p| p.n_threads)),
    }
}

fn is_complete(usage: &Usage) -> bool {
    usage.cpu_nanoseconds.is_some()
        && usage.memory.is_some()
        && usage.block.is_some()
        && usage.n_pids.is_some()
}

/// Bytes received and sent through all devices but loopback (proc_pid_net(5), dev).
fn network(pid: i32) -> (u64, u64) {
    let text = fs::read_to_string(Path::new(&format!("/proc/{pid}/net/dev"))).unwrap_or_default();
    net_dev(&text)
}

fn net_dev(text: &str) -> (u64, u64) {
    let mut sum = (0, 0);
    for line in text.lines() {
        let Some((name, figures)) = line.split_once(':') else { continue };
        if name.trim() == "lo" {
            continue;
        }
        let figures: Vec<u64> = figures.split_whitespace().filter_map(|f| f.parse().ok()).collect();
        sum.0 += figures.first().unwrap_or(&0);
        sum.1 += figures.get(8).unwrap_or(&0);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_does_not_count() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n  eth0: 10 1 0 0 0 0 0 0 20 1 0 0 0 0 0 0\n eth1:1 1 0 0 0 0 0 0 2 1 0 0 0 0 0 0\n";
        assert_eq!(net_dev(text), (11, 22));
        assert_eq!(net_dev(""), (0, 0));
    }
}
