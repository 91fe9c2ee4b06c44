//! rename.

use anyhow::Result;
use clap::{Arg, ArgMatches, Command};

use super::Session;
use super::run_flags::one;
use crate::engine::rename;

pub(super) fn rename_args(command: Command) -> Command {
    command
        .arg(Arg::new("container").value_name("CONTAINER").required(true))
        .arg(Arg::new("name").value_name("NAME").required(true))
}

pub(super) fn rename_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let (container, name) = (one(matches, "container"), one(matches, "name"));
    rename::rename(&session.engine()?, container.unwrap_or_default(), name.unwrap_or_default())?;
    Ok(0)
}
