//! Live tests: on whatever cgroups this machine has, and, in a virtual machine, on v2 (`v2_in_a_virtual_machine`, which
//! runs the others there). They skip aloud where cgroups are not ours to write to.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::process::WaitId;
use rustix::process::WaitIdOptions;

use super::*;
use crate::oci::runtime::LinuxResources;
use crate::sys::process;

#[path = "../../../integration/vm.rs"]
mod vm;

#[expect(clippy::disallowed_macros, reason = "a test that does not run must say so")]
fn say(text: &str) {
    eprintln!("{text}");
}

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

/// A cgroup for a test, removed at its end; `None`, said aloud, where none can be made.
struct Live(Cgroup);

impl Live {
    fn new(name: &str, json: &str) -> Option<Live> {
        let hierarchy = probe().unwrap();
        let path = format!("dhow-test/{name}-{}", std::process::id());
        let resources = resources(json);
        let wanted = Wanted { path: &path, resources: &resources, devices_needed: true, delegated: false };
        let mut warnings = Vec::new();
        let cgroup = create(&hierarchy, &wanted, &mut |w| warnings.push(w), false).unwrap();
        if let Some(cgroup) = cgroup {
            assert!(warnings.is_empty(), "{warnings:?}");
            return Some(Live(cgroup));
        }
        say(&format!("skipped: no cgroup can be made here: {warnings:?}"));
        None
    }

    /// Runs a shell script in the cgroup.
    fn sh(&self, script: &str) -> Child {
        let mut child = Command::new("sh")
            .args(["-c", &format!("read go; {script}")])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        self.0.add(child.id() as i32).unwrap();
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        child
    }

    fn file(&self, name: &str) -> String {
        let file = self.0.mounts().iter().map(|(_, path)| path.join(name)).find(|p| p.exists());
        let file = file.unwrap_or_else(|| panic!("no {name}"));
        fs::read_to_string(&file).unwrap().trim().to_owned()
    }

    fn is_v2(&self) -> bool {
        matches!(self.0.0, Kind::V2(_))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.kill_all().unwrap();
        self.0.remove().unwrap();
        for (_, path) in self.0.mounts() {
            assert!(!path.exists(), "{}", path.display());
            // Others may be about to make theirs there: `make` must cope with that.
            let _ = fs::remove_dir(path.parent().unwrap());
        }
        self.0.remove().unwrap();
    }
}

fn eventually(what: &str, condition: impl FnMut() -> Result<bool>) {
    assert!(dir::await_condition(Instant::now() + Duration::from_secs(20), condition).unwrap(), "{what}");
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn live_memory_limit_kills() {
    let limit = 24 << 20;
    let json = format!(r#"{{"memory":{{"limit":{limit},"reservation":1048576}}}}"#);
    let Some(live) = Live::new("memory", &json) else { return };
    let name = if live.is_v2() { "memory.max" } else { "memory.limit_in_bytes" };
    assert_eq!(live.file(name), limit.to_string());
    assert_eq!(live.0.oom_kills().unwrap(), 0);
    let status = live.sh("exec dd if=/dev/zero of=/dev/null bs=150M count=1 2>/dev/null").wait().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGKILL), "{status}");
    assert!(live.0.oom_kills().unwrap() > 0);
}

