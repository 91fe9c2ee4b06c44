//! cp: files between a container and the host, by docker's rules of what lands where.
//!
//! | source | destination | what happens |
//! | --- | --- | --- |
//! | file | missing | becomes this file; with a `/` at its end the destination is an error |
//! | file | file | replaces it |
//! | file | directory | lands in it |
//! | directory | missing | becomes this directory |
//! | directory | file | is an error |
//! | directory | directory | lands in it; with `/.` at the end of the source, what is in it does |
//!
//! The container's paths are resolved in its root only, by the kernel (`runtime::rootfs`).

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;

use super::Engine;
use super::files::{self, Files};
use crate::error::ResultExt;
use crate::fs;
use crate::host::Ids;
use crate::runtime::rootfs::Root;
use crate::store::journal::{self, Event};
use crate::store::layer::files::{
    Content, Inode, Links, Ownership, Source, Target, Writer, extract, inode, link,
};
use crate::store::layer::{self, decompress::decompress};

/// How to copy.
#[derive(Debug, Clone, Copy, Default)]
pub struct CopyOptions {
    /// Owners and all rights come along.
    pub archive: bool,
    /// A source that is a link stands for what it leads to.
    pub follow: bool,
}

/// What was done.
#[derive(Debug, Default)]
pub struct Copied {
    /// As many bytes as an archive of it has.
    pub bytes: u64,
    /// What could not be made at the destination.
    pub skipped: Vec<String>,
}

/// Copies `path` of a container to a path of the host.
pub fn to_host(
    engine: &mut Engine,
    wanted: &str,
    path: &str,
    to: &Path,
    options: CopyOptions,
) -> Result<Copied> {
    let about = || format!("cannot copy {wanted}:{path} to {}", to.display());
    let (cwd, to) = (current_dir()?, to.as_os_str().as_bytes());
    let files = files::open(engine, wanted).with_context(about)?;
    let copy = || {
        let from = find_source(
            &Side::Container(&files.root),
            &Typed::read(path.as_bytes(), Path::new("/")),
            options,
        )?;
        let place = find_place(&Side::Host, &Typed::read(to, &cwd), &from)?;
        if matches!(kind_of(&from.fd)?, FileType::CharacterDevice | FileType::BlockDevice) {
            return Err(anyhow!("it is a device")).hint("an archive may hold it: give - as the destination");
        }
        let kept = options.archive && files.ids == Ids::Root;
        let ownership = if kept { Ownership::Kept } else { Ownership::Caller };
        let target = Target::new(place.dir, &files.ids, ownership, None);
        tree(&from, place.name.as_deref(), target)
    };
    note(engine, &files, "archive-path", path);
    copy().with_context(about)
}

/// Copies a path of the host into a container.
pub fn to_container(
    engine: &mut Engine,
    from: &Path,
    wanted: &str,
    path: &str,
    options: CopyOptions,
) -> Result<Copied> {
    let about = || format!("cannot copy {} to {wanted}:{path}", from.display());
    let cwd = current_dir()?;
    let files = files::open(engine, wanted).with_context(about)?;
    let copy = || {
        let from = find_source(&Side::Host, &Typed::read(from.as_os_str().as_bytes(), &cwd), options)?;
        let place =
            find_place(&Side::Container(&files.root), &Typed::read(path.as_bytes(), Path::new("/")), &from)?;
        check_lasting(&files)?;
        let ownership = if options.archive { Ownership::Kept } else { Ownership::Root };
        let target = Target::moved(place.dir, &files.ids, ownership, None, files.moves.clone());
        tree(&from, place.name.as_deref(), target)
    };
    note(engine, &files, "extract-to-dir", path);
    copy().with_context(about)
}

/// Writes `path` of a container as a tar archive.
pub fn to_stream(
    engine: &mut Engine,
    wanted: &str,
    path: &str,
    out: &mut dyn Write,
    options: CopyOptions,
) -> Result<()> {
    let about = || format!("cannot copy {wanted}:{path}");
    let files = files::open(engine, wanted).with_context(about)?;
    let mut copy = || {
        let from = find_source(
            &Side::Container(&files.root),
            &Typed::read(path.as_bytes(), Path::new("/")),
            options,
        )?;
        let mut writer = Writer::new(out, false);
        each(&from, from.name.as_deref(), &mut |mut inode| {
            inode.undo(files.moves.as_ref());
            let mut file = inode.file;
            writer.entry(&inode.entry, file.as_mut().map(|f| f as &mut dyn Read))
        })?;
        writer.finish()
    };
    note(engine, &files, "archive-path", path);
    copy().with_context(about)
}

