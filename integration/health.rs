//! Health checks: run by the supervisor, seen in ps, inspect and events, and what follows from them.

use serde_json::Value;

use crate::leftovers;
use crate::sandbox::{NONE, Sandbox};
use crate::wait;

for_each_user!(
    healthy_and_unhealthy,
    an_image_has_a_check,
    the_start_period_forgives,
    a_check_that_hangs_and_forks_is_ended,
    output_is_bounded,
    a_check_that_cannot_be_run,
    run_by_hand,
    secrets_are_known_to_it,
    a_startup_check_goes_before,
    a_startup_without_success_begins_again,
    on_failure_kill,
    on_failure_restart,
    on_failure_stop,
    killed_supervisor,
    wrong_flags,
);
for_users_with_many_ids!(a_user_other_than_root);

const FAST: [&str; 4] = ["--health-interval", "100ms", "--health-retries", "2"];

fn start(s: &Sandbox, flags: &[&str], script: &str) -> String {
    s.dhow(["run", "-d", "--name", "c1"]).args(FAST).args(flags).args(["busybox", "sh", "-c", script]).ok()
}

fn status(s: &Sandbox) -> String {
    s.inspect("c1", "{{.State.Health.Status}}")
}

fn await_status(s: &Sandbox, wanted: &str) {
    wait::until(wanted, || (status(s) == wanted).then_some(()));
}

fn health(s: &Sandbox) -> Value {
    serde_json::from_str(&s.inspect("c1", "{{json .State.Health}}")).unwrap()
}

/// Waits for a check that came to say something before its time was over.
fn await_said(s: &Sandbox, text: &str) -> Value {
    wait::until("a check that said so", || {
        let log = health(s)["Log"].clone();
        let said = |check: &&Value| check["Output"].as_str().is_some_and(|output| output.contains(text));
        log.as_array()?.iter().find(said).cloned()
    })
}

fn shown(s: &Sandbox) -> String {
    s.dhow(["ps", "-a", "--format", "{{.Status}}"]).ok()
}

fn healthy_and_unhealthy(s: &Sandbox) {
    start(s, &["--health-cmd", "echo looked; test -e /well"], "sleep 1000");
    let first = shown(s);
    assert!(first.ends_with("(health: starting)") || first.ends_with("(unhealthy)"), "{first}");
    await_status(s, "unhealthy");
    assert!(shown(s).ends_with("(unhealthy)"), "{}", shown(s));
    s.dhow(["exec", "c1", "touch", "/well"]).ok();
    await_status(s, "healthy");
    assert!(shown(s).ends_with("(healthy)"), "{}", shown(s));
    let found = health(s);
    assert_eq!(found["FailingStreak"], 0);
    let log = found["Log"].as_array().unwrap();
    assert!((1..=5).contains(&log.len()), "{found}");
    let last = log.last().unwrap();
    assert_eq!((&last["ExitCode"], &last["Output"]), (&0.into(), &"looked\n".into()));
    assert!(last["Start"].as_str().unwrap() <= last["End"].as_str().unwrap());
    wait::until("five are kept", || {
        let n = health(s)["Log"].as_array().unwrap().len();
        assert!(n <= 5);
        (n == 5).then_some(())
    });
    assert_eq!(s.dhow(["ps", "-q", "--filter", "health=healthy"]).ok().lines().count(), 1);
    let events =
        |flags: &[&str]| s.dhow(["events", "--until", "0s", "--format", "{{.Action}}"]).args(flags).ok();
    assert_eq!(
        events(&["--filter", "event=health_status"]),
        "health_status: unhealthy\nhealth_status: healthy"
    );
    assert!(
        events(&["--filter", "event=exec_start"])
            .starts_with("exec_start: /bin/sh -c echo looked; test -e /well")
    );
    s.dhow(["stop", "-t", "0", "c1"]).ok();
    assert!(shown(s).starts_with("Exited (137)"), "{}", shown(s));
}

