//! From the runtime spec's resources to cgroup files and what to write there, for v1 and for v2. Pure.
//!
//! Invariant: everything that is asked for ends up in the plan, as a setting or as a refusal with its reason; nothing
//! is dropped in silence. What a new cgroup has anyway ("unlimited") counts as not asked for.

use crate::oci::runtime::LinuxBlockIo;
use crate::oci::runtime::LinuxCpu;
use crate::oci::runtime::LinuxMemory;
use crate::oci::runtime::LinuxResources;
use crate::oci::runtime::LinuxThrottleDevice;

/// One file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// What it is to a user: `memory limit`.
    pub limit: String,
    /// The controller that has the file.
    pub controller: String,
    /// The file.
    pub file: String,
    /// What to write.
    pub value: String,
    /// File and value to use where the kernel lacks the first file.
    pub instead: Option<(String, String)>,
}

/// What to write, in order, and what there is no file for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What to write.
    pub settings: Vec<Setting>,
    /// (limit, why it cannot be had).
    pub refused: Vec<(String, String)>,
}

impl Plan {
    /// Adds a setting; its controller is the file name's first part (`memory.max`).
    fn set(&mut self, limit: &str, file: &str, value: impl ToString) -> &mut Setting {
        let controller = file.split('.').next().unwrap_or_default();
        self.settings.push(Setting {
            limit: limit.to_owned(),
            controller: controller.to_owned(),
            file: file.to_owned(),
            value: value.to_string(),
            instead: None,
        });
        self.settings.last_mut().expect("just pushed")
    }

    fn set_if(&mut self, limit: &str, file: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.set(limit, file, value);
        }
    }

    fn refuse(&mut self, limit: &str, why: &str) {
        self.refused.push((limit.to_owned(), why.to_owned()));
    }

    fn refuse_if(&mut self, asked: bool, limit: &str, why: &str) {
        if asked {
            self.refuse(limit, why);
        }
    }
}

const NOT_IN_V2: &str = "cgroup v2 has no such thing";
const GONE: &str = "the kernel has given it up";
const BAD_NAME: &str = "it has a name that no cgroup file has";

/// The plan for v1; device rules are not in it.
pub fn v1(resources: &LinuxResources) -> Plan {
    let mut plan = Plan::default();
    if let Some(memory) = resources.memory() {
        memory_v1(&mut plan, memory);
    }
    if let Some(cpu) = resources.cpu() {
        cpu_v1(&mut plan, cpu);
    }
    plan.set_if("pids limit", "pids.max", resources.pids().map(|p| p.limit()).filter(|n| *n > 0));
    if let Some(io) = resources.block_io() {
        io_v1(&mut plan, io);
    }
    if let Some(network) = resources.network() {
        plan.set_if("network class", "net_cls.classid", network.class_id());
        for p in network.priorities().iter().flatten() {
            plan.set("network priority", "net_prio.ifpriomap", format!("{} {}", p.name(), p.priority()));
        }
    }
    common(&mut plan, resources, "limit_in_bytes");
    let unified = resources.unified().as_ref().is_some_and(|u| !u.is_empty());
    plan.refuse_if(unified, "unified settings", "they are for cgroup v2, and this machine has v1");
    plan
}

/// The plan for v2; device rules are not in it.
pub fn v2(resources: &LinuxResources) -> Plan {
    let mut plan = Plan::default();
    if let Some(memory) = resources.memory() {
        memory_v2(&mut plan, memory);
    }
    if let Some(cpu) = resources.cpu() {
        cpu_v2(&mut plan, cpu);
    }
    plan.set_if("pids limit", "pids.max", resources.pids().map(|p| p.limit()).filter(|n| *n > 0));
    if let Some(io) = resources.block_io() {
        io_v2(&mut plan, io);
    }
    if let Some(network) = resources.network() {
        plan.refuse_if(network.class_id().is_some(), "network class", NOT_IN_V2);
        plan.refuse_if(network.priorities().is_some(), "network priority", NOT_IN_V2);
    }
    common(&mut plan, resources, "max");
    let mut unified: Vec<_> = resources.unified().iter().flatten().collect();
    unified.sort();
    for (file, value) in unified {
        // The file is opened in the container's cgroup directory: no path, and none of the core files, which would
        // move processes or undo what we did.
        let is_plain =
            file.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
        let is_core = file.starts_with("cgroup.") && !file.starts_with("cgroup.max.");
        if is_plain && !is_core && file.find('.').is_some_and(|at| at > 0) {
            plan.set(file, file, value);
        } else {
            plan.refuse(file, BAD_NAME);
        }
    }
    plan
}

