//! `dhow diff`, `export` and `commit`: what a container changed, by itself, with all else, and as an image.

use std::collections::BTreeSet;
use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::sandbox::Sandbox;
use crate::wait;

for_each_user!(
    diff_in_any_state,
    diff_of_nothing,
    what_replaces_what,
    export_has_everything,
    export_goes_to_a_file,
    a_commit_runs,
    a_commit_says_what_it_is,
    the_same_changes_are_the_same_layer,
    what_was_deleted_stays_deleted,
    nothing_changed,
    a_commit_pauses,
    a_commit_that_is_killed_pauses_nothing,
    wrong_input,
    a_commit_that_is_killed_leaves_nothing,
    two_commits_at_once,
    commits_on_commits,
);
for_users_with_many_ids!(owners_and_links_are_kept);
for_root!(a_full_disk);

/// A container that ran this.
fn ran(s: &Sandbox, name: &str, script: &str) {
    s.detached(["--name", name], ["sh", "-c", script]);
    assert_eq!(s.dhow(["wait", name]).ok(), "0");
}

const CHANGES: &str = "mkdir -p /new/deep; echo x > /new/deep/file; echo y >> /etc/passwd; rm /etc/group; chmod 700 /tmp; \
     rm -r /bin/[; touch /tmp/here";
const CHANGED: &str = "C /bin\nD /bin/[\nC /etc\nD /etc/group\nC /etc/passwd\nA /new\nA /new/deep\nA /new/deep/file\nC /tmp\nA /tmp/here";

fn diff_in_any_state(s: &Sandbox) {
    ran(s, "ended", CHANGES);
    assert_eq!(s.dhow(["diff", "ended"]).ok(), CHANGED);
    s.detached(["--name", "running"], ["sh", "-c", &format!("{CHANGES}; touch /dev/shm/ready; sleep 1000")]);
    let ready =
        || (s.dhow(["exec", "running", "test", "-e", "/dev/shm/ready"]).output().code == 0).then_some(());
    wait::until("the changes", ready);
    assert_eq!(s.dhow(["container", "diff", "running"]).ok(), CHANGED);
}

fn diff_of_nothing(s: &Sandbox) {
    s.dhow(["create", "--name", "created", "busybox"]).ok();
    assert_eq!(s.dhow(["diff", "created"]).ok(), "");
    ran(s, "c", "cat /etc/passwd; ls /; : < /etc/group");
    assert_eq!(s.dhow(["diff", "c"]).ok(), "", "what a start makes for itself is no change");
    // Written again with the same content and time.
    ran(s, "d", "cp -a /etc/passwd /tmp/p; cp -a /tmp/p /etc/passwd; rm /tmp/p");
    assert_eq!(s.dhow(["diff", "d"]).ok(), "");
    s.dhow(["diff", "nobody"]).output().exits(1).complains("no such container: nobody");
}

fn what_replaces_what(s: &Sandbox) {
    ran(s, "base", "mkdir -p /d/sub; echo 1 > /d/a; echo 2 > /d/sub/b; echo f > /f; ln -s f /l");
    s.dhow(["commit", "base", "base"]).ok();
    s.detached(["--name", "none"], ["true"]);
    let check = |script: &str, want: &[&str]| {
        s.dhow(["run", "--name", "c", "base", "sh", "-c", script]).ok();
        assert_eq!(s.dhow(["diff", "c"]).ok(), want.join("\n"), "{script}");
        s.dhow(["commit", "c", "after"]).ok();
        let show = "find /d /f /l /x 2>/dev/null | sort; cat /d/a /d/sub/b /f 2>/dev/null; true";
        let after = s.dhow(["run", "--rm", "after", "sh", "-c", show]).ok();
        s.dhow(["run", "--name", "d", "base", "sh", "-c", &format!("{script}; {show}")]).output();
        assert_eq!(s.dhow(["logs", "d"]).ok(), after, "{script}: the image has what the container has");
        s.dhow(["rm", "c", "d"]).ok();
    };
    check("rm -r /d", &["D /d"]);
    check("rm -r /d; mkdir /d", &["C /d", "D /d/a", "D /d/sub"]);
    check("rm -r /d; mkdir /d; echo 1 > /d/new", &["C /d", "D /d/a", "A /d/new", "D /d/sub"]);
    check("rm -r /d; echo > /d", &["C /d"]);
    check("rm /f; mkdir /f; touch /f/x", &["C /f", "A /f/x"]);
    check("rm /l; mkdir /l", &["C /l"]);
    check("ln -sf d /l", &["C /l"]);
    check("mv /d /x", &["D /d", "A /x", "A /x/a", "A /x/sub", "A /x/sub/b"]);
    check("chmod 700 /d/sub", &["C /d", "C /d/sub"]);
    check("rm -r /d/sub; mkdir /d/sub; echo 3 > /d/sub/b", &["C /d", "C /d/sub", "C /d/sub/b"]);
}

