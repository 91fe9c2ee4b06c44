//! Turning the set-up child into the program: limits, identity, capabilities, seccomp, execve. Runs between clone and
//! exec: no locks, no threads; errors go up the sync socket.

use std::ffi::CString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail};
use caps::{CapSet, CapsHashSet};
use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};

use crate::error::{ExitWith, Hint, ResultExt};
use crate::oci::runtime::{Capabilities, LinuxCapabilities, PosixRlimit, PosixRlimitType, Process};
use crate::sys::seccomp;

/// The search path where the environment has none, as docker's images have it.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Sets resource limits. Raising a hard limit needs CAP_SYS_RESOURCE outside any user name space.
pub fn set_rlimits(limits: &[PosixRlimit]) -> Result<()> {
    for limit in limits {
        let resource = resource(limit.typ());
        setrlimit(resource, limit.soft(), limit.hard()).map_err(|e| {
            let name = limit.typ().to_string();
            let (_, hard) = nix::sys::resource::getrlimit(resource).unwrap_or((0, 0));
            let hint =
                format!("the hard limit here is {hard}; ask for at most that, or raise it for the caller");
            let text = format!("cannot set ulimit {name} to {}:{}", limit.soft(), limit.hard());
            anyhow::Error::from(e).context(text).context(Hint(hint))
        })?;
    }
    Ok(())
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => Resource::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => Resource::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => Resource::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => Resource::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => Resource::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => Resource::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => Resource::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => Resource::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => Resource::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => Resource::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => Resource::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => Resource::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => Resource::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => Resource::RLIMIT_RTPRIO,
        _ => Resource::RLIMIT_RTTIME,
    }
}

/// Becomes the user of the spec, with its groups, capabilities and filter. The filter comes late, so that the profile need
/// not allow what setting up takes; before the last capabilities go, unless no_new_privs allows it without them.
///
/// With `emulate` the ids stay what they are (there is only one), and a second filter turns root's calls into
/// notifications; its listener is returned, and must be served before `believe` is called.
pub fn become_user(
    process: &Process,
    filter: Option<&[libc::sock_filter]>,
    emulate: bool,
) -> Result<Option<OwnedFd>> {
    let caps = process.capabilities().as_ref();
    let set = |f: fn(&LinuxCapabilities) -> &Option<Capabilities>| -> CapsHashSet {
        caps.and_then(|c| f(c).as_ref()).map(to_caps).unwrap_or_default()
    };
    if caps.is_some() {
        drop_bounding(&set(LinuxCapabilities::bounding))?;
    }
    if !emulate {
        rustix::thread::set_keep_capabilities(true).context("cannot keep capabilities")?;
        set_ids(process)?;
        // Leaving id 0 took the effective ones (capabilities(7)); the filter needs CAP_SYS_ADMIN once more.
        let permitted = caps::read(None, CapSet::Permitted).context("cannot read capabilities")?;
        caps::set(None, CapSet::Effective, &permitted).context("cannot set capabilities")?;
    }
    if let Some(mask) = process.user().umask() {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
    }
    let no_new_privs = process.no_new_privileges().unwrap_or(false);
    if no_new_privs {
        rustix::thread::set_no_new_privs(true).context("cannot set no_new_privs")?;
    }
    let listener = install_filters(filter, emulate)?;
    if !emulate {
        limit_capabilities(process)?;
    }
    Ok(listener)
}

/// Keeps only the capabilities of the spec.
fn limit_capabilities(process: &Process) -> Result<()> {
    let Some(caps) = process.capabilities() else { return Ok(()) };
    let set = |f: fn(&LinuxCapabilities) -> &Option<Capabilities>| -> CapsHashSet {
        f(caps).as_ref().map(to_caps).unwrap_or_default()
    };
    caps::set(None, CapSet::Inheritable, &set(LinuxCapabilities::inheritable))
        .context("cannot set capabilities")?;
    caps::set(None, CapSet::Effective, &set(LinuxCapabilities::effective))
        .context("cannot set capabilities")?;
    caps::set(None, CapSet::Permitted, &set(LinuxCapabilities::permitted))
        .context("cannot set capabilities")?;
    let _ = rustix::thread::clear_ambient_capability_set();
    for cap in set(LinuxCapabilities::ambient) {
        caps::raise(None, CapSet::Ambient, cap).context("cannot set ambient capabilities")?;
    }
    Ok(())
}