/// Extracts a tar archive, which may be compressed, in a directory of a container.
pub fn from_stream(engine: &mut Engine, tar: impl Read + Send, wanted: &str, path: &str) -> Result<Copied> {
    let about = || format!("cannot copy to {wanted}:{path}");
    let files = files::open(engine, wanted).with_context(about)?;
    files::take_descriptors();
    let copy = || {
        let base = files.root.resolve(&Typed::read(path.as_bytes(), Path::new("/")).path)?;
        let open = |path: &Path| files.root.open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
        let top = match open(&base) {
            Err(Errno::NOTDIR | Errno::NOENT) => bail!("an archive needs a directory to go to"),
            other => other?,
        };
        check_lasting(&files)?;
        let root = Root::from(files.root.as_fd().try_clone_to_owned()?);
        let resolve = move |path: &[u8]| {
            root.open(&base.join(OsStr::from_bytes(path)), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
        };
        let mut target =
            Target::moved(top, &files.ids, Ownership::Kept, Some(Box::new(resolve)), files.moves.clone());
        // As docker's: told by its first bytes.
        let (_, tar) = decompress(tar, &layer::windows(&engine.store))?;
        extract(tar, &mut target)?;
        Ok(Copied { bytes: target.bytes, skipped: std::mem::take(&mut target.skipped) })
    };
    note(engine, &files, "extract-to-dir", path);
    copy().with_context(about)
}

/// Docker's words for it.
fn note(engine: &Engine, files: &Files, action: &str, path: &str) {
    journal::note(&engine.store, &Event::of_container(&files.record, action).with("path", path));
}

fn check_lasting(files: &Files) -> Result<()> {
    if files.is_fleeting {
        return Err(anyhow!("what it changes is kept in memory while it runs")).hint("start it first");
    }
    Ok(())
}

/// A path as typed, and what its end says.
#[derive(Debug, PartialEq, Eq)]
struct Typed {
    /// Absolute, without `.` and `..`.
    path: PathBuf,
    /// It ends with `/` or `/.`: what it names must be a directory.
    is_dir: bool,
    /// It ends with `.`: what is in the directory is meant.
    is_contents: bool,
}

impl Typed {
    fn read(text: &[u8], base: &Path) -> Typed {
        let is_contents = text == b"." || text.ends_with(b"/.") || text.iter().all(|b| *b == b'/');
        let is_dir = is_contents || text.ends_with(b"/");
        let mut path = PathBuf::from("/");
        // As docker does: `..` takes away what is written before it, whatever that is.
        for component in base.join(OsStr::from_bytes(text)).components() {
            match component {
                Component::Normal(name) => path.push(name),
                Component::ParentDir => _ = path.pop(),
                _ => {}
            }
        }
        Typed { path, is_dir, is_contents }
    }

    fn name(&self) -> Option<Vec<u8>> {
        self.path.file_name().map(|name| name.as_bytes().to_vec())
    }
}

/// Where a path is resolved.
enum Side<'a> {
    Host,
    Container(&'a Root),
}

impl Side<'_> {
    fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        match self {
            Side::Host => openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty()),
            Side::Container(root) => root.open(path, flags, Mode::empty()),
        }
    }

    /// Where a path leads to, also through links that lead to nothing yet.
    fn resolve(&self, path: &Path) -> Result<PathBuf> {
        match self {
            Side::Container(root) => Ok(root.resolve(path)?),
            Side::Host => {
                let mut path = path.to_owned();
                for _ in 0..40 {
                    let link = fs::symlink_metadata(&path)?.is_some_and(|m| m.is_symlink());
                    let Some(to) = fs::read_link(&path).ok().flatten().filter(|_| link) else {
                        return Ok(path);
                    };
                    path = path.parent().unwrap_or(Path::new("/")).join(to);
                }
                Err(Errno::LOOP.into())
            }
        }
    }
}

/// What is to be copied.
struct From {
    /// Its location (O_PATH).
    fd: OwnedFd,
    is_dir: bool,
    /// What it is called at its destination; `None` if only what is in it is meant.
    name: Option<Vec<u8>>,
}

fn find_source(side: &Side<'_>, typed: &Typed, options: CopyOptions) -> Result<From> {
    let follow = options.follow || typed.is_dir;
    let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
    let fd = match side.open(&typed.path, flags) {
        Err(Errno::NOENT) => bail!("there is no {}{}", typed.path.display(), where_is(side)),
        other => other?,
    };
    let is_dir = kind_of(&fd)?.is_dir();
    if typed.is_dir && !is_dir {
        bail!("{} is not a directory", typed.path.display());
    }
    Ok(From { fd, is_dir, name: typed.name().filter(|_| !typed.is_contents) })
}

