//! `dhow logs`: what a container wrote, kept byte for byte and stream by stream.

use std::io::Read;
use std::process::Stdio;

use crate::sandbox::{NONE, Sandbox};
use crate::wait;

for_each_user!(
    both_streams,
    byte_exact,
    tail,
    since_and_until,
    timestamps,
    follow_ends_with_the_container,
    follow_ends_when_killed,
    a_foreground_container_has_a_log,
    none_at_all,
);

fn done(s: &Sandbox, script: &str) {
    s.detached(["--name", "c1"], ["sh", "-c", script]);
    s.dhow(["wait", "c1"]).ok();
}

fn both_streams(s: &Sandbox) {
    done(s, "echo out; echo err >&2");
    let out = s.dhow(["logs", "c1"]).output().exits(0);
    assert_eq!((out.text(), out.error_text()), ("out".into(), "err\n".into()));
}

fn byte_exact(s: &Sandbox) {
    done(s, "printf 'a\\0b\\r\\nc\\377\\n\\n'; head -c 100000 /dev/zero; printf 'no newline'");
    let out = s.dhow(["logs", "c1"]).output().exits(0).stdout;
    let expected = [b"a\0b\r\nc\xff\n\n".as_slice(), &[0; 100_000], b"no newline"].concat();
    assert!(out == expected, "{} bytes of {}", out.len(), expected.len());
}

fn tail(s: &Sandbox) {
    done(s, "seq 1 1000");
    let tail = |n: &str| s.dhow(["logs", "--tail", n, "c1"]).ok();
    assert_eq!(tail("2"), "999\n1000");
    assert_eq!(tail("0"), "");
    assert_eq!(tail("5000").lines().count(), 1000);
    assert_eq!(tail("all").lines().count(), 1000);
    assert_eq!(s.dhow(["logs", "-n", "1", "c1"]).ok(), "1000");
    s.dhow(["logs", "--tail", "few", "c1"]).output().complains("few").expect("an error", |o| o.code != 0);
}

fn since_and_until(s: &Sandbox) {
    done(s, "echo early; sleep 1.2; echo late");
    let text = s.dhow(["logs", "-t", "c1"]).ok();
    let late = text.lines().last().unwrap().split(' ').next().unwrap().to_owned();
    assert_eq!(s.dhow(["logs", "--since", &late, "c1"]).ok(), "late");
    assert_eq!(s.dhow(["logs", "--until", &late, "c1"]).ok().lines().next(), Some("early"));
    assert_eq!(s.dhow(["logs", "--since", "10m", "c1"]).ok(), "early\nlate");
    assert_eq!(s.dhow(["logs", "--since", "2001-01-01", "c1"]).ok(), "early\nlate");
    assert_eq!(s.dhow(["logs", "--until", "2001-01-01T00:00:00Z", "c1"]).ok(), "");
    assert_eq!(s.dhow(["logs", "--since", "4000000000", "c1"]).ok(), "");
    s.dhow(["logs", "--since", "lately", "c1"])
        .output()
        .complains("lately")
        .expect("an error", |o| o.code != 0);
}

fn timestamps(s: &Sandbox) {
    done(s, "echo x");
    let text = s.dhow(["logs", "--timestamps", "c1"]).ok();
    let (time, rest) = text.split_once(' ').unwrap();
    assert_eq!(rest, "x");
    let time: jiff::Timestamp = time.parse().unwrap_or_else(|e| panic!("{time}: {e}"));
    let age = jiff::Timestamp::now().as_second() - time.as_second();
    assert!((0..600).contains(&age), "{text}");
}

fn follow_ends_with_the_container(s: &Sandbox) {
    s.detached(["--name", "c1"], ["sh", "-c", "echo one; sleep 0.5; echo two; sleep 0.5; echo three"]);
    assert_eq!(s.dhow(["logs", "-f", "c1"]).ok(), "one\ntwo\nthree");
    assert_eq!(s.dhow(["logs", "-f", "c1"]).ok(), "one\ntwo\nthree", "and at once where it has ended");
    s.detached(["--name", "c2"], ["sh", "-c", "echo one; sleep 1000"]);
    let mut follow = s.dhow(["logs", "-f", "c2"]).spawn_with(|c| {
        c.stdout(Stdio::piped());
    });
    let mut line = [0; 4];
    follow.child.stdout.take().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(&line, b"one\n", "a line is shown when it is written, not later");
    s.dhow(["rm", "-f", "c2"]).ok();
    follow.code();
}

fn follow_ends_when_killed(s: &Sandbox) {
    s.detached(["--name", "c1"], ["sleep", "1000"]);
    let mut follow = s.dhow(["logs", "-f", "c1"]).spawn_with(|_| ());
    follow.signal(rustix::process::Signal::INT);
    follow.code();
    assert_eq!(s.inspect("c1", "{{.State.Status}}"), "running");
}

fn a_foreground_container_has_a_log(s: &Sandbox) {
    s.dhow(["run", "--name", "c1", "busybox", "echo", "x"]).ok();
    assert_eq!(s.dhow(["logs", "c1"]).ok(), "x");
}

fn none_at_all(s: &Sandbox) {
    s.detached(["--name", "c1", "--log-driver", "none"], ["echo", "x"]);
    s.dhow(["wait", "c1"]).ok();
    let out = s.dhow(["logs", "c1"]).output();
    assert_eq!(out.text(), "");
    wait::until("its end", || s.dhow(["ps", "-q"]).args(NONE).ok().is_empty().then_some(()));
}
