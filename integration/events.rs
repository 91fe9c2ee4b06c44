//! `dhow events`: what many processes note is read by many, with no daemon between them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::Stdio;

use rustix::event::{PollFd, PollFlags, Timespec};
use serde_json::Value;

use crate::sandbox::{NONE, Sandbox};
use crate::user::User;
use crate::wait;

for_each_user!(
    images_and_containers,
    since_until_and_filters,
    followed_as_it_happens,
    ends_with_its_reader,
    several_readers_of_fifty_containers,
    what_ends_it_is_told,
    wrong_input,
    a_journal_that_is_in_the_way,
);

/// What happened so far: type and action.
pub fn past(s: &Sandbox, flags: &[&str]) -> Vec<String> {
    let text = s.dhow(["events", "--stream=false", "--format", "{{.Type}} {{.Action}}"]).args(flags).ok();
    text.lines().map(str::to_owned).collect()
}

fn images_and_containers(s: &Sandbox) {
    s.dhow(["tag", "busybox", "app:1"]).ok();
    s.dhow(["untag", "busybox", "app:1"]).ok();
    s.dhow(["save", "-o", "archive", "busybox"]).ok();
    let id = s.note(
        s.dhow(["create", "--name", "c1", "--label", "tier=a", "busybox", "true"]).ok(),
        &s.dhow(["ps"]).output(),
    );
    s.dhow(["rm", "c1"]).ok();
    s.dhow(["rmi", "busybox"]).ok();
    s.dhow(["load", "-i", "archive"]).ok();
    let all = past(s, &[]);
    let images: Vec<&str> = all.iter().filter_map(|line| line.strip_prefix("image ")).collect();
    assert_eq!(images, ["import", "tag", "untag", "save", "untag", "delete", "load"]);
    let lines = s.dhow(["events", "--stream=false", "--format", "json", "--filter", "event=create"]).ok();
    let event: Value = serde_json::from_str(&lines).unwrap();
    assert_eq!(event["Type"], "container");
    assert_eq!(event["Action"], "create");
    assert_eq!(event["status"], "create");
    assert_eq!([&event["id"], &event["Actor"]["ID"]], [id.as_str(), id.as_str()]);
    assert_eq!([&event["from"], &event["scope"]], ["busybox", "local"]);
    assert_eq!(
        event["Actor"]["Attributes"],
        serde_json::json!({"image": "busybox", "name": "c1", "tier": "a"})
    );
    assert_eq!(event["timeNano"].as_i64().unwrap() / 1_000_000_000, event["time"].as_i64().unwrap());
    assert_eq!(s.dhow(["system", "events", "--stream=false"]).ok().lines().count(), all.len());
}

fn since_until_and_filters(s: &Sandbox) {
    s.detached(["--name", "c1"], ["sleep", "1000"]);
    s.dhow(["exec", "c1", "sh", "-c", "exit 3"]).output().exits(3);
    let of = |flags: &[&str]| s.dhow(["events", "--until", "0s"]).args(flags).ok();
    assert!(of(&[]).contains("container create"), "--until alone shows all, and ends at once");
    assert_eq!(of(&["--since", "2001-01-01", "--until", "2001-01-02"]), "");
    let exec = of(&["--filter", "event=exec_start", "--format", "{{.Action}} {{.Actor.Attributes.name}}"]);
    assert_eq!(exec, "exec_start: sh -c exit 3 c1");
    assert_eq!(of(&["--filter", "event=exec_die", "--format", "{{.Actor.Attributes.exitCode}}"]), "3");
    let id = |event: &str| {
        of(&["--filter", &format!("event={event}"), "--format", "{{.Actor.Attributes.execID}}"])
    };
    assert_eq!(id("exec_create"), id("exec_die"));
    assert_eq!(of(&["--filter", "container=nobody"]), "");
    assert_eq!(of(&["--filter", "type=image", "--format", "{{.Action}}"]), "import");
    let time = of(&["--filter", "event=create", "--format", "{{.Time}}"]).parse::<u64>().unwrap();
    assert_eq!(of(&["--since", &(time + 1000).to_string()]), "");
    assert!(of(&["--since", &time.to_string(), "--filter", "container=c1"]).contains(" container create "));
}

fn is_readable(fd: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0
}

fn followed_as_it_happens(s: &Sandbox) {
    let mut follow = s.dhow(["events", "--format", "{{.Action}} {{.ID}}"]).spawn_with(|c| {
        c.stdout(Stdio::piped());
    });
    let stdout = follow.child.stdout.take().unwrap();
    // It watches from some moment on; from then on it shows all.
    wait::until("the first event", || {
        s.dhow(["tag", "busybox", "app:1"]).ok();
        is_readable(&stdout).then_some(())
    });
    let mut lines = BufReader::new(stdout).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.starts_with("tag "), "{first}");
    s.dhow(["untag", "busybox", "app:1"]).ok();
    let next = lines.find(|line| !line.as_ref().unwrap().starts_with("tag ")).unwrap().unwrap();
    assert!(next.starts_with("untag "), "what was before it is not shown: {next}");
    follow.signal(rustix::process::Signal::INT);
    follow.code();
    // A moment that is yet to come ends it by itself.
    let until = (jiff::Timestamp::now().as_second() + 1).to_string();
    assert!(s.dhow(["events", "--since", "1h", "--until", &until]).ok().contains(" image import "));
}