fn names_of(tar: &[u8]) -> BTreeSet<String> {
    let mut archive = tar::Archive::new(tar);
    archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect()
}

fn export_has_everything(s: &Sandbox) {
    let share = s.subdir("share");
    s.file("share/secret", "on a volume");
    let flag = format!("{}:/mnt", share.display());
    s.detached(
        ["--name", "running", "-v", &flag],
        ["sh", "-c", &format!("{CHANGES}; touch /dev/shm/ready; sleep 1000")],
    );
    wait::until("the changes", || {
        (s.dhow(["exec", "running", "test", "-e", "/dev/shm/ready"]).output().code == 0).then_some(())
    });
    ran(s, "ended", CHANGES);
    for name in ["running", "ended"] {
        let names = names_of(&s.dhow(["export", name]).output().exits(0).stdout);
        for there in ["bin/busybox", "etc/passwd", "new/deep/file", "tmp/here", "etc/"] {
            assert!(names.contains(there), "{name}: {there}");
        }
        for gone in ["etc/group", "bin/[", "mnt/secret", "proc/1/", "proc/version"] {
            assert!(!names.contains(gone), "{name}: {gone}");
        }
    }
    // What was exported is a root file system.
    let out = s.dhow(["export", "ended"]).output().exits(0);
    s.dhow(["import", "-", "flat"]).stdin(out.stdout).ok();
    assert_eq!(s.dhow(["run", "--rm", "flat", "cat", "/new/deep/file"]).ok(), "x");
}

fn export_goes_to_a_file(s: &Sandbox) {
    ran(s, "c", "echo x > /x");
    s.file("out.tar", "an older one");
    assert_eq!(s.dhow(["export", "-o", "out.tar", "c"]).ok(), "");
    assert!(names_of(&fs::read(s.work.join("out.tar")).unwrap()).contains("x"));
    s.dhow(["export", "-o", "none/out.tar", "c"]).output().exits(1).complains("none/out.tar");
    s.dhow(["export", "-o", "other.tar", "nobody"]).output().exits(1);
    assert!(!s.work.join("other.tar").exists());
    let left: Vec<_> = fs::read_dir(&s.work).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["out.tar"], "no draft is left");
}

