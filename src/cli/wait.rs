//! wait.

use std::time::Instant;

use anyhow::{Result, anyhow};
use clap::{ArgMatches, Command};
use jiff::SignedDuration;

use super::flags::{list, many, names, of_flag, switch, value};
use super::run_flags::one;
use super::{Session, out};
use crate::engine::wait::{Condition, Waiter};
use crate::{error, quantity};

pub(super) fn wait_args(command: Command) -> Command {
    command
        .arg(list(
            "condition",
            None,
            "CONDITION",
            "stopped, running, paused, healthy, unhealthy, removed, next-exit or not-running (stopped)",
        ))
        .arg(value("timeout", None, "TIME", "Give up after this time: 10, 1m30s"))
        .arg(switch("ignore", None, "One that is not there is fine: its code is -1"))
        .arg(value("interval", Some('i'), "TIME", "Accepted for podman's sake: nothing is polled").hide(true))
        .arg(names(true, "CONTAINER"))
}

pub(super) fn wait_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let conditions = many(matches, "condition").into_iter().map(str::parse);
    let mut conditions = of_flag(conditions.collect::<Result<Vec<Condition>>>())?;
    if conditions.is_empty() {
        conditions.push(Condition::NotRunning);
    }
    let until = of_flag(one(matches, "timeout").map(until).transpose())?.flatten();
    let ignore = matches.get_flag("ignore");
    let engine = session.engine()?;
    // All are watched before the first is waited for: one may end, and be gone, meanwhile.
    let names = many(matches, "names");
    let waiters: Vec<Result<Waiter>> =
        names.iter().map(|name| Waiter::new(&engine, name, &conditions)).collect();
    let mut exit = 0;
    for waiter in waiters {
        let code = match waiter {
            Err(error) if ignore && crate::engine::is_not_found(&error) => Ok(-1),
            waiter => waiter.and_then(|waiter| waiter.wait(&engine, until)),
        };
        match code {
            Ok(code) => out::out(&format!("{code}\n"))?,
            Err(error) => {
                out::err(&error::report(&error));
                exit = 1;
            }
        }
    }
    Ok(exit)
}

/// Seconds, or a span of time with units. The moment does not move when the clock is set; one that lies too far away to be
/// told never comes.
fn until(text: &str) -> Result<Option<Instant>> {
    let bad = || anyhow!("cannot wait for {text:?}: it is no span of time, such as 10 or 1m30s");
    let span = match text.parse::<i64>() {
        Ok(seconds) => SignedDuration::from_secs(seconds),
        Err(_) => quantity::duration(text).map_err(|_| bad())?,
    };
    if span.is_negative() {
        return Err(bad());
    }
    Ok(Instant::now().checked_add(span.unsigned_abs()))
}
