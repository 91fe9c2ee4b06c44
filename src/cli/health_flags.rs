//! The flags of run and create about health checks.

use anyhow::{Result, anyhow, bail};
use clap::{ArgMatches, Command};

use super::flags::{switch, value};
use super::run_flags::one;
use crate::error::ResultExt;
use crate::quantity;
use crate::store::health::{Healthcheck, OnFailure, Startup};

const SPANS: &[(&str, &str)] = &[
    ("health-interval", "From the end of one check to the next (30s)"),
    ("health-timeout", "How long a check may take (30s)"),
    ("health-start-period", "As long after the start as failures do not count (0s)"),
    ("health-start-interval", "The interval in that time (5s)"),
];

/// Of the check that goes before.
const STARTUP: &[(&str, &str, &str)] = &[
    ("health-startup-cmd", "COMMAND", "Run COMMAND first, and the health check only when it succeeded"),
    ("health-startup-interval", "TIME", "From the end of one startup check to the next (30s)"),
    ("health-startup-timeout", "TIME", "How long a startup check may take (30s)"),
    ("health-startup-retries", "N", "Failures until the container is started again; 0 for never (0)"),
    ("health-startup-success", "N", "Successes until the health check begins (1)"),
];

/// Adds them.
pub(super) fn add(command: Command) -> Command {
    command
        .arg(value("health-cmd", None, "COMMAND", "Run COMMAND in the container to see whether it is well"))
        .args(SPANS.iter().map(|(name, help)| value(name, None, "TIME", help)))
        .arg(value("health-retries", None, "N", "Failures in a row until it is unhealthy (3)"))
        .arg(value("health-on-failure", None, "ACTION", "none, kill, restart or stop it then (none)"))
        .args(STARTUP.iter().map(|(name, what, help)| value(name, None, what, help)))
        .arg(switch("no-healthcheck", None, "Do not check, whatever the image says"))
}

/// What was asked for; what is left out is the image's affair.
pub(super) fn healthcheck(matches: &ArgMatches) -> Result<Healthcheck> {
    let mut check = Healthcheck::default();
    let [interval, timeout, start_period, start_interval] = [0, 1, 2, 3].map(|n| span(matches, SPANS[n].0));
    (check.interval, check.timeout) = (interval?, timeout?);
    (check.start_period, check.start_interval) = (start_period?, start_interval?);
    check.retries = number(matches, "health-retries")?;
    check.on_failure = match one(matches, "health-on-failure") {
        None | Some("none") => OnFailure::None,
        Some("kill") => OnFailure::Kill,
        Some("restart") => OnFailure::Restart,
        Some("stop") => OnFailure::Stop,
        Some(other) => {
            return Err(anyhow!("cannot use --health-on-failure {other:?}"))
                .hint("it is none, kill, restart or stop");
        }
    };
    check.test = one(matches, "health-cmd").filter(|text| !text.is_empty()).map(test).unwrap_or_default();
    check.startup = startup(matches)?.map(Box::new);
    if matches.get_flag("no-healthcheck") {
        if check != Healthcheck::default() {
            bail!("cannot use --no-healthcheck: it conflicts with --health-* options");
        }
        check.test = vec!["NONE".to_owned()];
    }
    Ok(check)
}

fn startup(matches: &ArgMatches) -> Result<Option<Startup>> {
    let [interval, timeout] =
        ["health-startup-interval", "health-startup-timeout"].map(|name| span(matches, name));
    let check = Healthcheck {
        interval: interval?,
        timeout: timeout?,
        retries: number(matches, "health-startup-retries")?,
        test: one(matches, "health-startup-cmd")
            .filter(|text| !text.is_empty())
            .map(test)
            .unwrap_or_default(),
        ..Healthcheck::default()
    };
    let startup = Startup { successes: number(matches, "health-startup-success")?, check };
    if !startup.check.test.is_empty() {
        return Ok(Some(startup));
    }
    match STARTUP[1..].iter().find(|(name, ..)| one(matches, name).is_some()) {
        Some((name, ..)) => Err(anyhow!("cannot use --{name}: there is no startup check"))
            .hint("give one: --health-startup-cmd COMMAND"),
        None => Ok(None),
    }
}

fn number(matches: &ArgMatches, name: &str) -> Result<i64> {
    let Some(text) = one(matches, name) else { return Ok(0) };
    let bad = || anyhow!("cannot use --{name} {text:?}: it is not a number from 0 on");
    text.parse().ok().filter(|n| *n >= 0).ok_or_else(bad)
}

/// A script for the container's shell; or, as podman takes it, `none`, or a JSON array of words.
fn test(text: &str) -> Vec<String> {
    let words = |first: &str, rest: Vec<String>| [vec![first.to_owned()], rest].concat();
    match serde_json::from_str::<Vec<String>>(text) {
        _ if text == "none" => words("NONE", Vec::new()),
        Ok(all) if all.first().is_some_and(|w| ["CMD", "CMD-SHELL", "NONE"].contains(&w.as_str())) => all,
        Ok(all) if !all.is_empty() => words("CMD", all),
        _ => words("CMD-SHELL", vec![text.to_owned()]),
    }
}

fn span(matches: &ArgMatches, name: &str) -> Result<i64> {
    let Some(text) = one(matches, name) else { return Ok(0) };
    let span = quantity::duration(text).map_err(|e| e.context(format!("cannot use --{name}")))?;
    let nanoseconds = i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
    if nanoseconds < 0 {
        bail!("cannot use --{name} {text}: it cannot be negative");
    }
    if nanoseconds != 0 && nanoseconds < 1_000_000 {
        bail!("cannot use --{name} {text}: it cannot be less than 1ms");
    }
    Ok(nanoseconds)
}
