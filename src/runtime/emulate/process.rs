//! The process that made a call, seen from outside: its memory; through /proc/PID its paths and its umask.
//!
//! Invariant: a path is walked by the kernel beneath the process's own root (openat2, RESOLVE_IN_ROOT), so that neither
//! `..` nor a symlink leads out of the container. Magic links (/proc/PID/fd/N) are not followed on the way.

use std::ffi::{CStr, CString, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use rustix::process::{Pid, PidfdFlags};

use crate::sys::notify;

/// PATH_MAX: a path with its NUL.
const PATH_MAX: usize = 4096;

/// How often a walk is begun again that a rename elsewhere has disturbed (EAGAIN of openat2(2)).
const ATTEMPTS: usize = 64;

/// How much of /proc/PID/status and stat is read; a name is 16 bytes, the groups of one id are few.
const TEXT_MAX: usize = 4096;

/// PIDFD_THREAD (Linux 6.9).
const PIDFD_THREAD: u32 = libc::O_EXCL as u32;

/// Where processes are looked up.
#[derive(Debug)]
pub enum Proc {
    /// A /proc that counts pids as our pid name space does.
    Ours(OwnedFd),
    /// /proc is of an outer pid name space, and we may not make one of our own (within a container with a masked /proc).
    Outer,
}

impl Proc {
    /// The /proc that is mounted if it is ours, or else a new one that is mounted nowhere.
    pub fn new() -> Proc {
        let me = std::process::id().to_string();
        let mounted = rustix::fs::readlink("/proc/self", Vec::new());
        let proc = if mounted.is_ok_and(|link| link.to_bytes() == me.as_bytes()) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open("/proc", flags, Mode::empty())
        } else {
            detached_proc()
        };
        proc.map_or(Proc::Outer, Proc::Ours)
    }

    /// A thread by its id in our pid name space. What is opened here stays this thread's, whoever gets the id later.
    pub fn process(&self, pid: i32) -> Result<Process, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = match self {
            Proc::Ours(proc) => rustix::fs::openat(proc, pid.to_string(), flags, Mode::empty())?,
            Proc::Outer => rustix::fs::open(format!("/proc/{}", outer_pid(pid)?), flags, Mode::empty())?,
        };
        Ok(Process { pid, dir })
    }
}

fn detached_proc() -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// The id that /proc knows a thread of our pid name space by. Before Linux 6.9 only the first thread of a process is
/// found.
fn outer_pid(pid: i32) -> Result<i32, Errno> {
    let pid = Pid::from_raw(pid).ok_or(Errno::SRCH)?;
    let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::from_bits_retain(PIDFD_THREAD)) {
        Err(Errno::INVAL) => rustix::process::pidfd_open(pid, PidfdFlags::empty())?,
        result => result?,
    };
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let text = read(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)?;
    field(&text, "Pid:").and_then(|pid| pid.parse().ok()).filter(|pid| *pid > 0).ok_or(Errno::SRCH)
}

/// A thread, and its directory in /proc.
#[derive(Debug)]
pub struct Process {
    /// In our pid name space.
    pub pid: i32,
    dir: OwnedFd,
}

/// The memory of a thread, by its id in our pid name space.
#[derive(Debug, Clone, Copy)]
pub struct Memory(pub i32);

/// What a path led to.
#[derive(Debug)]
pub enum Found {
    /// The file, opened with O_PATH.
    File(OwnedFd),
    /// Something that is reached only through a magic link, like /dev/stdout: no file of the container's.
    Elsewhere,
}

impl Memory {
    /// A path in its memory.
    pub fn path(self, address: u64) -> Result<CString, Errno> {
        let mut bytes = vec![0; PATH_MAX];
        let n = notify::read_memory(self.0, address, &mut bytes).map_err(|_| Errno::FAULT)?;
        bytes.truncate(n);
        match bytes.iter().position(|b| *b == 0) {
            Some(end) => {
                bytes.truncate(end);
                Ok(CString::new(bytes).expect("cut at the first NUL"))
            }
            None if n == PATH_MAX => Err(Errno::NAMETOOLONG),
            None => Err(Errno::FAULT),
        }
    }

