//! What jobs need that are run again and again under one name: overlapping and dead runs, output that is shown only when
//! it matters, time zones, delays, and next to no environment.

use std::os::unix::process::CommandExt;

use rustix::process::Signal;

use crate::sandbox::{NONE, Sandbox};
use crate::{leftovers, wait};

for_each_user!(
    skip_and_fail_while_one_runs,
    wait_until_it_has_ended,
    replace_ends_it,
    the_name_of_one_that_has_ended,
    the_name_of_one_that_was_killed,
    ten_at_once,
    quiet_unless_it_fails,
    quiet_keeps_streams_apart,
    quiet_about_much,
    quiet_with_a_terminal,
    switches_that_are_off,
    jitter,
    time_zones,
    no_environment_and_no_streams,
);

fn skip_and_fail_while_one_runs(s: &Sandbox) {
    let id = s.detached(["--name", "job"], ["sleep", "1000"]);
    let out =
        s.dhow(["run", "--rm", "--name", "job", "--if-running", "skip", "busybox", "echo", "no"]).output();
    assert_eq!(
        (out.code, out.text(), out.error_text()),
        (0, String::new(), "dhow: skipped: container job is running\n".into())
    );
    let out = s.dhow(["run", "--rm", "--name", "job", "--if-running", "fail", "busybox", "true"]).fails(125);
    assert!(out.contains("cannot run job: a container of this name is running\nhint: "), "{out}");
    let out = s.dhow(["run", "--rm", "--name", "job", "busybox", "true"]).fails(125);
    assert!(out.contains("in use by container"), "{out}");
    assert_eq!(s.inspect("job", "{{.Id}} {{.State.Running}}"), format!("{id} true"));
    // Wrong input, before anything is done.
    let out = s.dhow(["run", "--name", "job", "--if-running", "maybe", "busybox", "true"]).fails(125);
    assert!(out.contains("skip, wait, replace or fail"), "{out}");
    for flag in ["--if-running=skip", "--replace"] {
        let out = s.dhow(["run", flag, "busybox", "true"]).fails(125);
        assert!(out.contains("without a --name"), "{out}");
    }
}

fn wait_until_it_has_ended(s: &Sandbox) {
    let dir = s.subdir("w");
    let volume = format!("{}:/w", dir.display());
    let first = "trap 'echo first >>/w/order; exit 0' TERM; touch /w/ready; while :; do sleep 0.05; done";
    s.detached(["--name", "job", "-v", &volume], ["sh", "-c", first]);
    wait::until("the first to run", || dir.join("ready").exists().then_some(()));
    let flags = ["--name", "job", "--if-running", "wait", "-v", &volume];
    let mut second = s.sh(flags, "echo second >>/w/order").spawn_with(|_| ());
    s.dhow(["kill", "-s", "TERM", "job"]).ok();
    assert_eq!(second.code(), 0);
    assert_eq!(std::fs::read_to_string(dir.join("order")).unwrap(), "first\nsecond\n");
}

fn replace_ends_it(s: &Sandbox) {
    let dir = s.subdir("w");
    let volume = format!("{}:/w", dir.display());
    let first = "trap 'touch /w/asked; exit 0' HUP; touch /w/ready; while :; do sleep 0.05; done";
    s.detached(["--name", "job", "--stop-signal", "HUP", "-v", &volume], ["sh", "-c", first]);
    wait::until("the first to run", || dir.join("ready").exists().then_some(()));
    let flags = ["--name", "job", "--if-running", "replace", "-v", &volume];
    assert_eq!(s.sh(flags, "ls /w").ok(), "asked\nready", "by its stop signal");
    s.assert_nothing_left();
    // podman's word for it, also for create; nothing is lost before the new one can be.
    let id = s.detached(["--name", "job"], ["sleep", "1000"]);
    s.dhow(["run", "--name", "job", "--replace", "--tz", "No/Where", "busybox", "true"]).fails(125);
    assert!(s.dhow(["ps", "-aq", "--no-trunc"]).ok() == id);
    s.dhow(["create", "--name", "job", "--stop-timeout", "0", "--replace", "busybox", "true"]).ok();
    assert_eq!(s.inspect("job", "{{.State.Status}}"), "created");
    s.dhow(["run", "--name", "job", "--replace", "busybox", "echo", "new"]).ok();
    assert_eq!(s.dhow(["logs", "job"]).ok(), "new");
    assert_eq!(s.dhow(["ps", "-aq"]).ok().lines().count(), 1);
}