/// What `become_user` leaves undone with `emulate`: capabilities, and the user of the spec as far as the emulation goes.
/// capset(2) too is a notified call, which hangs until the listener is served.
pub fn believe(process: &Process) -> Result<()> {
    let user = process.user();
    if user.uid() != 0 {
        // To the kernel it stays id 0, which execve(2) would give the whole bounding set again; a user other than root has
        // no capabilities (capabilities(7), SECBIT_NOROOT).
        let bits = rustix::thread::capabilities_secure_bits().context("cannot read the secure bits")?;
        let bits = bits | rustix::thread::CapabilitiesSecureBits::NO_ROOT;
        rustix::thread::set_capabilities_secure_bits(bits).context("cannot set the secure bits")?;
    }
    limit_capabilities(process)?;
    if (user.uid(), user.gid()) == (0, 0) && user.additional_gids().as_deref().unwrap_or_default().is_empty()
    {
        return Ok(());
    }
    set_ids(process)
}

fn install_filters(filter: Option<&[libc::sock_filter]>, emulate: bool) -> Result<Option<OwnedFd>> {
    let about = "cannot install the seccomp filter";
    if let Some(filter) = filter {
        seccomp::install(filter, 0).context(about)?;
    }
    if emulate {
        return super::emulate::install(&super::emulate::filter()).context(about);
    }
    Ok(None)
}

fn set_ids(process: &Process) -> Result<()> {
    use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
    let user = process.user();
    let (uid, gid) = (Uid::from_raw(user.uid()), Gid::from_raw(user.gid()));
    let hint = "only ids that are mapped exist inside: ask for more (--userns auto:size=N), or give the caller a wider range in /etc/subuid and /etc/subgid";
    let about = || format!("cannot become {uid}:{gid} in the container");
    // None at all, as opposed to an empty list: the caller's own are kept.
    if let Some(groups) = user.additional_gids() {
        let groups: Vec<Gid> = groups.iter().map(|g| Gid::from_raw(*g)).collect();
        setgroups(&groups).with_context(about).hint(hint)?;
    }
    setresgid(gid, gid, gid).with_context(about).hint(hint)?;
    setresuid(uid, uid, uid).with_context(about).hint(hint)
}

fn drop_bounding(keep: &CapsHashSet) -> Result<()> {
    for cap in caps::all() {
        if keep.contains(&cap) {
            continue;
        }
        match caps::drop(None, CapSet::Bounding, cap) {
            Ok(()) => {}
            // A capability that this kernel is too old to know is not held either.
            Err(_) if !caps::has_cap(None, CapSet::Bounding, cap).unwrap_or(false) => {}
            Err(e) => return Err(e).with_context(|| format!("cannot drop {cap}")),
        }
    }
    Ok(())
}

fn to_caps(set: &Capabilities) -> CapsHashSet {
    set.iter().filter_map(|c| caps::Capability::from_str(&format!("CAP_{c}")).ok()).collect()
}

/// Goes to the working directory, and proves that it lies in the container: an inherited descriptor could lead out
/// (CVE-2024-21626).
pub fn enter_cwd(cwd: &Path) -> Result<()> {
    let about = || format!("cannot enter the working directory {}", cwd.display());
    nix::unistd::chdir(cwd).with_context(about)?;
    match nix::unistd::getcwd() {
        Ok(path) if path.is_absolute() => Ok(()),
        _ => bail!("{}: it lies outside the container", about()),
    }
}

/// A program ready for execve(2): everything that allocates is done.
#[derive(Debug)]
pub struct Program {
    candidates: Vec<CString>,
    args: Vec<CString>,
    env: Vec<CString>,
    searched: bool,
}

