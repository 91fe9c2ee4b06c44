//! File operations whose errors name the path: what `std::fs` does, said in our words.
//!
//! No policy about where things lie (that is `store`) and nothing that goes inside a container's root
//! (that is done beneath a root descriptor, with openat2).
#![expect(clippy::disallowed_methods, reason = "this is the one home of std::fs")]

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The whole file.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The whole file as UTF-8.
pub fn read_to_string(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The whole file as UTF-8, or `None` where there is no such file.
pub fn read_to_string_if_exists(path: &Path) -> Result<Option<String>> {
    missing_is_none(fs::read_to_string(path)).with_context(|| format!("cannot read {}", path.display()))
}

/// Opens a file for reading.
pub fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("cannot open {}", path.display()))
}

/// Makes a new file; one that exists is an error.
pub fn create_new(path: &Path, mode: u32) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .read(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .with_context(|| format!("cannot create {}", path.display()))
}

/// Makes a file without a name in `dir`: it is gone when it is closed, and nobody else can open it.
pub fn create_unnamed(dir: &Path) -> Result<File> {
    use rustix::fs::{Mode, OFlags};
    let about = || format!("cannot create a file in {}", dir.display());
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::TMPFILE;
    match rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR) {
        Ok(fd) => Ok(fd.into()),
        // A file system that has no such files (open(2), O_TMPFILE).
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR) => {
            let mut random = [0; 8];
            rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
                .with_context(about)?;
            let path = dir.join(format!(".dhow.{:016x}", u64::from_ne_bytes(random)));
            let file = create_new(&path, 0o600)?;
            remove_file(&path)?;
            Ok(file)
        }
        Err(error) => Err(error).with_context(about),
    }
}

/// Opens a file for reading and writing, made with `mode` where it is missing, not truncated.
pub fn open_or_create(path: &Path, mode: u32) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .read(true)
        .create(true)
        .truncate(false)
        .mode(mode)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))
}

/// Opens a file for appending, made with `mode` where it is missing.
pub fn append(path: &Path, mode: u32) -> Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(mode)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))
}

/// Writes a file in place, for directories that nobody sees yet (under `tmp/`); mode 0644.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// Replaces a file as one step: readers see the old or the new one, never a part. Not synced.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    // Process id and a counter: two writers of one path never share a draft.
    static DRAFTS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let n = DRAFTS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}.{n}.draft", std::process::id()));
    let draft = PathBuf::from(draft);
    let written = create_new(&draft, 0o644)
        .and_then(|mut f| f.write_all(bytes).with_context(|| format!("cannot write {}", path.display())))
        .and_then(|()| rename(&draft, path));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written
}

/// The same for a file that is the user's own and not ours to make anew: only its owner may read it (mode 0600), its owner
/// stays the same, and it is on the disk before it takes the old one's place. The caller holds a lock: the draft has one
/// name, so that one which a dead writer left, with secrets in it, does not stay.
pub fn replace_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let owner = metadata(path)?.map(|m| (m.uid(), m.gid()));
    let mut draft = path.as_os_str().to_owned();
    draft.push(".dhow-draft");
    let draft = PathBuf::from(draft);
    remove_file(&draft)?;
    let write = |mut file: File| {
        file.write_all(bytes)?;
        if let Some((uid, gid)) = owner.filter(|_| rustix::process::geteuid().is_root()) {
            std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
        }
        file.sync_all()
    };
    let written = create_new(&draft, 0o600)
        .and_then(|file| write(file).with_context(|| format!("cannot write {}", path.display())))
        .and_then(|()| rename(&draft, path));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written
}

/// Returns when a file's bytes are on the disk.
pub fn sync(path: &Path) -> Result<()> {
    open(path)?.sync_data().with_context(|| format!("cannot sync {}", path.display()))
}

/// Makes one directory; one that exists is an error.
pub fn create_dir(path: &Path, mode: u32) -> Result<()> {
    fs::DirBuilder::new()
        .mode(mode)
        .create(path)
        .with_context(|| format!("cannot create directory {}", path.display()))
}

/// Makes a directory and its parents where they are missing; new ones get `mode`.
pub fn create_dir_all(path: &Path, mode: u32) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .with_context(|| format!("cannot create directory {}", path.display()))
}

/// Renames; both paths on one file system.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))
}

/// Removes a file; one that is gone already is fine.
pub fn remove_file(path: &Path) -> Result<()> {
    missing_is_none(fs::remove_file(path)).with_context(|| format!("cannot remove {}", path.display()))?;
    Ok(())
}