/// What is the same in both but for the name of the file.
fn common(plan: &mut Plan, resources: &LinuxResources, huge_suffix: &str) {
    for huge in resources.hugepage_limits().iter().flatten() {
        if huge.page_size().bytes().all(|b| b.is_ascii_alphanumeric()) {
            plan.set("huge page limit", &format!("hugetlb.{}.{huge_suffix}", huge.page_size()), huge.limit());
        } else {
            plan.refuse("huge page limit", BAD_NAME);
        }
    }
    let mut rdma: Vec<_> = resources.rdma().iter().flatten().collect();
    rdma.sort_by_key(|(device, _)| *device);
    for (device, limit) in rdma {
        let handles = limit.hca_handles().map(|n| format!(" hca_handle={n}")).unwrap_or_default();
        let objects = limit.hca_objects().map(|n| format!(" hca_object={n}")).unwrap_or_default();
        plan.set("rdma limit", "rdma.max", format!("{device}{handles}{objects}"));
    }
}

fn has_kernel_limit(memory: &LinuxMemory) -> bool {
    memory.kernel().is_some_and(|n| n > 0)
}

/// As much swap as memory is what nobody asked for: a kernel that does not count swap does without, and has the limit of
/// memory written once more.
fn in_place_of_default_swap(memory: &LinuxMemory, file: &str) -> Option<(String, String)> {
    let (limit, swap) = (memory.limit()?, memory.swap()?);
    (limit > 0 && swap == limit.saturating_mul(2)).then(|| (file.to_owned(), limit.to_string()))
}

