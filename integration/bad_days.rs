//! Deaths at any moment, and many at once: nothing stays mounted, running or locked, names are free, the next command
//! works.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::capability::needs;
use crate::sandbox::{NONE, Sandbox};
use crate::{leftovers, wait};

for_each_user!(
    command_killed_takes_the_container_along,
    command_killed_at_any_moment,
    supervisor_killed,
    supervisor_killed_with_rm,
    init_killed,
    a_set_uid_init_dies_with_its_supervisor,
    a_daemonised_process_dies_too,
    detached_outlives_its_command,
    terminal_gone,
    thirty_at_once,
    thirty_with_one_name,
    rm_of_one_by_many,
    leftovers_of_an_earlier_boot,
    a_damaged_record,
    records_that_never_reached_the_disk,
);
for_root!(full_disk, under_an_init_that_does_not_reap);

/// Whoever holds the container: the processes of the sandbox that are dhow's, by what the kernel tells.
pub fn supervisors(s: &Sandbox, id: &str) -> Vec<Pid> {
    let init: i32 = s.inspect(id, "{{.State.Pid}}").parse().unwrap();
    let mut pids = Vec::new();
    // Up from init to this very program, which is the subreaper of all orphans: everything between holds the container.
    let mut pid = init;
    while let Some(parent) = leftovers::parent(pid) {
        if parent == std::process::id() as i32 {
            assert!(!pids.is_empty(), "init {init} has no supervisor");
            return pids;
        }
        pids.push(Pid::from_raw(parent).unwrap());
        pid = parent;
    }
    panic!("init {init} does not descend from this test");
}

/// After whatever happened: everything works as if it had not.
#[track_caller]
fn all_is_well(s: &Sandbox, name: &str) {
    s.dhow(["rm", "-f", name]).ok();
    assert_eq!(s.dhow(["run", "--rm", "--name", name, "busybox", "echo", "well"]).ok(), "well");
    s.assert_nothing_left();
}

fn command_killed_takes_the_container_along(s: &Sandbox) {
    for flags in [&["--rm"][..], &["--rm", "--init"], &[]] {
        let run = s
            .dhow(["run", "--name", "c1", "--cidfile", "cid"])
            .args(flags)
            .args(["busybox", "sh", "-c", "sleep 1000 & sleep 1000"])
            .spawn_with(|_| ());
        wait::until("it to run", || s.dhow(["ps", "-q"]).ok().lines().next().map(|_| ()));
        run.signal(Signal::KILL);
        wait::until("the container to end", || s.dhow(["ps", "-q"]).ok().is_empty().then_some(()));
        leftovers::wait_for_none(&s.dir, &Default::default());
        all_is_well(s, "c1");
        std::fs::remove_file(s.work.join("cid")).unwrap();
    }
}

fn command_killed_at_any_moment(s: &Sandbox) {
    // From before the first file is made to after the program runs: 40 moments over the start of a container.
    for moment in 0..40u64 {
        let run = s.dhow(["run", "--rm", "--name", "c1", "busybox", "sleep", "1000"]).spawn_with(|_| ());
        wait::within(Duration::from_micros(moment * moment * 60), || None::<()>);
        run.signal(Signal::KILL);
        drop(run);
        leftovers::wait_for_none(&s.dir, &Default::default());
        let out = s.dhow(["run", "--rm", "--name", "c1", "busybox", "echo", "next"]).output();
        assert!(out.code == 0 && out.text() == "next", "after a kill at moment {moment}: {}", out.report());
    }
    s.dhow(["ps", "-aq"]).ok();
    s.assert_nothing_left();
}