/// Removes an empty directory; one that is gone already is fine.
pub fn remove_dir(path: &Path) -> Result<()> {
    missing_is_none(fs::remove_dir(path)).with_context(|| format!("cannot remove {}", path.display()))?;
    Ok(())
}

/// Removes a tree without following symlinks; one that is gone already is fine.
pub fn remove_tree(path: &Path) -> Result<()> {
    let removed = match fs::remove_dir_all(path) {
        // It keeps a descriptor open for each level.
        Err(e) if e.raw_os_error() == Some(libc::EMFILE) => {
            flatten(path)?;
            fs::remove_dir_all(path)
        }
        removed => removed,
    };
    missing_is_none(removed).with_context(|| format!("cannot remove {}", path.display()))?;
    Ok(())
}

/// Moves each directory beneath `path`, however deep, to just beneath `path`, under a new name. Nobody else may be
/// working there.
pub fn flatten(path: &Path) -> Result<()> {
    let directories = |dir: &Path| -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for name in read_dir(dir)? {
            let inner = dir.join(name);
            if symlink_metadata(&inner)?.is_some_and(|m| m.is_dir()) {
                found.push(inner);
            }
        }
        Ok(found)
    };
    let mut todo = directories(path)?;
    let mut n = 0u64;
    while let Some(dir) = todo.pop() {
        for inner in directories(&dir)? {
            let to = path.join(format!(".flat.{n}"));
            n += 1;
            rename(&inner, &to)?;
            todo.push(to);
        }
    }
    Ok(())
}

/// Makes a symlink; `AlreadyExists` is returned as such, because symlink(2) serves as a claim.
pub fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

/// What a symlink holds, or `None` where there is none.
pub fn read_link(path: &Path) -> Result<Option<PathBuf>> {
    missing_is_none(fs::read_link(path)).with_context(|| format!("cannot read link {}", path.display()))
}

/// The names in a directory, unsorted; none where the directory is missing.
pub fn read_dir(path: &Path) -> Result<Vec<OsString>> {
    let about = || format!("cannot read directory {}", path.display());
    let Some(entries) = missing_is_none(fs::read_dir(path)).with_context(about)? else {
        return Ok(Vec::new());
    };
    entries.map(|e| e.map(|e| e.file_name()).with_context(about)).collect()
}

/// The absolute path with symlinks resolved.
pub fn canonicalize(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).with_context(|| format!("cannot resolve {}", path.display()))
}

/// What lstat(2) says, or `None` where there is nothing.
pub fn symlink_metadata(path: &Path) -> Result<Option<fs::Metadata>> {
    missing_is_none(fs::symlink_metadata(path)).with_context(|| format!("cannot look at {}", path.display()))
}

/// What stat(2) says, or `None` where there is nothing.
pub fn metadata(path: &Path) -> Result<Option<fs::Metadata>> {
    missing_is_none(fs::metadata(path)).with_context(|| format!("cannot look at {}", path.display()))
}

/// Turns "there is none" into `None`; ENOTDIR too, which is what a path through a file gives.
fn missing_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_atomic_leaves_no_draft_behind() {
        let dir = std::env::temp_dir().join(format!("dhow-fs-{}", std::process::id()));
        create_dir_all(&dir, 0o700).unwrap();
        write_atomic(&dir.join("a"), b"1").unwrap();
        write_atomic(&dir.join("a"), b"2").unwrap();
        assert!(write_atomic(&dir.join("no/a"), b"3").is_err());
        assert_eq!(read(&dir.join("a")).unwrap(), b"2");
        assert_eq!(read_dir(&dir).unwrap(), ["a"]);
        remove_tree(&dir).unwrap();
        remove_tree(&dir).unwrap();
    }

    #[test]
    fn flatten_leaves_one_level() {
        let dir = std::env::temp_dir().join(format!("dhow-flat-{}", std::process::id()));
        create_dir_all(&dir.join("a/b/c/d"), 0o700).unwrap();
        create_dir_all(&dir.join("a/b/e"), 0o700).unwrap();
        write(&dir.join("a/b/c/f"), b"").unwrap();
        symlink(&dir, &dir.join("a/l")).unwrap();
        flatten(&dir).unwrap();
        let names = read_dir(&dir).unwrap();
        assert_eq!(names.len(), 5);
        let inner: Vec<OsString> = names.iter().flat_map(|name| read_dir(&dir.join(name)).unwrap()).collect();
        assert_eq!(inner.len(), 2, "{inner:?}");
        remove_tree(&dir).unwrap();
    }
}
