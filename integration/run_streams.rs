//! `dhow run`: the three streams, signals to the command, and the end of it all.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use rustix::process::Signal;
use sha2::Digest as _;

use crate::sandbox::{NONE, Sandbox};
use crate::wait;

for_each_user!(
    output_is_byte_exact,
    streams_stay_apart,
    stdin_without_i_is_empty,
    stdin_with_i,
    stdin_to_a_program_that_does_not_read,
    large_input_comes_back,
    output_after_the_reader_left,
    inherited_streams_are_the_callers_own,
    closed_streams,
    signals_are_forwarded,
    last_byte_before_the_exit_code,
);

fn output_is_byte_exact(s: &Sandbox) {
    // 50 MB of every byte value, through a pipe.
    s.file("bytes/all", (0..=255u8).cycle().take(1 << 20).collect::<Vec<u8>>());
    let dir = s.work.join("bytes");
    let script = "i=0; while [ $i -lt 50 ]; do cat /b/all; i=$((i+1)); done";
    let out = s.sh(["-v", &format!("{}:/b:ro", dir.display())], script).output().exits(0);
    let expected: Vec<u8> = (0..=255u8).cycle().take(50 << 20).collect();
    assert_eq!(out.stdout.len(), expected.len());
    assert_eq!(sha2::Sha256::digest(&out.stdout), sha2::Sha256::digest(&expected));
    assert!(out.stderr.is_empty(), "{}", out.report());
}

fn streams_stay_apart(s: &Sandbox) {
    let out = s.sh(NONE, "echo out; echo err >&2; printf 'no newline'").output().exits(0);
    assert_eq!((out.stdout.as_slice(), out.stderr.as_slice()), (&b"out\nno newline"[..], &b"err\n"[..]));
}

fn stdin_without_i_is_empty(s: &Sandbox) {
    assert_eq!(s.sh(NONE, "wc -c").stdin("12345").ok(), "0");
}

fn stdin_with_i(s: &Sandbox) {
    assert_eq!(s.sh(["-i"], "cat; echo end").stdin("one\ntwo\0three").ok(), "one\ntwo\0threeend");
    assert_eq!(s.sh(["-i"], "cat; echo end").ok(), "end", "the end of the input is passed on");
}

fn stdin_to_a_program_that_does_not_read(s: &Sandbox) {
    assert_eq!(s.sh(["-i"], "echo done").stdin(vec![b'x'; 4 << 20]).ok(), "done");
}

fn large_input_comes_back(s: &Sandbox) {
    let input: Vec<u8> = (0..8_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let out = s.sh(["-i"], "cat").stdin(input.clone()).output().exits(0);
    assert!(
        out.stdout == input,
        "what went in did not come out: {} of {} bytes",
        out.stdout.len(),
        input.len()
    );
}

fn output_after_the_reader_left(s: &Sandbox) {
    let mut run = s.sh(NONE, "yes").spawn_with(|c| {
        c.stdout(Stdio::piped());
    });
    let mut pipe = run.child.stdout.take().unwrap();
    let mut some = [0; 100];
    pipe.read_exact(&mut some).unwrap();
    drop(pipe);
    // As with docker: the container is told by SIGPIPE or ends with its command; it does not run on for ever.
    let code = run.code();
    assert_ne!(code, 0, "a broken pipe is no success");
    s.assert_nothing_left();
}

fn inherited_streams_are_the_callers_own(s: &Sandbox) {
    // The output may be a file: it is not truncated, and appended to where the caller says so.
    let path = s.file("log", "before\n");
    let log = std::fs::File::options().append(true).open(&path).unwrap();
    let mut run = s.sh(NONE, "echo inside; echo more >&2").spawn_with(|c| {
        c.stdout(log.try_clone().unwrap()).stderr(log);
    });
    assert_eq!(run.code(), 0);
    assert_eq!(std::fs::read_to_string(path).unwrap(), "before\ninside\nmore\n");
}

fn closed_streams(s: &Sandbox) {
    // Cron jobs and daemons may be started with any of the three closed: no other file may take their place.
    for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        let script = format!("exec \"$@\" {closed}");
        s.sh(NONE, "exit 5").under(&["sh", "-c", &script, "sh"]).output().exits(5);
    }
}

fn signals_are_forwarded(s: &Sandbox) {
    let script = "trap 'echo got term; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let (mut run, mut out) = reading(s, script);
    until_read(&mut out, "ready");
    run.signal(Signal::TERM);
    until_read(&mut out, "got term");
    assert_eq!(run.code(), 9);
    let script = "trap 'echo hup' HUP; trap 'echo usr1' USR1; trap 'exit 4' INT; echo ready; while :; do sleep 0.05; done";
    let (mut run, mut out) = reading(s, script);
    until_read(&mut out, "ready");
    run.signal(Signal::HUP);
    until_read(&mut out, "hup");
    run.signal(Signal::USR1);
    until_read(&mut out, "usr1");
    run.signal(Signal::INT);
    assert_eq!(run.code(), 4);
}

fn reading(s: &Sandbox, script: &str) -> (crate::command::Running, std::fs::File) {
    let mut run = s.sh(NONE, script).spawn_with(|c| {
        c.stdout(Stdio::piped());
    });
    let out: OwnedFd = run.child.stdout.take().unwrap().into();
    (run, out.into())
}

#[track_caller]
fn until_read(out: &mut std::fs::File, word: &str) {
    let mut seen = String::new();
    wait::until(&format!("{word:?} on stdout"), || {
        let mut buffer = [0; 512];
        let n = out.read(&mut buffer).unwrap();
        assert!(n > 0, "the output ended before {word:?}: {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
        seen.contains(word).then_some(())
    });
}

fn last_byte_before_the_exit_code(s: &Sandbox) {
    for _ in 0..10 {
        let out = s.sh(NONE, "head -c 200000 /dev/zero; echo end; exit 3").output().exits(3);
        assert_eq!(out.stdout.len(), 200_004);
        assert!(out.stdout.ends_with(b"end\n"));
    }
}
