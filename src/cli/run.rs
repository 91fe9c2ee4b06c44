//! run and create.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{ArgMatches, Command};

use super::flags::switch;
use super::run_flags::one;
use super::{Session, events, out, run_flags};
use crate::engine::attach::{Ended, Signals, follow};
use crate::engine::create::{create, make, plan};
use crate::engine::start;
use crate::engine::start::StartOptions;
use crate::error::ResultExt;
use crate::fs;
use crate::store::container::ContainerDir;

pub(super) fn run_args(command: Command) -> Command {
    run_flags::add(command).arg(switch("detach", Some('d'), "Run in the background and print the id"))
}

pub(super) fn run(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let wanted = run_flags::read(matches, &session.host)?;
    let detached = matches.get_flag("detach");
    if wanted.options.terminal && !detached && !rustix::termios::isatty(rustix::stdio::stdin()) {
        // In a script or from cron there is none to give; the program still gets one of its own.
        out::warn("stdin is not a terminal; the container has one that nobody types on");
    }
    let cidfile = IdFile::claim(matches)?;
    claim_pidfile(matches)?;
    let signals = if detached { None } else { Some(Signals::catch()?) };
    let input = wanted.options.interactive;
    let (engine, entering) = session.engine_entering()?;
    let planned = plan(&engine, wanted)?;
    entering.finish()?;
    let created = make(&engine, planned)?;
    let (dir, id) = (created.dir.clone(), created.record.id.clone());
    if let Some(cidfile) = cidfile {
        cidfile.write(&id)?;
    }
    let options = StartOptions { foreground: !detached, stdin: input };
    let client = start::start_created(created, options, &mut events)?;
    write_pidfile(matches, &dir)?;
    let Some(signals) = signals else {
        out::out(&format!("{id}\n"))?;
        return Ok(0);
    };
    Ok(code_of(follow(client, &signals, input)?))
}

pub(super) fn code_of(ended: Ended) -> u8 {
    match ended {
        Ended::Exited(code) => u8::try_from(code & 0xff).unwrap_or(255),
        Ended::Detached => 0,
    }
}

pub(super) fn create_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let wanted = run_flags::read(matches, &session.host)?;
    let cidfile = IdFile::claim(matches)?;
    let engine = session.engine_as_root()?;
    let created = create(&engine, wanted)?;
    if let Some(cidfile) = cidfile {
        cidfile.write(&created.record.id)?;
    }
    out::out(&format!("{}\n", created.record.id))?;
    Ok(0)
}

/// --cidfile: must not exist, is taken before anything is made, and goes again if nothing is.
struct IdFile {
    path: PathBuf,
    file: std::fs::File,
    is_written: bool,
}

impl IdFile {
    fn claim(matches: &ArgMatches) -> Result<Option<IdFile>> {
        let Some(path) = one(matches, "cidfile") else { return Ok(None) };
        let file = fs::create_new(path.as_ref(), 0o644)
            .context("cannot write the container's id")
            .hint("if it is there, remove it or name another: it may belong to a container that runs")?;
        Ok(Some(IdFile { path: path.into(), file, is_written: false }))
    }

    fn write(mut self, id: &str) -> Result<()> {
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

/// Whether --pidfile can be written is known before anything is started.
fn claim_pidfile(matches: &ArgMatches) -> Result<()> {
    let Some(path) = one(matches, "pidfile") else { return Ok(()) };
    fs::open_or_create(path.as_ref(), 0o644).context("cannot write the container's pid").map(drop)
}

fn write_pidfile(matches: &ArgMatches, dir: &ContainerDir) -> Result<()> {
    let Some(path) = one(matches, "pidfile") else { return Ok(()) };
    if let Ok(Some(state)) = dir.last_state() {
        fs::write_atomic(path.as_ref(), state.init.pid.to_string().as_bytes())?;
    }
    Ok(())
}