fn an_image_has_a_check(s: &Sandbox) {
    let change = "HEALTHCHECK --interval=100ms --retries=1 CMD [\"test\", \"-e\", \"/well\"]";
    s.dhow(["import", "--change", change, "-", "checked"]).stdin_file(crate::images::busybox()).ok();
    s.dhow(["run", "-d", "--name", "c1", "checked", "sleep", "1000"]).ok();
    await_status(s, "unhealthy");
    let test = s.inspect("c1", "{{json .Config.Healthcheck}}");
    assert_eq!(test, r#"{"Test":["CMD","test","-e","/well"],"Interval":100000000,"Retries":1}"#);
    s.dhow(["rm", "-f", "c1"]).ok();
    s.dhow(["run", "-d", "--name", "c1", "--health-cmd", "true", "checked", "sleep", "1000"]).ok();
    await_status(s, "healthy");
    s.dhow(["rm", "-f", "c1"]).ok();
    s.dhow(["run", "-d", "--name", "c1", "--no-healthcheck", "checked", "sleep", "1000"]).ok();
    assert_eq!(s.inspect("c1", "{{json .State.Health}} {{.Config.Healthcheck.Test}}"), "null [NONE]");
    assert!(!shown(s).contains("health"), "{}", shown(s));
}

fn the_start_period_forgives(s: &Sandbox) {
    let flags = [
        "--health-cmd",
        "test -e /well",
        "--health-start-period",
        "1000s",
        "--health-start-interval",
        "50ms",
    ];
    start(s, &flags, "sleep 1000");
    wait::until("five checks", || (health(s)["Log"].as_array()?.len() == 5).then_some(()));
    let found = health(s);
    assert_eq!((&found["Status"], &found["FailingStreak"]), (&"starting".into(), &0.into()));
    s.dhow(["exec", "c1", "touch", "/well"]).ok();
    await_status(s, "healthy");
}

fn a_check_that_hangs_and_forks_is_ended(s: &Sandbox) {
    // In a session of its own, and without a parent: still it is the check's.
    let check = "setsid sh -c 'sleep 7654 & sleep 7655' & (sleep 7656 &); echo begun; sleep 7657";
    start(s, &["--health-cmd", check, "--health-timeout", "300ms", "--health-retries", "1"], "sleep 1000");
    await_status(s, "unhealthy");
    let check_that_began = await_said(s, "begun");
    assert_eq!(check_that_began["ExitCode"], -1, "{check_that_began}");
    assert_eq!(check_that_began["Output"], "Health check exceeded timeout (300ms): begun\n");
    // One, and no further: what is left after it is left of it.
    s.dhow(["rm", "-f", "c1"]).ok();
    start(
        s,
        &[
            "--health-cmd",
            check,
            "--health-timeout",
            "300ms",
            "--health-retries",
            "1",
            "--health-on-failure",
            "none",
            "--health-interval",
            "1000s",
        ],
        "sleep 1000",
    );
    assert_eq!(s.dhow(["healthcheck", "run", "c1"]).output().exits(1).text(), "unhealthy");
    let sleepers = s.dhow(["exec", "c1", "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]).ok();
    assert!(!sleepers.contains("sleep 765"), "{sleepers}");
    assert!(sleepers.contains("sleep 1000"), "the container itself is left alone: {sleepers}");
}

fn output_is_bounded(s: &Sandbox) {
    let flags = ["--health-cmd", "yes; exit 3", "--health-timeout", "500ms", "--health-retries", "1"];
    start(s, &flags, "sleep 1000");
    await_status(s, "unhealthy");
    let output = await_said(s, "y\ny\n")["Output"].as_str().unwrap().to_owned();
    assert!(output.len() <= 4096, "{} bytes", output.len());
    s.dhow(["rm", "-f", "c1"]).ok();
    start(
        s,
        &["--health-cmd", "head -c 5000 /dev/zero | tr '\\0' z; exit 1", "--health-retries", "1"],
        "sleep 1000",
    );
    await_status(s, "unhealthy");
    let output = health(s)["Log"][0]["Output"].as_str().unwrap().to_owned();
    assert!(output.len() == 4096 && output.ends_with("z..."), "{} bytes", output.len());
}

fn a_check_that_cannot_be_run(s: &Sandbox) {
    start(s, &["--health-cmd", "[\"CMD\", \"/no/such/program\"]", "--health-retries", "1"], "sleep 1000");
    await_status(s, "unhealthy");
    let last = health(s)["Log"][0].clone();
    assert_eq!(last["ExitCode"], -1);
    assert!(last["Output"].as_str().unwrap().contains("/no/such/program"), "{last}");
}

fn run_by_hand(s: &Sandbox) {
    let flags = ["--health-cmd", "test -e /well", "--health-interval", "1000s", "--health-retries", "1"];
    start(s, &flags, "sleep 1000");
    assert_eq!(status(s), "starting");
    let out = s.dhow(["healthcheck", "run", "c1"]).output().exits(1);
    assert_eq!(out.text(), "unhealthy");
    s.dhow(["exec", "c1", "touch", "/well"]).ok();
    assert_eq!(s.dhow(["healthcheck", "run", "c1"]).output().exits(0).text(), "");
    assert_eq!(status(s), "healthy");
    s.dhow(["pause", "c1"]).ok();
    s.dhow(["healthcheck", "run", "c1"]).output().complains("paused").expect("an error", |o| o.code == 125);
    s.dhow(["unpause", "c1"]).ok();
    s.dhow(["stop", "-t", "0", "c1"]).ok();
    s.dhow(["healthcheck", "run", "c1"])
        .output()
        .complains("not running")
        .expect("an error", |o| o.code == 125);
    s.dhow(["healthcheck", "run", "nobody"])
        .output()
        .complains("nobody")
        .expect("an error", |o| o.code == 125);
    s.detached(["--name", "c2"], ["sleep", "1000"]);
    s.dhow(["healthcheck", "run", "c2"])
        .output()
        .complains("no health check")
        .expect("an error", |o| o.code == 125);
}

fn secrets_are_known_to_it(s: &Sandbox) {
    s.dhow(["secret", "create", "one", "-"]).stdin("hunter2").ok();
    let check = "test -n \"$KEY\" && test \"$KEY\" = \"$(cat /run/secrets/one)\"";
    let flags = ["--secret", "one,type=env,target=KEY", "--secret", "one", "--health-cmd", check];
    start(s, &flags, "sleep 1000");
    await_status(s, "healthy");
    assert!(!s.dhow(["inspect", "c1"]).ok().contains("hunter2"));
}

fn a_startup_check_goes_before(s: &Sandbox) {
    let flags = [
        "--health-cmd",
        "echo proper",
        "--health-startup-cmd",
        "echo early; test -e /up",
        "--health-startup-interval",
        "50ms",
        "--health-startup-success",
        "2",
    ];
    start(s, &[&flags[..], &["--health-interval", "1000s"]].concat(), "sleep 1000");
    wait::until("five checks", || (health(s)["Log"].as_array()?.len() == 5).then_some(()));
    let found = health(s);
    assert_eq!((&found["Status"], &found["FailingStreak"]), (&"starting".into(), &0.into()));
    assert!(found["Log"].as_array().unwrap().iter().all(|check| check["Output"] == "early\n"), "{found}");
    s.dhow(["exec", "c1", "touch", "/up"]).ok();
    // The check proper does not wait for its interval.
    assert_eq!(s.dhow(["wait", "--condition", "healthy", "c1"]).ok(), "0");
    let outputs: Vec<Value> =
        health(s)["Log"].as_array().unwrap().iter().map(|l| l["Output"].clone()).collect();
    assert_eq!(outputs.last().unwrap(), "proper\n");
    let n_early = health(s)["Log"].as_array().unwrap().iter().filter(|l| l["ExitCode"] == 0).count();
    assert_eq!(n_early, 3, "twice the first, once the other");
    let config: Value =
        serde_json::from_str(&s.inspect("c1", "{{json .Config.StartupHealthCheck}}")).unwrap();
    assert_eq!((&config["Test"][1], &config["Successes"]), (&"echo early; test -e /up".into(), &2.into()));
}

fn a_startup_without_success_begins_again(s: &Sandbox) {
    // It says nothing of a run that has not come to its line yet.
    let early = "until test -e /dev/shm/begun; do sleep 0.02; done; test $(wc -l < /runs) -gt 1";
    let flags = ["--health-cmd", "true", "--health-startup-cmd", early];
    let more = ["--health-startup-interval", "50ms", "--health-startup-retries", "2", "--stop-timeout", "0"];
    start(s, &[&flags[..], &more[..]].concat(), "echo x >> /runs; touch /dev/shm/begun; sleep 1000");
    await_status(s, "healthy");
    assert_eq!(s.dhow(["exec", "c1", "cat", "/runs"]).ok(), "x\nx");
}

fn on_failure_kill(s: &Sandbox) {
    start(s, &["--health-cmd", "false", "--health-on-failure", "kill"], "sleep 1000");
    assert_eq!(s.dhow(["wait", "c1"]).ok(), "137");
}

fn on_failure_restart(s: &Sandbox) {
    // It fails no sooner than the trap is set, and until it is made well, which no run of it may be there to hear.
    let script =
        "trap 'echo asked; rm /set; exit 0' TERM; echo run; touch /set; while :; do sleep 0.05; done";
    let check = "test ! -e /set || test -e /well";
    start(s, &["--health-cmd", check, "--health-on-failure", "restart"], script);
    wait::until("a second run", || s.dhow(["logs", "c1"]).ok().starts_with("run\nasked\nrun").then_some(()));
    wait::until("a run to make well", || {
        (s.dhow(["exec", "c1", "touch", "/well"]).output().code == 0).then_some(())
    });
    await_status(s, "healthy");
    s.dhow(["stop", "-t", "0", "c1"]).ok();
    assert_eq!(s.inspect("c1", "{{.State.Status}}"), "exited");
}

fn on_failure_stop(s: &Sandbox) {
    let script = "trap 'echo asked; exit 9' TERM; touch /set; while :; do sleep 0.05; done";
    let check = "test ! -e /set";
    start(s, &["--health-cmd", check, "--health-on-failure", "stop", "--restart", "always"], script);
    assert_eq!(s.dhow(["wait", "c1"]).ok(), "9");
    assert_eq!(s.inspect("c1", "{{.State.Status}}"), "exited", "no policy starts it again");
}

fn killed_supervisor(s: &Sandbox) {
    // In the middle of a check that never ends.
    start(s, &["--health-cmd", "sleep 7700"], "sleep 1000");
    wait::until("the check", || {
        // One of the processes may have ended since it was seen.
        let shown = s.dhow(["exec", "c1", "sh", "-c", "cat /proc/[0-9]*/cmdline"]).output().text();
        shown.contains("7700").then_some(())
    });
    let state: Value = serde_json::from_slice(
        &std::fs::read(s.store.join("containers").join(s.inspect("c1", "{{.Id}}")).join("state.json"))
            .unwrap(),
    )
    .unwrap();
    leftovers::kill_own(state["supervisor"]["pid"].as_i64().unwrap() as i32, rustix::process::Signal::KILL);
    wait::until("its end to be seen", || (s.inspect("c1", "{{.State.Status}}") == "exited").then_some(()));
    s.dhow(["rm", "c1"]).ok();
    s.assert_nothing_left();
}

fn a_user_other_than_root(s: &Sandbox) {
    start(s, &["--user", "1234", "--health-cmd", "id -u; test $(id -u) = 1234"], "sleep 1000");
    await_status(s, "healthy");
    assert_eq!(health(s)["Log"][0]["Output"], "1234\n");
}

fn wrong_flags(s: &Sandbox) {
    for (flags, about) in [
        (["--health-interval", "fast"], "--health-interval"),
        (["--health-timeout", "-1s"], "negative"),
        (["--health-start-period", "1us"], "1ms"),
        (["--health-retries", "-1"], "--health-retries"),
        (["--health-on-failure", "cry"], "cry"),
        (["--no-healthcheck", "--health-cmd=x"], "conflicts"),
        (["--health-startup-cmd", "x"], "no health check"),
        (["--health-cmd=x", "--health-startup-success=1"], "no startup check"),
        (["--health-startup-cmd=x", "--health-startup-retries=-1"], "--health-startup-retries"),
    ] {
        let out = s.dhow(["run", "-d"]).args(flags).args(["busybox", "true"]).output();
        out.complains(about).expect("an error", |o| o.code == 125);
    }
    assert_eq!(s.dhow(["ps", "-aq"]).args(NONE).ok(), "", "nothing was made");
}
