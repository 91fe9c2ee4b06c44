//! Entering the user name space in which a rootless caller is root. Once, at the start of a command that needs it.
//!
//! Widest mapping first: newuidmap/newgidmap with the caller's subordinate ids, else the one id that the kernel gives to
//! everybody. There is no pause process: a running container holds the name space, and who needs it joins.
//! Invariant: the caller is single-threaded (unshare(2) and setns(2) ask for it).

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};

use crate::error::ResultExt;
use crate::fs;
use crate::host::{Host, IdRange, Ids};
use crate::sys::process::{self, Forked};

/// A name space that we are in, whose ids may still be on their way.
#[derive(Debug)]
#[must_use = "ids are mapped only after `finish`"]
pub struct Entering(Option<Helper>);

impl Entering {
    /// Whether there is nothing to wait for.
    pub fn is_over(&self) -> bool {
        self.0.is_none()
    }

    /// Waits until the ids are mapped.
    pub fn finish(self) -> Result<()> {
        self.0.map_or(Ok(()), Helper::wait)
    }
}

/// Makes the caller root of a user and mount name space, unless it is root already. `host.ids` says what it got.
pub fn enter(host: &mut Host) -> Result<()> {
    begin(host)?.finish()
}

/// The same without waiting for newuidmap: until [`Entering::finish`] the caller can read and write what is its own, and
/// nothing else.
pub fn begin(host: &mut Host) -> Result<Entering> {
    if !host.is_rootless() {
        return Ok(Entering(None));
    }
    let tools = match &host.ids {
        Ids::Ranges { .. } => find_tools(),
        _ => None,
    };
    let Some(tools) = tools else {
        host.ids = Ids::Single;
        unshare()?;
        map_one(host)?;
        return Ok(Entering(None));
    };
    let Ids::Ranges { uids, gids } = host.ids.clone() else {
        bail!("cannot map ids: there are no ranges");
    };
    map_ranges(host, &tools, &uids, &gids).map(|helper| Entering(Some(helper)))
}

/// Joins the user name space of a running process of ours (`pidfd`), and makes a mount name space of our own in it.
pub fn join(host: &Host, pidfd: &OwnedFd) -> Result<()> {
    if !host.is_rootless() {
        return Ok(());
    }
    process::join_namespaces(pidfd, libc::CLONE_NEWUSER)
        .context("cannot join the user name space of the container")?;
    process::unshare(libc::CLONE_NEWNS).context("cannot make a mount name space")
}

fn unshare() -> Result<()> {
    process::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)
        .context("cannot make a user name space")
        .with_hint(refusal_hint)
}

/// What forbids user name spaces here, as far as it can be seen.
fn refusal_hint() -> String {
    let is =
        |path: &str, value: &str| fs::read_to_string(Path::new(path)).is_ok_and(|text| text.trim() == value);
    if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        return "run sysctl -w kernel.unprivileged_userns_clone=1 as root".into();
    }
    if is("/proc/sys/user/max_user_namespaces", "0") {
        return "run sysctl -w user.max_user_namespaces=15000 as root".into();
    }
    if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        return "run sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 as root, or give this binary an AppArmor profile with `userns,`".into();
    }
    "the sandbox that dhow runs in forbids it: inside docker, start the outer container with --privileged or --security-opt seccomp=unconfined".into()
}

/// newuidmap and newgidmap, if both are there and carry a privilege.
fn find_tools() -> Option<(PathBuf, PathBuf)> {
    // Not PATH: cron's is short, and a set-uid program is only worth having where root put it.
    let find = |name: &str| {
        ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin"]
            .iter()
            .map(|d| Path::new(d).join(name))
            .find(|p| fs::metadata(p).ok().flatten().is_some_and(|m| m.permissions().mode() & 0o111 != 0))
    };
    Some((find("newuidmap")?, find("newgidmap")?))
}

