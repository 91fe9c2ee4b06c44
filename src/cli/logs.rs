//! logs.

use anyhow::{Result, anyhow};
use clap::{ArgMatches, Command};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::flags::{many, names, switch, value};
use super::run_flags::one;
use super::{Session, out};
use crate::engine::logs;
use crate::engine::logs::LogOptions;
use crate::quantity;
use crate::supervisor::log::Stream;

pub(super) fn logs_args(command: Command) -> Command {
    command
        .arg(switch("follow", Some('f'), "Go on as it grows"))
        .arg(switch("timestamps", Some('t'), "Show when each line was written"))
        .arg(value("tail", Some('n'), "N", "Only the last N lines; all for all"))
        .arg(value("since", None, "TIME", "Only from this moment on: 2024-01-02T03:04:05Z, 10m"))
        .arg(value("until", None, "TIME", "Only up to this moment"))
        .arg(names(true, "CONTAINER").num_args(1))
}

pub(super) fn logs_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let moment = |name: &str| {
        one(matches, name).map(|t| quantity::moment(t, Timestamp::now(), &TimeZone::UTC)).transpose()
    };
    let tail = match one(matches, "tail") {
        None | Some("all" | "-1") => None,
        Some(n) => {
            Some(n.parse().map_err(|_| anyhow!("cannot show the last {n:?} lines: it is not a number"))?)
        }
    };
    let options = LogOptions {
        follow: matches.get_flag("follow"),
        tail,
        since: moment("since")?,
        until: moment("until")?,
    };
    let timestamps = matches.get_flag("timestamps");
    let engine = session.engine()?;
    let name = many(matches, "names")[0];
    // A line in parts gets one time, at its beginning.
    let mut starts_line = true;
    logs::logs(&engine, name, options, &mut |entry| {
        let mut bytes = Vec::new();
        if timestamps && starts_line {
            bytes.extend_from_slice(format!("{:.9} ", entry.time).as_bytes());
        }
        starts_line = entry.content.ends_with(b"\n");
        bytes.extend_from_slice(&entry.content);
        match entry.stream {
            Stream::Out => out::out_bytes(&bytes)?,
            Stream::Err => out::err_bytes(&bytes),
        }
        Ok(())
    })?;
    Ok(0)
}
