//! Running again: restart policies with their back-off, what ends them, and the verb `restart`.

use crate::sandbox::Sandbox;
use crate::wait;

for_each_user!(
    on_failure_so_often,
    on_failure_ends_with_success,
    always_until_a_person_ends_it,
    stop_and_rm_during_back_off,
    kill_is_for_good,
    a_restarted_run_is_fresh,
    restart_the_verb,
    restart_of_what_is_to_be_removed,
    in_the_foreground,
    commands_racing_with_restarts,
    two_starts_at_once,
    policies_that_are_none,
);

fn status(s: &Sandbox, name: &str) -> String {
    s.inspect(name, "{{.State.Status}}")
}

#[track_caller]
fn await_status(s: &Sandbox, name: &str, wanted: &str) {
    wait::until(wanted, || (status(s, name) == wanted).then_some(()));
}

fn on_failure_so_often(s: &Sandbox) {
    s.detached(["--name", "a", "--restart", "on-failure:2"], ["sh", "-c", "echo run; exit 3"]);
    await_status(s, "a", "exited");
    assert_eq!(s.inspect("a", "{{.RestartCount}} {{.State.ExitCode}}"), "2 3");
    assert_eq!(
        s.inspect("a", "{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}"),
        "on-failure 2"
    );
    assert_eq!(s.dhow(["logs", "a"]).ok(), "run\nrun\nrun", "the log goes on");
    s.dhow(["start", "a"]).ok();
    await_status(s, "a", "exited");
    assert_eq!(s.inspect("a", "{{.RestartCount}}"), "2", "a start begins to count anew");
}

fn on_failure_ends_with_success(s: &Sandbox) {
    // What the runs before wrote is there: the changes are kept.
    let script = "echo x >> /runs; test $(wc -l < /runs) -ge 3";
    s.detached(["--name", "a", "--restart", "on-failure"], ["sh", "-c", script]);
    assert_eq!(s.dhow(["wait", "a"]).ok(), "0");
    assert_eq!(s.inspect("a", "{{.RestartCount}} {{.State.ExitCode}}"), "2 0");
}

fn always_until_a_person_ends_it(s: &Sandbox) {
    s.detached(["--name", "a", "--restart", "always"], ["sh", "-c", "exit 0"]);
    wait::until("three restarts", || {
        (s.inspect("a", "{{.RestartCount}}").parse::<u32>().unwrap() >= 3).then_some(())
    });
    s.dhow(["stop", "a"]).ok();
    assert_eq!(s.inspect("a", "{{.State.Status}} {{.State.Restarting}}"), "exited false");
    assert!(s.dhow(["ps", "-aq"]).ok().lines().count() == 1);
    s.dhow(["start", "a"]).ok();
    wait::until("it restarts again", || (s.inspect("a", "{{.RestartCount}}") != "0").then_some(()));
}

fn stop_and_rm_during_back_off(s: &Sandbox) {
    // No names that are beginnings of ids.
    let ends = [("stays", &["stop", "stays"][..]), ("goes", &["rm", "-f", "goes"])];
    for (name, _) in ends {
        s.detached(["--name", name, "--restart", "always"], ["sh", "-c", "exit 7"]);
    }
    let mut runs = 0;
    for (name, end) in ends {
        // The back-off is long by then, thirteen seconds or more: a busy machine gets all of this done within it, and an end
        // that waited for it would be seen to restart.
        let count = wait::until("a long back-off", || {
            let seen = s.inspect(name, "{{.RestartCount}} {{.State.Status}}");
            seen.strip_suffix(" restarting")?.parse::<u32>().ok().filter(|count| *count >= 8)
        });
        runs = if name == "stays" { count } else { runs };
        let ps = s.dhow(["ps", "-f", &format!("name={name}"), "--format", "{{.State}} {{.Status}}"]).ok();
        assert!(ps.starts_with("restarting Restarting (7)"), "{ps}");
        s.dhow(["exec", name, "true"]).output().complains("restarting").exits(1);
        s.dhow(["rm", name]).output().complains("restarting").exits(1);
        s.dhow(end).ok();
    }
    assert_eq!(
        s.inspect("stays", "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}"),
        format!("exited 7 {}", runs - 1),
        "the run that was waited for never came"
    );
    s.dhow(["inspect", "goes"]).fails(1);
}

fn kill_is_for_good(s: &Sandbox) {
    s.detached(["--name", "a", "--restart", "always"], ["sleep", "1000"]);
    s.dhow(["kill", "a"]).ok();
    assert_eq!(s.dhow(["wait", "a"]).ok(), "137");
    assert_eq!(s.inspect("a", "{{.State.Status}} {{.RestartCount}}"), "exited 0");
    // The end of the process by another hand is none by a person's wish.
    s.dhow(["start", "a"]).ok();
    let pid: i32 = s.inspect("a", "{{.State.Pid}}").parse().unwrap();
    crate::leftovers::kill_own(pid, rustix::process::Signal::KILL);
    wait::until("the next run", || {
        (s.inspect("a", "{{.RestartCount}} {{.State.Status}}") == "1 running").then_some(())
    });
    assert_ne!(s.inspect("a", "{{.State.Pid}}"), pid.to_string());
}