fn supervisor_killed(s: &Sandbox) {
    let id = s.detached(["--name", "c1"], ["sh", "-c", "sleep 1000 & sleep 1000"]);
    for pid in supervisors(s, &id) {
        let _ = kill_process(pid, Signal::KILL);
    }
    leftovers::wait_for_none(&s.dir, &Default::default());
    assert_eq!(s.inspect("c1", "{{.State.Running}}"), "false");
    assert_eq!(s.dhow(["ps", "-q"]).ok(), "");
    assert!(s.dhow(["ps", "-a"]).ok().contains("Exited"), "it is there, and has ended");
    s.dhow(["start", "c1"]).ok();
    assert_eq!(s.dhow(["exec", "c1", "echo", "again"]).ok(), "again");
    all_is_well(s, "c1");
}

fn supervisor_killed_with_rm(s: &Sandbox) {
    let id = s.detached(["--rm", "--name", "c1"], ["sleep", "1000"]);
    // The outermost first: nobody is left to clean up.
    for pid in supervisors(s, &id).into_iter().rev() {
        let _ = kill_process(pid, Signal::KILL);
    }
    leftovers::wait_for_none(&s.dir, &Default::default());
    all_is_well(s, "c1");
}

fn init_killed(s: &Sandbox) {
    for flags in [&[][..], &["--init"]] {
        s.detached(["--name", "c1"].iter().chain(flags), ["sleep", "1000"]);
        let pid: i32 = s.inspect("c1", "{{.State.Pid}}").parse().unwrap();
        leftovers::kill_own(pid, Signal::KILL);
        assert_eq!(s.dhow(["wait", "c1"]).ok(), "137");
        all_is_well(s, "c1");
    }
    let mut run = s.sh(["--name", "c1"], "sleep 1000").spawn_with(|_| ());
    wait::until("it to run", || (s.dhow(["exec", "c1", "true"]).output().code == 0).then_some(()));
    let pid: i32 = s.inspect("c1", "{{.State.Pid}}").parse().unwrap();
    leftovers::kill_own(pid, Signal::KILL);
    assert_eq!(run.code(), 137);
}

fn a_set_uid_init_dies_with_its_supervisor(s: &Sandbox) {
    // exec of a set-uid program clears the parent-death signal (prctl(2)); the container must end all the same.
    let user: &[&str] = if s.user == crate::user::User::Single { &[] } else { &["-u", "app"] };
    let flags = ["--name", "c1"].iter().chain(user);
    let id = s.detached(flags, ["sh", "-c", "exec /bin/su -s /bin/sh root -c 'sleep 1000' || sleep 1000"]);
    for pid in supervisors(s, &id) {
        let _ = kill_process(pid, Signal::KILL);
    }
    leftovers::wait_for_none(&s.dir, &Default::default());
    all_is_well(s, "c1");
    let run = s.dhow([
        "run",
        "--rm",
        "--name",
        "c1",
        "busybox",
        "/bin/su",
        "-s",
        "/bin/sh",
        "root",
        "-c",
        "sleep 1000",
    ]);
    let run = run.spawn_with(|_| ());
    wait::until("it to run", || s.dhow(["ps", "-q"]).ok().lines().next().map(|_| ()));
    run.signal(Signal::KILL);
    drop(run);
    leftovers::wait_for_none(&s.dir, &Default::default());
    all_is_well(s, "c1");
}

fn a_daemonised_process_dies_too(s: &Sandbox) {
    let script = "setsid sh -c 'trap \"\" HUP TERM INT; sleep 1000' </dev/null >/dev/null 2>&1 & exit 0";
    s.sh(NONE, script).ok();
    s.assert_nothing_left();
}

fn detached_outlives_its_command(s: &Sandbox) {
    // Its whole process group and session may be killed, as cron and CI runners do.
    let script = "\"$@\"; kill -9 0";
    let run = s.dhow(["run", "-d", "--name", "c1", "busybox", "sleep", "1000"]);
    let run = run.under(&["setsid", "--wait", "sh", "-c", script, "sh"]).output();
    assert_eq!(run.text().len(), 64, "{}", run.report());
    assert_eq!(s.dhow(["exec", "c1", "echo", "alive"]).ok(), "alive");
    all_is_well(s, "c1");
}