/// One id inside, 0, which is the caller.
fn map_one(host: &Host) -> Result<()> {
    let write = |name: &str, text: String| {
        fs::write(&Path::new("/proc/self").join(name), text.as_bytes())
            .context("cannot map ids")
            .with_hint(refusal_hint)
    };
    // gid_map may be written without privilege only once setgroups(2) is given up (user_namespaces(7)).
    write("setgroups", "deny".into())?;
    write("uid_map", format!("0 {} 1", host.uid))?;
    write("gid_map", format!("0 {} 1", host.gid))
}

/// The process that runs newuidmap and newgidmap.
#[derive(Debug)]
struct Helper {
    process: OwnedFd,
    /// What the tools complain about.
    said: std::fs::File,
}

impl Helper {
    fn wait(mut self) -> Result<()> {
        let mut said = String::new();
        let _ = self.said.read_to_string(&mut said);
        let id = rustix::process::WaitId::PidFd(self.process.as_fd());
        let status = rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED)
            .context("cannot wait for newuidmap")?;
        if status.and_then(|s| s.exit_status()) == Some(0) {
            return Ok(());
        }
        Err(anyhow!("{}", said.trim())).context("cannot map subordinate ids").hint(
            "look at the ranges in /etc/subuid and /etc/subgid (they must not overlap), and that newuidmap is set-uid root",
        )
    }
}

/// The helper is forked before we leave, because only from outside can the set-uid tools write our maps.
fn map_ranges(host: &Host, tools: &(PathBuf, PathBuf), uids: &[IdRange], gids: &[IdRange]) -> Result<Helper> {
    let target = std::process::id().to_string();
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("cannot make a pipe");
    let (go_read, go_write) = pipe()?;
    let (said_read, said_write) = pipe()?;
    let helper = match process::fork(0, None).context("cannot fork")? {
        Forked::Child => {
            drop((go_write, said_read));
            let code = run_tools(go_read, said_write, tools, &target, host, uids, gids);
            process::exit_now(code);
        }
        Forked::Parent { pidfd, .. } => Helper { process: pidfd, said: said_read.into() },
    };
    drop((go_read, said_write));
    match unshare() {
        Ok(()) => {
            rustix::io::write(&go_write, b"1").context("cannot tell the mapping helper")?;
            Ok(helper)
        }
        Err(error) => {
            // It ends without the word.
            drop(go_write);
            let _ = helper.wait();
            Err(error)
        }
    }
}

/// In the helper: waits for the word, then runs both tools at once. The exit code says whether both did it.
fn run_tools(
    go: OwnedFd,
    said: OwnedFd,
    tools: &(PathBuf, PathBuf),
    target: &str,
    host: &Host,
    uids: &[IdRange],
    gids: &[IdRange],
) -> i32 {
    let mut word = [0];
    if !matches!(rustix::io::read(&go, &mut word), Ok(1)) {
        return 1;
    }
    let mut said = std::fs::File::from(said);
    let spawn = |tool: &Path, own: u32, ranges: &[IdRange]| {
        Command::new(tool)
            .arg(target)
            .args(map_arguments(own, ranges))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
    };
    let running = [spawn(&tools.0, host.uid, uids), spawn(&tools.1, host.gid, gids)];
    let mut code = 0;
    for child in running {
        match child.and_then(std::process::Child::wait_with_output) {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                let _ = said.write_all(&output.stderr);
                code = 1;
            }
            Err(e) => {
                let _ = writeln!(said, "{e}");
                code = 1;
            }
        }
    }
    code
}

/// Triples inside, outside, count: 0 is the caller, then the ranges one after the other.
fn map_arguments(own: u32, ranges: &[IdRange]) -> Vec<String> {
    let mut words = vec!["0".to_owned(), own.to_string(), "1".to_owned()];
    let mut next = 1_u32;
    for range in ranges {
        words.extend([next.to_string(), range.start.to_string(), range.count.to_string()]);
        next = next.saturating_add(range.count);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_the_caller() {
        let ranges = [IdRange { start: 100_000, count: 65536 }, IdRange { start: 300_000, count: 10 }];
        let words = map_arguments(1000, &ranges).join(" ");
        assert_eq!(words, "0 1000 1 1 100000 65536 65537 300000 10");
    }
}
