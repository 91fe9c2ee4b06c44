//! A container's root seen from outside: every path is resolved beneath one descriptor and can never leave it,
//! whatever symlinks the image or a running container plants (openat2(2) RESOLVE_IN_ROOT; CVE-2017-1002101, CVE-2019-14271).

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

/// A descriptor of the root directory.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Root {
    fn from(fd: OwnedFd) -> Root {
        Root(fd)
    }
}

impl Root {
    /// Opens a directory of the host as a root.
    pub fn open_host(path: &Path) -> Result<Root> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Root(fd))
    }

    /// Opens a path inside; symlinks are followed inside only.
    pub fn open(&self, path: &Path, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            match rustix::fs::openat2(&self.0, path, flags | OFlags::CLOEXEC, mode, how) {
                // A rename raced with the walk; the kernel asks to try again (openat2(2), EAGAIN).
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    }

    /// Opens whatever is at `path` as a location (O_PATH).
    pub fn locate(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        self.open(path, OFlags::PATH, Mode::empty())
    }

    /// Opens a regular file for reading. Anything else is refused before it is opened: opening a device does things.
    pub fn open_file(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let found = self.locate(path)?;
        let stat = rustix::fs::statat(&found, c"", AtFlags::EMPTY_PATH)?;
        if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(Errno::INVAL);
        }
        // The very file that was looked at, not what has its name by now.
        let by_number = format!("/proc/self/fd/{}", found.as_raw_fd());
        rustix::fs::openat(CWD, by_number, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    }

    /// Makes a directory and its parents where they are missing, and returns its location.
    pub fn create_dir_all(&self, path: &Path, mode: Mode) -> Result<OwnedFd> {
        let about = || format!("cannot make directory {} in the container", path.display());
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.open(path, flags, Mode::empty()) {
            Err(Errno::NOENT) => {}
            other => return other.with_context(about),
        }
        let real_path = self.resolve(path).with_context(about)?;
        let mut so_far = PathBuf::from("/");
        let mut dir = self.locate(Path::new("/")).with_context(about)?;
        for component in normal_components(&real_path) {
            let name = component.as_os_str();
            so_far.push(name);
            dir = match self.open(&so_far, flags, Mode::empty()) {
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(&dir, name, mode) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(e) => return Err(e).with_context(about),
                    }
                    self.open(&so_far, flags, Mode::empty()).with_context(about)?
                }
                other => other.with_context(about)?,
            };
        }
        Ok(dir)
    }

    /// Makes an empty file (and its parents) where there is nothing, and returns its location.
    pub fn create_file(&self, path: &Path) -> Result<OwnedFd> {
        match self.locate(path) {
            Err(Errno::NOENT) => {}
            other => {
                return other.with_context(|| format!("cannot open {} in the container", path.display()));
            }
        }
        let about = || format!("cannot make file {} in the container", path.display());
        let real_path = self.resolve(path).with_context(about)?;
        let (Some(parent), Some(name)) = (real_path.parent(), real_path.file_name()) else {
            bail!("cannot make file {} in the container: it has no name", path.display());
        };
        let dir = self.create_dir_all(parent, Mode::from_raw_mode(0o755))?;
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&dir, name, flags, Mode::from_raw_mode(0o644)).with_context(about)?;
        self.locate(&real_path).with_context(|| format!("cannot open {} in the container", path.display()))
    }

    /// Puts a file with these bytes (mode 0644) in the place of whatever has this name, in one step; its parent exists. It
    /// belongs to the same user: whoever writes it need not be the container's root.
    pub fn replace_file(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        use std::io::Write;
        let about = || format!("cannot write {} in the container", path.display());
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { bail!("{}", about()) };
        let dir = self.open(parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).with_context(about)?;
        let mut draft = std::ffi::OsString::from(".dhow-");
        draft.push(name);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // What an earlier start left that was killed.
        let _ = rustix::fs::unlinkat(&dir, &draft, AtFlags::empty());
        let fd = rustix::fs::openat(&dir, &draft, flags, Mode::from_raw_mode(0o644)).with_context(about)?;
        let before = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW);
        if let Ok(before) = before.or_else(|_| rustix::fs::statat(&dir, c"", AtFlags::EMPTY_PATH)) {
            let (uid, gid) = (Uid::from_raw(before.st_uid), Gid::from_raw(before.st_gid));
            // Who has one id can give nothing away, and need not.
            let _ = rustix::fs::fchown(&fd, Some(uid), Some(gid));
        }
        let written = rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o644))
            .map_err(std::io::Error::from)
            .and_then(|()| std::fs::File::from(fd).write_all(bytes))
            .and_then(|()| Ok(rustix::fs::renameat(&dir, &draft, &dir, name)?));
        if written.is_err() {
            let _ = rustix::fs::unlinkat(&dir, &draft, AtFlags::empty());
        }
        written.with_context(about)
    }

    /// Whether the last component of a path is a symlink.
    pub fn is_symlink(&self, path: &Path) -> rustix::io::Result<bool> {
        let found = self.open(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
        let stat = rustix::fs::statat(&found, c"", AtFlags::EMPTY_PATH)?;
        Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode).is_symlink())
    }

    /// Where a path leads to, symlinks followed inside, also such as dangle: an image's /etc/resolv.conf often points to
    /// what only a running system has. What it names is opened beneath the root again, so a lie about it leads nowhere.
    pub fn resolve(&self, path: &Path) -> rustix::io::Result<PathBuf> {
        let mut to_go: Vec<OsString> = names(path);
        let mut so_far = PathBuf::from("/");
        let mut n_links = 0;
        while let Some(name) = to_go.pop() {
            if name == ".." {
                so_far.pop();
                continue;
            }
            so_far.push(&name);
            let found = match self.open(&so_far, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()) {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            if !self.is_symlink(&so_far)? {
                continue;
            }
            n_links += 1;
            // The links of /proc are no names (NO_MAGICLINKS above).
            if n_links > MAX_LINKS || is_proc(&found)? {
                return Err(Errno::LOOP);
            }
            let target = rustix::fs::readlinkat(&found, c"", Vec::new())?;
            let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
            if target.is_absolute() {
                so_far = PathBuf::from("/");
            } else {
                so_far.pop();
            }
            to_go.extend(names(&target));
        }
        Ok(so_far)
    }

    /// Makes a symlink where there is nothing; its parent exists.
    pub fn symlink(&self, target: &str, path: &Path) -> Result<()> {
        let about = || format!("cannot link {} in the container", path.display());
        let dir = self.locate(path.parent().unwrap_or(Path::new("/"))).with_context(about)?;
        let name = path.file_name().unwrap_or_default();
        match rustix::fs::symlinkat(target, &dir, name) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(e) => Err(e).with_context(about),
        }
    }
}

/// As the kernel's own limit (path_resolution(7)).
const MAX_LINKS: u32 = 40;

/// The components of a path, last one first.
fn names(path: &Path) -> Vec<OsString> {
    let mut names: Vec<OsString> = normal_components(path).map(|c| c.as_os_str().to_owned()).collect();
    names.reverse();
    names
}

/// Whether a descriptor is of a proc file system.
pub fn is_proc(fd: impl AsFd) -> rustix::io::Result<bool> {
    Ok(rustix::fs::fstatfs(fd)?.f_type == rustix::fs::PROC_SUPER_MAGIC)
}

/// Whether a descriptor is a directory.
pub fn is_dir(fd: impl AsFd) -> Result<bool> {
    let stat = rustix::fs::statat(fd, c"", AtFlags::EMPTY_PATH).context("cannot look at a mount")?;
    Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir())
}

fn normal_components(path: &Path) -> impl Iterator<Item = Component<'_>> {
    path.components().filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir))
}