fn terminal_gone(s: &Sandbox) {
    let run = s.dhow(["run", "--rm", "-it", "--name", "c1", "busybox", "sh"]);
    let mut terminal = crate::terminal::Terminal::start(run, 24, 80);
    terminal.expect("# ");
    terminal.hang_up();
    leftovers::wait_for_none(&s.dir, &Default::default());
    all_is_well(s, "c1");
}

fn thirty_at_once(s: &Sandbox) {
    std::thread::scope(|scope| {
        for n in 0..30 {
            scope.spawn(move || {
                let script = format!("echo {n} > /mine; cat /mine; exit {n}");
                let cid = format!("cid{n}");
                let out = s.sh(["--network", "none", "--cidfile", &cid], &script).output().exits(n);
                assert_eq!(out.text(), n.to_string(), "{}", out.report());
                assert!(out.stderr.is_empty(), "{}", out.report());
            });
        }
    });
    s.assert_nothing_left();
}

fn thirty_with_one_name(s: &Sandbox) {
    let codes: Vec<i32> = std::thread::scope(|scope| {
        let one = || s.dhow(["run", "-d", "--name", "c1", "busybox", "sleep", "1000"]).output().code;
        let all: Vec<_> = (0..30).map(|_| scope.spawn(one)).collect();
        all.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(codes.iter().filter(|c| **c == 0).count(), 1, "a name is claimed by exactly one: {codes:?}");
    assert_eq!(codes.iter().filter(|c| **c == 125).count(), 29, "{codes:?}");
    assert_eq!(s.dhow(["ps", "-aq"]).ok().lines().count(), 1);
    all_is_well(s, "c1");
}

fn rm_of_one_by_many(s: &Sandbox) {
    for _ in 0..3 {
        s.detached(["--name", "c1"], ["sleep", "1000"]);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| s.dhow(["rm", "-f", "c1"]).output().exits(0));
            }
        });
        s.assert_nothing_left();
    }
}

fn leftovers_of_an_earlier_boot(s: &Sandbox) {
    // What a power cut leaves: records that say running, drafts half made, a name that points to nothing.
    s.detached(["--name", "c1"], ["sleep", "1000"]);
    for pid in supervisors(s, "c1") {
        let _ = kill_process(pid, Signal::KILL);
    }
    leftovers::wait_for_none(&s.dir, &Default::default());
    let owned = |path: std::path::PathBuf| {
        std::os::unix::fs::lchown(path, Some(s.account.uid), Some(s.account.gid)).unwrap();
    };
    let draft = s.store.join("tmp/0123456789abcdef");
    std::fs::create_dir_all(draft.join("half")).unwrap();
    std::fs::write(draft.join("lock"), "").unwrap();
    owned(draft.join("half"));
    owned(draft.join("lock"));
    owned(draft.clone());
    std::os::unix::fs::symlink(format!("../containers/{}", "0".repeat(64)), s.store.join("names/ghost"))
        .unwrap();
    owned(s.store.join("names/ghost"));
    assert!(s.dhow(["ps", "-a"]).ok().contains("c1"));
    assert_eq!(s.dhow(["run", "--rm", "--name", "ghost", "busybox", "echo", "free"]).ok(), "free");
    all_is_well(s, "c1");
}

fn a_damaged_record(s: &Sandbox) {
    let id = s.detached(["--name", "c1"], ["true"]);
    s.dhow(["wait", "c1"]).ok();
    let dir = s.store.join("containers").join(&id);
    for name in leftovers::names(&dir) {
        let path = dir.join(name);
        if path.extension().is_some_and(|e| e == "json") {
            std::fs::write(&path, "{ \"half\": ").unwrap();
        }
    }
    let out = s.dhow(["ps", "-a"]).output();
    assert!(out.code < 126, "no panic: {}", out.report());
    s.dhow(["run", "--rm", "busybox", "true"]).ok();
    s.dhow(["rm", "-f", &id]).ok();
    s.assert_nothing_left();
}

