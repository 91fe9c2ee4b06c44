//! `--retry` and `--retry-delay`: trying again what a registry did not give. Beside the tries that each request has by
//! itself, for registries that are away for longer.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::{ArgMatches, Command};

use super::flags::{of_flag, value};
use super::out;
use crate::engine::is_not_found;
use crate::error;
use crate::quantity;
use crate::registry::Unauthorized;
use crate::sys::process::pause;

/// Adds them.
pub(super) fn add(command: Command) -> Command {
    command.arg(value("retry", None, "N", "Try a pull that fails so often again (0)")).arg(value(
        "retry-delay",
        None,
        "DURATION",
        "Wait so long before each new try (1s, then twice as long)",
    ))
}

/// Does it, and again where it failed for what may pass: not for an image that is not there, or a refusal.
pub(super) fn patiently<T>(matches: &ArgMatches, mut act: impl FnMut() -> Result<T>) -> Result<T> {
    let text = |name: &str| matches.try_get_one::<String>(name).ok().flatten();
    let number = |text: &String| {
        text.parse::<u32>().map_err(|_| anyhow!("cannot use --retry {text:?}: it is not a number"))
    };
    let mut left = of_flag(text("retry").map(number).transpose())?.unwrap_or(0);
    let about = "cannot use --retry-delay";
    let fixed = of_flag(text("retry-delay").map(|t| quantity::duration(t)).transpose().context(about))?;
    let fixed = of_flag(fixed.map(Duration::try_from).transpose().context(about))?;
    let mut delay = fixed.unwrap_or(Duration::from_secs(1));
    loop {
        match act() {
            Err(error) if left > 0 && !is_not_found(&error) && !error.is::<Unauthorized>() => {
                left -= 1;
                out::warn(&format!("{}; trying again", error::chain(&error)));
                pause(delay);
                if fixed.is_none() {
                    delay *= 2;
                }
            }
            other => return other,
        }
    }
}
