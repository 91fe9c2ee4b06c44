//! Entering the user name space in which a rootless caller is root. Once, at the start of a command that needs it.
//!
//! Widest mapping first: newuidmap/newgidmap with the caller's subordinate ids, else the one id that the kernel gives to
//! everybody. There is no pause process: a running container holds the name space, and who needs it joins.
//! Invariant: the caller is single-threaded (unshare(2) and setns(2) ask for it).

use std::ffi::{CStr, CString};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{Mode, OFlags};

use crate::error::ResultExt;
use crate::fs;
use crate::host::{Host, IdRange, Ids};
use crate::sys::process;
use crate::sys::spawn::{Holder, spawn};

/// A name space that we are in, whose ids may still be on their way.
#[derive(Debug)]
#[must_use = "ids are mapped only after `finish`"]
pub struct Entering(Option<Tools>);

impl Entering {
    /// There is nothing to wait for.
    pub fn done() -> Entering {
        Entering(None)
    }

    /// Waits until the ids are mapped. What is left over costs a moment to drop, which need not be now.
    pub fn finish(self) -> Result<Option<Holder>> {
        self.0.map(Tools::wait).transpose()
    }
}

/// Makes the caller root of a user and mount name space, unless it is root already. `host.ids` says what it got.
pub fn enter(host: &mut Host) -> Result<()> {
    begin(host)?.finish().map(drop)
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
    map_ranges(host, &tools, &uids, &gids).map(|tools| Entering(Some(tools)))
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
    process::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS).context(NO_NAME_SPACE).with_hint(refusal_hint)
}

const NO_NAME_SPACE: &str = "cannot make a user name space";

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
    Some((find_tool("newuidmap")?, find_tool("newgidmap")?))
}

/// One of the two. Not by PATH: cron's is short, and a set-uid program is only worth having where root put it.
pub fn find_tool(name: &str) -> Option<PathBuf> {
    ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin"]
        .iter()
        .map(|d| Path::new(d).join(name))
        .find(|p| fs::metadata(p).ok().flatten().is_some_and(|m| m.permissions().mode() & 0o111 != 0))
}

/// Why a user has one id and no more.
pub fn why_one_id(host: &Host) -> String {
    if find_tools().is_none() {
        return "newuidmap and newgidmap are not installed".into();
    }
    let user = host.user.clone().unwrap_or_else(|| host.uid.to_string());
    format!("/etc/subuid and /etc/subgid have no ranges for {user}")
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

/// newuidmap and newgidmap at work.
#[derive(Debug)]
struct Tools {
    /// The name space they map, which is only to be found by a process that was born in it.
    holder: Holder,
    processes: [OwnedFd; 2],
    /// What they complain about.
    said: std::fs::File,
}

impl Tools {
    fn wait(mut self) -> Result<Holder> {
        let mut said = String::new();
        let _ = self.said.read_to_string(&mut said);
        let mut done = true;
        for process in &self.processes {
            let id = rustix::process::WaitId::PidFd(process.as_fd());
            let status = rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED)
                .context("cannot wait for newuidmap")?;
            done &= status.and_then(|s| s.exit_status()) == Some(0);
        }
        if done {
            return Ok(self.holder);
        }
        Err(anyhow!("{}", said.trim())).context("cannot map subordinate ids").hint(
            "look at the ranges in /etc/subuid and /etc/subgid (they must not overlap), and that newuidmap is set-uid root",
        )
    }
}

/// Only from outside can the set-uid tools write the maps: they are started for a name space that a child holds, and then
/// we join it ourselves.
fn map_ranges(host: &Host, tools: &(PathBuf, PathBuf), uids: &[IdRange], gids: &[IdRange]) -> Result<Tools> {
    let holder = Holder::new(libc::CLONE_NEWUSER).context(NO_NAME_SPACE).with_hint(refusal_hint)?;
    let (said, say) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("cannot make a pipe")?;
    let start = |tool: &Path, own: u32, ranges: &[IdRange]| {
        let words = [tool.display().to_string(), holder.pid.to_string()].into_iter();
        start_tool(words.chain(map_arguments(own, ranges)), &say)
            .with_context(|| format!("cannot start {}", tool.display()))
    };
    let processes = [start(&tools.0, host.uid, uids)?, start(&tools.1, host.gid, gids)?];
    process::join_namespaces(&holder.pidfd, libc::CLONE_NEWUSER)
        .context("cannot join our own user name space")?;
    process::unshare(libc::CLONE_NEWNS).context("cannot make a mount name space")?;
    Ok(Tools { holder, processes, said: said.into() })
}

/// Starts a program by its path, with nothing but a place to complain.
fn start_tool(words: impl Iterator<Item = String>, say: &OwnedFd) -> Result<OwnedFd> {
    let words: Vec<CString> = words.map(CString::new).collect::<Result<_, _>>()?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let (_, pidfd) = spawn(0, &mut || {
        let places = [(null.as_raw_fd(), 0), (null.as_raw_fd(), 1), (say.as_raw_fd(), 2)];
        if places.iter().all(|(fd, at)| process::dup_to(*fd, *at).is_ok()) {
            process::reset_signals();
            let none: [&CStr; 0] = [];
            let _ = nix::unistd::execve(&words[0], &words, &none);
        }
        127
    })?;
    Ok(pidfd)
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
