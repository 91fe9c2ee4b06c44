//! attach: several clients at a container's streams, and staying with one in the foreground.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::command::Running;
use crate::sandbox::Sandbox;
use crate::terminal::Terminal;
use crate::wait;

for_each_user!(
    several_see_and_one_types,
    much_goes_both_ways,
    stdin_stays_open_until_it_is_closed,
    a_terminal_for_several,
    detach_keys_leave_it_running,
    those_who_hang_or_vanish,
    signals_go_to_the_program,
    without_sig_proxy_it_stays,
    a_second_interrupt_ends_it,
    streams_of_choice,
    what_cannot_be_attached_to,
    start_stays_with_what_runs,
    a_daemon_that_keeps_nothing_open,
);

/// Waits until so many have attached to containers here since the beginning.
#[track_caller]
fn await_attached(s: &Sandbox, n: usize) {
    let count = || s.dhow(["events", "--since", "1h", "--until", "0s", "--filter", "event=attach"]).ok();
    wait::until("those who attach", || (count().lines().count() >= n).then_some(()));
}

/// A client with pipes at both ends.
fn client(s: &Sandbox, args: &[&str]) -> Running {
    s.dhow(args).spawn_with(|command: &mut Command| {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    })
}

fn all_of(running: &mut Running) -> (String, String) {
    let (mut out, mut err) = (String::new(), String::new());
    running.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    running.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    (out, err)
}

fn several_see_and_one_types(s: &Sandbox) {
    let script = "read x; echo \"out $x\"; echo err >&2; exit 5";
    s.detached(["-i", "--name", "a"], ["sh", "-c", script]);
    let mut watchers = [client(s, &["attach", "--no-stdin", "a"]), client(s, &["attach", "--no-stdin", "a"])];
    await_attached(s, 2);
    let typist = s.dhow(["attach", "a"]).stdin("go\n").output().exits(5);
    assert_eq!((typist.text(), typist.error_text()), ("out go".into(), "err\n".into()));
    for watcher in &mut watchers {
        assert_eq!(all_of(watcher), ("out go\n".into(), "err\n".into()));
        assert_eq!(watcher.code(), 5);
    }
    assert_eq!(s.dhow(["logs", "a"]).output().exits(0).text(), "out go");
}

fn much_goes_both_ways(s: &Sandbox) {
    s.detached(["-i", "--name", "a"], ["cat"]);
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let output = s.dhow(["attach", "a"]).stdin(bytes.clone()).output().exits(0);
    assert_eq!(output.error_text(), "");
    assert!(output.stdout == bytes, "{} of {} bytes came back", output.stdout.len(), bytes.len());
}

fn stdin_stays_open_until_it_is_closed(s: &Sandbox) {
    s.detached(["-i", "--name", "a"], ["cat"]);
    // One that types and vanishes closes nothing.
    let mut first = client(s, &["attach", "a"]);
    first.child.stdin.as_mut().unwrap().write_all(b"one\n").unwrap();
    wait::until("the echo", || (s.dhow(["logs", "a"]).ok() == "one").then_some(()));
    first.signal(Signal::KILL);
    first.code();
    assert_eq!(s.dhow(["attach", "a"]).stdin("two\n").ok(), "two");
    assert_eq!(s.inspect("a", "{{.State.Status}} {{.State.ExitCode}}"), "exited 0");
}

fn a_terminal_for_several(s: &Sandbox) {
    s.detached(["-it", "--name", "a"], ["sh"]);
    let mut first = Terminal::start(s.dhow(["attach", "a"]), 21, 43);
    await_attached(s, 1);
    let mut second = Terminal::start(s.dhow(["attach", "a"]), 30, 70);
    await_attached(s, 2);
    // The terminal fits whoever types.
    first.write("stty size; echo one-$((1+1))\n");
    first.expect("21 43");
    first.expect("one-2");
    second.expect("one-2");
    second.write("stty size\n");
    second.expect("30 70");
    first.expect("30 70");
    first.resize(22, 44);
    wait::until("the new size", || s.dhow(["exec", "a", "true"]).output().code.eq(&0).then_some(()));
    first.write("stty size; exit 3\n");
    first.expect("22 44");
    assert_eq!((first.code(), second.code()), (3, 3));
}

