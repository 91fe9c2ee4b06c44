//! Fifty containers at once, some of which restart all the time, all with health checks, and the death of all who hold them.

use std::collections::BTreeSet;

use rustix::process::Signal;

use crate::sandbox::Sandbox;
use crate::{leftovers, wait};

for_each_user!(
    fifty_with_restarts_and_the_death_of_all,
    forks_ignores_and_writes_at_full_speed,
    beside_a_loud_one
);

/// The supervisor of each container, as it noted itself.
fn supervisors(s: &Sandbox) -> BTreeSet<i32> {
    let containers = s.store.join("containers");
    let of = |name: &std::ffi::OsString| {
        let text = std::fs::read_to_string(containers.join(name).join("state.json")).ok()?;
        let state: serde_json::Value = serde_json::from_str(&text).ok()?;
        state["supervisor"]["pid"].as_i64().map(|pid| pid as i32)
    };
    leftovers::names(&containers).iter().filter_map(of).collect()
}

fn fifty_with_restarts_and_the_death_of_all(s: &Sandbox) {
    let scripts =
        ["exit 1", "sleep 1000", "(sleep 1000 &) ; sleep 0.1; exit 2", "trap '' TERM; sleep 1000 & wait"];
    std::thread::scope(|scope| {
        for worker in 0..5 {
            scope.spawn(move || {
                for n in 0..10 {
                    let name = format!("c{worker}{n}");
                    // One check in two hangs, and dies with the rest.
                    let check = ["true", "sleep 2000"][n / 2 % 2];
                    let mut flags = vec!["--name", &name, "--restart", "always", "--pids-limit", "100"];
                    flags.extend(["--health-cmd", check, "--health-interval", "500ms"]);
                    s.detached(flags, ["sh", "-c", scripts[n % scripts.len()]]);
                }
            });
        }
    });
    wait::until("all of them to have begun", || (supervisors(s).len() == 50).then_some(()));
    wait::until("a check to have said something", || {
        (!s.dhow(["ps", "-q", "--filter", "health=healthy"]).ok().is_empty()).then_some(())
    });
    let states = s.dhow(["ps", "-a", "--format", "{{.State}}"]).ok();
    assert_eq!(
        states.lines().filter(|state| ["running", "restarting"].contains(state)).count(),
        50,
        "{states}"
    );
    // One that is between two runs has a supervisor too.
    for pid in supervisors(s) {
        leftovers::kill_own(pid, Signal::KILL);
    }
    // No waiting: whose supervisor is dead does not run, and what is left of it goes as soon as somebody looks.
    wait::until("ps to tell the truth", || {
        let states = s.dhow(["ps", "-a", "--format", "{{.State}}"]).ok();
        (states.lines().filter(|state| *state == "exited").count() == 50).then_some(())
    });
    assert_eq!(s.dhow(["ps", "-q"]).ok(), "");
    assert_eq!(s.inspect("c01", "{{.State.ExitCode}} {{.State.Error}}"), "137 its supervisor was killed");
    let names: Vec<String> =
        s.dhow(["ps", "-a", "--format", "{{.Names}}"]).ok().lines().map(str::to_owned).collect();
    s.dhow(["rm"]).args(&names).ok();
    s.assert_nothing_left();
}

fn forks_ignores_and_writes_at_full_speed(s: &Sandbox) {
    let script = "trap '' TERM INT HUP; (setsid sleep 1000 &); (sh -c 'yes daemon' &); exec 0<&-; while :; do echo loud; done";
    s.detached(["--name", "a"], ["sh", "-c", script]);
    wait::until("the log to be full and turned over", || {
        s.store.join("containers").join(s.inspect("a", "{{.Id}}")).join("log.1").exists().then_some(())
    });
    s.dhow(["stop", "-t", "1", "a"]).ok();
    assert_eq!(s.inspect("a", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    s.dhow(["rm", "a"]).ok();
    s.assert_nothing_left();
}

fn beside_a_loud_one(s: &Sandbox) {
    // One supervisor does all by itself: it answers although its container never stops writing.
    s.detached(["--name", "a"], ["sh", "-c", "while :; do echo loud; done"]);
    for _ in 0..3 {
        s.dhow(["pause", "a"]).ok();
        s.dhow(["unpause", "a"]).ok();
        s.dhow(["exec", "a", "true"]).ok();
        s.dhow(["restart", "-t", "0", "a"]).ok();
    }
    s.dhow(["update", "--restart", "always", "a"]).ok();
    s.dhow(["rename", "a", "b"]).ok();
    s.dhow(["rm", "-f", "b"]).ok();
    s.assert_nothing_left();
}
