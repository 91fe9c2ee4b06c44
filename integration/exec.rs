//! `dhow exec`: another process in a running container, with all that the container's own has.

use serde_json::Value;

use crate::sandbox::Sandbox;
use crate::wait;

for_each_user!(
    exit_codes,
    streams,
    environment_directory_and_user,
    in_the_same_namespaces,
    as_confined_as_the_container,
    detached,
    in_a_stopped_container,
    many_at_once,
    a_killed_exec_leaves_nothing,
    a_detached_exec_leaves_no_zombie,
    ended_with_the_container,
    privileged,
    signals,
);

fn start(s: &Sandbox, flags: &[&str]) -> String {
    s.detached(["--name", "c1"].iter().chain(flags), ["sleep", "1000"])
}

fn probe(s: &Sandbox, flags: &[&str]) -> Value {
    serde_json::from_str(&s.dhow(["exec"]).args(flags).args(["c1", "/probe"]).ok()).unwrap()
}

fn exit_codes(s: &Sandbox) {
    start(s, &[]);
    for code in [0, 1, 42, 125, 255] {
        s.dhow(["exec", "c1", "sh", "-c", &format!("exit {code}")]).output().exits(code);
    }
    s.dhow(["exec", "c1", "sh", "-c", "kill -9 $$"]).output().exits(137);
    s.dhow(["exec", "c1", "no-such-program"]).output().exits(127).complains("no-such-program");
    s.dhow(["exec", "c1", "/no/such/program"]).output().exits(127).complains("/no/such/program");
    s.dhow(["exec", "c1", "/etc/motd"]).output().exits(126).complains("/etc/motd");
    s.dhow(["exec", "c1", "/etc"]).output().exits(126).complains("/etc");
}

fn streams(s: &Sandbox) {
    start(s, &[]);
    let out = s.dhow(["exec", "c1", "sh", "-c", "echo out; echo err >&2"]).output().exits(0);
    assert_eq!((out.text(), out.error_text()), ("out".into(), "err\n".into()));
    let input: Vec<u8> = (0..3_000_000u32).map(|n| ((n * 7) >> 3) as u8).collect();
    let out = s.dhow(["exec", "-i", "c1", "cat"]).stdin(input.clone()).output().exits(0);
    assert!(out.stdout == input, "{} bytes came back", out.stdout.len());
    assert_eq!(s.dhow(["exec", "c1", "wc", "-c"]).stdin("12345").ok(), "0", "no input without -i");
}

fn environment_directory_and_user(s: &Sandbox) {
    start(s, &["-e", "A=1", "-w", "/etc", "--hostname", "h"]);
    let seen = probe(s, &[]);
    assert_eq!([&seen["env"]["A"], &seen["cwd"], &seen["hostname"]], ["1", "/etc", "h"]);
    s.file("env", "C=file\n");
    let seen = probe(s, &["-e", "A=2", "-e", "B=3", "--env-file", "env", "-w", "/tmp"]);
    assert_eq!(
        [&seen["env"]["A"], &seen["env"]["B"], &seen["env"]["C"], &seen["cwd"]],
        ["2", "3", "file", "/tmp"]
    );
    s.dhow(["exec", "-w", "/no/such/dir", "c1", "true"])
        .output()
        .complains("/no/such/dir")
        .expect("an error", |o| o.code != 0);
    if s.user != crate::user::User::Single {
        let seen = probe(s, &["-u", "app"]);
        assert_eq!([&seen["uids"][0], &seen["gids"][0], &seen["groups"][0]], [1000, 1000, 1000]);
        assert_eq!(seen["caps"]["effective"], "0000000000000000");
        assert_eq!(seen["env"]["HOME"], "/home/app");
    }
    s.dhow(["exec", "-u", "nobody-here", "c1", "true"])
        .output()
        .complains("nobody-here")
        .expect("an error", |o| o.code != 0);
}

fn in_the_same_namespaces(s: &Sandbox) {
    start(s, &[]);
    s.dhow(["exec", "c1", "touch", "/made-by-exec"]).ok();
    s.dhow(["exec", "c1", "test", "-e", "/made-by-exec"]).ok();
    let processes = s.dhow(["exec", "c1", "ps", "-o", "pid,args"]).ok();
    assert!(processes.lines().any(|l| l.trim().starts_with("1 sleep 1000")), "{processes}");
    let of_init = s.dhow(["exec", "c1", "sh", "-c", "for n in /proc/1/ns/*; do readlink $n; done"]).ok();
    let of_exec = s.dhow(["exec", "c1", "sh", "-c", "for n in /proc/$$/ns/*; do readlink $n; done"]).ok();
    assert_eq!(of_init, of_exec);
    let cgroups = s.dhow(["exec", "c1", "sh", "-c", "cat /proc/1/cgroup; echo; cat /proc/self/cgroup"]).ok();
    let halves: Vec<&str> = cgroups.split("\n\n").collect();
    assert_eq!(halves[0], halves[1], "limits hold for exec too");
}

