//! attach.

use anyhow::Result;
use clap::{Arg, ArgMatches, Command};

use super::flags::switch;
use super::run::code_of;
use super::run_flags::one;
use super::{Session, events, life_flags};
use crate::engine::attach::Signals;
use crate::engine::guest;

pub(super) fn attach_args(command: Command) -> Command {
    life_flags::add_stay(command)
        .arg(switch("no-stdin", None, "Type nothing into it"))
        .arg(Arg::new("container").value_name("CONTAINER").required(true))
}

pub(super) fn attach_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let stay = life_flags::stay(matches, !matches.get_flag("no-stdin"))?;
    let engine = session.engine()?;
    let signals = Signals::catch()?;
    let name = one(matches, "container").unwrap_or_default();
    Ok(code_of(guest::attach(&engine, name, &signals, stay, &mut events)?))
}