fn where_is(side: &Side<'_>) -> &'static str {
    match side {
        Side::Host => "",
        Side::Container(_) => " in the container",
    }
}

fn kind_of(fd: &OwnedFd) -> Result<FileType, Errno> {
    Ok(FileType::from_raw_mode(statat(fd, c"", AtFlags::EMPTY_PATH)?.st_mode))
}

/// Where it goes: a directory and the name there; `None` for what is in the source directly into the directory.
struct Place {
    dir: OwnedFd,
    name: Option<Vec<u8>>,
}

fn find_place(side: &Side<'_>, typed: &Typed, from: &From) -> Result<Place> {
    let directory = OFlags::RDONLY | OFlags::DIRECTORY;
    match side.open(&typed.path, OFlags::PATH) {
        Ok(fd) if kind_of(&fd)?.is_dir() => {
            let dir = side.open(&typed.path, directory)?;
            return Ok(Place { dir, name: from.name.clone() });
        }
        Ok(_) if typed.is_dir => bail!("{} is not a directory", typed.path.display()),
        Ok(_) if from.is_dir => bail!("a directory cannot be copied over a file"),
        Ok(fd) => check_file(&fd)?,
        Err(Errno::NOENT | Errno::NOTDIR) if typed.is_dir && !from.is_dir => {
            bail!("there is no directory {}{}", typed.path.display(), where_is(side))
        }
        // That there is no such directory is told below.
        Err(Errno::NOENT | Errno::NOTDIR) => {}
        Err(error) => return Err(error.into()),
    }
    let path = match side.resolve(&typed.path) {
        Err(error) if error.downcast_ref() == Some(&Errno::NOTDIR) => typed.path.clone(),
        other => other?,
    };
    let parent = path.parent().unwrap_or(Path::new("/"));
    let dir = match side.open(parent, directory) {
        Err(Errno::NOENT | Errno::NOTDIR) => {
            bail!("there is no directory {}{}", parent.display(), where_is(side))
        }
        other => other?,
    };
    let name = path.file_name().context("it has no name")?.to_owned().into_vec();
    Ok(Place { dir, name: Some(name) })
}

/// Docker writes neither to a device nor to a FIFO that is there.
fn check_file(fd: &OwnedFd) -> Result<()> {
    match kind_of(fd)? {
        FileType::RegularFile => Ok(()),
        FileType::CharacterDevice | FileType::BlockDevice => bail!("the destination is a device"),
        _ => bail!("the destination is no file"),
    }
}

/// Copies what was found to where it goes.
fn tree(from: &From, name: Option<&[u8]>, mut target: Target) -> Result<Copied> {
    each(from, name, &mut |inode| {
        let content = inode.file.as_ref().map_or(Content::None, Content::File);
        target.put(&inode.entry, content)
    })?;
    target.finish()?;
    Ok(Copied { bytes: target.bytes, skipped: std::mem::take(&mut target.skipped) })
}

/// Hands out what was found and all that is in it, beneath `name`. What vanishes meanwhile is passed over.
fn each(from: &From, name: Option<&[u8]>, take: &mut dyn FnMut(Inode) -> Result<()>) -> Result<()> {
    files::take_descriptors();
    let name = name.unwrap_or_default();
    if !from.is_dir {
        return take(inode::read_located(&from.fd, name)?);
    }
    let dir = inode::reopen(&from.fd, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut links = Links::new();
    Source::plain(dir).walk(&mut |found| {
        let path = match (name, found.path) {
            (b"", path) => path.to_vec(),
            (name, b"") => name.to_vec(),
            (name, path) => [name, b"/", path].concat(),
        };
        let mut inode = match inode::read(found.parent, found.name, &path) {
            Err(error) if error.downcast_ref() == Some(&Errno::NOENT) => return Ok(()),
            inode => inode?,
        };
        link(&mut links, &mut inode);
        take(inode)
    })
}

fn current_dir() -> Result<PathBuf> {
    std::env::current_dir().context("cannot tell the current directory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_path_says_what_is_meant() {
        let check = |text: &str, path: &str, is_dir, is_contents| {
            let found = Typed::read(text.as_bytes(), Path::new("/w/d"));
            assert_eq!(found, Typed { path: path.into(), is_dir, is_contents }, "{text:?}");
        };
        check("a", "/w/d/a", false, false);
        check("a/", "/w/d/a", true, false);
        check("a/.", "/w/d/a", true, true);
        check("a//b/../c", "/w/d/a/c", false, false);
        check(".", "/w/d", true, true);
        check("..", "/w", false, false);
        check("../../../..", "/", false, false);
        check("/", "/", true, true);
        check("/x/./y", "/x/y", false, false);
    }
}
