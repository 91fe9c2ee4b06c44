//! What the processes of a cgroup use, as far as the kernel counts it there.

use std::path::Path;

use super::dir::Dir;
use super::{Cgroup, Kind};

/// Figures of one moment; `None` where this cgroup does not count that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time so far in nanoseconds.
    pub cpu_nanoseconds: Option<u64>,
    /// Bytes of memory, without what the kernel would give up first (cached files that are not in use).
    pub memory: Option<u64>,
    /// The limit of that in bytes, where there is one.
    pub memory_limit: Option<u64>,
    /// Bytes read from and written to block devices.
    pub block: Option<(u64, u64)>,
    /// Processes and threads.
    pub n_pids: Option<u64>,
}

impl Cgroup {
    /// What is used in it. Nothing is an error: a cgroup that is gone uses nothing that could be told.
    pub fn usage(&self) -> Usage {
        match &self.0 {
            Kind::V1(_) => v1(&self.mounts()),
            Kind::V2(path) => v2(path),
        }
    }
}

fn read(path: &Path, file: &str) -> Option<String> {
    Dir::open(path).ok()??.read(file).ok()
}

fn number(path: &Path, file: &str) -> Option<u64> {
    read(path, file)?.trim().parse().ok()
}

/// The figure after a word at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Limits beyond any machine's memory are none: what v1 says for "max" is the highest multiple of a page.
fn limit(bytes: Option<u64>) -> Option<u64> {
    bytes.filter(|bytes| *bytes < 1 << 60)
}

fn v2(path: &Path) -> Usage {
    let unused = read(path, "memory.stat").and_then(|text| field(&text, "inactive_file")).unwrap_or(0);
    Usage {
        cpu_nanoseconds: read(path, "cpu.stat")
            .and_then(|text| field(&text, "usage_usec"))
            .map(|us| us * 1000),
        memory: number(path, "memory.current").map(|bytes| bytes.saturating_sub(unused)),
        memory_limit: limit(number(path, "memory.max")),
        block: read(path, "io.stat").map(|text| io_stat(&text)),
        n_pids: number(path, "pids.current"),
    }
}

/// `8:0 rbytes=1 wbytes=2 rios=3 ...`, a line for each device.
fn io_stat(text: &str) -> (u64, u64) {
    let sum = |key: &str| {
        text.split_whitespace().filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok()).sum()
    };
    (sum("rbytes="), sum("wbytes="))
}

fn v1(mounts: &[(String, std::path::PathBuf)]) -> Usage {
    let tree =
        |controller: &str| mounts.iter().find(|(name, _)| name == controller).map(|(_, path)| path.as_path());
    let memory = tree("memory");
    let unused =
        memory.and_then(|path| field(&read(path, "memory.stat")?, "total_inactive_file")).unwrap_or(0);
    Usage {
        cpu_nanoseconds: tree("cpuacct").and_then(|path| number(path, "cpuacct.usage")),
        memory: memory
            .and_then(|path| number(path, "memory.usage_in_bytes"))
            .map(|bytes| bytes.saturating_sub(unused)),
        memory_limit: limit(memory.and_then(|path| number(path, "memory.limit_in_bytes"))),
        block: tree("blkio")
            .and_then(|path| read(path, "blkio.throttle.io_service_bytes"))
            .map(|text| service_bytes(&text)),
        n_pids: tree("pids").and_then(|path| number(path, "pids.current")),
    }
}

/// `8:0 Read 1`, a line for each device and direction.
fn service_bytes(text: &str) -> (u64, u64) {
    let sum = |wanted: &str| {
        let of_line = |line: &str| {
            let mut words = line.split_whitespace().skip(1);
            (words.next()? == wanted).then(|| words.next()?.parse::<u64>().ok())?
        };
        text.lines().filter_map(of_line).sum()
    };
    (sum("Read"), sum("Write"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found() {
        assert_eq!(field("usage_usec 12\nuser_usec 7\n", "usage_usec"), Some(12));
        assert_eq!(field("inactive_file_x 1\ninactive_file 2\n", "inactive_file"), Some(2));
        assert_eq!(field("", "x"), None);
        assert_eq!(io_stat("8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=2\n"), (11, 22));
        assert_eq!(service_bytes("8:0 Read 10\n8:0 Write 20\n8:0 Sync 9\n8:16 Read 1\nTotal 31\n"), (11, 20));
        assert_eq!(
            (limit(Some(4096)), limit(Some(0x7fff_ffff_ffff_f000)), limit(None)),
            (Some(4096), None, None)
        );
    }
}