/// What a power cut leaves (see `power_cut`): the files are there and empty.
fn records_that_never_reached_the_disk(s: &Sandbox) {
    let make = |flags: &[&str]| s.dhow(["create", "--name", "c1"]).args(flags).args(["busybox", "true"]).ok();
    let lose = |id: String| {
        for name in ["record.json", "config.json"] {
            std::fs::write(s.store.join("containers").join(&id).join(name), "").unwrap();
        }
    };
    // One that was to be removed anyway is in nobody's way.
    lose(make(&["--rm"]));
    s.dhow(["run", "--rm", "--name", "c1", "busybox", "true"]).ok();
    // Any other can be removed by its name.
    lose(make(&[]));
    s.dhow(["rm", "c1"]).ok();
    s.dhow(["run", "--rm", "--name", "c1", "busybox", "true"]).ok();
    s.assert_nothing_left();
}

fn full_disk(s: &Sandbox) {
    needs!("mkfs.ext4");
    // A small file system of its own, in a mount name space of its own: 12 MiB take busybox and little more.
    let image = s.work.join("disk");
    let dhow = crate::sandbox::dhow().display();
    let tar = crate::images::busybox().display();
    let disk = image.display();
    let script = format!(
        "set -e; truncate -s 24M {disk}; mkfs.ext4 -q -m 0 {disk}; mkdir -p at; mount -o loop {disk} at
         d='{dhow} --root at/store'
         $d import {tar} small >/dev/null
         files() {{ find at/store -type f | grep -v '/tmp/' | sort; }}
         files > before
         # An import that does not fit.
         (cat {tar}; head -c 1 /dev/zero) >/dev/null
         mkdir -p big; head -c 40000000 /dev/urandom > big/file; tar c big > big.tar
         if $d import big.tar big 2> said; then echo imported; fi
         cat said >&2; grep -c 'No space left' said; grep -c '^dhow: ' said
         files > after; cmp before after
         # A run that fills the disk: the program inside sees the error, dhow goes on.
         $d run --rm small sh -c 'head -c 40000000 /dev/zero > /fill' 2>/dev/null && echo filled
         $d run --rm small echo still works
         # A run when not a block is free.
         head -c 40000000 /dev/zero > at/fill 2>/dev/null || true
         $d run --rm small echo with a full disk 2> said || true
         cat said >&2
         rm at/fill; $d run --rm small echo works again
         ls at/store/containers at/store/tmp | grep -c . || true
         # The supervisor is still about its network when its command is gone.
         until umount at 2>/dev/null; do :; done"
    );
    let out = s.program("unshare").args(["-m", "sh", "-c", &script]).output().exits(0);
    let text = out.text();
    assert!(text.starts_with("1\n1\nstill works\n"), "{}", out.report());
    assert!(text.contains("works again\n"), "{}", out.report());
}

fn under_an_init_that_does_not_reap(s: &Sandbox) {
    // A CI step's container often has `sleep` or `tail -f` as pid 1: what is orphaned there stays a zombie, and a zombie in a
    // container's pid name space keeps the container's init from ending.
    let dhow = crate::sandbox::dhow().display();
    let store = s.store.display();
    let script = format!(
        "d='{dhow} --root {store}'
         ( $d run -d --name c1 busybox sleep 1000 && $d exec -d c1 sleep 1001
           $d exec c1 sleep 1002 & exec=$!
           until $d exec c1 ps -o args | grep -q 'sleep 1002'; do :; done; echo killing
           kill -9 $exec
           $d rm -f c1 && echo removed
         ) > result 2>&1 &
         exec sleep 1000"
    );
    let _init = s
        .program("unshare")
        .args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", &script])
        .spawn_with(|_| ());
    let said = || std::fs::read_to_string(s.work.join("result")).unwrap_or_default();
    wait::within(wait::SOON, || said().contains("removed").then_some(()))
        .unwrap_or_else(|| panic!("rm -f does not come back: {}", said()));
}
