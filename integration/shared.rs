//! Name spaces that are not a container's own: another container's, the host's.

use crate::sandbox::{NONE, Sandbox};
use crate::wait;

for_each_user!(
    another_containers_processes,
    what_shares_processes_ends_whole,
    one_that_is_killed_leaves_no_process,
    ipc_is_shared_by_consent,
    ipc_of_the_host_and_none,
    another_containers_network,
    the_hosts_processes,
    the_hosts_name,
    who_is_not_there,
    a_shared_identity,
    restarts_follow,
);

const LOOP: [&str; 3] = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"];

fn link(s: &Sandbox, name: &str, which: &str) -> String {
    s.dhow(["exec", name, "readlink", &format!("/proc/self/ns/{which}")]).ok()
}

fn another_containers_processes(s: &Sandbox) {
    s.detached(["--name", "xx", "--hostname", "of-xx"], ["sleep", "1234"]);
    let seen = s.dhow(["run", "--rm", "--pid", "container:xx", "busybox", "ps", "-o", "pid,args"]).ok();
    assert!(seen.contains("sleep 1234"), "{seen}");
    let own = s.dhow(["run", "--rm", "--pid", "container:xx", "busybox", "hostname"]).ok();
    assert_ne!(own, "of-xx", "only the processes are shared");
    s.detached(["--name", "yy", "--pid", "container:xx"], ["sleep", "4321"]);
    let seen = s.dhow(["exec", "xx", "ps", "-o", "pid,args"]).ok();
    assert!(seen.contains("sleep 4321"), "both ways: {seen}");
    assert_eq!(link(s, "xx", "pid"), link(s, "yy", "pid"));
    assert_ne!(link(s, "xx", "mnt"), link(s, "yy", "mnt"));
    let id = s.dhow(["inspect", "xx", "-f", "{{.Id}}"]).ok();
    assert_eq!(s.dhow(["inspect", "yy", "-f", "{{.HostConfig.PidMode}}"]).ok(), format!("container:{id}"));
    // The kernel ends all in it with its first process.
    s.dhow(["kill", "xx"]).ok();
    assert_eq!(s.dhow(["wait", "yy"]).ok(), "137");
    s.dhow(["start", "yy"])
        .output()
        .exits(1)
        .complains("container xx is not running")
        .complains("dhow start xx");
}

fn what_shares_processes_ends_whole(s: &Sandbox) {
    s.detached(["--name", "xx"], ["sleep", "1234"]);
    s.dhow(["run", "--rm", "--pid", "container:xx", "busybox", "sh", "-c", "setsid sleep 4321 & exit 3"])
        .output()
        .exits(3);
    let seen = s.dhow(["exec", "xx", "ps", "-o", "args"]).ok();
    assert!(!seen.contains("sleep 4321"), "{seen}");
}

fn one_that_is_killed_leaves_no_process(s: &Sandbox) {
    s.detached(["--name", "xx"], ["sleep", "1234"]);
    s.detached(["--name", "yy", "--pid", "container:xx"], ["sh", "-c", "setsid sleep 4321 & sleep 5432"]);
    wait::until("it runs", || {
        s.dhow(["exec", "xx", "ps", "-o", "args"]).ok().contains("sleep 4321").then_some(())
    });
    let supervisor = s.dhow(["inspect", "yy", "-f", "{{.State.Pid}}"]).ok();
    let status = std::fs::read_to_string(format!("/proc/{supervisor}/status")).unwrap();
    let parent = status.lines().find_map(|l| l.strip_prefix("PPid:")).unwrap().trim().to_owned();
    let parent = rustix::process::Pid::from_raw(parent.parse().unwrap()).unwrap();
    rustix::process::kill_process(parent, rustix::process::Signal::KILL).unwrap();
    wait::until("it is over", || s.dhow(["rm", "-f", "yy"]).output().code.eq(&0).then_some(()));
    let seen = s.dhow(["exec", "xx", "ps", "-o", "args"]).ok();
    assert!(!seen.contains("sleep 4321") && !seen.contains("sleep 5432"), "{seen}");
    assert!(seen.contains("sleep 1234"), "{seen}");
}

fn ipc_is_shared_by_consent(s: &Sandbox) {
    s.detached(["--name", "xx", "--ipc", "shareable", "--shm-size", "1m"], ["sleep", "1000"]);
    s.detached(["--name", "yy"], ["sleep", "1000"]);
    s.dhow(["exec", "xx", "sh", "-c", "echo told > /dev/shm/note"]).ok();
    let flags = ["--ipc", "container:xx"];
    assert_eq!(s.sh(flags, "cat /dev/shm/note; echo back > /dev/shm/answer").ok(), "told");
    assert_eq!(s.dhow(["exec", "xx", "cat", "/dev/shm/answer"]).ok(), "back");
    let mine = s.sh(flags, "readlink /proc/self/ns/ipc").ok();
    assert_eq!(mine, link(s, "xx", "ipc"));
    s.sh(["--ipc", "container:yy"], "true")
        .output()
        .exits(125)
        .complains("non-shareable IPC")
        .complains("--ipc shareable");
    assert_eq!(s.dhow(["inspect", "xx", "-f", "{{.HostConfig.IpcMode}}"]).ok(), "shareable");
    assert_eq!(s.dhow(["inspect", "yy", "-f", "{{.HostConfig.IpcMode}}"]).ok(), "private");
}