fn a_commit_runs(s: &Sandbox) {
    let id =
        s.detached(["--name", "c"], ["sh", "-c", &format!("{CHANGES}; touch /dev/shm/ready; sleep 1000")]);
    wait::until("the changes", || {
        (s.dhow(["exec", "c", "test", "-e", "/dev/shm/ready"]).output().code == 0).then_some(())
    });
    let image = s.dhow(["commit", "c", "mine:1"]).ok();
    assert!(image.starts_with("sha256:") && image.len() == 71, "{image}");
    assert_eq!(s.dhow(["image", "inspect", "--format", "{{.Id}}", "mine:1"]).ok(), image);
    assert_eq!(s.dhow(["ps", "--no-trunc", "-q"]).ok(), id, "it goes on");
    assert_eq!(s.inspect("c", "{{.State.Status}}"), "running");
    let script = "cat /new/deep/file; tail -n 1 /etc/passwd; ls /etc/group /bin/[ 2>&1; stat -c %a /tmp";
    let out = s.dhow(["run", "--rm", "mine:1", "sh", "-c", script]).ok();
    assert!(out.starts_with("x\ny\n") && out.ends_with("\n700"), "{out}");
    assert_eq!(out.matches("No such file").count(), 2, "{out}");
    // It can be saved, and comes back.
    let saved = s.dhow(["save", "mine:1"]).output().exits(0).stdout;
    s.dhow(["rmi", "mine:1"]).ok();
    s.dhow(["load"]).stdin(saved).ok();
    assert_eq!(s.dhow(["run", "--rm", "mine:1", "cat", "/new/deep/file"]).ok(), "x");
}

fn config(s: &Sandbox, image: &str) -> Value {
    let text = s.dhow(["image", "inspect", image]).ok();
    serde_json::from_str::<Value>(&text).unwrap()[0].clone()
}