fn memory_v1(plan: &mut Plan, memory: &LinuxMemory) {
    // The limit first: it may not exceed limit + swap, which is unlimited in a new cgroup.
    plan.set_if("memory limit", "memory.limit_in_bytes", memory.limit().filter(|n| *n > 0));
    if let Some(swap) = memory.swap().filter(|n| *n > 0) {
        plan.set("swap limit", "memory.memsw.limit_in_bytes", swap).instead =
            in_place_of_default_swap(memory, "memory.limit_in_bytes");
    }
    plan.set_if("memory reservation", "memory.soft_limit_in_bytes", memory.reservation().filter(|n| *n > 0));
    plan.set_if("memory swappiness", "memory.swappiness", memory.swappiness());
    plan.set_if("tcp memory limit", "memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp().filter(|n| *n > 0));
    if memory.disable_oom_killer() == Some(true) {
        plan.set("oom killer switch", "memory.oom_control", 1);
    }
    plan.refuse_if(has_kernel_limit(memory), "kernel memory limit", GONE);
}

fn memory_v2(plan: &mut Plan, memory: &LinuxMemory) {
    let limit = memory.limit().filter(|n| *n > 0);
    plan.set_if("memory limit", "memory.max", limit);
    // The spec's figure is memory and swap together, v2's is swap alone.
    match (memory.swap().filter(|n| *n > 0), limit) {
        (Some(swap), Some(limit)) if swap >= limit => {
            plan.set("swap limit", "memory.swap.max", swap - limit).instead =
                in_place_of_default_swap(memory, "memory.max");
        }
        (Some(_), Some(_)) => {
            plan.refuse("swap limit", "it counts memory and swap and is below the memory limit")
        }
        (Some(_), None) => plan.refuse("swap limit", "it counts memory and swap and needs a memory limit"),
        (None, _) => {}
    }
    plan.set_if("memory reservation", "memory.low", memory.reservation().filter(|n| *n > 0));
    plan.refuse_if(memory.swappiness().is_some(), "memory swappiness", NOT_IN_V2);
    plan.refuse_if(memory.kernel_tcp().is_some_and(|n| n > 0), "tcp memory limit", NOT_IN_V2);
    plan.refuse_if(memory.disable_oom_killer() == Some(true), "oom killer switch", NOT_IN_V2);
    plan.refuse_if(has_kernel_limit(memory), "kernel memory limit", GONE);
}

fn cpu_v1(plan: &mut Plan, cpu: &LinuxCpu) {
    cpusets(plan, cpu);
    plan.set_if("cpu shares", "cpu.shares", cpu.shares().filter(|n| *n > 0));
    // The period first: the kernel checks a quota against it, and against the parent's.
    plan.set_if("cpu period", "cpu.cfs_period_us", cpu.period().filter(|n| *n > 0));
    plan.set_if("cpu quota", "cpu.cfs_quota_us", cpu.quota().filter(|n| *n > 0));
    plan.set_if("cpu burst", "cpu.cfs_burst_us", cpu.burst().filter(|n| *n > 0));
    plan.set_if("cpu idle", "cpu.idle", cpu.idle().filter(|n| *n != 0));
    plan.set_if("cpu realtime period", "cpu.rt_period_us", cpu.realtime_period().filter(|n| *n > 0));
    plan.set_if("cpu realtime runtime", "cpu.rt_runtime_us", cpu.realtime_runtime().filter(|n| *n > 0));
}

fn cpu_v2(plan: &mut Plan, cpu: &LinuxCpu) {
    cpusets(plan, cpu);
    plan.set_if("cpu shares", "cpu.weight", cpu.shares().filter(|n| *n > 0).map(cpu_weight));
    let quota = cpu.quota().filter(|n| *n > 0);
    let period = cpu.period().filter(|n| *n > 0);
    if quota.is_some() || period.is_some() {
        let limit = if quota.is_some() { "cpu quota" } else { "cpu period" };
        let quota = quota.map_or_else(|| "max".to_owned(), |n| n.to_string());
        plan.set(limit, "cpu.max", format!("{quota} {}", period.unwrap_or(100_000)));
    }
    plan.set_if("cpu burst", "cpu.max.burst", cpu.burst().filter(|n| *n > 0));
    plan.set_if("cpu idle", "cpu.idle", cpu.idle().filter(|n| *n != 0));
    plan.refuse_if(cpu.realtime_period().is_some_and(|n| n > 0), "cpu realtime period", NOT_IN_V2);
    plan.refuse_if(cpu.realtime_runtime().is_some_and(|n| n > 0), "cpu realtime runtime", NOT_IN_V2);
}

fn cpusets(plan: &mut Plan, cpu: &LinuxCpu) {
    plan.set_if("cpuset cpus", "cpuset.cpus", cpu.cpus().as_ref().filter(|s| !s.is_empty()));
    plan.set_if("cpuset mems", "cpuset.mems", cpu.mems().as_ref().filter(|s| !s.is_empty()));
}

/// cpu.weight (1..10000, default 100) for cpu.shares (2..262144, default 1024).
///
/// The curve that runc 1.3.2 and crun 1.23 agree on: a parabola over log2(shares) through (2, 1), (1024, 100) and
/// (262144, 10000). The straight line used before gave the default share no more than 39 of a default weight of 100.
fn cpu_weight(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    10f64.powf(exponent).ceil() as u64
}

/// io.weight (1..10000) for a blkio weight (10..1000).
fn io_weight(weight: u16) -> u32 {
    1 + u32::from(weight.clamp(10, 1000) - 10) * 9999 / 990
}

fn io_v1(plan: &mut Plan, io: &LinuxBlockIo) {
    if let Some(weight) = io.weight().filter(|n| *n > 0) {
        // blkio.weight went away with the cfq scheduler (Linux 5.0); bfq has its own.
        plan.set("block io weight", "blkio.bfq.weight", weight).instead =
            Some(("blkio.weight".to_owned(), weight.to_string()));
    }
    for device in io.weight_device().iter().flatten() {
        if let Some(weight) = device.weight() {
            let value = format!("{}:{} {weight}", device.major(), device.minor());
            let setting = plan.set("block io device weight", "blkio.bfq.weight_device", &value);
            setting.instead = Some(("blkio.weight_device".to_owned(), value));
        }
    }
    for (limit, list, v1_name, _) in throttles(io) {
        for d in list.iter().flatten() {
            let file = format!("blkio.throttle.{v1_name}_device");
            plan.set(limit, &file, format!("{}:{} {}", d.major(), d.minor(), d.rate()));
        }
    }
    refuse_leaf_weights(plan, io);
}

fn io_v2(plan: &mut Plan, io: &LinuxBlockIo) {
    if let Some(weight) = io.weight().filter(|n| *n > 0) {
        plan.set("block io weight", "io.bfq.weight", weight).instead =
            Some(("io.weight".to_owned(), format!("default {}", io_weight(weight))));
    }
    for device in io.weight_device().iter().flatten() {
        if let Some(weight) = device.weight() {
            let (major, minor) = (device.major(), device.minor());
            plan.set("block io device weight", "io.bfq.weight", format!("{major}:{minor} {weight}"))
                .instead = Some(("io.weight".to_owned(), format!("{major}:{minor} {}", io_weight(weight))));
        }
    }
    for (limit, list, _, v2_key) in throttles(io) {
        for d in list.iter().flatten() {
            plan.set(limit, "io.max", format!("{}:{} {v2_key}={}", d.major(), d.minor(), d.rate()));
        }
    }
    refuse_leaf_weights(plan, io);
}

/// (limit, devices, name in a v1 file name, key in v2's io.max).
type Throttle<'a> = (&'static str, &'a Option<Vec<LinuxThrottleDevice>>, &'static str, &'static str);

fn throttles(io: &LinuxBlockIo) -> [Throttle<'_>; 4] {
    [
        ("device read rate", io.throttle_read_bps_device(), "read_bps", "rbps"),
        ("device write rate", io.throttle_write_bps_device(), "write_bps", "wbps"),
        ("device read operations rate", io.throttle_read_iops_device(), "read_iops", "riops"),
        ("device write operations rate", io.throttle_write_iops_device(), "write_iops", "wiops"),
    ]
}

fn refuse_leaf_weights(plan: &mut Plan, io: &LinuxBlockIo) {
    let on_device = io.weight_device().iter().flatten().any(|d| d.leaf_weight().is_some());
    plan.refuse_if(io.leaf_weight().is_some() || on_device, "block io leaf weight", GONE);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(plan: &Plan) -> String {
        let set = plan.settings.iter().map(|s| format!("{} {}={}", s.controller, s.file, s.value));
        let refused = plan.refused.iter().map(|(limit, _)| format!("!{limit}"));
        set.chain(refused).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn both_versions() {
        let check = |json: &str, in_v1: &str, in_v2: &str| {
            let resources = serde_json::from_str(json).unwrap();
            assert_eq!(lines(&v1(&resources)), in_v1, "{json}");
            assert_eq!(lines(&v2(&resources)), in_v2, "{json}");
        };
        check("{}", "", "");
        check(
            r#"{"memory":{"limit":-1,"swap":-1},"pids":{"limit":-1},"cpu":{"quota":-1,"shares":0}}"#,
            "",
            "",
        );
        check(
            r#"{"memory":{"limit":100,"swap":150,"reservation":50}}"#,
            "memory memory.limit_in_bytes=100; memory memory.memsw.limit_in_bytes=150; memory memory.soft_limit_in_bytes=50",
            "memory memory.max=100; memory memory.swap.max=50; memory memory.low=50",
        );
        check(r#"{"memory":{"swap":150}}"#, "memory memory.memsw.limit_in_bytes=150", "!swap limit");
        check(
            r#"{"memory":{"swappiness":0,"disableOOMKiller":true,"kernel":5}}"#,
            "memory memory.swappiness=0; memory memory.oom_control=1; !kernel memory limit",
            "!memory swappiness; !oom killer switch; !kernel memory limit",
        );
        check(
            r#"{"cpu":{"quota":50000,"period":200000,"shares":1024,"cpus":"0-1","mems":"0"},"pids":{"limit":7}}"#,
            "cpuset cpuset.cpus=0-1; cpuset cpuset.mems=0; cpu cpu.shares=1024; cpu cpu.cfs_period_us=200000; cpu cpu.cfs_quota_us=50000; pids pids.max=7",
            "cpuset cpuset.cpus=0-1; cpuset cpuset.mems=0; cpu cpu.weight=100; cpu cpu.max=50000 200000; pids pids.max=7",
        );
        check(r#"{"cpu":{"quota":50000}}"#, "cpu cpu.cfs_quota_us=50000", "cpu cpu.max=50000 100000");
        check(r#"{"cpu":{"period":50000}}"#, "cpu cpu.cfs_period_us=50000", "cpu cpu.max=max 50000");
        check(
            r#"{"blockIO":{"weight":500,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":9}],"leafWeight":3}}"#,
            "blkio blkio.bfq.weight=500; blkio blkio.throttle.read_bps_device=8:0 9; !block io leaf weight",
            "io io.bfq.weight=500; io io.max=8:0 rbps=9; !block io leaf weight",
        );
        check(
            r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4},{"pageSize":"../x","limit":4}],"network":{"classID":9}}"#,
            "net_cls net_cls.classid=9; hugetlb hugetlb.2MB.limit_in_bytes=4; !huge page limit",
            "hugetlb hugetlb.2MB.max=4; !network class; !huge page limit",
        );
        check(
            r#"{"unified":{"memory.high":"9","../x":"1","cgroup.procs":"1","cgroup.max.depth":"3",".x":"","x":""}}"#,
            "!unified settings",
            "cgroup cgroup.max.depth=3; memory memory.high=9; !../x; !.x; !cgroup.procs; !x",
        );
    }

    #[test]
    fn weights() {
        for (shares, weight) in [
            (1, 1),
            (2, 1),
            (3, 2),
            (512, 59),
            (1024, 100),
            (2048, 174),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(cpu_weight(shares), weight, "{shares}");
        }
        for (weight, io) in [(10, 1), (500, 4950), (1000, 10_000), (u16::MAX, 10_000)] {
            assert_eq!(io_weight(weight), io, "{weight}");
        }
    }
}
