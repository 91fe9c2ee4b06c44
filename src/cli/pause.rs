//! pause and unpause.

use anyhow::Result;
use clap::{ArgMatches, Command};

use super::flags::{each, names, switch};
use super::{Session, choose, out};
use crate::engine::{Engine, pause};
use crate::store::container::Status;

pub(super) fn pause_args(command: Command) -> Command {
    command.arg(switch("all", Some('a'), "All that run")).arg(names(false, "CONTAINER"))
}

pub(super) fn unpause_args(command: Command) -> Command {
    command.arg(switch("all", Some('a'), "All that are paused")).arg(names(false, "CONTAINER"))
}

pub(super) fn pause_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    for_each(matches, session, |status| matches!(status, Status::Running(_)), pause::pause)
}

pub(super) fn unpause_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    for_each(matches, session, |status| matches!(status, Status::Paused(_)), pause::unpause)
}

fn for_each(
    matches: &ArgMatches,
    session: &mut Session,
    is_meant: fn(&Status) -> bool,
    act: fn(&Engine, &str) -> Result<()>,
) -> Result<u8> {
    let engine = session.engine()?;
    let names = choose::names_or_all(matches, &engine, is_meant)?;
    each(&names.iter().map(String::as_str).collect::<Vec<_>>(), |name| {
        act(&engine, name)?;
        out::out(&format!("{name}\n"))?;
        Ok(())
    })
}
