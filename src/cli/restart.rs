//! restart.

use anyhow::Result;
use clap::{ArgMatches, Command};

use super::flags::{each, names, switch};
use super::{Session, choose, events, out, stop};
use crate::engine::start::StartOptions;
use crate::engine::{restart, start};
use crate::store::container::Status;

pub(super) fn restart_args(command: Command) -> Command {
    stop::end_args(command).arg(switch("all", Some('a'), "All that run")).arg(names(false, "CONTAINER"))
}

pub(super) fn restart_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let options = stop::end_options(matches)?;
    // Before we are root of a name space of our own, from which those of the containers cannot be reached.
    let engine = session.engine()?;
    let names = choose::names_or_all(matches, &engine, Status::is_alive)?;
    let mut stopped = Vec::new();
    let first = each(&names.iter().map(String::as_str).collect::<Vec<_>>(), |name| {
        if restart::restart(&engine, name, options)? {
            out::out(&format!("{name}\n"))?;
        } else {
            stopped.push(name.to_owned());
        }
        Ok(())
    })?;
    if stopped.is_empty() {
        return Ok(first);
    }
    session.reach_outside_for(&stopped.iter().map(String::as_str).collect::<Vec<_>>())?;
    let engine = session.engine_as_root()?;
    let second = each(&stopped.iter().map(String::as_str).collect::<Vec<_>>(), |name| {
        start::start(&engine, name, StartOptions::default(), &mut events)?;
        out::out(&format!("{name}\n"))?;
        Ok(())
    })?;
    Ok(first.max(second))
}