    /// `count` ids in its memory.
    pub fn ids(self, address: u64, count: usize) -> Result<Vec<u32>, Errno> {
        let mut bytes = vec![0; count * 4];
        match notify::read_memory(self.0, address, &mut bytes) {
            Ok(n) if n == bytes.len() => {}
            _ => return Err(Errno::FAULT),
        }
        Ok(bytes.as_chunks().0.iter().map(|b| u32::from_ne_bytes(*b)).collect())
    }

    /// Stores ids in its memory.
    pub fn store_ids(self, address: u64, ids: &[u32]) -> Result<(), Errno> {
        notify::store(self.0, address, ids).map_err(|_| Errno::FAULT)
    }
}

impl Process {
    /// Its memory.
    pub fn memory(&self) -> Memory {
        Memory(self.pid)
    }

    /// The open file `fd`.
    pub fn file(&self, fd: i32) -> Result<OwnedFd, Errno> {
        if fd < 0 {
            return Err(Errno::BADF);
        }
        self.open(&format!("fd/{fd}")).map_err(|e| if e == Errno::NOENT { Errno::BADF } else { e })
    }

    /// What `path` names for it, beneath its directory `dir_fd` where the path is relative.
    fn find(&self, dir_fd: i32, path: &CStr, follow: bool) -> Result<Found, Errno> {
        let last = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        match self.walk(dir_fd, path, last) {
            Ok(file) => Ok(Found::File(file)),
            // EXDEV: the walk met a magic link.
            Err(Errno::XDEV) => Ok(Found::Elsewhere),
            // /proc/self is the *reader's* directory, and we have none in the container's /proc.
            Err(Errno::NOENT) if self.leads_to_self(dir_fd, path) => Ok(Found::Elsewhere),
            Err(e) => Err(e),
        }
    }

    /// The same, with the AT_* flags of chown and stat.
    pub fn find_at(&self, dir_fd: i32, path: &CStr, flags: i32) -> Result<Found, Errno> {
        match path.is_empty() && flags & libc::AT_EMPTY_PATH != 0 {
            true if dir_fd == libc::AT_FDCWD => Ok(Found::File(self.open("cwd")?)),
            true => Ok(Found::File(self.file(dir_fd)?)),
            false => self.find(dir_fd, path, flags & libc::AT_SYMLINK_NOFOLLOW == 0),
        }
    }

    /// The directory that `path` is in, and the last name; `None` for a name that can only exist already.
    pub fn parent(&self, dir_fd: i32, path: &CStr) -> Result<Option<(OwnedFd, CString)>, Errno> {
        let bytes = path.to_bytes();
        let (dir, name) = match bytes.iter().rposition(|b| *b == b'/') {
            Some(at) => (&bytes[..=at], &bytes[at + 1..]),
            None => (&b"."[..], bytes),
        };
        let dir = CString::new(dir).expect("part of a C string");
        match name {
            b"" if bytes.is_empty() => Err(Errno::NOENT),
            b"" if bytes.iter().all(|b| *b == b'/') => Ok(None),
            // mknod("name/") is no directory to make, whether `name` exists or not.
            b"" => Err(self.walk(dir_fd, path, OFlags::empty()).err().unwrap_or(Errno::EXIST)),
            b"." | b".." => Ok(None),
            name => {
                let dir = self.walk(dir_fd, &dir, OFlags::DIRECTORY)?;
                Ok(Some((dir, CString::new(name).expect("part of a C string"))))
            }
        }
    }

    /// Its umask; 022 where the kernel is too old to tell.
    pub fn umask(&self) -> u32 {
        self.status("Umask:").and_then(|v| u32::from_str_radix(&v, 8).ok()).unwrap_or(0o022)
    }

    /// Whether set-user-id bits mean nothing to it.
    pub fn has_no_new_privileges(&self) -> bool {
        self.status("NoNewPrivs:").is_some_and(|v| v == "1")
    }

    /// The program it runs.
    pub fn program(&self) -> Result<OwnedFd, Errno> {
        self.open("exe")
    }

