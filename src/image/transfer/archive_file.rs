//! A tar that is being written, and appears under its name once it is whole.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;

use anyhow::{Context, Result};

use crate::fs;
use crate::image::save;

/// See the module. Dropped before [`ArchiveFile::finish`], it leaves nothing.
pub(super) struct ArchiveFile {
    path: PathBuf,
    draft: PathBuf,
    file: Mutex<File>,
}

impl ArchiveFile {
    pub(super) fn create(path: &Path) -> Result<ArchiveFile> {
        let mut draft = path.as_os_str().to_owned();
        draft.push(format!(".{}.draft", std::process::id()));
        let draft = PathBuf::from(draft);
        let file = Mutex::new(fs::create_new(&draft, 0o644)?);
        Ok(ArchiveFile { path: path.to_owned(), draft, file })
    }

    /// Writes a member of a known size.
    pub(super) fn member(&self, name: &str, size: u64, mut content: impl Read) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        save::member(&mut *file, name, size, |mut out| {
            io::copy(&mut content, &mut out)?;
            Ok(())
        })
    }

    /// Writes a member whose size is known only when it is written, and returns the size.
    pub(super) fn measured(&self, name: &str, mut content: impl Read) -> Result<u64> {
        let about = || format!("cannot write {name}");
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let start = file.stream_position().with_context(about)?;
        save::member(&mut *file, name, 0, |_| Ok(()))?;
        let size = io::copy(&mut content, &mut *file).with_context(about)?;
        let padding = size.next_multiple_of(512) - size;
        file.write_all(&[0; 512][..padding as usize]).with_context(about)?;
        // The header once more, with the size that it turned out to have.
        file.seek(SeekFrom::Start(start)).with_context(about)?;
        save::header(&mut *file, name, size)?;
        file.seek(SeekFrom::End(0)).with_context(about)?;
        Ok(size)
    }

    /// Ends the tar and gives it its name.
    pub(super) fn finish(self) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // Two empty blocks end a tar.
        file.write_all(&[0; 1024]).with_context(|| format!("cannot write {}", self.path.display()))?;
        fs::rename(&self.draft, &self.path)
    }
}

impl Drop for ArchiveFile {
    fn drop(&mut self) {
        // Once it has its name there is no draft.
        let _ = fs::remove_file(&self.draft);
    }
}
