//! cgroups: limits hold, and where none can be set that is said.

use serde_json::Value;

use crate::capability::{self, needs};
use crate::sandbox::{NONE, Sandbox};
use crate::wait;

for_root!(
    memory,
    memory_killed_is_recorded,
    pids,
    cpus,
    values_reach_the_cgroup,
    swap_as_docker_has_it,
    a_cgroup_of_its_own,
    cgroups_go_with_the_container,
    exec_counts_too,
);
for_rootless!(without_a_cgroup);
for_each_user!(malformed_limits);

/// A file of the container's own cgroup, read from the host. `v1` names controller and file, `v2` the file.
pub(crate) fn value(s: &Sandbox, name: &str, v1: (&str, &str), v2: &str) -> String {
    let pid = s.inspect(name, "{{.State.Pid}}");
    let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let line = |controller: &str| {
        own.lines().find_map(|l| {
            let fields: Vec<&str> = l.splitn(3, ':').collect();
            fields[1].split(',').any(|c| c == controller).then(|| fields[2].to_owned())
        })
    };
    let path = match (capability::cgroup_dir(v1.0), line(v1.0)) {
        (Some(dir), Some(path)) => format!("{dir}{path}/{}", v1.1),
        _ => format!("/sys/fs/cgroup{}/{v2}", line("").unwrap()),
    };
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}")).trim().to_owned()
}

fn memory(s: &Sandbox) {
    needs!("cgroup");
    let little = s.sh(["-m", "40m"], "timeout 1 /probe fill 5; echo enough").ok();
    assert!(little.ends_with("enough"), "{little}");
    let out = s
        .dhow(["run", "--rm", "-m", "20m", "--memory-swap", "20m", "busybox", "/probe", "fill", "60"])
        .output();
    out.exits(137);
}

fn memory_killed_is_recorded(s: &Sandbox) {
    needs!("cgroup");
    s.detached(["--name", "hungry", "-m", "20m", "--memory-swap", "20m"], ["/probe", "fill", "60"]);
    assert_eq!(s.dhow(["wait", "hungry"]).ok(), "137");
    assert_eq!(s.inspect("hungry", "{{.State.OOMKilled}}"), "true");
    s.detached(["--name", "killed", "-m", "20m"], ["sleep", "1000"]);
    s.dhow(["kill", "killed"]).ok();
    s.dhow(["wait", "killed"]).ok();
    assert_eq!(s.inspect("killed", "{{.State.OOMKilled}}"), "false");
}

fn pids(s: &Sandbox) {
    needs!("cgroup");
    // A fork bomb whose depth ends at 512 processes, so that it bursts harmlessly where the limit does not hold.
    let bomb = "b() { [ $1 -eq 0 ] && sleep 1000 || { b $(($1-1)) | b $(($1-1)); }; }; b 8 & sleep 1000";
    s.detached(["--name", "bomb", "--pids-limit", "30"], ["sh", "-c", bomb]);
    wait::until("the limit to be reached", || {
        let events = value(s, "bomb", ("pids", "pids.events"), "pids.events");
        (events != "max 0").then_some(())
    });
    let now: u32 = value(s, "bomb", ("pids", "pids.current"), "pids.current").parse().unwrap();
    assert!(now <= 30, "{now} processes");
    s.dhow(["rm", "-f", "bomb"]).ok();
    s.assert_nothing_left();
}

fn cpus(s: &Sandbox) {
    needs!("cgroup");
    // Processor time over time on the wall: a ratio within one container, not a timed test.
    let script = "read up rest < /proc/uptime; end=$((${up%.*} + 3)); while :; do read up rest < /proc/uptime; \
                  [ ${up%.*} -ge $end ] && break; done; cat /proc/self/stat /proc/$$/stat | tail -n 1 | cut -d' ' -f14,15";
    let out = s.sh(["--cpus", "0.3"], script).ok();
    let ticks: u32 = out.split_whitespace().map(|t| t.parse::<u32>().unwrap()).sum();
    assert!(
        ticks <= 3 * 100 * 45 / 100,
        "a busy loop of three seconds used {ticks} of 300 ticks under --cpus 0.3"
    );
}

fn values_reach_the_cgroup(s: &Sandbox) {
    needs!("cgroup");
    let flags = [
        "--name",
        "c1",
        "-m",
        "64m",
        "--memory-swap",
        "128m",
        "--cpus",
        "0.5",
        "--cpu-shares",
        "512",
        "--cpuset-cpus",
        "0",
        "--pids-limit",
        "99",
    ];
    s.detached(flags, ["sleep", "1000"]);
    let get = |v1, v2| value(s, "c1", v1, v2);
    assert_eq!(get(("memory", "memory.limit_in_bytes"), "memory.max"), "67108864");
    assert_eq!(get(("pids", "pids.max"), "pids.max"), "99");
    assert_eq!(get(("cpuset", "cpuset.cpus"), "cpuset.cpus"), "0");
    let quota = get(("cpu", "cpu.cfs_quota_us"), "cpu.max");
    assert!(quota == "50000" || quota == "50000 100000", "{quota}");
    let shares = get(("cpu", "cpu.shares"), "cpu.weight");
    assert!(shares == "512" || shares == "20", "{shares}");
    let config: Value = serde_json::from_str(&s.inspect("c1", "{{json .HostConfig}}")).unwrap();
    assert_eq!([&config["Memory"], &config["PidsLimit"], &config["NanoCpus"]], [67_108_864, 99, 500_000_000]);
    assert_eq!(s.dhow(["exec", "c1", "nproc"]).ok(), "1");
}

