//! healthcheck run.

use anyhow::Result;
use clap::{ArgMatches, Command};

use super::flags::{many, names};
use super::{Session, out};
use crate::engine::health;
use crate::error::ResultExt;

pub(super) fn run_args(command: Command) -> Command {
    command.arg(names(true, "CONTAINER").num_args(1))
}

/// 0: healthy; 1: not; 125: it could not be checked.
pub(super) fn run_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let engine = session.engine()?;
    let ran = health::run(&engine, many(matches, "names")[0]).exit_with(125)?;
    if ran.is_healthy {
        return Ok(0);
    }
    out::out(&format!("{}\n", ran.status))?;
    Ok(1)
}
