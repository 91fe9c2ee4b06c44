//! The flags about how long a container lives, and about staying with it.

use anyhow::{Result, anyhow};
use clap::{Arg, ArgMatches, Command};

use super::flags::{detach_keys, list, many, read_detach_keys, value};
use super::run_flags::one;
use crate::engine::attach::Stay;
use crate::engine::start::StartOptions;
use crate::error::ResultExt;
use crate::store::container::Restart;

/// Adds them.
pub(super) fn add(command: Command) -> Command {
    command.arg(restart_arg()).arg(value(
        "timeout",
        None,
        "SECONDS",
        "Kill it when it has run so long; 0 for never",
    ))
}

/// `--sig-proxy` and the keys to leave by, of all that stay with a container.
pub(super) fn add_stay(command: Command) -> Command {
    let sig_proxy = Arg::new("sig-proxy")
        .long("sig-proxy")
        .value_name("BOOL")
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .default_value("true")
        .value_parser(clap::builder::BoolishValueParser::new())
        .overrides_with("sig-proxy")
        .help("Pass signals on to it; with false, one that would end us leaves it running");
    command.arg(detach_keys()).arg(sig_proxy)
}

/// How to stay.
pub(super) fn stay(matches: &ArgMatches, input: bool) -> Result<Stay> {
    let sig_proxy = matches.get_one("sig-proxy").copied().unwrap_or(true);
    Ok(Stay { input, keys: read_detach_keys(matches)?, sig_proxy })
}

/// `-a`.
pub(super) fn attach_arg() -> Arg {
    list("attach", Some('a'), "STREAM", "stdin, stdout or stderr: be there for these only")
}

/// How `run`, or what `create` made, starts a container: in the background, with all streams, or with those of `-a`.
pub(super) fn start_options(matches: &ArgMatches, interactive: bool) -> Result<StartOptions> {
    let streams = many(matches, "attach");
    // Neither flag is one of create.
    let switch = |name: &str| matches.try_get_one::<bool>(name).ok().flatten().copied();
    let may_leave = !switch("sig-proxy").unwrap_or(true);
    match (switch("detach").unwrap_or(false), streams.is_empty()) {
        (true, true) => return Ok(StartOptions::default()),
        (true, false) => {
            return Err(anyhow!("cannot use both --detach and --attach: conflicting options"))
                .hint("-a is for a container in the foreground");
        }
        (false, true) => return Ok(StartOptions { may_leave, ..StartOptions::foreground(interactive) }),
        (false, false) => {}
    }
    let mut options = StartOptions { foreground: true, may_leave, ..StartOptions::default() };
    for stream in streams {
        match stream.to_ascii_lowercase().as_str() {
            "stdin" => options.stdin = true,
            "stdout" => options.stdout = true,
            "stderr" => options.stderr = true,
            _ => {
                return Err(anyhow!("cannot use --attach {stream:?}: there is no such stream"))
                    .hint("it is stdin, stdout or stderr");
            }
        }
    }
    Ok(options)
}

/// `--restart`.
pub(super) fn restart_arg() -> Arg {
    value(
        "restart",
        None,
        "POLICY",
        "no, on-failure[:MAX], always or unless-stopped: whether it runs again when it ended (no)",
    )
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
