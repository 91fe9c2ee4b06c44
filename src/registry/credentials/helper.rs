//! docker-credential-NAME: a program that keeps credentials, in a keyring or elsewhere.
//!
//! Its one argument is `get`, `store`, `erase` or `list`; the rest goes over its stdin and stdout. It gets a bounded time, and
//! so much output as credentials may have. Source: docker/docker-credential-helpers, README "Development".

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use serde_json::{Value, json};

use super::Credentials;
use super::document::{TOKEN_USER, normalize, spelling};
use crate::error::ResultExt;

/// Long enough to type a passphrase for a keyring; a helper that asks nobody takes milliseconds.
const DEADLINE: Duration = Duration::from_secs(120);

/// What a helper may say. Tokens have a few KiB; a list of registries some more.
const LIMIT: usize = 1 << 20;

/// How much of a helper's complaint is shown.
const COMPLAINT: usize = 300;

/// The credentials that the helper has for a key, `None` where it has none.
pub(super) fn get(name: &str, key: &str) -> Result<Option<Credentials>> {
    // Docker stores Docker Hub under its old URL, podman under its name.
    let spelt = spelling(key);
    for url in [Some(spelt), Some(key).filter(|k| *k != spelt)].into_iter().flatten() {
        let Some(answer) = ask(name, "get", url.as_bytes(), "").with_context(|| about("get", key, name))?
        else {
            continue;
        };
        if let Some(found) = credentials(&answer).with_context(|| about("get", key, name))? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Gives credentials to the helper.
pub(super) fn store(name: &str, key: &str, credentials: &Credentials) -> Result<()> {
    let user = match credentials {
        Credentials::Basic { user, .. } => user,
        Credentials::IdentityToken(_) => TOKEN_USER,
    };
    let secret = credentials.secret();
    let input = json!({ "ServerURL": spelling(key), "Username": user, "Secret": secret }).to_string();
    let stored = ask(name, "store", input.as_bytes(), secret);
    stored.and_then(|s| s.context("it says that it has none")).with_context(|| about("store", key, name))?;
    Ok(())
}

/// Makes the helper forget a key; whether it had any.
pub(super) fn erase(name: &str, key: &str) -> Result<bool> {
    let spelt = spelling(key);
    let mut had = false;
    for url in [Some(spelt), Some(key).filter(|k| *k != spelt)].into_iter().flatten() {
        // Some helpers are content to erase what they do not have: asking first tells the two apart.
        let there = ask(name, "get", url.as_bytes(), "").ok().flatten();
        let there = there.is_some_and(|answer| credentials(&answer).is_ok_and(|c| c.is_some()));
        ask(name, "erase", url.as_bytes(), "").with_context(|| about("erase", key, name))?;
        had |= there;
    }
    Ok(had)
}

/// The keys that the helper has credentials for, normalised.
pub(super) fn list(name: &str) -> Result<Vec<String>> {
    let about = || format!("cannot list the credentials of docker-credential-{name}");
    let answer = ask(name, "list", b"", "").with_context(about)?.unwrap_or_default();
    match serde_json::from_slice(&answer) {
        Ok(Value::Object(all)) => Ok(all.into_iter().map(|(url, _)| normalize(&url)).collect()),
        Ok(Value::Null) => Ok(Vec::new()),
        _ => Err(anyhow!("its answer is not a JSON object")).with_context(about),
    }
}

fn about(verb: &str, key: &str, name: &str) -> String {
    format!("cannot {verb} the credentials of {key} with docker-credential-{name}")
}

fn credentials(answer: &[u8]) -> Result<Option<Credentials>> {
    // The text of serde's error could quote the secret.
    let Ok(Value::Object(answer)) = serde_json::from_slice(answer) else {
        bail!("its answer is not a JSON object");
    };
    let text = |key: &str| answer.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (user, secret) = (text("Username"), text("Secret"));
    if secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(match user.as_str() {
        TOKEN_USER => Credentials::IdentityToken(secret),
        _ => Credentials::Basic { user, password: secret },
    }))
}

/// Runs the helper. `None`: it has no credentials of that name. `secret` is kept out of the error.
fn ask(name: &str, verb: &str, input: &[u8], secret: &str) -> Result<Option<Vec<u8>>> {
    // The name comes from a file, and becomes a part of a program's.
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        bail!("{name:?} is not the name of a helper");
    }
    run(Command::new(format!("docker-credential-{name}")).arg(verb), input, secret, DEADLINE)
}

fn run(command: &mut Command, input: &[u8], secret: &str, time: Duration) -> Result<Option<Vec<u8>>> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(anyhow!("there is no such program in PATH"))
                .hint("install it, or take it out of credsStore or credHelpers in config.json");
        }
        spawned => spawned.context("cannot run it")?,
    };
    let said = converse(&mut child, input, Instant::now() + time);
    if said.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().context("cannot wait for it")?;
    let (stdout, stderr) = said?;
    if status.success() {
        return Ok(Some(stdout));
    }
    // Helpers complain on stdout, and this is how they say that they have none.
    let (answer, complaint) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    if answer.contains("credentials not found") || complaint.contains("credentials not found") {
        return Ok(None);
    }
    let line =
        [&answer, &complaint].into_iter().flat_map(|t| t.lines()).map(str::trim).find(|l| !l.is_empty());
    let mut line: String = line.unwrap_or_default().chars().take(COMPLAINT).collect();
    if !secret.is_empty() {
        line = line.replace(secret, "***");
    }
    match line.is_empty() {
        true => bail!("it ended with {status}"),
        false => bail!("it says: {line}"),
    }
}

