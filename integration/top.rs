//! `dhow top`, `stats`, `port`, `rm` and `container exists`.

use serde_json::Value;

use crate::sandbox::Sandbox;
use crate::wait;

for_each_user!(
    top_shows_what_runs,
    top_in_other_columns,
    top_escapes_what_programs_call_themselves,
    top_refuses,
    top_sees_execs,
    stats_of_what_runs,
    stats_in_other_shapes,
    stats_go_on,
    ports,
    exists,
    rm_all_and_some,
    rm_refuses,
    rm_gives_time,
);

fn ready(s: &Sandbox, name: &str, script: &str) {
    let script = format!("{script}\ntouch /ready; exec sleep 1000");
    s.detached(["--name", name], ["sh", "-c", &script]);
    wait::until("the container", || {
        (s.dhow(["exec", name, "test", "-e", "/ready"]).output().code == 0).then_some(())
    });
    // The shell and what it began become something else a moment later.
    wait::until("its programs", || {
        let shown = s.dhow(["top", name, "-o", "pid,args"]).ok();
        shown.lines().skip(1).all(|line| line.split_whitespace().nth(1) == Some("sleep")).then_some(())
    });
}

fn top_shows_what_runs(s: &Sandbox) {
    ready(s, "c", "sleep 2000 &");
    let out = s.dhow(["top", "c"]).ok();
    let lines: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0].join(" "), "UID PID PPID C STIME TTY TIME CMD");
    assert!(out.starts_with("UID                 PID                 PPID "), "docker's widths: {out}");
    assert_eq!(lines.len(), 3, "{out}");
    assert_eq!(lines[1][1], s.inspect("c", "{{.State.Pid}}"));
    assert_eq!((lines[1][0], lines[1][5], &lines[1][7..]), ("root", "?", &["sleep", "1000"][..]));
    assert_eq!((lines[2][2], &lines[2][7..]), (lines[1][1], &["sleep", "2000"][..]));
    // But for C, the processor time over a lifetime that goes on.
    let steady = |out: &str| -> Vec<String> {
        let columns = |line: &str| {
            line.split_whitespace()
                .enumerate()
                .filter(|(n, _)| *n != 3)
                .map(|(_, word)| word.to_owned())
                .collect()
        };
        out.lines().map(columns).map(|words: Vec<String>| words.join(" ")).collect()
    };
    assert_eq!(steady(&s.dhow(["container", "top", "c", "-ef"]).ok()), steady(&out));
}

fn top_in_other_columns(s: &Sandbox) {
    ready(s, "c", "sleep 2000 &");
    let out = s.dhow(["top", "c", "-o", "pid,comm"]).ok();
    assert!(out.contains("COMMAND") && out.contains("sleep"), "{out}");
    let out = s.dhow(["top", "c", "aux"]).ok();
    assert!(out.starts_with("USER ") && out.contains("%MEM") && out.contains(" 0:00 "), "{out}");
    // Podman's words: numbers as they are inside.
    for words in [&["pid,user,args"][..], &["pid", "user", "args"]] {
        let out = s.dhow(["top", "c"]).args(words).ok();
        let lines: Vec<String> =
            out.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines[..2], ["PID USER COMMAND", "1 root sleep 1000"]);
    }
}

fn top_escapes_what_programs_call_themselves(s: &Sandbox) {
    // Which applet it is to be is what busybox finds behind the last slash.
    let script = "exec -a \"$(printf 'evil\\033[2J\\nx')/sleep\" sleep 1000";
    s.detached(["--name", "c"], ["sh", "-c", script]);
    let out = wait::until("the program", || {
        let out = s.dhow(["top", "c"]).ok();
        // Until then the shell's own command line has the word.
        out.contains("/sleep 1000").then_some(out)
    });
    assert!(!out.contains('\u{1b}') && out.lines().count() == 2, "{out:?}");
}

fn top_refuses(s: &Sandbox) {
    s.dhow(["create", "--name", "created", "busybox"]).ok();
    s.dhow(["top", "created"]).output().exits(1).complains("not running");
    s.dhow(["top", "nobody"]).output().exits(1).complains("no such container: nobody");
    ready(s, "c", "");
    s.dhow(["top", "c", "-o", "nonsense"]).output().exits(1).complains("nonsense");
    s.dhow(["top", "c", "--nonsense"]).output().exits(1).complains("ps option");
}

fn top_sees_execs(s: &Sandbox) {
    ready(s, "c", "");
    s.dhow(["exec", "-d", "c", "sleep", "3000"]).ok();
    wait::until("the other process", || s.dhow(["top", "c"]).ok().contains("sleep 3000").then_some(()));
    assert!(!s.dhow(["top", "c"]).ok().contains("dhow"), "nothing of ours is the container's");
}