fn detach_keys_leave_it_running(s: &Sandbox) {
    for (n, (flags, keys)) in
        [(&[][..], "\x10\x11"), (&["--detach-keys", "ctrl-a,x"], "\x01x")].into_iter().enumerate()
    {
        let name = format!("a{n}");
        s.detached(["-it", "--name", &name], ["sh"]);
        let args = [&["attach"], flags, &[&*name]].concat();
        let mut t = Terminal::start(s.dhow(&args), 24, 80);
        t.write("echo at-$((40+2))\n");
        t.expect("at-42");
        t.write(keys);
        assert_eq!(t.code(), 0);
        assert_eq!(s.inspect(&name, "{{.State.Status}}"), "running");
    }
    // Out of the foreground, of one that keeps no log: it goes on, writes on, and can be attached to.
    let run = ["run", "--rm", "-it", "--name", "f", "busybox", "sh"];
    let mut t = Terminal::start(s.dhow(run), 24, 80);
    t.write("echo in-$((40+3)); (while :; do echo tick; sleep 0.01; done) &\n");
    t.expect("in-43");
    t.write("\x10\x11");
    assert_eq!(t.code(), 0);
    let mut t = Terminal::start(s.dhow(["attach", "f"]), 24, 80);
    t.expect("tick");
    t.write("kill $!; exit 4\n");
    assert_eq!(t.code(), 4);
    let events = s.dhow(["events", "--since", "1h", "--until", "0s", "--filter", "event=detach"]).ok();
    assert_eq!(events.lines().count(), 3, "{events}");
}

fn those_who_hang_or_vanish(s: &Sandbox) {
    // 12 MB, and one who reads nothing of them: neither the container nor its log waits.
    let script = "read go; i=0; while [ $i -lt 12 ]; do head -c 1000000 /dev/zero | tr '\\0' x; i=$((i+1)); done; echo end; read more";
    s.detached(["-i", "--name", "a", "--log-opt", "max-size=100m"], ["sh", "-c", script]);
    let mut deaf = client(s, &["attach", "--no-stdin", "a"]);
    let mut gone = client(s, &["attach", "--no-stdin", "a"]);
    await_attached(s, 2);
    gone.signal(Signal::KILL);
    gone.code();
    let mut typist = client(s, &["attach", "a"]);
    typist.child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    let mut reader = typist.child.stdout.take().unwrap();
    let reading = std::thread::spawn(move || {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        all
    });
    wait::until("all in the log", || {
        s.dhow(["logs", "--tail", "1", "a"]).ok().ends_with("end").then_some(())
    });
    assert_eq!(s.inspect("a", "{{.State.Status}}"), "running");
    // It ends although one of them hangs, and that one hears of what it missed, and of the end.
    typist.child.stdin.as_mut().unwrap().write_all(b"more\n").unwrap();
    assert_eq!(s.dhow(["wait", "a"]).ok(), "0");
    assert_eq!(typist.code(), 0);
    reading.join().unwrap();
    let (out, err) = all_of(&mut deaf);
    assert_eq!(deaf.code(), 0);
    assert!(out.len() < 12_000_000 && err.contains("bytes of output are missing"), "{} {err}", out.len());
}

fn signals_go_to_the_program(s: &Sandbox) {
    let script = "trap 'echo usr1' USR1; trap 'exit 9' TERM; echo ready; while :; do sleep 0.02; done";
    s.detached(["--name", "a"], ["sh", "-c", script]);
    wait::until("the traps", || s.dhow(["logs", "a"]).ok().contains("ready").then_some(()));
    let mut running = client(s, &["attach", "a"]);
    await_attached(s, 1);
    running.signal(Signal::USR1);
    wait::until("the signal", || s.dhow(["logs", "a"]).ok().contains("usr1").then_some(()));
    running.signal(Signal::TERM);
    assert_eq!(all_of(&mut running).0, "usr1\n");
    assert_eq!(running.code(), 9);
}

fn without_sig_proxy_it_stays(s: &Sandbox) {
    s.detached(["--name", "a"], ["sleep", "1000"]);
    let mut attached = client(s, &["attach", "--sig-proxy=false", "a"]);
    await_attached(s, 1);
    attached.signal(Signal::INT);
    assert_eq!(attached.code(), 130);
    let args =
        ["run", "--sig-proxy=false", "--rm", "--name", "b", "busybox", "sh", "-c", "echo ready; sleep 1000"];
    let mut run = client(s, &args);
    let mut ready = [0; 6];
    run.child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    run.signal(Signal::TERM);
    assert_eq!(run.code(), 143);
    for name in ["a", "b"] {
        assert_eq!(s.inspect(name, "{{.State.Status}}"), "running", "{name}");
    }
}

