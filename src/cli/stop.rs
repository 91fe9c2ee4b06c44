//! stop, kill, rm and wait: what ends containers, and waiting for it.

use anyhow::{Result, anyhow};
use clap::{ArgMatches, Command};

use super::flags::{each, many, names, switch, value};
use super::run_flags::one;
use super::{Session, choose, out};
use crate::engine::stop::StopOptions;
use crate::engine::{remove, stop, wait};
use crate::store::container::Status;

pub(super) fn stop_args(command: Command) -> Command {
    end_args(command).arg(switch("all", Some('a'), "All that run")).arg(names(false, "CONTAINER"))
}

/// How containers are ended, by stop and restart.
pub(super) fn end_args(command: Command) -> Command {
    command
        .arg(
            value("time", Some('t'), "SECONDS", "Kill it after this time; -1 waits for ever")
                .visible_alias("timeout"),
        )
        .arg(value("signal", Some('s'), "SIGNAL", "Ask with this signal"))
}

pub(super) fn end_options(matches: &ArgMatches) -> Result<StopOptions> {
    let timeout = one(matches, "time")
        .map(|t| t.parse::<i64>().map_err(|_| anyhow!("cannot wait {t:?} seconds: it is not a number")))
        .transpose()?;
    let signal = one(matches, "signal").map(stop::parse_signal).transpose()?;
    Ok(StopOptions { timeout, signal })
}

pub(super) fn stop_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let options = end_options(matches)?;
    let engine = session.engine()?;
    let names = choose::names_or_all(matches, &engine, Status::is_alive)?;
    each(&names.iter().map(String::as_str).collect::<Vec<_>>(), |name| {
        stop::stop(&engine, name, options)?;
        out::out(&format!("{name}\n"))?;
        Ok(())
    })
}

pub(super) fn kill_args(command: Command) -> Command {
    command.arg(value("signal", Some('s'), "SIGNAL", "Send this signal (KILL)")).arg(names(true, "CONTAINER"))
}

pub(super) fn kill_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let signal = stop::parse_signal(one(matches, "signal").unwrap_or("KILL"))?;
    let engine = session.engine()?;
    each(&many(matches, "names"), |name| {
        stop::kill(&engine, name, signal)?;
        out::out(&format!("{name}\n"))?;
        Ok(())
    })
}

pub(super) fn rm_args(command: Command) -> Command {
    command
        .arg(switch("force", Some('f'), "Kill it first if it runs; one that is not there is fine"))
        .arg(switch("volumes", Some('v'), "Remove its anonymous volumes too"))
        .arg(names(true, "CONTAINER"))
}

pub(super) fn rm_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let force = matches.get_flag("force");
    let mut names = many(matches, "names");
    if force {
        // Before we are root of a name space of our own, from which those of the containers cannot be reached.
        let engine = session.engine()?;
        // Why one does not end is told when it cannot be removed; one that is not there now may come at any moment.
        let at_once = StopOptions { timeout: Some(0), signal: None };
        let is_absent = |name: &str| {
            stop::stop(&engine, name, at_once).is_err_and(|error| crate::engine::is_not_found(&error))
        };
        names.retain(|name| !is_absent(name));
    }
    let engine = session.engine_as_root()?;
    each(&names, |name| {
        match remove::remove(&engine, name, matches.get_flag("volumes")) {
            Err(error) if force && crate::engine::is_not_found(&error) => return Ok(()),
            other => other?,
        }
        out::out(&format!("{name}\n"))?;
        Ok(())
    })
}

pub(super) fn wait_args(command: Command) -> Command {
    command.arg(names(true, "CONTAINER"))
}

pub(super) fn wait_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let engine = session.engine()?;
    each(&many(matches, "names"), |name| {
        let code = wait::wait(&engine, name)?;
        out::out(&format!("{code}\n"))?;
        Ok(())
    })
}