fn a_commit_says_what_it_is(s: &Sandbox) {
    s.dhow(["run", "--name", "c", "-e", "A=1", "-w", "/tmp", "--label", "l=1", "busybox", "touch", "/x"])
        .ok();
    let change = ["-c", "ENV B=2", "--change", "CMD [\"cat\", \"/x\"]", "--change", "EXPOSE 80"];
    s.dhow(["commit", "-a", "Jo <jo@example.org>", "-m", "made by hand"])
        .args(change)
        .args(["c", "mine"])
        .ok();
    let image = config(s, "mine");
    assert_eq!(image["Author"], "Jo <jo@example.org>");
    let config = &image["Config"];
    assert_eq!(config["Cmd"], json!(["cat", "/x"]));
    assert_eq!(config["WorkingDir"], "/tmp");
    assert_eq!(config["Labels"], json!({"l": "1"}));
    assert_eq!(config["ExposedPorts"], json!({"80/tcp": {}}));
    let env: Vec<&str> = config["Env"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
    assert!(env.contains(&"A=1") && env.contains(&"B=2"), "{env:?}");
    assert_eq!(image["RootFS"]["Layers"].as_array().unwrap().len(), 2);
    let history = s.dhow(["history", "--no-trunc", "--format", "{{.CreatedBy}}|{{.Comment}}", "mine"]).ok();
    assert_eq!(history.lines().next(), Some("touch /x|made by hand"));
    assert_eq!(history.lines().count(), 2);
}

fn the_same_changes_are_the_same_layer(s: &Sandbox) {
    let script = "mkdir -p /a/b; echo x > /a/b/c; ln /a/b/c /a/d; ln -s x /a/l; rm /etc/group; touch -d @1000000000 /a/b/c /a/b /a/d /a";
    let mut layers = BTreeSet::new();
    for name in ["one", "two"] {
        ran(s, name, script);
        s.dhow(["commit", name, name]).ok();
        layers.insert(config(s, name)["RootFS"]["Layers"].to_string());
    }
    s.dhow(["commit", "one", "again"]).ok();
    layers.insert(config(s, "again")["RootFS"]["Layers"].to_string());
    // Links have the time of their making: only the digest of one and the same container must be the same then.
    assert!(layers.len() <= 2, "{layers:?}");
    assert_eq!(config(s, "one")["RootFS"], config(s, "again")["RootFS"]);
}

fn what_was_deleted_stays_deleted(s: &Sandbox) {
    ran(s, "c", "rm -r /etc; mkdir /etc; echo mine > /etc/only");
    s.dhow(["commit", "c", "mine"]).ok();
    let out = s.dhow(["run", "--rm", "mine", "ls", "/etc"]).ok();
    let names: Vec<&str> =
        out.split_whitespace().filter(|n| !["hosts", "hostname", "resolv.conf"].contains(n)).collect();
    assert_eq!(names, ["only"]);
}

fn pauses(s: &Sandbox, since: &str) -> usize {
    let until = s.dhow(["events", "--since", since, "--until", "0s", "--format", "{{.Action}}"]).ok();
    until.lines().filter(|line| *line == "pause").count()
}

fn a_commit_pauses(s: &Sandbox) {
    s.detached(["--name", "c"], ["sleep", "1000"]);
    s.dhow(["exec", "c", "touch", "/x"]).ok();
    s.dhow(["commit", "--pause=false", "c", "one"]).ok();
    s.dhow(["commit", "--no-pause", "c", "one"]).ok();
    assert_eq!(pauses(s, "1h"), 0);
    s.dhow(["commit", "c", "two"]).ok();
    assert_eq!(pauses(s, "1h"), 1);
    assert_eq!(s.inspect("c", "{{.State.Status}}"), "running");
    // What a person paused stays so.
    s.dhow(["pause", "c"]).ok();
    s.dhow(["commit", "c", "three"]).ok();
    assert_eq!(s.inspect("c", "{{.State.Status}}"), "paused");
    s.dhow(["unpause", "c"]).ok();
}

fn a_commit_that_is_killed_pauses_nothing(s: &Sandbox) {
    s.detached(["--name", "c"], ["sleep", "1000"]);
    s.dhow(["exec", "c", "dd", "if=/dev/urandom", "of=/big", "bs=1M", "count=40"]).ok();
    for _ in 0..3 {
        let mut commit = s.dhow(["commit", "c", "half"]).spawn_with(|_| ());
        let mut is_over = false;
        wait::until("the pause", || {
            is_over = s.dhow(["image", "exists", "half"]).output().code == 0;
            (is_over || s.inspect("c", "{{.State.Status}}") == "paused").then_some(())
        });
        commit.signal(Signal::KILL);
        commit.code();
        wait::until("it to go on", || (s.inspect("c", "{{.State.Status}}") == "running").then_some(()));
        s.dhow(["rmi", "half"]).output();
    }
}

fn nothing_changed(s: &Sandbox) {
    s.dhow(["create", "--name", "c", "busybox", "echo", "hello"]).ok();
    s.dhow(["commit", "c", "same"]).ok();
    assert_eq!(config(s, "same")["RootFS"], config(s, "busybox")["RootFS"], "no layer for nothing");
    assert_eq!(s.dhow(["run", "--rm", "same"]).ok(), "hello");
    let unnamed = s.dhow(["commit", "c"]).ok();
    assert_eq!(s.dhow(["run", "--rm", &unnamed]).ok(), "hello");
}

fn wrong_input(s: &Sandbox) {
    ran(s, "c", "touch /x");
    s.dhow(["commit", "nobody"]).output().exits(1).complains("no such container: nobody");
    s.dhow(["commit", "c", "Not A Name"]).output().exits(1);
    s.dhow(["commit", "-c", "FROM x", "c", "mine"]).output().exits(1).complains("FROM");
    s.dhow(["commit", "-c", "ENV", "c", "mine"]).output().exits(1);
    s.dhow(["commit"]).output().expect("a name is needed", |o| o.code != 0);
    s.dhow(["image", "inspect", "mine"]).output().exits(1);
    assert_eq!(s.dhow(["images", "-q"]).ok().lines().count(), 1);
}

/// Layers that are not in their place are in nobody's way, and the next that comes along takes them away.
fn a_commit_that_is_killed_leaves_nothing(s: &Sandbox) {
    ran(s, "c", "dd if=/dev/urandom of=/big bs=1M count=40 2>/dev/null");
    let before = s.dhow(["images", "-q"]).ok();
    for n in 0..6 {
        let mut commit = s.dhow(["commit", "c", "half"]).spawn_with(|_| ());
        let tmp = s.store.join("tmp");
        if n > 0 {
            let begun =
                || fs::read_dir(&tmp).unwrap().any(|e| e.is_ok_and(|e| e.path().join("layer").exists()));
            let ended = || s.dhow(["image", "exists", "half"]).output().code == 0;
            wait::until("the commit to begin", || (begun() || ended()).then_some(()));
        }
        commit.signal(Signal::KILL);
        commit.code();
    }
    s.dhow(["rmi", "half"]).output();
    assert_eq!(s.dhow(["images", "-q"]).ok(), before);
    s.dhow(["system", "prune", "-f", "--filter", "label=none"]).ok();
    assert_eq!(s.dhow(["diff", "c"]).ok(), "A /big");
    s.dhow(["rm", "c"]).ok();
    s.assert_nothing_left();
}

fn two_commits_at_once(s: &Sandbox) {
    ran(s, "c", "dd if=/dev/zero of=/big bs=1M count=8 2>/dev/null; touch /x");
    let mut commits: Vec<_> =
        (0..4).map(|n| s.dhow(["commit", "c", &format!("i{n}")]).spawn_with(|_| ())).collect();
    for commit in &mut commits {
        assert_eq!(commit.code(), 0);
    }
    for n in 0..4 {
        assert_eq!(s.dhow(["run", "--rm", &format!("i{n}"), "stat", "-c", "%s", "/big"]).ok(), "8388608");
        assert_eq!(config(s, &format!("i{n}"))["RootFS"], config(s, "i0")["RootFS"]);
    }
}

fn commits_on_commits(s: &Sandbox) {
    let mut from = "busybox".to_owned();
    for n in 0..5 {
        let script = format!("echo {n} >> /log; rm -f /only-{}; touch /only-{n}", n - 1);
        s.dhow(["run", "--name", &format!("c{n}"), &from, "sh", "-c", &script]).ok();
        from = format!("i{n}");
        s.dhow(["commit", &format!("c{n}"), &from]).ok();
    }
    assert_eq!(
        s.dhow(["run", "--rm", "i4", "sh", "-c", "cat /log; ls -d /only-*"]).ok(),
        "0\n1\n2\n3\n4\n/only-4"
    );
    assert_eq!(s.dhow(["history", "-q", "i4"]).ok().lines().count(), 6);
}

fn owners_and_links_are_kept(s: &Sandbox) {
    let script = "mkdir /d; touch /d/a; chown 33:44 /d/a; ln /d/a /d/b; ln -s a /d/l; chown -h 5:6 /d/l; mkfifo /d/p; chmod 4755 /d/a; \
         cp /bin/busybox /d/exe; truncate -s 1G /d/sparse 2>/dev/null || dd if=/dev/null of=/d/sparse bs=1 seek=1G 2>/dev/null";
    let show = "stat -c '%n %u:%g %a %h %F' /d/a /d/b /d/l /d/p; stat -c %s /d/sparse";
    ran(s, "c", script);
    s.dhow(["commit", "c", "mine"]).ok();
    let out = s.dhow(["run", "--rm", "mine", "sh", "-c", show]).ok();
    let want = "/d/a 33:44 4755 2 regular empty file\n/d/b 33:44 4755 2 regular empty file\n/d/l 5:6 777 1 symbolic link\n/d/p 0:0 644 1 fifo\n1073741824";
    assert_eq!(out, want);
}

fn a_full_disk(s: &Sandbox) {
    ran(s, "c", "dd if=/dev/zero of=/big bs=1M count=8 2>/dev/null");
    let out =
        s.dhow(["commit", "c", "mine"]).under(&["sh", "-c", "ulimit -f 4096; exec \"$@\"", "sh"]).output();
    out.exits(1).complains("big");
    s.dhow(["image", "exists", "mine"]).output().exits(1);
    s.dhow(["commit", "c", "mine"]).ok();
    assert_eq!(s.dhow(["run", "--rm", "mine", "stat", "-c", "%s", "/big"]).ok(), "8388608");
}