fn a_restarted_run_is_fresh(s: &Sandbox) {
    let script =
        "echo $$ $(echo /proc/[0-9]*); sleep 1000 & test -s /again || { echo > /again; exit 1; }; sleep 1000";
    s.detached(["--name", "a", "--memory", "100m", "--restart", "always"], ["sh", "-c", script]);
    wait::until("the second run", || {
        (s.inspect("a", "{{.RestartCount}} {{.State.Status}}") == "1 running").then_some(())
    });
    // Not by an exec, which the second run might see.
    let seen = wait::until("its words", || {
        let seen = s.dhow(["logs", "a"]).ok();
        (seen.lines().count() == 2).then_some(seen)
    });
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[0], lines[1], "nothing of the first run is there");
    assert!(lines[0].starts_with("1 "), "{seen}");
}

fn restart_the_verb(s: &Sandbox) {
    s.detached(["--name", "a"], ["sh", "-c", "echo begun; trap 'exit 4' TERM; while :; do sleep 0.05; done"]);
    s.detached(["--name", "b"], ["sh", "-c", "echo once"]);
    s.dhow(["wait", "b"]).ok();
    let pid = s.inspect("a", "{{.State.Pid}}");
    wait::until("the trap", || s.dhow(["logs", "a"]).ok().contains("begun").then_some(()));
    assert_eq!(s.dhow(["restart", "-t", "1000", "a", "b"]).ok(), "a\nb");
    assert_eq!(s.inspect("a", "{{.State.Status}} {{.RestartCount}}"), "running 0");
    assert_ne!(s.inspect("a", "{{.State.Pid}}"), pid);
    assert_eq!(s.dhow(["wait", "b"]).ok(), "0");
    assert_eq!(s.dhow(["logs", "b"]).ok(), "once\nonce", "one that did not run is started");
    wait::until("the second run", || (s.dhow(["logs", "a"]).ok() == "begun\nbegun").then_some(()));
    s.dhow(["restart", "-t", "0", "a"]).ok();
    s.dhow(["pause", "a"]).ok();
    s.dhow(["restart", "-t", "0", "a"]).ok();
    assert_eq!(status(s, "a"), "running");
    s.dhow(["stop", "-t", "0", "a"]).ok();
    assert_eq!(status(s, "a"), "exited", "a restart by hand is no policy");
    s.dhow(["restart", "nobody"]).output().complains("nobody").exits(1);
}

fn restart_of_what_is_to_be_removed(s: &Sandbox) {
    s.detached(["--name", "a", "--rm"], ["sh", "-c", "echo x >> /runs; sleep 1000"]);
    wait::until("the first run", || (s.dhow(["exec", "a", "cat", "/runs"]).output().code == 0).then_some(()));
    s.dhow(["restart", "-t", "0", "a"]).ok();
    wait::until("both runs", || (s.dhow(["exec", "a", "cat", "/runs"]).ok() == "x\nx").then_some(()));
    s.dhow(["stop", "-t", "0", "a"]).ok();
    s.dhow(["inspect", "a"]).fails(1);
}

fn in_the_foreground(s: &Sandbox) {
    let script = "echo run; echo x >> /runs; test $(wc -l < /runs) -ge 3 && exit 0; exit 9";
    let run = s
        .dhow(["run", "--name", "a", "--restart", "on-failure:5", "busybox", "sh", "-c", script])
        .output()
        .exits(0);
    assert_eq!(run.text(), "run\nrun\nrun", "it is there for all runs");
}

fn commands_racing_with_restarts(s: &Sandbox) {
    s.detached(["--name", "a", "--restart", "always"], ["sh", "-c", "exit 1"]);
    std::thread::scope(|scope| {
        let hammer = |verb: &'static [&'static str]| {
            scope.spawn(move || {
                for _ in 0..6 {
                    s.dhow(verb).output().expect("no panic, no death", |o| (0..=1).contains(&o.code));
                }
            });
        };
        hammer(&["stop", "a"]);
        hammer(&["start", "a"]);
        hammer(&["restart", "-t", "0", "a"]);
        hammer(&["pause", "a"]);
        hammer(&["ps", "-a"]);
        hammer(&["kill", "a"]);
    });
    s.dhow(["stop", "-t", "0", "a"]).ok();
    assert_eq!(status(s, "a"), "exited");
    s.dhow(["rm", "a"]).ok();
}

fn two_starts_at_once(s: &Sandbox) {
    s.dhow(["create", "--name", "a", "busybox", "sh", "-c", "echo x >> /runs; sleep 1000"]).ok();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| s.dhow(["start", "a"]).ok());
        }
    });
    let runs = wait::until("the run", || {
        Some(s.dhow(["exec", "a", "cat", "/runs"]).output()).filter(|o| o.code == 0 && !o.stdout.is_empty())
    });
    assert_eq!(runs.text(), "x");
    s.dhow(["rm", "-f", "a"]).ok();
}

fn policies_that_are_none(s: &Sandbox) {
    for flags in [&["--restart", "never"][..], &["--restart", "always:3"], &["--restart", "always", "--rm"]] {
        s.dhow(["run"]).args(flags).args(["busybox", "true"]).output().complains("restart").exits(125);
    }
    assert_eq!(s.dhow(["ps", "-aq"]).ok(), "");
    s.dhow(["run", "--restart", "no", "--rm", "busybox", "true"]).ok();
}