impl Program {
    /// Prepares args and environment; a name without a slash is looked for in the environment's PATH.
    pub fn new(args: &[String], env: &[String]) -> Result<Program> {
        let name =
            args.first().filter(|a| !a.is_empty()).ok_or_else(|| anyhow!("cannot run: no command was given"));
        let name = name.exit_with(127)?;
        let c = |s: &str| CString::new(s).with_context(|| format!("{s:?} holds a NUL byte"));
        let searched = !name.contains('/');
        let candidates = if searched {
            let path = env.iter().rev().find_map(|e| e.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
            path.split(':')
                .map(|d| c(&format!("{}/{name}", if d.is_empty() { "." } else { d })))
                .collect::<Result<_>>()?
        } else {
            vec![c(name)?]
        };
        Ok(Program {
            candidates,
            args: args.iter().map(|a| c(a)).collect::<Result<_>>()?,
            env: env.iter().map(|e| c(e)).collect::<Result<_>>()?,
            searched,
        })
    }

    /// Puts a program in front that is given as a descriptor: the built-in init. It gets `words`, then the command.
    pub fn exec_via(&self, reaper: &OwnedFd, words: &[CString]) -> anyhow::Error {
        let args: Vec<CString> = words.iter().chain(&self.args).cloned().collect();
        let Err(e) = nix::unistd::execveat(reaper, c"", &args, &self.env, nix::fcntl::AtFlags::AT_EMPTY_PATH);
        anyhow::Error::from(e).context("cannot run the built-in init")
    }

    /// Replaces this process; returns only the error, with docker's exit code.
    pub fn exec(&self) -> anyhow::Error {
        let mut denied = None;
        for candidate in &self.candidates {
            let Err(e) = nix::unistd::execve(candidate, &self.args, &self.env);
            match e {
                Errno::ENOENT | Errno::ENOTDIR if self.searched => {}
                Errno::EACCES if self.searched => denied = Some(candidate),
                e => return self.refusal(candidate, e),
            }
        }
        match denied {
            Some(candidate) => self.refusal(candidate, Errno::EACCES),
            None => self.refusal(&self.args[0], Errno::ENOENT),
        }
    }

    fn refusal(&self, path: &CString, e: Errno) -> anyhow::Error {
        let name = path.to_string_lossy();
        let is_dir =
            || nix::sys::stat::stat(path.as_c_str()).is_ok_and(|s| s.st_mode & libc::S_IFMT == libc::S_IFDIR);
        let exists = || nix::sys::stat::lstat(path.as_c_str()).is_ok();
        let (cause, code, hint) = match e {
            Errno::ENOENT if self.searched => ("executable file not found in $PATH".to_owned(), 127, None),
            Errno::ENOENT if exists() => (
                "its interpreter does not exist in the container".to_owned(),
                127,
                Some("look at its first line (#!), or at the loader that `ldd` names"),
            ),
            Errno::ENOENT | Errno::ENOTDIR => ("no such file or directory".to_owned(), 127, None),
            Errno::EACCES if is_dir() => ("is a directory: permission denied".to_owned(), 126, None),
            Errno::EACCES => {
                ("permission denied".to_owned(), 126, Some("is it executable for the user that runs it?"))
            }
            Errno::ENOEXEC => (
                "exec format error".to_owned(),
                126,
                Some("it is for another machine, or a script without #!"),
            ),
            e => (e.desc().to_owned(), 126, None),
        };
        let error = anyhow!("cannot run {name:?} in the container: {cause}").context(ExitWith(code));
        match hint {
            Some(hint) => error.context(Hint(hint.to_owned())),
            None => error,
        }
    }
}

/// Marks every descriptor above stderr close-on-exec: nothing of the host leaks into the program, whatever was inherited.
pub fn seal_descriptors() -> Result<()> {
    crate::sys::process::close_on_exec_from(3).context("cannot close descriptors")
}

/// Makes `fds` the standard streams.
pub fn set_stdio(fds: [BorrowedFd<'_>; 3]) -> Result<()> {
    rustix::stdio::dup2_stdin(fds[0]).context("cannot set stdin")?;
    rustix::stdio::dup2_stdout(fds[1]).context("cannot set stdout")?;
    rustix::stdio::dup2_stderr(fds[2]).context("cannot set stderr")
}

/// Waits for a child of ours and reaps it; its exit code, 128+n after signal n.
pub fn reap(child: BorrowedFd<'_>) -> Result<i32> {
    let status = rustix::io::retry_on_intr(|| {
        rustix::process::waitid(rustix::process::WaitId::PidFd(child), rustix::process::WaitIdOptions::EXITED)
    });
    let status = status
        .context("cannot wait for a process")?
        .context("cannot wait for a process: it has no status")?;
    Ok(status.exit_status().or_else(|| status.terminating_signal().map(|s| 128 + s)).unwrap_or(255))
}