/// (flags, memory and swap together as v1 has it, swap as v2 has it, as inspect has it)
const SWAP: &[(&[&str], &str, &str, &str)] = &[
    (&[], "134217728", "67108864", "134217728"),
    (&["--memory-swap", "0"], "134217728", "67108864", "134217728"),
    (&["--memory-swap", "64m"], "67108864", "0", "67108864"),
    (&["--memory-swap", "100m"], "104857600", "37748736", "104857600"),
    (&["--memory-swap", "-1"], "unlimited", "max", "-1"),
];

fn swap_as_docker_has_it(s: &Sandbox) {
    needs!("cgroup");
    for (n, (flags, v1, v2, shown)) in SWAP.iter().enumerate() {
        let name = format!("swap{n}");
        let flags = [&["--name", &name, "-m", "64m"], *flags].concat();
        s.detached(&flags, ["sleep", "1000"]);
        let value = value(s, &name, ("memory", "memory.memsw.limit_in_bytes"), "memory.swap.max");
        // What v1 calls unlimited is a number of many digits.
        let is_unlimited = *v1 == "unlimited" && value.len() > 16;
        assert!(value == *v1 || value == *v2 || is_unlimited, "{flags:?}: {value}");
        assert_eq!(s.inspect(&name, "{{.HostConfig.MemorySwap}}"), *shown, "{flags:?}");
        s.dhow(["rm", "-f", &name]).ok();
    }
    s.detached(["--name", "grows", "-m", "32m"], ["sleep", "1000"]);
    s.dhow(["update", "-m", "64m", "grows"]).ok();
    let value = value(s, "grows", ("memory", "memory.memsw.limit_in_bytes"), "memory.swap.max");
    assert!(value == "134217728" || value == "67108864", "{value}");
    assert_eq!(s.inspect("grows", "{{.HostConfig.MemorySwap}}"), "134217728");
}

fn a_cgroup_of_its_own(s: &Sandbox) {
    needs!("cgroup");
    s.detached(["--name", "c1"], ["sleep", "1000"]);
    s.detached(["--name", "c2"], ["sleep", "1000"]);
    let cgroup = |name: &str| {
        std::fs::read_to_string(format!("/proc/{}/cgroup", s.inspect(name, "{{.State.Pid}}"))).unwrap()
    };
    assert_ne!(cgroup("c1"), cgroup("c2"));
    // Inside, a container sees itself at the root of a cgroup name space, and cannot write to it.
    let seen = s.probe(NONE);
    let lines: Vec<&str> = seen["cgroup"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(lines.iter().all(|l| l.ends_with(":/")), "{lines:?}");
    s.sh(NONE, "mkdir /sys/fs/cgroup/x || mkdir /sys/fs/cgroup/memory/x")
        .output()
        .expect("read-only", |o| o.code != 0);
}

fn cgroups_go_with_the_container(s: &Sandbox) {
    needs!("cgroup");
    s.detached(["--name", "c1", "-m", "64m"], ["sleep", "1000"]);
    s.dhow(["rm", "-f", "c1"]).ok();
    s.assert_nothing_left();
    s.sh(["-m", "64m", "--pids-limit", "10", "--cidfile", "cid"], "true").ok();
    s.assert_nothing_left();
}

fn exec_counts_too(s: &Sandbox) {
    needs!("cgroup");
    s.detached(["--name", "c1", "-m", "20m", "--memory-swap", "20m"], ["sleep", "1000"]);
    s.dhow(["exec", "c1", "/probe", "fill", "60"]).output().exits(137);
    assert_eq!(s.inspect("c1", "{{.State.Status}}"), "running");
}

fn without_a_cgroup(s: &Sandbox) {
    let writable =
        s.program("sh").args(["-c", "test -w /sys/fs/cgroup -o -w /sys/fs/cgroup/pids"]).output().code == 0;
    if writable {
        capability::skip("no-cgroup", "this user can write cgroups");
        return;
    }
    let out = s.sh(["-m", "64m", "--pids-limit", "10", "--cpus", "0.5"], "echo x").output().exits(0);
    assert_eq!(out.text(), "x");
    assert_eq!(out.error_text().lines().count(), 1, "one clear line: {}", out.report());
    s.sh(["-m", "64m", "--strict-limits"], "true")
        .output()
        .exits(125)
        .expect("it says which", |o| !o.stderr.is_empty());
    let out = s.sh(NONE, "true").output().exits(0);
    assert!(out.stderr.is_empty(), "nothing asked for, nothing to say: {}", out.report());
}

fn malformed_limits(s: &Sandbox) {
    for flags in [
        ["-m", "lots"],
        ["-m", "-5"],
        ["-m", "1k"],
        ["--cpus", "many"],
        ["--cpus", "-1"],
        ["--cpuset-cpus", "x"],
        ["--pids-limit", "few"],
        ["--cpu-shares", "x"],
        ["--memory-swap", "1m"],
        ["--stop-timeout", "soon"],
    ] {
        s.sh(flags, "true").output().exits(125);
    }
    s.sh(["-m", "64m", "--memory-swap", "32m"], "true").output().exits(125);
    // Asked for by name, and not there: docker refuses it too.
    s.sh(["--cpuset-cpus", "0,4095"], "true").output().exits(125).complains("there is no 4095");
    s.sh(["--cpuset-mems", "0-999"], "true").output().exits(125).complains("cpuset-mems");
}