fn stats_of_what_runs(s: &Sandbox) {
    s.detached(["--name", "busy", "-m", "64m"], ["sh", "-c", "while :; do :; done"]);
    s.detached(["--name", "idle"], ["sleep", "1000"]);
    s.dhow(["create", "--name", "created", "busybox"]).ok();
    let row = |name: &str| -> Value {
        let line = s.dhow(["stats", "--no-stream", "--format", "json", name]).ok();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))
    };
    let percent = |value: &Value| -> f64 { value.as_str().unwrap().trim_end_matches('%').parse().unwrap() };
    // A busy machine may leave it next to nothing for a second.
    let busy =
        wait::until("it to be busy", || Some(row("busy")).filter(|busy| percent(&busy["CPUPerc"]) > 1.0));
    assert_eq!(busy["PIDs"], "1");
    assert_eq!(busy["Name"], "busy");
    assert!(!busy["MemUsage"].as_str().unwrap().starts_with("0B"), "{busy}");
    let idle = row("idle");
    assert!(percent(&idle["CPUPerc"]) < percent(&busy["CPUPerc"]), "{idle}");
    assert_eq!(
        (&idle["Container"], idle["ID"].as_str().unwrap().len()),
        (&"idle".into(), 12),
        "as it was typed"
    );
    let created = row("created");
    assert_eq!((&created["CPUPerc"], &created["MemUsage"]), (&"0.00%".into(), &"0B / 0B".into()));
    let names = |flags: &[&str]| {
        let out = s.dhow(["stats", "--no-stream", "--format", "{{.Name}}"]).args(flags).ok();
        let mut names: Vec<String> = out.lines().map(str::to_owned).collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(names(&[]), "busy idle");
    assert_eq!(names(&["-a"]), "busy created idle");
}

fn stats_in_other_shapes(s: &Sandbox) {
    let id = s.detached(["--name", "c"], ["sleep", "1000"]);
    let out = s.dhow(["container", "stats", "--no-stream"]).ok();
    let headings = out.lines().next().unwrap();
    for heading in
        ["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"]
    {
        assert!(headings.contains(heading), "{heading}: {headings}");
    }
    assert!(out.contains(&id[..12]) && !out.contains(&id));
    assert!(s.dhow(["stats", "--no-stream", "--no-trunc"]).ok().contains(&id));
    s.dhow(["stats", "--no-stream", "nobody"]).output().exits(1).complains("no such container: nobody");
    s.dhow(["stats", "--no-stream", "--format", "{{.None}}"]).output().expect("an error", |o| o.code != 0);
}

fn stats_go_on(s: &Sandbox) {
    s.detached(["--name", "c"], ["sleep", "1000"]);
    let mut stats = s.dhow(["stats", "--format", "{{.Name}}", "c"]).spawn_with(|command| {
        command.stdout(std::process::Stdio::piped());
    });
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stats.child.stdout.take().unwrap()));
    for _ in 0..2 {
        assert_eq!(lines.next().unwrap().unwrap(), "c");
    }
    // It ends with the one container that it was to show.
    s.dhow(["rm", "-f", "c"]).ok();
    assert_eq!(stats.code(), 0);
}

fn ports(s: &Sandbox) {
    s.detached(["--name", "c"], ["sleep", "1000"]);
    assert_eq!(s.dhow(["port", "c"]).ok(), "");
    s.dhow(["port", "c", "80"]).output().exits(1).complains("no public port '80/tcp' published for c");
    s.dhow(["container", "port", "c", "53/udp"]).output().exits(1).complains("53/udp");
    s.dhow(["port", "c", "x"]).output().exits(1).complains("PORT");
    s.dhow(["port", "nobody"]).output().exits(1).complains("no such container: nobody");
}

fn exists(s: &Sandbox) {
    let id = s.detached(["--name", "c"], ["true"]);
    for name in ["c", &id, &id[..6]] {
        let out = s.dhow(["container", "exists", name]).output().exits(0);
        assert!(out.stdout.is_empty() && out.stderr.is_empty());
    }
    let out = s.dhow(["container", "exists", "nobody"]).output().exits(1);
    assert!(out.stdout.is_empty() && out.stderr.is_empty());
}

fn rm_all_and_some(s: &Sandbox) {
    for name in ["one", "two", "three"] {
        s.detached(["--name", name, "--label", &format!("n={name}")], ["true"]);
        s.dhow(["wait", name]).ok();
    }
    s.detached(["--name", "running", "--label", "n=running"], ["sleep", "1000"]);
    s.dhow(["rm", "--filter", "label=n=one"]).ok();
    s.dhow(["container", "exists", "one"]).output().exits(1);
    let out = s.dhow(["rm", "-a"]).output().exits(1).complains("running");
    assert_eq!(out.text().lines().count(), 2, "the others go: {}", out.report());
    s.dhow(["rm", "--filter", "status=exited"]).ok();
    assert_eq!(s.dhow(["rm", "-f", "-a"]).ok().lines().count(), 1);
    assert_eq!(s.dhow(["rm", "--all"]).ok(), "");
    s.assert_nothing_left();
}

fn rm_refuses(s: &Sandbox) {
    s.dhow(["create", "--name", "c", "busybox"]).ok();
    s.dhow(["rm"]).output().exits(1).complains("no container was named");
    s.dhow(["rm", "-a", "c"]).output().exits(1).complains("beside --all");
    s.dhow(["rm", "--filter", "nonsense=1"]).output().expect("an error", |o| o.code != 0);
    s.dhow(["rm", "-t", "1", "c"]).output().exits(1).complains("--force");
    s.dhow(["rm", "nobody"]).output().exits(1).complains("nobody");
    assert_eq!(s.dhow(["rm", "-i", "nobody"]).ok(), "");
    s.dhow(["container", "exists", "c"]).ok();
}

fn rm_gives_time(s: &Sandbox) {
    let share = s.subdir("share");
    let flag = format!("{}:/share", share.display());
    let script =
        "trap 'echo ended > /share/end; exit 0' TERM; touch /share/ready; while :; do sleep 0.1; done";
    s.detached(["--name", "c", "-v", &flag], ["sh", "-c", script]);
    wait::until("the trap", || share.join("ready").exists().then_some(()));
    s.dhow(["rm", "-f", "-t", "30", "c"]).ok();
    assert_eq!(std::fs::read_to_string(share.join("end")).unwrap(), "ended\n");
}