#[test]
fn live_pids_limit_stops_forks() {
    let Some(live) = Live::new("pids", r#"{"pids":{"limit":5}}"#) else { return };
    let mut child = live.sh("for i in 1 2 3 4 5 6 7 8 9; do sleep 100 & done 2>/dev/null; exit 0");
    let status = child.wait().unwrap();
    assert!(!status.success(), "{status}");
    let pids = live.0.pids().unwrap();
    assert!((1..=5).contains(&pids.len()), "{pids:?}");
    live.0.kill_all().unwrap();
    assert!(live.0.pids().unwrap().is_empty());
}

#[test]
fn live_cpu_settings_are_written() {
    let json = r#"{"cpu":{"quota":50000,"period":200000,"shares":512}}"#;
    let Some(live) = Live::new("cpu", json) else { return };
    if live.is_v2() {
        assert_eq!((live.file("cpu.max"), live.file("cpu.weight")), ("50000 200000".into(), "59".into()));
    } else {
        assert_eq!((live.file("cpu.cfs_quota_us"), live.file("cpu.shares")), ("50000".into(), "512".into()));
        assert_eq!(live.file("cpu.cfs_period_us"), "200000");
    }
}

#[test]
fn live_cpuset_can_be_entered() {
    let Some(live) = Live::new("cpuset", r#"{"cpu":{"cpus":"0"}}"#) else { return };
    assert_eq!(live.file("cpuset.cpus"), "0");
    assert!(live.sh("exit 0").wait().unwrap().success());
}

#[test]
fn live_devices_are_denied() {
    if !is_root() || in_user_namespace() {
        return say("skipped: device rules take root of the machine");
    }
    let rules = r#"{"devices":[{"allow":false,"access":"rwm"},
        {"allow":true,"type":"c","access":"m"},
        {"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"},
        {"allow":true,"type":"c","major":1,"minor":5,"access":"r"}]}"#;
    let Some(live) = Live::new("devices", rules) else { return };
    let node = std::env::temp_dir().join(format!("dhow-test-node-{}", std::process::id()));
    let node = node.to_str().unwrap();
    let script = format!(
        "echo x >/dev/null || exit 1; \
         dd if=/dev/zero of=/dev/null count=1 2>/dev/null || exit 2; \
         dd if=/dev/null of=/dev/zero conv=notrunc count=1 2>/dev/null && exit 3; \
         dd if=/dev/kmsg of=/dev/null bs=8192 count=1 2>/dev/null && exit 4; \
         mknod {node} b 7 1 2>/dev/null && exit 5; \
         mknod {node} c 1 8 || exit 6; \
         dd if={node} of=/dev/null bs=1 count=1 2>/dev/null && exit 7; exit 0"
    );
    let status = live.sh(&script).wait().unwrap();
    fs::remove_file(Path::new(node)).unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn live_freeze_stops_and_kill_ends() {
    let Some(live) = Live::new("freeze", "{}") else { return };
    let mut child = live.sh("while :; do sleep 0.01; done");
    eventually("it has a child", || Ok(live.0.pids()?.len() > 1));
    live.0.freeze(true).unwrap();
    let (a, b) = (live.0.pids().unwrap(), live.0.pids().unwrap());
    assert_eq!(a, b);
    live.0.freeze(false).unwrap();
    eventually("it goes on", || Ok(live.0.pids()? != a));
    // What is frozen is killed all the same.
    live.0.freeze(true).unwrap();
    live.0.kill_all().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
}

#[test]
fn live_freeze_moves_into_a_freezer_made_late() {
    let Some(live) = Live::new("late", r#"{"pids":{"limit":100}}"#) else { return };
    let mut child = live.sh("sleep 100 & sleep 100 & wait");
    eventually("three processes", || Ok(live.0.pids()?.len() == 3));
    live.0.freeze(true).unwrap();
    live.0.freeze(true).unwrap();
    live.0.freeze(false).unwrap();
    live.0.kill_all().unwrap();
    child.wait().unwrap();
}

/// Runs a script that enters by a door, handed to it as stdout.
fn through_door(door: OwnedFd, script: &str) -> ExitStatus {
    Command::new("sh").args(["-c", &format!("echo 0; {script}")]).stdout(door).status().unwrap()
}

#[test]
fn live_a_process_enters_by_a_door() {
    let Some(live) = Live::new("door", r#"{"pids":{"limit":100}}"#) else { return };
    for door in live.0.doors().unwrap() {
        let status = through_door(door, "grep -q dhow-test/door /proc/self/cgroup");
        assert!(status.success(), "{status}");
    }
}

/// A child that goes through `doors` or starts in the cgroup `dir`, and lives until the cgroup has been looked at.
fn forked(live: &Live, dir: Option<&OwnedFd>, doors: &[OwnedFd]) {
    let (read, write) = rustix::pipe::pipe().unwrap();
    match process::fork(0, dir.map(AsFd::as_fd)).unwrap() {
        process::Forked::Child => {
            // Nothing but system calls: other threads of the test may hold locks.
            let code = i32::from(enter(doors).is_err());
            drop(write);
            let _ = rustix::io::read(&read, &mut [0]);
            process::exit_now(code);
        }
        process::Forked::Parent { pid, pidfd } => {
            eventually("it is in", || Ok(live.0.pids()? == [pid]));
            drop(write);
            let status = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)
                .unwrap()
                .unwrap();
            assert_eq!(status.exit_status(), Some(0));
        }
    }
}

#[test]
fn live_a_forked_child_enters() {
    let Some(live) = Live::new("enter", r#"{"pids":{"limit":100}}"#) else { return };
    forked(&live, None, &live.0.doors().unwrap());
}

#[test]
fn live_clone_into_the_cgroup() {
    let Some(live) = Live::new("clone", "{}") else { return };
    let Some(dir) = live.0.v2_dir().unwrap() else { return say("skipped: v1 has no CLONE_INTO_CGROUP") };
    forked(&live, Some(&dir), &[]);
}

#[test]
fn live_many_at_once() {
    if Live::new("first", "{}").is_none() {
        return;
    }
    std::thread::scope(|scope| {
        for n in 0..30 {
            scope.spawn(move || Live::new(&format!("many{n}"), r#"{"pids":{"limit":9}}"#).unwrap());
        }
    });
}

#[test]
fn live_what_lies_below_goes_too_and_what_is_in_use_stays() {
    let Some(live) = Live::new("below", r#"{"pids":{"limit":9}}"#) else { return };
    let path = live.0.mounts()[0].1.clone();
    dir::make(&path.join("a/b")).unwrap();
    // Left over by a crash: made anew.
    let again = Live::new("below", r#"{"pids":{"limit":8}}"#).unwrap();
    assert_eq!(again.file("pids.max"), "8");
    assert!(!path.join("a").exists());
    let mut child = again.sh("exec sleep 100");
    let hierarchy = probe().unwrap();
    let name = format!("dhow-test/below-{}", std::process::id());
    let resources = resources(r#"{"pids":{"limit":9}}"#);
    let wanted = Wanted { path: &name, resources: &resources, devices_needed: true, delegated: false };
    let error = create(&hierarchy, &wanted, &mut |_| {}, false).unwrap_err().to_string();
    assert!(error.ends_with("it exists and has processes in it"), "{error}");
    again.0.kill_all().unwrap();
    child.wait().unwrap();
}

#[test]
fn live_state_survives_as_json() {
    let Some(live) = Live::new("json", "{}") else { return };
    let text = serde_json::to_string(&live.0).unwrap();
    assert_eq!(serde_json::from_str::<Cgroup>(&text).unwrap(), live.0);
}

#[test]
fn live_a_limit_that_cannot_be_had_is_named() {
    if Live::new("bad", "{}").is_none() {
        return;
    }
    let path = format!("dhow-test/bad-{}", std::process::id());
    let resources = resources(r#"{"cpu":{"cpus":"9999"},"memory":{"limit":99999999}}"#);
    let wanted = Wanted { path: &path, resources: &resources, devices_needed: false, delegated: false };
    let hierarchy = probe().unwrap();
    let mut warnings = Vec::new();
    let made = create(&hierarchy, &wanted, &mut |w| warnings.push(w), false).unwrap().unwrap();
    made.remove().unwrap();
    assert!(matches!(&warnings[..], [w] if w.starts_with("cannot enforce cpuset cpus: ")), "{warnings:?}");
    let error = create(&hierarchy, &wanted, &mut |_| panic!("not both"), true).unwrap_err();
    assert_eq!(error.to_string(), warnings[0]);
    assert!(!made.mounts().iter().any(|(_, p)| p.exists()));
}

#[test]
fn without_cgroups_only_what_was_asked_for_is_missed() {
    let hierarchy = Hierarchy::None("no cgroup file system is mounted".to_owned());
    let check = |json: &str, path: &str, expected: Result<&[&str], &str>| {
        let resources = resources(json);
        let wanted = Wanted { path, resources: &resources, devices_needed: false, delegated: false };
        let mut warnings = Vec::new();
        match (create(&hierarchy, &wanted, &mut |w| warnings.push(w), false), expected) {
            (Ok(made), Ok(expected)) => {
                assert_eq!(
                    (made, warnings.as_slice()),
                    (None, expected.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>().as_slice())
                );
            }
            (Err(e), Err(expected)) => assert_eq!(e.to_string(), expected),
            (got, _) => panic!("{json} {path}: {got:?}"),
        }
    };
    check("{}", "dhow/a", Ok(&[]));
    check(
        r#"{"memory":{"limit":9,"swappiness":1},"pids":{"limit":9}}"#,
        "dhow/a",
        Ok(&[
            "cannot enforce memory swappiness: cgroup v2 has no such thing; memory limit, pids limit: no cgroup file system is mounted",
        ]),
    );
    for path in ["", "/", "..", "a/../b", "/../a"] {
        check("{}", path, Err(&format!("cannot create cgroup {path:?}: not a path below another")));
    }
}

/// The figures of a start and an end, for the budget. Run by hand: `cargo test --lib cgroup::tests::costs -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn costs() {
    let devices = r#""devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","access":"m"},
        {"allow":true,"type":"b","access":"m"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"},
        {"allow":true,"type":"c","major":1,"minor":5,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":7,"access":"rwm"},
        {"allow":true,"type":"c","major":1,"minor":8,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":9,"access":"rwm"},
        {"allow":true,"type":"c","major":5,"minor":0,"access":"rwm"},{"allow":true,"type":"c","major":5,"minor":2,"access":"rwm"},
        {"allow":true,"type":"c","major":136,"access":"rwm"}]"#;
    let all =
        format!(r#"{devices},"memory":{{"limit":99999999}},"pids":{{"limit":99}},"cpu":{{"quota":50000}}"#);
    let mut hierarchies = vec![probe().unwrap()];
    // A v1 machine may have an empty v2 tree beside the others.
    let unified = Path::new("/sys/fs/cgroup/unified");
    if unified.join("cgroup.procs").exists() {
        hierarchies.push(Hierarchy::V2 { root: unified.to_owned(), own: PathBuf::new() });
    }
    for hierarchy in hierarchies {
        say(&format!("{hierarchy:?}"));
        costs_in(&hierarchy, devices, &all);
    }
}

fn costs_in(hierarchy: &Hierarchy, devices: &str, all: &str) {
    for (name, json) in [("nothing", ""), ("devices", devices), ("devices, memory, pids, cpu", all)] {
        let resources = resources(&format!("{{{json}}}"));
        let path = format!("dhow-test/costs-{}", std::process::id());
        let wanted = Wanted { path: &path, resources: &resources, devices_needed: true, delegated: false };
        let mut parents = std::collections::BTreeSet::new();
        let mut times: Vec<[Duration; 3]> = (0..200)
            .map(|_| {
                let start = Instant::now();
                let cgroup = create(hierarchy, &wanted, &mut |_| {}, false).unwrap().unwrap();
                let created = start.elapsed();
                let start = Instant::now();
                drop((cgroup.doors().unwrap(), cgroup.v2_dir().unwrap()));
                let doors = start.elapsed();
                let start = Instant::now();
                cgroup.remove().unwrap();
                let removed = start.elapsed();
                parents
                    .extend(cgroup.mounts().iter().filter_map(|(_, path)| path.parent().map(Path::to_owned)));
                [created, doors, removed]
            })
            .collect();
        parents.iter().for_each(|parent| fs::remove_dir(parent).unwrap_or_default());
        let mut median = |n: usize| {
            times.sort_by_key(|t| t[n]);
            times[times.len() / 2][n].as_nanos() as f64 / 1e3
        };
        say(&format!(
            "{name}: create {:.0} us, open doors {:.0} us, remove {:.0} us",
            median(0),
            median(1),
            median(2)
        ));
    }
}

/// In the virtual machine: the live tests in name spaces of their own, with their cgroup as the root of the tree.
#[test]
#[ignore = "a part of v2_in_a_virtual_machine"]
fn a_container() {
    use nix::sched::CloneFlags as Flags;
    nix::sched::unshare(Flags::CLONE_NEWCGROUP | Flags::CLONE_NEWNS | Flags::CLONE_NEWPID).unwrap();
    // First we, a process of the world outside, stay in the container's cgroup, where it can neither see nor move us.
    let script = "mount --make-rprivate /; mkfifo /tmp/over;
        mount -t cgroup2 c /tmp/cgroup; mount --move /tmp/cgroup /sys/fs/cgroup; mount -t proc proc /proc
        /test runtime::cgroup::tests::live_pids --nocapture; cat /sys/fs/cgroup/cgroup.type
        echo == container
        echo over > /tmp/over; read go
        /test runtime::cgroup::tests::a_command --ignored --nocapture; cat /proc/self/cgroup
        unshare -p -f /test runtime::cgroup::tests::live --test-threads=1 --nocapture";
    let root = rustix::fs::open("/sys/fs/cgroup/cgroup.procs", OFlags::WRONLY, Mode::empty()).unwrap();
    let mut child = Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap();
    eventually("the fifo is there", || Ok(Path::new("/tmp/over").exists()));
    assert_eq!(fs::read(Path::new("/tmp/over")).unwrap(), b"over\n");
    rustix::io::write(&root, b"0").unwrap();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    child.wait().unwrap();
}

/// What a command does before its supervisor, in a pid name space below, makes the container's cgroup.
#[test]
#[ignore = "a part of v2_in_a_virtual_machine"]
fn a_command() {
    let json = r#"{"memory":{"limit":9},"pids":{"limit":9},"cpu":{"quota":9,"cpus":"0"}}"#;
    prepare(&resources(json)).unwrap();
}

/// Runs the live tests on v2: as root of the machine, as a user with a delegated cgroup (in it, below it, and as root of
/// a user name space), in a threaded cgroup, and as
/// root of a container that has a cgroup name space (with a process from outside in its way, and without).
#[test]
fn v2_in_a_virtual_machine() {
    if let Some(why) = vm::missing() {
        return say(&format!("skipped: {why}"));
    }
    let script = r#"
        cd /tmp
        T="/test runtime::cgroup::tests::live --test-threads=1 --nocapture"
        C=/sys/fs/cgroup
        echo "== machine"; $T
        cat $C/cgroup.subtree_control
        for place in delegated delegated/session; do
            mkdir -p $C/$place
            echo "+memory +pids +cpu +cpuset" > $C/cgroup.subtree_control
            chown user $C/delegated $C/delegated/cgroup.procs $C/delegated/cgroup.subtree_control $C/$place $C/$place/cgroup.procs
            (exec sh -c "echo \$\$ > $C/$place/cgroup.procs; echo == $place; exec su user -c '$T; cat /proc/self/cgroup'")
        done
        echo == user name space
        sh -c "echo \$\$ > $C/delegated/session/cgroup.procs; exec su user -c 'unshare -U -r $T'"
        mkdir -p $C/threaded/a; echo threaded > $C/threaded/a/cgroup.type
        chown user $C/threaded $C/threaded/cgroup.procs
        echo == threaded
        sh -c "echo \$\$ > $C/threaded/cgroup.procs; exec su user -c '/test runtime::cgroup::tests::live_pids --nocapture'"
        mkdir $C/container /tmp/cgroup
        echo == watched container
        sh -c "echo \$\$ > $C/container/cgroup.procs
               exec /test runtime::cgroup::tests::a_container --ignored --nocapture --test-threads=1"
        echo == costs
        /test runtime::cgroup::tests::costs --ignored --nocapture
        echo == outsider
        su user -c "/test runtime::cgroup::tests::live_pids --nocapture"
    "#;
    let me = std::env::current_exe().unwrap();
    let console = vm::run_in_vm(&[(me, "/test")], script, Duration::from_secs(900));
    say(&console);
    let part = |name: &str| {
        let start = console.find(&format!("== {name}\n")).unwrap_or_else(|| panic!("no part {name}"));
        console[start + 3..].split("\n== ").next().unwrap()
    };
    for (name, n_skipped) in
        [("machine", 0), ("delegated", 1), ("delegated/session", 1), ("user name space", 1), ("container", 0)]
    {
        let part = part(name);
        assert!(part.contains("test result: ok. ") && !part.contains("FAILED"), "{part}");
        assert_eq!(part.matches("skipped:").count(), n_skipped, "{part}");
    }
    assert!(part("delegated").contains("0::/delegated/dhow-own"));
    assert!(part("container").contains("0::/dhow-own"));
    assert!(
        part("threaded").contains("pids limit: /sys/fs/cgroup/threaded is a threaded cgroup"),
        "{console}"
    );
    let watched = part("watched container");
    assert!(
        watched.contains("pids limit: cannot move processes out of /sys/fs/cgroup: some are outside"),
        "{watched}"
    );
    assert!(watched.ends_with("\ndomain"), "{watched}");
    assert!(part("outsider").contains("is ours to write to"));
}
