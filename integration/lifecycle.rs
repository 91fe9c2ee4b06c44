//! The life of a container after `run -d`: ps, stop, kill, wait, start, rm.

use std::time::Instant;

use serde_json::Value;

use crate::sandbox::{NONE, Sandbox};
use crate::wait;

for_each_user!(
    ps_lists,
    ps_filters,
    ps_formats,
    stop_asks_first,
    stop_insists,
    kill_sends_a_signal,
    wait_prints_the_code,
    start_again,
    start_attached,
    rm_refuses_what_runs,
    prefixes_and_names,
    unknown_containers,
    state_is_derived,
);

fn long(s: &Sandbox, name: &str) -> String {
    s.detached(["--name", name], ["sleep", "1000"])
}

fn ended(s: &Sandbox, name: &str, code: u32) -> String {
    let id = s.detached(["--name", name], ["sh", "-c", &format!("exit {code}")]);
    s.dhow(["wait", name]).ok();
    id
}

fn ps_lists(s: &Sandbox) {
    assert_eq!(s.dhow(["ps", "-aq"]).ok(), "");
    let header = s.dhow(["ps"]).ok();
    for column in ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"] {
        assert!(header.contains(column), "{header}");
    }
    let (one, two) = (long(s, "one"), ended(s, "two", 3));
    let running = s.dhow(["ps"]).ok();
    assert!(running.contains(&one[..12]) && !running.contains(&two[..12]), "{running}");
    assert!(
        running.contains("Up ") && running.contains("busybox") && running.contains("\"sleep 1000\""),
        "{running}"
    );
    let all = s.dhow(["ps", "-a"]).ok();
    assert!(all.contains("Exited (3)"), "{all}");
    assert_eq!(s.dhow(["ps", "-aq", "--no-trunc"]).ok(), format!("{two}\n{one}"), "the newest first");
    assert_eq!(s.dhow(["ps", "-a", "-q"]).ok(), format!("{}\n{}", &two[..12], &one[..12]));
    assert_eq!(s.dhow(["container", "ls", "-aq"]).ok().lines().count(), 2);
    assert_eq!(s.dhow(["ps", "-lq"]).ok(), two[..12]);
    assert_eq!(s.dhow(["ps", "-n", "1", "-q"]).ok(), two[..12]);
}