    /// What differs between two runs of one program: where the stack begins (field 28 of /proc/PID/stat), which exec
    /// draws by lot and fork keeps.
    pub fn stack_start(&self) -> Option<u64> {
        let text = self.text("stat")?;
        // The second field is the name in parentheses, which may itself hold spaces and parentheses.
        text.rsplit_once(')')?.1.split_ascii_whitespace().nth(25)?.parse().ok()
    }

    fn status(&self, name: &str) -> Option<String> {
        field(&self.text("status")?, name).map(str::to_owned)
    }

    fn text(&self, entry: &str) -> Option<String> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        read(rustix::fs::openat(&self.dir, entry, flags, Mode::empty()).ok()?).ok()
    }

    /// Opens what an entry of /proc/PID leads to.
    fn open(&self, entry: &str) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(&self.dir, entry, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
    }

    fn walk(&self, dir_fd: i32, path: &CStr, last: OFlags) -> Result<OwnedFd, Errno> {
        if path.is_empty() {
            return Err(Errno::NOENT);
        }
        if path.to_bytes()[0] == b'/' {
            return beneath(&self.open("root")?, path, last, ResolveFlags::IN_ROOT);
        }
        let at = if dir_fd == libc::AT_FDCWD { "cwd".to_owned() } else { format!("fd/{dir_fd}") };
        let base = if dir_fd == libc::AT_FDCWD { self.open("cwd")? } else { self.file(dir_fd)? };
        match beneath(&base, path, last, ResolveFlags::BENEATH) {
            // It went up, or over an absolute symlink: where it ends depends on the root.
            Err(Errno::XDEV) => {
                let mut whole = self.seen_from_root(&at)?.as_os_str().as_bytes().to_vec();
                whole.push(b'/');
                whole.extend_from_slice(path.to_bytes());
                let whole = CString::new(whole).map_err(|_| Errno::NOENT)?;
                beneath(&self.open("root")?, &whole, last, ResolveFlags::IN_ROOT)
            }
            result => result,
        }
    }

    /// The path of one of its directories as it would write it itself. Both links are told as seen from the top of its
    /// mount name space, so that what its root has more is to be taken off.
    fn seen_from_root(&self, entry: &str) -> Result<PathBuf, Errno> {
        let link = |name: &str| {
            let target = rustix::fs::readlinkat(&self.dir, name, Vec::new())?;
            Ok::<_, Errno>(PathBuf::from(OsString::from_vec(target.into_bytes())))
        };
        let (root, dir) = (link("root")?, link(entry)?);
        dir.strip_prefix(&root).map(Path::to_owned).map_err(|_| Errno::NOENT)
    }

    /// Whether a path that we do not find goes through /proc/self, maybe over a few symlinks such as
    /// `/var/log/access.log -> /dev/stdout -> /proc/self/fd/1`.
    fn leads_to_self(&self, dir_fd: i32, path: &CStr) -> bool {
        let mut path = path.to_owned();
        for _ in 0..4 {
            if [&b"/proc/self"[..], b"/proc/thread-self", b"/dev/std", b"/dev/fd"]
                .iter()
                .any(|start| path.to_bytes().starts_with(start))
            {
                return true;
            }
            let Ok(link) = self.walk(dir_fd, &path, OFlags::NOFOLLOW) else { return false };
            match rustix::fs::readlinkat(&link, c"", Vec::new()) {
                Ok(target) if target.to_bytes().starts_with(b"/") => path = target,
                _ => return false,
            }
        }
        false
    }
}

fn beneath(base: &OwnedFd, path: &CStr, last: OFlags, how: ResolveFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | last;
    for _ in 0..ATTEMPTS {
        match rustix::fs::openat2(base, path, flags, Mode::empty(), how) {
            Err(Errno::AGAIN) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

fn read(file: OwnedFd) -> Result<String, Errno> {
    let mut text = vec![0; TEXT_MAX];
    let n = rustix::io::read(&file, &mut text)?;
    text.truncate(n);
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The value of a line `NAME VALUE`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// What is known of an open file.
pub fn stat(file: &OwnedFd) -> Result<rustix::fs::Stat, Errno> {
    rustix::fs::statat(file, c"", AtFlags::EMPTY_PATH)
}
