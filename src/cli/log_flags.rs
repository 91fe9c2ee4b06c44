//! The flags of run and create about the log.

use anyhow::{Result, anyhow};
use clap::{ArgMatches, Command};

use super::flags::{list, many, value};
use super::run_flags::one;
use crate::error::ResultExt;
use crate::store::log_config::LogConfig;
use crate::supervisor::log::Settings;

/// Adds them.
pub(super) fn add(command: Command) -> Command {
    command
        .arg(value(
            "log-driver",
            None,
            "DRIVER",
            "json-file or local (kept with the container), none, syslog or journald (json-file)",
        ))
        .arg(list(
            "log-opt",
            None,
            "KEY=VALUE",
            "max-size=10m, max-file=3, tag=, labels=, syslog-address=...",
        ))
}

/// The log config, as it is typed; words that mean nothing are refused.
pub(super) fn log_config(matches: &ArgMatches) -> Result<LogConfig> {
    let mut config = LogConfig::default();
    if let Some(driver) = one(matches, "log-driver") {
        config.driver = driver.to_owned();
    }
    for word in many(matches, "log-opt") {
        let (key, value) = word
            .split_once('=')
            .ok_or_else(|| anyhow!("cannot use --log-opt {word:?}"))
            .hint("it is KEY=VALUE, as in max-size=10m")?;
        config.options.insert(key.to_owned(), value.to_owned());
    }
    Settings::of(&config)?;
    Ok(config)
}

/// Whether anything is logged. Nobody can read the log of a container that is gone when its command ends, so it gets the
/// streams themselves, unless a person says where the log is to go.
pub(super) fn is_logged(matches: &ArgMatches, config: &LogConfig, goes_with_its_command: bool) -> bool {
    let is_asked_for = one(matches, "log-driver").is_some() || !many(matches, "log-opt").is_empty();
    config.driver != "none" && (is_asked_for || !goes_with_its_command)
}