fn the_name_of_one_that_has_ended(s: &Sandbox) {
    for n in 0..3 {
        let flags = ["--name", "job", "--if-running", "skip"];
        s.dhow(["run"]).args(flags).args(["busybox", "echo", &format!("run {n}")]).ok();
        // Kept, and only the last.
        assert_eq!(s.dhow(["logs", "job"]).ok(), format!("run {n}"));
    }
    assert_eq!(s.dhow(["ps", "-aq"]).ok().lines().count(), 1);
    let out = s.dhow(["run", "--name", "job", "busybox", "true"]).fails(125);
    assert!(out.contains("in use by container"), "{out}");
}

fn the_name_of_one_that_was_killed(s: &Sandbox) {
    for policy in ["skip", "wait", "replace", "fail"] {
        let id = s.detached(["--name", "job"], ["sleep", "1000"]);
        for pid in crate::bad_days::supervisors(s, &id).into_iter().rev() {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        // Until the kernel has ended it, it runs.
        let runs = || s.dhow(["ps", "-q"]).ok();
        wait::until("it to end", || runs().is_empty().then_some(()));
        let flags = ["--rm", "--name", "job", "--if-running", policy];
        assert_eq!(
            s.dhow(["run"]).args(flags).args(["busybox", "echo", "goes on"]).ok(),
            "goes on",
            "{policy}"
        );
        s.assert_nothing_left();
        // The same for a foreground run whose command was killed.
        let mut run = s.dhow(["run", "--name", "job", "busybox", "sleep", "1000"]).spawn_with(|_| ());
        wait::until("it to run", || (!runs().is_empty()).then_some(()));
        run.signal(Signal::KILL);
        run.code();
        wait::until("it to end", || runs().is_empty().then_some(()));
        assert_eq!(
            s.dhow(["run"]).args(flags).args(["busybox", "echo", "goes on"]).ok(),
            "goes on",
            "{policy}"
        );
        s.assert_nothing_left();
    }
}

fn ten_at_once(s: &Sandbox) {
    let dir = s.subdir("w");
    let volume = format!("{}:/w", dir.display());
    for policy in ["skip", "wait", "replace", "fail"] {
        let flags = ["--name", "job", "--if-running", policy, "-v", &volume];
        let script = "trap 'rmdir /w/alone; exit 42' TERM; mkdir /w/alone || echo >>/w/two; echo >>/w/runs; \
                      sleep 0.1 & wait $!; rmdir /w/alone";
        let all: Vec<_> = (0..10).map(|_| s.sh(flags, script).spawn_with(|_| ())).collect();
        let codes: Vec<i32> = all.into_iter().map(|mut run| run.code()).collect();
        assert!(!dir.join("two").exists(), "{policy}: two ran at once");
        let n_runs = std::fs::read_to_string(dir.join("runs")).unwrap().lines().count();
        let n = |code: i32| codes.iter().filter(|c| **c == code).count();
        match policy {
            "skip" => assert_eq!(n(0), 10, "{codes:?}"),
            "wait" => assert_eq!((n(0), n_runs), (10, 10), "{codes:?}"),
            "replace" => assert!(n(0) >= 1 && n(0) + n(42) == 10, "{codes:?}"),
            _ => assert!(n(0) >= 1 && n(0) == n_runs && n(0) + n(125) == 10, "{codes:?}"),
        }
        let _ = std::fs::remove_file(dir.join("runs"));
        s.assert_nothing_left();
        assert!(leftovers::names(&s.store.join("ephemeral")).is_empty(), "{policy}: a marker is left");
        assert_eq!(s.dhow(["run", "--rm", "--name", "job", "busybox", "echo", "well"]).ok(), "well");
    }
}

fn quiet_unless_it_fails(s: &Sandbox) {
    let quiet = s.sh(["--quiet-ok"], "echo out; echo err >&2").output().exits(0);
    assert!(quiet.stdout.is_empty() && quiet.stderr.is_empty(), "{}", quiet.report());
    // Both streams where both are one, also for a program that opens its own again.
    let script = "for i in 1 2 3; do echo out; echo err >&2; echo again >/dev/stderr; done; exit 3";
    let merged =
        s.sh(["--quiet-ok"], script).under(&["sh", "-c", "exec \"$@\" 2>&1", "sh"]).output().exits(3);
    assert_eq!(merged.text(), ["out\nerr\nagain"; 3].join("\n"));
    assert!(merged.stderr.is_empty());
    // What cannot even be started is a failure too, and nothing to start is none.
    let out = s.dhow(["run", "--rm", "--quiet-ok", "busybox", "/no/such"]).output().exits(127);
    assert!(out.error_text().contains("/no/such"), "{}", out.report());
    let out = s.dhow(["run", "--rm", "--quiet-ok", "--pull", "never", "none", "true"]).output().exits(125);
    assert!(out.error_text().contains("no such image"), "{}", out.report());
    s.detached(["--name", "job"], ["sleep", "1000"]);
    let out = s.sh(["--quiet-ok", "--name", "job", "--if-running", "skip"], "true").output().exits(0);
    assert!(out.stdout.is_empty() && out.stderr.is_empty(), "{}", out.report());
    s.dhow(["run", "-d", "--quiet-ok", "busybox", "true"]).fails(125);
    // With a log that is kept.
    let out =
        s.dhow(["run", "--name", "kept", "--quiet-ok", "busybox", "sh", "-c", "echo x; exit 4"]).output();
    assert_eq!((out.code, out.text()), (4, "x".into()));
    assert_eq!(s.dhow(["logs", "kept"]).ok(), "x");
}

fn quiet_keeps_streams_apart(s: &Sandbox) {
    let out = s.sh(["--quiet-ok"], "echo out; echo err >&2; printf end; exit 9").output().exits(9);
    assert_eq!((out.stdout.as_slice(), out.stderr.as_slice()), (&b"out\nend"[..], &b"err\n"[..]));
}

fn quiet_about_much(s: &Sandbox) {
    let all: Vec<u8> = (0..=255u8).cycle().take(1 << 20).collect();
    let dir = s.file("b/all", &all).parent().unwrap().display().to_string();
    let script = "i=0; while [ $i -lt 20 ]; do cat /b/all; i=$((i+1)); done; exit 1";
    let out = s.sh(["--quiet-ok", "-v", &format!("{dir}:/b:ro")], script).output().exits(1);
    assert!(out.stdout == all.repeat(20), "{} bytes came", out.stdout.len());
    assert!(out.stderr.is_empty(), "{}", out.report());
    s.sh(["--quiet-ok", "-v", &format!("{dir}:/b:ro")], &script.replace("exit 1", "exit 0")).ok();
}

/// To docker, and so to its users' scripts, `--rm=false` is no `--rm`.
fn switches_that_are_off(s: &Sandbox) {
    let run = |flags: &[&str]| s.dhow(["run"]).args(flags).args(["busybox", "true"]).output();
    run(&["--rm=false", "--restart", "on-failure", "--name", "one"]).exits(0);
    run(&["--rmi=false", "-d", "--name", "two"]).exits(0);
    run(&["--replace=false", "--if-running", "replace", "--name", "one"]).exits(0);
    run(&["--quiet-ok=false", "-d", "--name", "two", "--replace"]).exits(0);
    s.dhow(["boot", "--print", "--install=false", "--uninstall=false"]).ok();
    run(&["--rmi", "-d"]).exits(125).complains("--detach");
    run(&["--rm", "--restart", "always"]).exits(125).complains("conflicting options");
    run(&["--replace", "--if-running", "skip", "--name", "one"]).exits(125).complains("--replace");
    s.dhow(["boot", "--print", "--install"]).output().exits(125).complains("--install");
    s.dhow(["network", "alias", "--add", "--remove", "n", "one", "a"])
        .output()
        .exits(125)
        .complains("--remove");
    s.dhow(["login", "--password-stdin", "-p", "x", "registry.invalid"])
        .output()
        .exits(125)
        .complains("--password");
    s.dhow(["logout", "--all", "registry.invalid"]).output().exits(125).complains("--all");
}

fn quiet_with_a_terminal(s: &Sandbox) {
    let out = s.sh(["--quiet-ok", "-t"], "echo shown; exit 2").output().exits(2);
    assert_eq!(out.text(), "shown\r");
    assert_eq!(s.sh(["--quiet-ok", "-t"], "echo hidden").output().exits(0).text(), "");
}

fn jitter(s: &Sandbox) {
    assert_eq!(s.sh(["--jitter", "5ms"], "echo late").ok(), "late");
    let mut run = s.sh(["--jitter", "100000h"], "true").spawn_with(|_| ());
    let stat = format!("/proc/{}/stat", run.child.id());
    // Asleep, and not because of its store: there is none it has opened.
    wait::until("it to wait", || std::fs::read_to_string(&stat).unwrap().contains(") S ").then_some(()));
    run.signal(Signal::TERM);
    assert_eq!(run.code(), 128 + 15);
    s.assert_nothing_left();
    for wrong in ["-5s", "soon", "5"] {
        let out = s.sh(["--jitter", wrong], "true").fails(125);
        assert!(out.contains("--jitter"), "{out}");
    }
}

fn time_zones(s: &Sandbox) {
    let script = "echo $TZ; date -d @0 +%H:%M; env -u TZ readlink /etc/localtime; TZ=UTC0 date -d @0 +%H:%M";
    let said = |zone: &str| s.sh(["--tz", zone], script).ok();
    let want = "Asia/Tokyo\n09:00\n/usr/share/zoneinfo/Asia/Tokyo\n00:00";
    assert_eq!(said("Asia/Tokyo"), want);
    assert_eq!(said("/usr/share/zoneinfo/Asia/Tokyo"), want);
    let file = s.file("zone", std::fs::read("/usr/share/zoneinfo/Asia/Tokyo").unwrap());
    assert_eq!(said(&file.display().to_string()).lines().nth(1), Some("09:00"));
    let local = s.program("date").args(["-d", "@0", "+%H:%M"]).ok();
    assert_eq!(said("local").lines().nth(1), Some(local.as_str()));
    // A variable that was asked for is asked for; a zone of the image is there although its link leads elsewhere.
    assert_eq!(s.sh(["--tz", "Asia/Tokyo", "-e", "TZ=XYZ-1"], "date -d @0 +%H").ok(), "01");
    assert_eq!(s.sh(["--tz", "Asia/Tokyo", "--read-only"], "date -d @0 +%H").ok(), "09");
    s.dhow(["create", "--name", "c1", "--tz", "Asia/Tokyo", "busybox", "date", "-d", "@0", "+%H"]).ok();
    for _ in 0..2 {
        assert_eq!(s.dhow(["start", "-a", "c1"]).ok(), "09");
    }
    for wrong in ["No/Where", "../../etc/passwd", "", "/etc/passwd", "/no/such", "Europe", "zone.tab"] {
        let out = s.sh(["--tz", wrong], "true").fails(125);
        assert!(out.contains("cannot use the time zone"), "{wrong}: {out}");
    }
}

fn no_environment_and_no_streams(s: &Sandbox) {
    let dir = s.subdir("w");
    let volume = format!("{}:/w", dir.display());
    let bare = |flags: &[&str], script: &str| {
        let flags =
            ["--name", "job", "--if-running", "wait", "-v", &volume].into_iter().chain(flags.iter().copied());
        s.sh(flags, script).under(&["env", "-i", "sh", "-c", "cd /; exec \"$@\" <&- >&- 2>&-", "sh"])
    };
    bare(&[], "echo ran >/w/one; exit 5").output().exits(5);
    assert_eq!(std::fs::read_to_string(dir.join("one")).unwrap(), "ran\n");
    bare(&["--quiet-ok", "--tz", "local", "--jitter", "1ms"], "echo out; exit 6").output().exits(6);
    bare(&["-t"], "tty >/w/tty; exit 7").output().exits(7);
    assert!(std::fs::read_to_string(dir.join("tty")).unwrap().starts_with("/dev/"));
    // In a session of its own with no terminal, as a daemon starts its jobs.
    let mut run = s.sh(NONE, "exit 8").env_remove("HOME").env_remove("PATH").spawn_with(|c| {
        c.process_group(0);
    });
    assert_eq!(run.code(), 8);
}
