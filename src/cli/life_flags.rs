//! The flags of run and create about how long a container lives.

use anyhow::{Result, anyhow};
use clap::{ArgMatches, Command};

use super::flags::value;
use super::run_flags::one;
use crate::error::ResultExt;
use crate::store::container::Restart;

/// Adds them.
pub(super) fn add(command: Command) -> Command {
    command
        .arg(value(
            "restart",
            None,
            "POLICY",
            "no, on-failure[:MAX], always or unless-stopped: whether it runs again when it ended (no)",
        ))
        .arg(value("timeout", None, "SECONDS", "Kill it when it has run so long; 0 for never"))
}

/// The restart policy.
pub(super) fn restart(matches: &ArgMatches) -> Result<Restart> {
    let policy: Restart = one(matches, "restart").map(str::parse).transpose()?.unwrap_or_default();
    if matches.get_flag("rm") && !policy.is_no() {
        return Err(anyhow!("cannot use both --restart and --rm: conflicting options"))
            .hint("one that is removed when it ends cannot run again");
    }
    Ok(policy)
}

/// How long a run may take.
pub(super) fn timeout(matches: &ArgMatches) -> Result<Option<u64>> {
    let Some(text) = one(matches, "timeout") else { return Ok(None) };
    let seconds: u64 =
        text.parse().map_err(|_| anyhow!("cannot use --timeout {text:?}: it is not a number of seconds"))?;
    Ok((seconds > 0).then_some(seconds))
}
