//! The files that `--cidfile` and `--pidfile` name.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::ArgMatches;

use super::run_flags::one;
use crate::error::ResultExt;
use crate::fs;

/// The file that a flag names. As with docker, an empty word names none: scripts pass `--cidfile "$FILE"`.
fn named<'a>(matches: &'a ArgMatches, flag: &str) -> Option<&'a str> {
    one(matches, flag).filter(|path| !path.is_empty())
}

/// --cidfile: must not exist, is taken before anything is made, and goes again if nothing is.
pub(super) struct IdFile {
    path: PathBuf,
    file: std::fs::File,
    is_written: bool,
}

impl IdFile {
    /// What would be refused later is refused before an image is pulled.
    pub(super) fn check(matches: &ArgMatches) -> Result<()> {
        let Some(path) = named(matches, "cidfile") else { return Ok(()) };
        if fs::symlink_metadata(path.as_ref())?.is_some() { IdFile::claim(matches).map(drop) } else { Ok(()) }
    }

    pub(super) fn claim(matches: &ArgMatches) -> Result<Option<IdFile>> {
        let Some(path) = named(matches, "cidfile") else { return Ok(None) };
        let created = fs::create_new(path.as_ref(), 0o644).context("cannot write the container's id");
        let file = match created {
            Err(error) if fs::symlink_metadata(path.as_ref())?.is_some() => {
                Err(error).hint("remove it or name another: it may belong to a container that runs")
            }
            other => other,
        }?;
        Ok(Some(IdFile { path: path.into(), file, is_written: false }))
    }

    pub(super) fn write(mut self, id: &str) -> Result<()> {
        use std::io::Write;
        self.file.write_all(id.as_bytes()).context("cannot write the container's id")?;
        self.is_written = true;
        Ok(())
    }
}

impl Drop for IdFile {
    fn drop(&mut self) {
        if !self.is_written {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// --pidfile: one that is there is replaced, as podman does; one that we made goes again if nothing is started.
pub(super) struct PidFile {
    path: PathBuf,
    goes_again: bool,
}

impl PidFile {
    /// Whether it can be written is known before anything is started.
    pub(super) fn claim(matches: &ArgMatches) -> Result<Option<PidFile>> {
        let Some(path) = named(matches, "pidfile").map(PathBuf::from) else { return Ok(None) };
        let goes_again = fs::symlink_metadata(&path)?.is_none();
        fs::open_or_create(&path, 0o644).context("cannot write the container's pid")?;
        Ok(Some(PidFile { path, goes_again }))
    }

    /// The pid comes from the supervisor: what it noted may be gone with the container by now.
    pub(super) fn write(mut self, pid: i32) -> Result<()> {
        fs::write_atomic(&self.path, pid.to_string().as_bytes())?;
        self.goes_again = false;
        Ok(())
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if self.goes_again {
            let _ = fs::remove_file(&self.path);
        }
    }
}