/// Feeds the child and collects what it says, until it ended and both its streams are read. A stream that it left to a
/// process of its own (an agent that it started) is not waited for.
fn converse(child: &mut Child, mut input: &[u8], end: Instant) -> Result<(Vec<u8>, Vec<u8>)> {
    let pid = rustix::process::Pid::from_child(child);
    let pidfd =
        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).context("cannot watch it")?;
    let (Some(stdin), Some(mut stdout), Some(mut stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        bail!("it has no streams");
    };
    for fd in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
        nonblocking(fd)?;
    }
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    let (mut said_all, mut complained_all) = (false, false);
    let mut stdin = Some(stdin);
    loop {
        if input.is_empty() {
            // It sees the end of its input.
            stdin = None;
        }
        let Some(left) = end.checked_duration_since(Instant::now()) else {
            bail!("it does not answer");
        };
        let mut watched = vec![PollFd::new(&pidfd, PollFlags::IN)];
        if !said_all {
            watched.push(PollFd::new(&stdout, PollFlags::IN));
        }
        if !complained_all {
            watched.push(PollFd::new(&stderr, PollFlags::IN));
        }
        if let Some(pipe) = &stdin {
            watched.push(PollFd::new(pipe, PollFlags::OUT));
        }
        let left = Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match rustix::event::poll(&mut watched, Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => (),
            Err(e) => return Err(e).context("cannot wait for it"),
        }
        let ended = watched[0].revents().contains(PollFlags::IN);
        drop(watched);
        said_all |= drain(&mut stdout, &mut said)?;
        complained_all |= drain(&mut stderr, &mut complained)?;
        if ended {
            return Ok((said, complained));
        }
        if let Some(pipe) = &mut stdin {
            match pipe.write(input) {
                Ok(n) => input = &input[n..],
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => (),
                // It does not want to hear more.
                Err(_) => input = &[],
            }
        }
    }
}

/// Reads what is there; whether that was the end.
fn drain(from: &mut impl Read, into: &mut Vec<u8>) -> Result<bool> {
    let mut buffer = [0; 4096];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(true),
            Ok(n) => into.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(e) if e.kind() == ErrorKind::Interrupted => (),
            Err(e) => return Err(e).context("cannot read what it says"),
        }
        if into.len() > LIMIT {
            bail!("it says more than {} KiB", LIMIT >> 10);
        }
    }
}

fn nonblocking(fd: BorrowedFd<'_>) -> Result<()> {
    let set =
        rustix::fs::fcntl_getfl(fd).and_then(|flags| rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK));
    set.context("cannot set up its streams")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, input: &[u8], time: Duration) -> Result<Option<Vec<u8>>> {
        run(Command::new("/bin/sh").args(["-c", script]), input, "hunter2", time)
    }

    fn fails(script: &str) -> String {
        format!("{:#}", sh(script, b"", DEADLINE).unwrap_err())
    }

    #[test]
    fn a_helper_is_heard() {
        let echoed = sh("cat", &vec![b'x'; 300_000], DEADLINE).unwrap().unwrap();
        assert_eq!(echoed.len(), 300_000);
        assert_eq!(sh("exit 0", &vec![b'x'; 300_000], DEADLINE).unwrap().unwrap(), b"");
        assert_eq!(sh("echo credentials not found in native keychain; exit 1", b"", DEADLINE).unwrap(), None);
        // What it leaves running with its streams is not waited for.
        assert_eq!(
            sh("sleep 1000 & echo $!", b"", DEADLINE)
                .map(|o| {
                    let pid: i32 = String::from_utf8(o.unwrap()).unwrap().trim().parse().unwrap();
                    rustix::process::kill_process(
                        rustix::process::Pid::from_raw(pid).unwrap(),
                        rustix::process::Signal::KILL,
                    )
                })
                .unwrap(),
            Ok(())
        );
    }

    #[test]
    fn its_failures_say_no_secret() {
        assert_eq!(fails("echo; echo no keyring for hunter2 >&2; exit 3"), "it says: no keyring for ***");
        assert_eq!(fails("exit 3"), "it ended with exit status: 3");
        assert!(fails("cat /dev/zero").starts_with("it says more than"));
        let error = sh("sleep 1000", b"", Duration::from_millis(50)).unwrap_err();
        assert_eq!(format!("{error:#}"), "it does not answer");
        let error = run(&mut Command::new("docker-credential-no-such"), b"", "", DEADLINE).unwrap_err();
        assert!(crate::error::report(&error).contains("hint: install it"), "{error:#}");
        for name in ["../../bin/sh", "a b", "x\n"] {
            let error = format!("{:#}", get(name, "r:1").unwrap_err());
            assert!(error.contains("is not the name of a helper"), "{error}");
        }
    }

    #[test]
    fn answers_are_read() {
        let read = |text: &str| credentials(text.as_bytes());
        let basic = Credentials::Basic { user: "u".into(), password: "p".into() };
        assert_eq!(read(r#"{"ServerURL":"x","Username":"u","Secret":"p"}"#).unwrap(), Some(basic));
        let token = Credentials::IdentityToken("t".into());
        assert_eq!(read(r#"{"Username":"<token>","Secret":"t"}"#).unwrap(), Some(token));
        assert_eq!(read(r#"{"Username":"","Secret":""}"#).unwrap(), None);
        let error = read(r#"{"Username":"u","Secret":"hunter2""#).unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}