fn ends_with_its_reader(s: &Sandbox) {
    let script = format!(
        "{} --root {} events --since 1h | head -n 1",
        crate::sandbox::dhow().display(),
        s.store.display()
    );
    let first = s.program("/bin/sh").args(["-c", &script]).ok();
    assert!(first.contains("image import"), "{first}");
}

fn several_readers_of_fifty_containers(s: &Sandbox) {
    const N: usize = 50;
    let follow = || {
        let flags = ["events", "--since", "1h", "--filter", "type=container"];
        s.dhow(flags).args(["--format", "{{.Actor.Attributes.name}} {{.Action}}"]).spawn_with(|c| {
            c.stdout(Stdio::piped());
        })
    };
    let mut readers = [follow(), follow(), follow()];
    let mut runs: Vec<_> = (0..N)
        .map(|n| s.dhow(["run", "--rm", "--name", &format!("c{n}"), "busybox", "true"]).spawn_with(|_| ()))
        .collect();
    runs.iter_mut().for_each(|run| assert_eq!(run.code(), 0));
    for reader in &mut readers {
        let mut lines = BufReader::new(reader.child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut of_each: BTreeMap<String, Vec<String>> = BTreeMap::new();
        // The last thing that happens to each is its end.
        for _ in 0..N {
            loop {
                let line = lines.next().unwrap();
                let (name, action) = line.split_once(' ').unwrap();
                of_each.entry(name.to_owned()).or_default().push(action.to_owned());
                if action == "destroy" {
                    break;
                }
            }
        }
        assert_eq!(of_each.len(), N);
        for (name, actions) in of_each {
            assert_eq!(actions, ["create", "attach", "start", "die", "destroy"], "{name}");
        }
        reader.signal(rustix::process::Signal::INT);
        reader.code();
    }
}

fn what_ends_it_is_told(s: &Sandbox) {
    let script = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    s.detached(["--name", "c1"], ["sh", "-c", script]);
    wait::until("the container", || (s.dhow(["logs", "c1"]).ok() == "ready").then_some(()));
    s.dhow(["stop", "c1"]).ok();
    s.dhow(["start", "c1"]).ok();
    s.dhow(["restart", "-t", "0", "c1"]).ok();
    s.dhow(["kill", "c1"]).ok();
    s.dhow(["wait", "c1"]).ok();
    s.dhow(["start", "c1"]).ok();
    s.dhow(["rm", "-f", "c1"]).ok();
    let format = "{{.Action}}{{with index .Actor.Attributes \"signal\"}} {{.}}{{end}}";
    let flags = ["events", "--stream=false", "--filter", "container=c1", "--format", format];
    let all = s.dhow(flags).ok();
    let all: Vec<&str> = all.lines().collect();
    let stop = ["create", "start", "kill 15", "die", "stop"];
    let restart = ["start", "kill 9", "die", "start", "restart"];
    let kill = ["kill 9", "die", "start", "kill 9", "die", "destroy"];
    assert_eq!(all, [&stop[..], &restart, &kill].concat());
}

fn wrong_input(s: &Sandbox) {
    for (flags, about) in [
        (["--filter", "nosuch=1"], "nosuch"),
        (["--since", "lately"], "lately"),
        (["--until", "soon"], "soon"),
        (["--format", "{{"], "template"),
        (["--stream", "maybe"], "maybe"),
    ] {
        s.dhow(["events"]).args(flags).output().complains(about).expect("an error", |o| o.code != 0);
    }
    s.dhow(["events", "--stream=false", "--format", "{{.NoSuch}}"])
        .output()
        .expect("an error", |o| o.code != 0);
}

fn a_journal_that_is_in_the_way(s: &Sandbox) {
    // Half an entry, and something else altogether: both are passed over.
    let log = s.store.join("events/log");
    let mut bytes = std::fs::read(&log).unwrap();
    let half = bytes[..bytes.len() / 2].to_vec();
    bytes.extend(b"no entry at all\n\0\xff");
    bytes.extend(half);
    std::fs::write(&log, bytes).unwrap();
    s.dhow(["tag", "busybox", "app:1"]).ok();
    assert_eq!(past(s, &[]), ["image import", "image tag"]);
    if s.user == User::Root {
        // No verb fails because it cannot tell about itself.
        std::fs::remove_dir_all(s.store.join("events")).unwrap();
        std::fs::write(s.store.join("events"), "").unwrap();
        assert_eq!(s.sh(NONE, "echo x").ok(), "x");
        std::fs::remove_file(s.store.join("events")).unwrap();
        assert_eq!(past(s, &[]), NONE);
    }
}
