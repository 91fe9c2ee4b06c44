//! update: other limits and another restart policy while it runs; and `--timeout`.

use crate::capability::needs;
use crate::limits::value;
use crate::sandbox::Sandbox;
use crate::wait;

for_root!(limits_change_at_once, limits_that_cannot_be_had);
for_rootless!(without_a_cgroup_that_is_said);
for_each_user!(the_restart_policy_changes, what_is_no_update, a_stopped_one_starts_with_them, a_time_limit);

fn limits_change_at_once(s: &Sandbox) {
    needs!("cgroup");
    s.detached(
        ["--name", "a", "--memory", "100m", "--memory-swap", "200m"],
        ["sh", "-c", "sleep 1000 & sleep 1000"],
    );
    let pid = s.inspect("a", "{{.State.Pid}}");
    let memory = |name: &str| value(s, name, ("memory", "memory.limit_in_bytes"), "memory.max");
    assert_eq!(memory("a"), (100 << 20).to_string());
    // More than memory and swap may be together so far: both are changed, in the order that the kernel takes.
    assert_eq!(s.dhow(["update", "--memory", "300m", "--memory-swap", "400m", "a"]).ok(), "a");
    assert_eq!(memory("a"), (300 << 20).to_string());
    s.dhow(["update", "--memory", "50m", "--memory-swap", "60m", "a"]).ok();
    assert_eq!(memory("a"), (50 << 20).to_string());
    // It had no limit of processes, and no cgroup for it.
    s.dhow(["update", "--pids-limit", "37", "--cpu-shares", "512", "--cpus", "0.5", "a"]).ok();
    assert_eq!(value(s, "a", ("pids", "pids.max"), "pids.max"), "37");
    let count = value(s, "a", ("pids", "pids.current"), "pids.current").parse::<u32>().unwrap();
    assert!(count >= 2, "all its processes are in it: {count}");
    let quota = value(s, "a", ("cpu", "cpu.cfs_quota_us"), "cpu.max");
    assert!(quota == "50000" || quota == "50000 100000", "{quota}");
    s.dhow(["update", "--pids-limit", "-1", "a"]).ok();
    assert_eq!(value(s, "a", ("pids", "pids.max"), "pids.max"), "max");
    s.dhow(["exec", "a", "true"]).ok();
    let format = "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}} {{.State.Pid}}";
    assert_eq!(
        s.inspect("a", format),
        format!("{} 500000000 -1 {pid}", 50 << 20),
        "noted, and nothing was restarted"
    );
    // The next run has them too.
    s.dhow(["restart", "-t", "0", "a"]).ok();
    assert_eq!(memory("a"), (50 << 20).to_string());
    let events = s.dhow(["events", "--since", "1h", "--until", "0s", "--filter", "event=update"]).ok();
    assert_eq!(events.lines().count(), 4, "{events}");
}

fn limits_that_cannot_be_had(s: &Sandbox) {
    needs!("cgroup");
    s.detached(["--name", "a", "--memory", "100m"], ["sleep", "1000"]);
    s.dhow(["update", "--cpuset-cpus", "900", "a"]).output().complains("900").exits(1);
    s.dhow(["update", "--memory", "1m", "a"]).output().complains("least").exits(1);
    s.dhow(["update", "--memory-swap", "50m", "a"]).output().complains("swap").exits(1);
    assert_eq!(
        s.inspect("a", "{{.HostConfig.Memory}} {{.HostConfig.CpusetCpus}}"),
        format!("{} ", 100 << 20)
    );
}

fn without_a_cgroup_that_is_said(s: &Sandbox) {
    if crate::capability::has("cgroup") {
        return;
    }
    s.detached(["--name", "a"], ["sleep", "1000"]);
    s.dhow(["update", "--memory", "100m", "a"]).output().complains("cgroup").exits(1);
    assert_eq!(s.inspect("a", "{{.HostConfig.Memory}}"), "0");
}

fn the_restart_policy_changes(s: &Sandbox) {
    s.detached(["--name", "a"], ["sh", "-c", "until test -e /go; do sleep 0.02; done; exit 1"]);
    s.dhow(["update", "--restart", "on-failure:3", "a"]).ok();
    let format = "{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}";
    assert_eq!(s.inspect("a", format), "on-failure 3");
    s.let_go("a", "/go");
    wait::until("the last try", || {
        (s.inspect("a", "{{.RestartCount}} {{.State.Status}}") == "3 exited").then_some(())
    });
    // A policy that is taken away while it waits for its next run.
    s.detached(["--name", "b", "--restart", "always"], ["sh", "-c", "exit 5"]);
    // Six seconds: a busy machine gets the next command done within it.
    wait::until("a long back-off", || {
        (s.inspect("b", "{{.RestartCount}} {{.State.Status}}") == "7 restarting").then_some(())
    });
    s.dhow(["update", "--restart", "no", "b"]).ok();
    assert_eq!(s.dhow(["wait", "b"]).ok(), "5");
    assert_eq!(
        s.inspect("b", "{{.RestartCount}} {{.State.Status}}"),
        "6 exited",
        "the run that was waited for never came"
    );
}

fn what_is_no_update(s: &Sandbox) {
    s.detached(["--name", "a", "--rm"], ["sleep", "1000"]);
    s.dhow(["update", "--restart", "always", "a"]).output().complains("removed").exits(1);
    s.dhow(["update", "--restart", "never", "a"]).output().complains("never").exits(1);
    s.dhow(["update", "a"]).output().complains("nothing").exits(1);
    s.dhow(["update", "--restart", "no", "nobody"]).output().complains("nobody").exits(1);
    s.dhow(["update", "--restart", "no", "a"]).ok();
}

fn a_stopped_one_starts_with_them(s: &Sandbox) {
    s.dhow(["create", "--name", "a", "busybox", "sleep", "1000"]).ok();
    s.dhow(["update", "--pids-limit", "50", "--restart", "always", "a"]).ok();
    assert_eq!(s.inspect("a", "{{.HostConfig.PidsLimit}} {{.HostConfig.RestartPolicy.Name}}"), "50 always");
    s.dhow(["start", "a"]).ok();
    if crate::capability::has("cgroup") && !s.is_rootless() {
        assert_eq!(value(s, "a", ("pids", "pids.max"), "pids.max"), "50");
    }
}

fn a_time_limit(s: &Sandbox) {
    // It ignores all that can be ignored.
    let script = "trap '' TERM INT HUP; while :; do sleep 0.05; done";
    s.dhow(["run", "--name", "a", "--timeout", "1", "busybox", "sh", "-c", script]).output().exits(137);
    assert_eq!(s.inspect("a", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    // Each run has its own, and a run of its own end is not touched.
    s.detached(["--name", "b", "--timeout", "1", "--restart", "on-failure:1"], ["sh", "-c", script]);
    assert_eq!(s.dhow(["wait", "b"]).ok(), "137");
    assert_eq!(s.inspect("b", "{{.RestartCount}}"), "1");
    s.dhow(["run", "--rm", "--timeout", "1000", "busybox", "true"]).ok();
    s.dhow(["run", "--rm", "--timeout", "soon", "busybox", "true"]).output().complains("soon").exits(125);
}