fn as_confined_as_the_container(s: &Sandbox) {
    start(s, &["--cap-drop", "CHOWN", "--security-opt", "no-new-privileges", "--ulimit", "nofile=77:88"]);
    let seen = probe(s, &[]);
    let of_init = s.dhow(["exec", "c1", "cat", "/proc/1/status"]).ok();
    let init = |name: &str| of_init.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(seen["caps"]["effective"], init("CapEff:"));
    assert_eq!(seen["caps"]["bounding"], init("CapBnd:"));
    assert_eq!(seen["caps"]["inheritable"], "0000000000000000");
    assert_eq!(seen["seccomp"], init("Seccomp:"));
    assert_eq!(seen["no_new_privs"], "1");
    assert_eq!(seen["limits"]["Max open files"], serde_json::json!(["77", "88"]));
}

fn detached(s: &Sandbox) {
    start(s, &[]);
    let out = s.dhow(["exec", "-d", "c1", "sh", "-c", "touch /ran; sleep 1000"]).output().exits(0);
    assert_eq!(out.text(), "");
    wait::until("it to run", || {
        (s.dhow(["exec", "c1", "test", "-e", "/ran"]).output().code == 0).then_some(())
    });
    s.dhow(["rm", "-f", "c1"]).ok();
    s.assert_nothing_left();
}

fn in_a_stopped_container(s: &Sandbox) {
    start(s, &[]);
    s.dhow(["kill", "c1"]).ok();
    s.dhow(["wait", "c1"]).ok();
    s.dhow(["exec", "c1", "true"]).output().complains("not running").expect("an error", |o| o.code != 0);
}

fn many_at_once(s: &Sandbox) {
    start(s, &[]);
    std::thread::scope(|scope| {
        for n in 0..10 {
            scope.spawn(move || {
                let script = format!("echo {n}; exit {n}");
                let out = s.dhow(["exec", "c1", "sh", "-c", &script]).output().exits(n);
                assert_eq!(out.text(), n.to_string());
            });
        }
    });
}

fn a_killed_exec_leaves_nothing(s: &Sandbox) {
    start(s, &[]);
    let exec = s.dhow(["exec", "c1", "sleep", "777"]).spawn_with(|_| ());
    let runs = || s.dhow(["exec", "c1", "ps", "-o", "args"]).ok().lines().any(|l| l.trim() == "sleep 777");
    wait::until("the exec to run", || runs().then_some(()));
    exec.signal(rustix::process::Signal::KILL);
    wait::until("the program to end with its command", || (!runs()).then_some(()));
    assert_eq!(s.inspect("c1", "{{.State.Status}}"), "running");
}

fn a_detached_exec_leaves_no_zombie(s: &Sandbox) {
    start(s, &[]);
    s.dhow(["exec", "-d", "c1", "sh", "-c", "touch /ran; until [ -e /go ]; do sleep 0.05; done"]).ok();
    wait::until("it to run", || {
        (s.dhow(["exec", "c1", "test", "-e", "/ran"]).output().code == 0).then_some(())
    });
    s.dhow(["exec", "c1", "touch", "/go"]).ok();
    wait::until("it to be reaped", || {
        let seen = s.dhow(["exec", "c1", "ps", "-o", "stat,args"]).ok();
        seen.lines().all(|l| !l.contains("/ran") && !l.trim().starts_with('Z')).then_some(())
    });
}

fn ended_with_the_container(s: &Sandbox) {
    start(s, &[]);
    let mut exec = s.dhow(["exec", "c1", "sh", "-c", "touch /ran; sleep 777"]).spawn_with(|_| ());
    wait::until("it to run", || {
        (s.dhow(["exec", "c1", "test", "-e", "/ran"]).output().code == 0).then_some(())
    });
    s.dhow(["stop", "-t", "0", "c1"]).ok();
    assert_eq!(exec.code(), 137);
    s.dhow(["rm", "c1"]).ok();
    s.assert_nothing_left();
}

fn privileged(s: &Sandbox) {
    start(s, &[]);
    let effective = |flags: &[&str]| {
        u64::from_str_radix(probe(s, flags)["caps"]["effective"].as_str().unwrap(), 16).unwrap()
    };
    let sys_admin = 1 << 21;
    assert_eq!(effective(&[]) & sys_admin, 0);
    assert_ne!(effective(&["--privileged"]) & sys_admin, 0);
}

fn signals(s: &Sandbox) {
    start(s, &[]);
    let script = "trap 'exit 9' TERM; touch /ready; while :; do sleep 0.05; done";
    let mut exec = s.dhow(["exec", "c1", "sh", "-c", script]).spawn_with(|_| ());
    wait::until("it to run", || {
        (s.dhow(["exec", "c1", "test", "-e", "/ready"]).output().code == 0).then_some(())
    });
    exec.signal(rustix::process::Signal::TERM);
    assert_eq!(exec.code(), 9);
}
