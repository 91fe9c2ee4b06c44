//! `dhow wait`: for an end, and for other things that happen to containers.

use std::io::Read;
use std::process::Stdio;

use crate::command::Running;
use crate::leftovers;
use crate::sandbox::Sandbox;
use crate::wait;

for_each_user!(
    codes_in_order,
    one_that_goes_when_it_ends,
    running_and_paused,
    healthy,
    removed,
    over_restarts,
    time_is_limited,
    a_killed_supervisor_ends_it,
    wrong_input,
);

/// Begins to wait.
fn waiting(s: &Sandbox, args: &[&str]) -> Running {
    s.dhow(["wait"]).args(args).spawn_with(|c| {
        c.stdout(Stdio::piped());
    })
}

fn result(mut waiting: Running) -> String {
    let mut text = String::new();
    waiting.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(waiting.code(), 0, "{text}");
    text.trim_end().to_owned()
}

/// The wait has begun when it watches (it has an inotify descriptor), knows the supervisor if there is one, and sleeps.
fn await_watching(waiting: &Running, supervised: bool) {
    let pid = waiting.pid().as_raw_nonzero();
    wait::until("the wait to begin", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let sleeps = stat.rsplit_once(')')?.1.trim_start().starts_with('S');
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        let links: Vec<_> = fds.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok()).collect();
        let watches = links.iter().any(|link| link.to_string_lossy().contains("inotify"));
        let connected = links.iter().filter(|link| link.to_string_lossy().starts_with("socket:")).count() > 0;
        (sleeps && watches && (connected || !supervised)).then_some(())
    });
}

fn codes_in_order(s: &Sandbox) {
    s.detached(["--name", "one"], ["sh", "-c", "until [ -e /go ]; do sleep 0.05; done; exit 4"]);
    s.detached(["--name", "two"], ["sh", "-c", "exit 6"]);
    s.dhow(["create", "--name", "three", "busybox", "true"]).ok();
    let both = waiting(s, &["one", "two", "three"]);
    s.let_go("one", "/go");
    assert_eq!(result(both), "4\n6\n0");
    assert_eq!(s.dhow(["container", "wait", "one"]).ok(), "4");
}

fn one_that_goes_when_it_ends(s: &Sandbox) {
    let script = "until [ -e /go ]; do sleep 0.05; done; exit 7";
    s.detached(["--name", "one", "--rm"], ["sh", "-c", script]);
    let until_end = waiting(s, &["one"]);
    let until_gone = waiting(s, &["--condition", "removed", "one"]);
    [&until_end, &until_gone].into_iter().for_each(|waiting| await_watching(waiting, true));
    s.let_go("one", "/go");
    assert_eq!(result(until_end), "7", "the code of one that is gone by now");
    assert_eq!(result(until_gone), "7");
}

fn running_and_paused(s: &Sandbox) {
    s.dhow(["create", "--name", "one", "busybox", "sleep", "1000"]).ok();
    let runs = waiting(s, &["--condition", "running", "one"]);
    let next = waiting(s, &["--condition", "next-exit", "one"]);
    s.dhow(["start", "one"]).ok();
    assert_eq!(result(runs), "0");
    await_watching(&next, true);
    s.dhow(["kill", "one"]).ok();
    assert_eq!(result(next), "137");
}

fn healthy(s: &Sandbox) {
    let flags = ["--name", "one", "--health-interval", "100ms", "--health-cmd", "test -e /well"];
    s.detached(flags, ["sleep", "1000"]);
    assert_eq!(result(waiting(s, &["--condition", "unhealthy", "one"])), "0");
    let waiter = waiting(s, &["--condition", "healthy", "one"]);
    s.dhow(["exec", "one", "touch", "/well"]).ok();
    assert_eq!(result(waiter), "0");
    let mut ill = waiting(s, &["--condition", "unhealthy", "one"]);
    await_watching(&ill, true);
    s.dhow(["stop", "-t", "0", "one"]).ok();
    assert_eq!(ill.code(), 1, "it will not become anything any more");
    s.detached(["--name", "two"], ["sleep", "1000"]);
    let out = s.dhow(["wait", "--condition", "healthy", "two"]).output();
    out.complains("no health check").expect("an error", |o| o.code == 1);
}

fn removed(s: &Sandbox) {
    s.detached(["--name", "one"], ["sh", "-c", "exit 3"]);
    s.dhow(["wait", "one"]).ok();
    let gone = waiting(s, &["--condition", "removed", "one"]);
    await_watching(&gone, false);
    s.dhow(["rm", "one"]).ok();
    assert_eq!(result(gone), "0");
    s.dhow(["wait", "--condition", "removed", "one"])
        .output()
        .complains("no such")
        .expect("an error", |o| o.code == 1);
    assert_eq!(s.dhow(["wait", "--ignore", "one"]).ok(), "-1");
}

fn over_restarts(s: &Sandbox) {
    let script = "echo x >> /runs; test $(wc -l < /runs) -lt 3 && exit 1; exit 5";
    s.detached(["--name", "one", "--restart", "on-failure:2"], ["sh", "-c", script]);
    assert_eq!(result(waiting(s, &["one"])), "5", "the end for good");
}

fn time_is_limited(s: &Sandbox) {
    s.detached(["--name", "one"], ["sleep", "1000"]);
    for limit in ["0", "100ms"] {
        let out = s.dhow(["wait", "--timeout", limit, "one"]).output();
        out.complains("its time is over").expect("an error", |o| o.code == 1 && o.text().is_empty());
    }
    assert_eq!(s.dhow(["wait", "--timeout", "1000", "--condition", "running", "one"]).ok(), "0");
}

fn a_killed_supervisor_ends_it(s: &Sandbox) {
    let id = s.detached(["--name", "one"], ["sleep", "1000"]);
    let waiter = waiting(s, &["one"]);
    await_watching(&waiter, true);
    let state = std::fs::read(s.store.join("containers").join(id).join("state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
    leftovers::kill_own(state["supervisor"]["pid"].as_i64().unwrap() as i32, rustix::process::Signal::KILL);
    assert_eq!(result(waiter), "137");
}

fn wrong_input(s: &Sandbox) {
    s.detached(["--name", "one"], ["true"]);
    for (flags, about) in
        [(["--condition", "happy"], "happy"), (["--timeout", "soon"], "soon"), (["--timeout", "-1"], "-1")]
    {
        s.dhow(["wait"]).args(flags).arg("one").output().complains(about).exits(125);
    }
    let out = s.dhow(["wait", "nobody", "one"]).output();
    assert!(out.code == 1 && out.text() == "0", "the others are waited for all the same: {}", out.report());
}