fn ipc_of_the_host_and_none(s: &Sandbox) {
    let host = std::fs::read_link("/proc/self/ns/ipc").unwrap();
    assert_eq!(s.sh(["--ipc", "host"], "readlink /proc/self/ns/ipc").ok(), host.to_str().unwrap());
    assert_ne!(s.sh(NONE, "readlink /proc/self/ns/ipc").ok(), host.to_str().unwrap());
    assert_eq!(s.sh(["--ipc", "none"], "grep -c ' /dev/shm ' /proc/self/mounts; true").ok(), "0");
}

fn another_containers_network(s: &Sandbox) {
    s.detached(
        ["--name", "xx", "--network", "none", "--hostname", "of-xx"],
        ["sh", "-c", "while :; do echo hello | nc -l -p 7; done"],
    );
    let flags = ["--network", "container:xx"];
    assert_eq!(s.sh(flags, "readlink /proc/self/ns/net").ok(), link(s, "xx", "net"));
    let heard =
        s.sh(flags, "for i in 1 2 3 4 5 6 7 8 9; do nc 127.0.0.1 7 < /dev/null && exit; sleep 1; done").ok();
    assert_eq!(heard, "hello");
    s.detached(["--name", "yy", "--network", "container:xx"], LOOP);
    assert_eq!(link(s, "xx", "net"), link(s, "yy", "net"), "exec sees it as well");
    assert_eq!(s.dhow(["inspect", "yy", "-f", "{{json .NetworkSettings.Networks}}"]).ok(), "{}");
    s.sh(["--network", "container:xx", "-p", "80"], "true")
        .output()
        .exits(125)
        .complains("port publishing and the container type");
}

fn the_hosts_processes(s: &Sandbox) {
    let me = std::process::id();
    let host = std::fs::read_link("/proc/self/ns/pid").unwrap();
    assert_eq!(s.sh(["--pid", "host"], "readlink /proc/self/ns/pid").ok(), host.to_str().unwrap());
    s.sh(["--pid", "host"], &format!("kill -0 {me} 2>/dev/null || ls -d /proc/{me}")).ok();
    s.detached(["--name", "xx", "--pid", "host"], ["sh", "-c", "setsid sleep 4321 & sleep 5432"]);
    s.dhow(["exec", "xx", "sh", "-c", "readlink /proc/self/ns/pid"]).ok();
    s.dhow(["pause", "xx"]).ok();
    s.dhow(["unpause", "xx"]).ok();
    s.dhow(["stop", "-t", "0", "xx"]).ok();
    // Who of them is left is told by the sandbox.
}

fn the_hosts_name(s: &Sandbox) {
    let host = s.program("hostname").ok();
    assert_eq!(s.sh(["--uts", "host"], "hostname").ok(), host);
    let uts = std::fs::read_link("/proc/self/ns/uts").unwrap();
    assert_eq!(s.sh(["--uts", "host"], "readlink /proc/self/ns/uts").ok(), uts.to_str().unwrap());
    s.sh(["--uts", "host", "--hostname", "x"], "true")
        .output()
        .exits(125)
        .complains("conflicting options: hostname and the UTS mode");
}

fn who_is_not_there(s: &Sandbox) {
    for flag in ["--pid", "--ipc", "--network", "--userns"] {
        s.sh([flag, "container:nosuch"], "true").output().exits(125).complains("no such container: nosuch");
    }
    s.dhow(["create", "--name", "zz", "--ipc", "shareable", "busybox", "true"]).ok();
    for flag in ["--pid", "--ipc", "--network"] {
        s.sh([flag, "container:zz"], "true")
            .output()
            .exits(125)
            .complains("container zz is not running")
            .complains("dhow start zz");
    }
    assert_eq!(s.dhow(["ps", "-a", "--format", "{{.Names}}"]).ok(), "zz", "nothing else was left");
}

fn a_shared_identity(s: &Sandbox) {
    s.detached(["--name", "xx", "--userns", "keep-id"], ["sleep", "1000"]);
    let flags = ["--userns", "container:xx"];
    assert_eq!(s.sh(flags, "readlink /proc/self/ns/user").ok(), link(s, "xx", "user"));
}

fn restarts_follow(s: &Sandbox) {
    s.detached(["--name", "xx", "--ipc", "shareable"], LOOP);
    s.detached(["--name", "yy", "--ipc", "container:xx"], LOOP);
    s.dhow(["restart", "-t", "0", "xx"]).ok();
    s.dhow(["restart", "-t", "0", "yy"]).ok();
    assert_eq!(link(s, "xx", "ipc"), link(s, "yy", "ipc"));
}
