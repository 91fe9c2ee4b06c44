//! stop and kill: what ends containers.

use anyhow::{Result, anyhow};
use clap::{ArgMatches, Command};

use super::flags::{each, many, names, of_flag, switch, value};
use super::run_flags::one;
use super::{Session, choose, out};
use crate::engine::stop;
use crate::engine::stop::StopOptions;
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

/// What `--time` says.
pub(super) fn seconds(matches: &ArgMatches) -> Result<Option<i64>> {
    let number =
        |t: &str| t.parse::<i64>().map_err(|_| anyhow!("cannot wait {t:?} seconds: it is not a number"));
    of_flag(one(matches, "time").map(number).transpose())
}

pub(super) fn end_options(matches: &ArgMatches) -> Result<StopOptions> {
    let timeout = seconds(matches)?;
    let signal = one(matches, "signal").map(stop::parse_signal).transpose()?;
    Ok(StopOptions { timeout, signal, is_removal: false })
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
