//! pause, unpause and rename.

use crate::sandbox::Sandbox;
use crate::wait;

for_each_user!(
    pause_stops_everything,
    what_works_on_a_paused_one,
    rename_moves_the_name,
    renames_and_removals_racing
);

/// A container that counts in a file, from two processes.
fn counting(s: &Sandbox, name: &str) {
    let script = "(while :; do echo >> /n; sleep 0.01; done) & while :; do echo >> /m; sleep 0.01; done";
    s.detached(["--name", name], ["sh", "-c", script]);
}

/// How far it has counted, read beside it.
fn counted(s: &Sandbox, name: &str) -> Option<(String, String)> {
    let count = |file: &str| s.dhow(["cp", &format!("{name}:{file}"), "-"]).output();
    let (n, m) = (count("/n"), count("/m"));
    (n.code == 0 && m.code == 0).then(|| (format!("{:?}", n.stdout), format!("{:?}", m.stdout)))
}

fn pause_stops_everything(s: &Sandbox) {
    counting(s, "a");
    s.dhow(["exec", "a", "sh", "-c", "until test -s /n && test -s /m; do sleep 0.01; done"]).ok();
    assert_eq!(s.dhow(["pause", "a"]).ok(), "a");
    assert_eq!(s.inspect("a", "{{.State.Status}} {{.State.Running}} {{.State.Paused}}"), "paused true true");
    let ps = s.dhow(["ps", "--format", "{{.State}} {{.Status}}"]).ok();
    assert!(ps.starts_with("paused Up ") && ps.ends_with("(Paused)"), "{ps}");
    let before = counted(s, "a");
    wait::within(std::time::Duration::from_millis(300), || None::<()>);
    assert_eq!(counted(s, "a"), before, "nothing of it moves");
    s.dhow(["exec", "a", "true"]).output().complains("paused").exits(1);
    s.dhow(["pause", "a"]).output().complains("paused already").exits(1);
    s.dhow(["start", "a"]).output().complains("paused").exits(1);
    assert_eq!(s.dhow(["unpause", "a"]).ok(), "a");
    let lines = || s.dhow(["exec", "a", "sh", "-c", "cat /n /m | wc -l"]).ok().parse::<u32>().unwrap();
    let then = lines();
    wait::until("it to go on", || (lines() > then).then_some(()));
    s.dhow(["unpause", "a"]).output().complains("not paused").exits(1);
    s.dhow(["pause", "nobody"]).output().complains("nobody").exits(1);
    s.dhow(["rm", "-f", "a"]).ok();
}

fn what_works_on_a_paused_one(s: &Sandbox) {
    let paused = |name: &str| {
        counting(s, name);
        s.dhow(["pause", name]).ok();
    };
    paused("a");
    s.dhow(["stop", "-t", "0", "a"]).ok();
    assert_eq!(s.inspect("a", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    paused("b");
    s.dhow(["kill", "b"]).ok();
    assert_eq!(s.dhow(["wait", "b"]).ok(), "137");
    paused("c");
    s.dhow(["rm", "-f", "c"]).ok();
    s.detached(["--name", "d"], ["sh", "-c", "trap 'exit 6' TERM; echo ready; while :; do sleep 0.01; done"]);
    wait::until("the trap", || s.dhow(["logs", "d"]).ok().contains("ready").then_some(()));
    s.dhow(["pause", "d"]).ok();
    s.dhow(["stop", "-t", "1000", "d"]).ok();
    assert_eq!(s.inspect("d", "{{.State.ExitCode}}"), "6", "it is asked, and let go on to answer");
    // Its supervisor is killed: what was frozen is dead all the same, and ps says so.
    paused("e");
    let state = std::fs::read_to_string(
        s.store.join("containers").join(s.inspect("e", "{{.Id}}")).join("state.json"),
    );
    let state: serde_json::Value = serde_json::from_str(&state.unwrap()).unwrap();
    crate::leftovers::kill_own(
        state["supervisor"]["pid"].as_i64().unwrap() as i32,
        rustix::process::Signal::KILL,
    );
    wait::until("the end to be seen", || (s.inspect("e", "{{.State.Status}}") == "exited").then_some(()));
}

fn rename_moves_the_name(s: &Sandbox) {
    let id = s.detached(["--name", "old"], ["sleep", "1000"]);
    s.detached(["--name", "other"], ["true"]);
    s.dhow(["rename", "old", "new"]).ok();
    assert_eq!(s.inspect("new", "{{.Id}} {{.Name}}"), format!("{id} /new"));
    s.dhow(["inspect", "old"]).fails(1);
    s.dhow(["rename", "new", "other"]).output().complains("in use").exits(1);
    s.dhow(["rename", "new", "new"]).output().complains("called new already").exits(1);
    s.dhow(["rename", "new", "no/good"]).output().complains("no/good").exits(1);
    s.dhow(["rename", "nobody", "x"]).output().complains("nobody").exits(1);
    // The old name is free, and the new one goes with the container.
    s.detached(["--name", "old"], ["true"]);
    s.dhow(["rm", "-f", "new"]).ok();
    s.dhow(["rename", &s.inspect("old", "{{.Id}}"), "new"]).ok();
    s.dhow(["rm", "-f", "new", "other"]).ok();
    assert_eq!(std::fs::read_dir(s.store.join("names")).unwrap().count(), 0);
}

fn renames_and_removals_racing(s: &Sandbox) {
    for round in 0..4 {
        let ids = [s.detached(["--name", "a"], ["true"]), s.detached(["--name", "b"], ["true"])];
        s.dhow(["wait", "a", "b"]).ok();
        let [first, second] = &ids;
        std::thread::scope(|scope| {
            for id in &ids {
                for name in ["x", "y"] {
                    scope.spawn(move || s.dhow(["rename", id, name]).output());
                }
            }
            if round % 2 == 1 {
                scope.spawn(move || s.dhow(["rm", second]).output());
            }
        });
        let left = if round % 2 == 1 { &ids[..1] } else { &ids[..] };
        let mut names: Vec<String> = left.iter().map(|id| s.inspect(id, "{{.Name}}")).collect();
        for (id, name) in left.iter().zip(&names) {
            assert_eq!(s.inspect(&name[1..], "{{.Id}}"), **id, "each is found by its name");
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), left.len());
        assert_eq!(std::fs::read_dir(s.store.join("names")).unwrap().count(), left.len());
        s.dhow(["rm", first]).ok();
        s.dhow(["rm", "-f", second]).ok();
        assert_eq!(std::fs::read_dir(s.store.join("names")).unwrap().count(), 0);
    }
}
