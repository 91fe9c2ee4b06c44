//! Putting entries into a directory that may hold anything already, and that somebody else may be working in.
//!
//! What is there is replaced the way docker's extraction replaces it: a file by a file, never a directory by a file or
//! the other way round; directories are merged. A file appears whole, under its name or not at all.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{
    AtFlags, FileType, Mode, fstat, ftruncate, linkat, makedev, mkdirat, mknodat, renameat, symlinkat,
    unlinkat,
};
use rustix::io::Errno;

use super::super::attributes::{Owners, set_file, set_special};
use super::super::beneath::{self, parent_and_name};
use super::super::entry::{Entry, Kind, Region};
use super::super::inode::fill;
use super::super::owner::{self, Node};
use super::inode::locate;
use super::name::{
    create, create_draft, exactly, is_link, is_mounted_on, make_over, open_dir, open_to_overwrite,
    refuse_directory,
};
use super::source::join;
use crate::host::Ids;
use crate::store::mapped::Moves;

/// Whose the files are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// Whose the entries say, with all that they have.
    Kept,
    /// Root's of the container.
    Root,
    /// The caller's, like anything that the caller makes: no set-id bits, no capabilities, no devices.
    Caller,
}

/// The content of an entry.
pub enum Content<'a> {
    /// There is none.
    None,
    /// A file; its holes stay holes.
    File(&'a File),
    /// A stream of `entry.payload` bytes.
    Stream(&'a mut dyn Read),
}

/// Finds a directory through the links in a path, for where following them is safe.
pub type Resolve = Box<dyn Fn(&[u8]) -> Result<OwnedFd, Errno>>;

/// A directory that entries go into.
pub struct Target {
    top: OwnedFd,
    resolve: Option<Resolve>,
    ownership: Ownership,
    owners: Owners,
    can_clone: AtomicBool,
    /// The path of the last of `open`.
    current: Vec<u8>,
    /// Open directories on the way to `current`, each with the length of its path.
    open: Vec<Open>,
    /// As docker counts: bytes of an archive of all this.
    pub bytes: u64,
    /// What could not be made here.
    pub skipped: Vec<String>,
}

struct Open {
    length: usize,
    dir: OwnedFd,
    /// What it gets when everything is in it.
    last: Option<Entry>,
}

/// How many things that were skipped are told by name.
const MAX_SKIPPED: usize = 20;

impl Target {
    /// `top` must be open for reading. `resolve` finds directories through links; without it they are in the way.
    pub fn new(top: OwnedFd, ids: &Ids, ownership: Ownership, resolve: Option<Resolve>) -> Target {
        Target::moved(top, ids, ownership, resolve, None)
    }

    /// The same where owners are others than they will be in the container.
    pub fn moved(
        top: OwnedFd,
        ids: &Ids,
        ownership: Ownership,
        resolve: Option<Resolve>,
        moves: Option<Moves>,
    ) -> Target {
        let owners = match ownership {
            Ownership::Caller => Owners::new(ids),
            _ => Owners::always(ids).moved(moves),
        };
        Target {
            top,
            resolve,
            ownership,
            owners,
            can_clone: AtomicBool::new(true),
            current: Vec::new(),
            open: Vec::new(),
            bytes: 1024,
            skipped: Vec::new(),
        }
    }

    /// Puts one entry.
    pub fn put(&mut self, entry: &Entry, content: Content<'_>) -> Result<()> {
        let about = || format!("cannot write {}", String::from_utf8_lossy(&entry.path));
        self.bytes += 512 + entry.payload.next_multiple_of(512);
        let entry = &self.owned(entry);
        if entry.path.is_empty() {
            // The directory that was there before is not ours to change.
            return Ok(());
        }
        let (parent, name) = parent_and_name(&entry.path);
        self.go_to(parent).with_context(about)?;
        match &entry.kind {
            Kind::Directory => self.directory(name, entry),
            Kind::File => self.file(name, entry, content, None),
            Kind::Sparse { regions, size } => self.file(name, entry, content, Some((regions, *size))),
            Kind::Symlink(target) => self.special(name, entry, |dir, name| symlinkat(&target[..], dir, name)),
            Kind::HardLink(target) => self.hard_link(name, target),
            Kind::Fifo => self.special(name, entry, |dir, name| {
                mknodat(dir, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            }),
            Kind::Device { is_block, major, minor } => {
                self.device(name, entry, Node { is_block: *is_block, major: *major, minor: *minor })
            }
            Kind::Whiteout | Kind::Opaque | Kind::Ignored => Ok(()),
        }
        .with_context(about)
    }

    /// Gives the directories that are still open what they get in the end.
    pub fn finish(&mut self) -> Result<()> {
        self.pop_to(0)
    }

    /// The entry as it is to be here.
    fn owned(&self, entry: &Entry) -> Entry {
        let mut entry = entry.clone();
        match self.ownership {
            Ownership::Kept => {}
            Ownership::Root => (entry.uid, entry.gid) = (0, 0),
            Ownership::Caller => {
                entry.uid = rustix::process::geteuid().as_raw().into();
                entry.gid = rustix::process::getegid().as_raw().into();
                entry.mode &= 0o1777;
                entry.xattrs.retain(|(name, _)| name.starts_with(b"user."));
            }
        }
        entry
    }

    fn skip(&mut self, name: &[u8]) -> Result<()> {
        if self.skipped.len() < MAX_SKIPPED {
            self.skipped.push(String::from_utf8_lossy(name).into_owned());
        }
        Ok(())
    }

    fn dir(&self) -> &OwnedFd {
        self.open.last().map_or(&self.top, |open| &open.dir)
    }

    /// Closes the directories that are deeper than the first `n`.
    fn pop_to(&mut self, n: usize) -> Result<()> {
        while self.open.len() > n {
            let Some(Open { dir, last, .. }) = self.open.pop() else { break };
            if let Some(entry) = last {
                set_file(&dir, &entry, &self.owners)?;
            }
        }
        self.current.truncate(self.open.last().map_or(0, |open| open.length));
        Ok(())
    }

    /// Opens the directory of this path, and makes what is missing of it.
    fn go_to(&mut self, path: &[u8]) -> Result<()> {
        let is_above = |open: &Open| {
            path.starts_with(&self.current[..open.length])
                && matches!(path.get(open.length), None | Some(b'/'))
        };
        let n = self.open.iter().take_while(|open| is_above(open)).count();
        self.pop_to(n)?;
        let start = if self.current.is_empty() { 0 } else { self.current.len() + 1 };
        for name in path.get(start..).unwrap_or_default().split(|b| *b == b'/').filter(|n| !n.is_empty()) {
            let dir = match open_dir(self.dir(), name) {
                Err(Errno::NOENT) => {
                    mkdirat(self.dir(), name, Mode::from_raw_mode(0o755))
                        .context("cannot make its directory")?;
                    open_dir(self.dir(), name).context("cannot open its directory")?
                }
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    let mut path = self.current.clone();
                    join(&mut path, name);
                    match &self.resolve {
                        Some(resolve) => resolve(&path).context("cannot open its directory")?,
                        None => bail!("what is in its way is no directory"),
                    }
                }
                other => other.context("cannot open its directory")?,
            };
            join(&mut self.current, name);
            self.open.push(Open { length: self.current.len(), dir, last: None });
        }
        Ok(())
    }

    fn directory(&mut self, name: &[u8], entry: &Entry) -> Result<()> {
        let is_new = match mkdirat(self.dir(), name, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error).context("cannot make the directory"),
        };
        let dir = match open_dir(self.dir(), name) {
            Err(Errno::LOOP | Errno::NOTDIR) => match (&self.resolve, is_link(self.dir(), name)) {
                // An archive's directory where the container has a link to one goes on in there.
                (Some(resolve), true) => resolve(&entry.path).map_err(|_| anyhow!(NO_DIRECTORY))?,
                _ => bail!(NO_DIRECTORY),
            },
            other => other.context("cannot open the directory")?,
        };
        let last = (is_new || self.ownership == Ownership::Kept).then(|| entry.clone());
        join(&mut self.current, name);
        self.open.push(Open { length: self.current.len(), dir, last });
        Ok(())
    }

    fn file(
        &mut self,
        name: &[u8],
        entry: &Entry,
        mut content: Content<'_>,
        sparse: Option<(&Vec<Region>, u64)>,
    ) -> Result<()> {
        refuse_directory(self.dir(), name)?;
        if is_mounted_on(self.dir(), name) {
            let mut file = open_to_overwrite(self.dir(), name)?;
            return self.fill(&mut file, entry, &mut content, sparse);
        }
        let (draft, mut file) = create_draft(self.dir()).context("cannot make a file")?;
        let written = self
            .fill(&mut file, entry, &mut content, sparse)
            .and_then(|()| set_file(&file, entry, &self.owners))
            .and_then(|()| renameat(self.dir(), &draft[..], self.dir(), name).context("cannot rename"));
        if written.is_err() {
            let _ = unlinkat(self.dir(), &draft[..], AtFlags::empty());
        }
        written
    }

    fn fill(
        &self,
        file: &mut File,
        entry: &Entry,
        content: &mut Content<'_>,
        sparse: Option<(&Vec<Region>, u64)>,
    ) -> Result<()> {
        match content {
            Content::None => Ok(()),
            Content::File(source) => {
                let mut source: &File = source;
                let stat = fstat(source)?;
                if stat.st_size == 0 {
                    // Files of /proc say that they are empty.
                    io::copy(&mut source, file)?;
                    return Ok(());
                }
                fill(source, file, &stat, &self.can_clone)
            }
            Content::Stream(stream) => match sparse {
                None => exactly(stream, entry.payload, file),
                Some((regions, size)) => {
                    ftruncate(&*file, size)?;
                    for region in regions {
                        file.seek(io::SeekFrom::Start(region.offset))?;
                        exactly(stream, region.length, file)?;
                    }
                    Ok(())
                }
            },
        }
    }

    fn special(
        &mut self,
        name: &[u8],
        entry: &Entry,
        make: impl Fn(&OwnedFd, &[u8]) -> Result<(), Errno>,
    ) -> Result<()> {
        make_over(self.dir(), name, make)?;
        set_special(self.dir(), name, entry, &self.owners)
    }

    fn device(&mut self, name: &[u8], entry: &Entry, node: Node) -> Result<()> {
        if self.ownership == Ownership::Caller {
            return self.skip(&entry.path);
        }
        let kind = if node.is_block { FileType::BlockDevice } else { FileType::CharacterDevice };
        let device = makedev(node.major, node.minor);
        let made = make_over(self.dir(), name, |dir, name| {
            mknodat(dir, name, kind, Mode::RUSR | Mode::WUSR, device)
        });
        match made {
            Ok(()) => set_special(self.dir(), name, entry, &self.owners),
            // In a user name space: an empty file stands for it, as in layers.
            Err(error) if error.downcast_ref() == Some(&Errno::PERM) => {
                let file = make_over(self.dir(), name, create)?;
                match owner::set_node(&file, node) {
                    Ok(()) | Err(Errno::NOTSUP) => {}
                    Err(error) => return Err(error).context("cannot keep the device number"),
                }
                set_file(&file, entry, &self.owners)
            }
            Err(error) => Err(error),
        }
    }

    fn hard_link(&mut self, name: &[u8], target: &[u8]) -> Result<()> {
        let about = || format!("cannot link to {}", String::from_utf8_lossy(target));
        let (parent, target_name) = parent_and_name(target);
        let from = match (beneath::directory(&self.top, parent), &self.resolve) {
            (Err(Errno::LOOP | Errno::NOTDIR), Some(resolve)) => resolve(parent).with_context(about)?,
            (found, _) => found.with_context(about)?,
        };
        let (_, found) = locate(&from, target_name).with_context(about)?;
        if let Ok((_, there)) = locate(self.dir(), name)
            && (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino)
        {
            return Ok(());
        }
        make_over(self.dir(), name, |dir, name| linkat(&from, target_name, dir, name, AtFlags::empty()))
            .with_context(about)
    }
}

const NO_DIRECTORY: &str = "a directory cannot take the place of what is no directory";