fn a_second_interrupt_ends_it(s: &Sandbox) {
    let script = "trap 'echo no' INT; trap '' TERM; echo ready; while :; do sleep 0.02; done";
    let mut run = client(s, &["run", "--name", "a", "busybox", "sh", "-c", script]);
    let said = |word: &str| {
        wait::until(word, || {
            let logs = s.dhow(["logs", "a"]).output();
            logs.text().contains(word).then_some(())
        });
    };
    said("ready");
    run.signal(Signal::INT);
    said("no");
    run.signal(Signal::INT);
    assert_eq!(run.code(), 137);
}

fn streams_of_choice(s: &Sandbox) {
    let script = "read x; echo \"out $x\"; echo err >&2";
    let run = |flags: &[&str]| {
        s.dhow(["run", "-i"])
            .args(flags)
            .args(["busybox", "sh", "-c", script])
            .stdin("in\n")
            .output()
            .exits(0)
    };
    let both = run(&["-a", "stdout", "-a", "stderr"]);
    assert_eq!(
        (both.text(), both.error_text()),
        ("out ".into(), "err\n".into()),
        "without stdin it is empty"
    );
    let out = run(&["-a", "stdin", "-a", "STDOUT"]);
    assert_eq!((out.text(), out.error_text()), ("out in".into(), String::new()));
    let id = run(&["-a", "stdin"]).text();
    let logs = s.dhow(["logs", &id]).output().exits(0);
    assert_eq!((logs.text(), logs.error_text()), ("out in".into(), "err\n".into()));
    s.dhow(["run", "-a", "stdfoo", "busybox", "true"]).output().complains("stdfoo").exits(125);
    s.dhow(["run", "-d", "-a", "stdout", "busybox", "true"]).output().complains("--attach").exits(125);
}

fn what_cannot_be_attached_to(s: &Sandbox) {
    s.detached(["--name", "a"], ["sleep", "1000"]);
    s.dhow(["pause", "a"]).ok();
    s.dhow(["attach", "a"]).output().complains("paused").exits(1);
    s.dhow(["stop", "-t", "0", "a"]).ok();
    s.dhow(["attach", "a"]).output().complains("not running").exits(1);
    s.dhow(["attach", "nobody"]).output().complains("nobody").exits(1);
    s.dhow(["attach", "--detach-keys", "nokey", "a"]).output().complains("nokey").exits(1);
    // Its output goes where nobody of us sees it.
    let mut run = client(s, &["run", "--rm", "--name", "b", "busybox", "sh", "-c", "echo ready; sleep 1000"]);
    let mut ready = [0; 6];
    run.child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    s.dhow(["attach", "b"]).output().complains("straight to the command").exits(1);
}

fn start_stays_with_what_runs(s: &Sandbox) {
    let args = ["create", "-i", "--name", "a", "busybox", "sh", "-c", "read x; echo \"got $x\"; exit 6"];
    s.dhow(args).ok();
    let first = s.dhow(["start", "-ai", "a"]).stdin("one\n").output().exits(6);
    assert_eq!(first.text(), "got one");
    s.dhow(["start", "a"]).ok();
    let second = s.dhow(["start", "-ai", "a"]).stdin("two\n").output().exits(6);
    assert_eq!(second.text(), "got two", "one that runs is attached to");
    s.dhow(["start", "-a", "a", "b"]).output().complains("2 containers").exits(1);
    s.dhow(["create", "-it", "--name", "t", "busybox", "sh"]).ok();
    let mut t = Terminal::start(s.dhow(["start", "-ai", "t"]), 21, 43);
    t.write("stty size; exit 2\n");
    t.expect("21 43");
    assert_eq!(t.code(), 2);
}

fn a_daemon_that_keeps_nothing_open(s: &Sandbox) {
    // It closes its streams, and its children, who have them, go on: whoever is attached stays until it ends.
    let script =
        "(sleep 1000; echo never) & exec >&- 2>&- <&-; until test -e /done; do sleep 0.02; done; exit 7";
    s.detached(["-i", "--name", "a"], ["sh", "-c", script]);
    let mut attached = client(s, &["attach", "a"]);
    await_attached(s, 1);
    s.let_go("a", "/done");
    assert_eq!(attached.code(), 7);
    assert_eq!(s.dhow(["wait", "a"]).ok(), "7");
}