fn ps_filters(s: &Sandbox) {
    long(s, "web-1");
    s.detached(["--name", "db", "--label", "tier=back"], ["sleep", "1000"]);
    ended(s, "job", 7);
    let names = |filters: &[&str]| {
        let filters = filters.iter().flat_map(|f| ["--filter", f]);
        let text = s.dhow(["ps", "-a", "--format", "{{.Names}}"]).args(filters).ok();
        let mut names: Vec<String> = text.lines().map(str::to_owned).collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(names(&[]), "db job web-1");
    assert_eq!(names(&["name=web"]), "web-1");
    assert_eq!(names(&["name=web", "name=db"]), "db web-1", "the same key twice: either");
    assert_eq!(names(&["status=exited"]), "job");
    assert_eq!(names(&["status=running", "label=tier"]), "db", "two keys: both");
    assert_eq!(names(&["label=tier=back"]), "db");
    assert_eq!(names(&["label=tier=front"]), "");
    assert_eq!(names(&["exited=7"]), "job");
    assert_eq!(names(&["ancestor=busybox"]), "db job web-1");
    assert_eq!(names(&["before=db"]), "web-1");
    assert_eq!(names(&["since=db"]), "job");
    s.dhow(["ps", "--filter", "nosuch=1"])
        .output()
        .complains("nosuch")
        .expect("it is an error", |o| o.code != 0);
}

fn ps_formats(s: &Sandbox) {
    let id = long(s, "one");
    let format = |format: &str| s.dhow(["ps", "--format", format]).ok();
    assert_eq!(
        format("{{.ID}} {{.Image}} {{.Names}} {{.State}}"),
        format!("{} busybox one running", &id[..12])
    );
    assert_eq!(
        format("table {{.Names}}\t{{.Image}}").split_whitespace().collect::<Vec<_>>(),
        ["NAMES", "IMAGE", "one", "busybox"]
    );
    let line: Value = serde_json::from_str(&format("json")).unwrap();
    assert_eq!([&line["Names"], &line["Image"], &line["State"]], ["one", "busybox", "running"]);
    let line: Value = serde_json::from_str(&format("{{json .}}")).unwrap();
    assert_eq!(line["Names"], "one");
    assert_eq!(format("{{upper .Names}}{{.Label \"none\"}}"), "ONE");
    s.dhow(["ps", "--format", "{{.NoSuch}}"])
        .output()
        .expect("an unknown field is an error", |o| o.code != 0);
    s.dhow(["ps", "--format", "{{"]).output().expect("a broken template is an error", |o| o.code != 0);
}

fn stop_asks_first(s: &Sandbox) {
    let script = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    s.detached(["--name", "polite"], ["sh", "-c", script]);
    wait::until("the trap", || s.dhow(["logs", "polite"]).ok().contains("ready").then_some(()));
    assert_eq!(s.dhow(["stop", "polite"]).ok(), "polite");
    assert_eq!(s.inspect("polite", "{{.State.Status}} {{.State.ExitCode}}"), "exited 5");
    assert!(s.dhow(["logs", "polite"]).ok().ends_with("bye"));
    assert_eq!(s.dhow(["stop", "polite"]).ok(), "polite", "stopping what is stopped is no error");
}

fn stop_insists(s: &Sandbox) {
    // Who waited for as long as the container asks for would not be back before the command's deadline.
    s.detached(
        ["--name", "deaf", "--stop-timeout", "1000"],
        ["sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"],
    );
    let start = Instant::now();
    s.dhow(["stop", "-t", "1", "deaf"]).ok();
    let took = start.elapsed().as_secs_f32();
    assert!(took >= 0.9, "one second of grace, took {took}");
    assert_eq!(s.inspect("deaf", "{{.State.ExitCode}}"), "137");
    s.detached(
        ["--name", "deaf0", "--stop-timeout", "0"],
        ["sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"],
    );
    s.dhow(["stop", "deaf0"]).ok();
    assert_eq!(s.inspect("deaf0", "{{.State.ExitCode}}"), "137");
}

fn kill_sends_a_signal(s: &Sandbox) {
    let script = "trap 'echo usr1' USR1; echo ready; while :; do sleep 0.05; done";
    s.detached(["--name", "victim"], ["sh", "-c", script]);
    let logs =
        |word: &str| wait::until(word, || s.dhow(["logs", "victim"]).ok().contains(word).then_some(()));
    logs("ready");
    for signal in ["USR1", "SIGUSR1", "10"] {
        assert_eq!(s.dhow(["kill", "-s", signal, "victim"]).ok(), "victim");
    }
    logs("usr1");
    s.dhow(["kill", "-s", "NOSUCH", "victim"])
        .output()
        .complains("NOSUCH")
        .expect("an error", |o| o.code != 0);
    s.dhow(["kill", "victim"]).ok();
    assert_eq!(s.dhow(["wait", "victim"]).ok(), "137");
    s.dhow(["kill", "victim"]).output().complains("not running").expect("an error", |o| o.code != 0);
}

fn wait_prints_the_code(s: &Sandbox) {
    s.detached(["--name", "one"], ["sh", "-c", "sleep 0.2; exit 4"]);
    s.detached(["--name", "two"], ["sh", "-c", "exit 6"]);
    assert_eq!(s.dhow(["wait", "one", "two"]).ok(), "4\n6");
    assert_eq!(s.dhow(["wait", "one"]).ok(), "4", "also long after");
    s.dhow(["wait", "nobody"]).output().complains("nobody").expect("an error", |o| o.code != 0);
}

fn start_again(s: &Sandbox) {
    let id = s.detached(["--name", "again"], ["sh", "-c", "echo x >> /count; wc -l < /count; exit 2"]);
    s.dhow(["wait", "again"]).ok();
    assert_eq!(s.dhow(["start", "again"]).ok(), "again");
    s.dhow(["wait", "again"]).ok();
    assert_eq!(s.dhow(["logs", "again"]).ok(), "1\n2", "its files are as it left them, and the log goes on");
    assert_eq!(s.inspect("again", "{{.Id}} {{.State.ExitCode}}"), format!("{id} 2"));
    let running = long(s, "running");
    s.dhow(["start", "running"]).ok();
    assert_eq!(s.inspect("running", "{{.Id}}"), running, "starting what runs is no error");
    s.dhow(["start", "nobody"]).output().complains("nobody").expect("an error", |o| o.code != 0);
}

fn start_attached(s: &Sandbox) {
    s.detached(["--name", "echo", "-i"], ["sh", "-c", "read x; echo got $x; exit 3"]);
    s.dhow(["kill", "echo"]).output();
    s.dhow(["wait", "echo"]).ok();
    let out = s.dhow(["start", "-a", "-i", "echo"]).stdin("word\n").output().exits(3);
    assert_eq!(out.text(), "got word");
    s.detached(["--name", "plain"], ["sh", "-c", "echo out; echo err >&2; exit 1"]);
    s.dhow(["wait", "plain"]).ok();
    let out = s.dhow(["start", "-a", "plain"]).output().exits(1);
    assert_eq!((out.text(), out.error_text()), ("out".into(), "err\n".into()));
}

fn rm_refuses_what_runs(s: &Sandbox) {
    let id = long(s, "one");
    s.dhow(["rm", "one"]).output().complains("running").expect("an error", |o| o.code != 0);
    assert_eq!(s.dhow(["ps", "-q"]).ok(), id[..12]);
    assert_eq!(s.dhow(["rm", "-f", "one"]).ok(), "one");
    s.assert_nothing_left();
    ended(s, "two", 0);
    ended(s, "three", 0);
    assert_eq!(s.dhow(["rm", "two", "three"]).ok(), "two\nthree");
    s.assert_nothing_left();
    s.dhow(["rm", "-f", "nobody"]).ok();
    s.dhow(["rm", "nobody"]).output().complains("nobody").expect("an error", |o| o.code != 0);
    ended(s, "four", 0);
    let out = s.dhow(["rm", "nobody", "four"]).output();
    assert!(out.code != 0 && out.text() == "four", "the others are removed all the same: {}", out.report());
}

fn prefixes_and_names(s: &Sandbox) {
    let id = long(s, "one");
    for name in ["one", &id, &id[..12], &id[..4]] {
        assert_eq!(s.inspect(name, "{{.Id}}"), id, "{name}");
    }
    // A name that looks like another's id prefix: the exact name wins.
    let other = long(s, &id[..6]);
    assert_eq!(s.inspect(&id[..6], "{{.Id}}"), other);
}

fn unknown_containers(s: &Sandbox) {
    for verb in ["stop", "kill", "rm", "logs", "wait", "start", "inspect"] {
        let out = s.dhow([verb, "nobody"]).output();
        assert_eq!(out.code, 1, "{}", out.report());
        assert!(out.error_text().to_lowercase().contains("no such"), "{}", out.report());
        assert!(out.error_text().contains("nobody"), "{}", out.report());
    }
    assert_eq!(s.dhow(["inspect", "nobody"]).output().text(), "[]");
    s.dhow(["exec", "nobody", "true"]).output().complains("nobody").expect("an error", |o| o.code != 0);
    for verb in ["stop", "kill", "rm", "logs", "wait", "start", "inspect", "exec", "run"] {
        s.dhow([verb]).output().expect("a name is needed", |o| o.code != 0 && !o.stderr.is_empty());
    }
}

fn state_is_derived(s: &Sandbox) {
    let id = long(s, "one");
    assert_eq!(s.inspect("one", "{{.State.Status}} {{.State.Running}}"), "running true");
    // The container's own process is killed behind dhow's back.
    let pid: i32 = s.inspect("one", "{{.State.Pid}}").parse().unwrap();
    crate::leftovers::kill_own(pid, rustix::process::Signal::KILL);
    wait::until("the end to be seen", || (s.inspect("one", "{{.State.Status}}") == "exited").then_some(()));
    assert_eq!(s.inspect("one", "{{.State.ExitCode}} {{.State.Pid}}"), "137 0");
    assert_eq!(s.dhow(["ps", "-q"]).args(NONE).ok(), "");
    assert_eq!(s.dhow(["ps", "-aq", "--no-trunc"]).ok(), id);
}
