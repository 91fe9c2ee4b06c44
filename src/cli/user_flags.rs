//! The flags of run and create about who its users are: --userns, --passwd.

use anyhow::{Result, anyhow};
use clap::{ArgMatches, Command};

use super::flags::value;
use super::run_flags::one;
use crate::error::ResultExt;
use crate::spec::options::{Options, Userns};

/// Adds them.
pub(super) fn add(command: Command) -> Command {
    command
        .arg(value(
            "userns",
            None,
            "MODE",
            "host (a user is root inside), keep-id[:uid=N,gid=N] (they are themselves), nomap (they are nobody), auto or container:NAME (as there) (host)",
        ))
        .arg(
            value("passwd", None, "BOOL", "false: no entry in /etc/passwd for a user that is only a number (true)")
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
        )
}

/// Reads them.
pub(super) fn read(matches: &ArgMatches, options: &mut Options) -> Result<()> {
    options.no_passwd = match one(matches, "passwd") {
        None | Some("true" | "1") => false,
        Some("false" | "0") => true,
        Some(other) => return Err(anyhow!("cannot use --passwd={other}: it is neither true nor false")),
    };
    options.userns = match one(matches, "userns") {
        None | Some("" | "host" | "auto") => Userns::Host,
        Some("nomap") => Userns::NoMap,
        Some("keep-id") => Userns::KeepId { uid: None, gid: None },
        Some(other) => match other.strip_prefix("keep-id:") {
            Some(words) => keep_id(words)?,
            None => match other.strip_prefix("container:").filter(|name| !name.is_empty()) {
                Some(name) => Userns::Container(name.to_owned()),
                None => {
                    return Err(anyhow!("cannot use --userns {other:?}: invalid USER mode"))
                        .hint("it is host, keep-id, keep-id:uid=N,gid=N, nomap or container:NAME");
                }
            },
        },
    };
    Ok(())
}

fn keep_id(words: &str) -> Result<Userns> {
    let (mut uid, mut gid) = (None, None);
    for word in words.split(',') {
        let wrong = || anyhow!("cannot use --userns keep-id:{words}: {word:?} is neither uid=N nor gid=N");
        let (key, value) = word.split_once('=').ok_or_else(wrong)?;
        // The kernel's own "no id" (user_namespaces(7)) is none.
        let id = value.parse::<u32>().ok().filter(|id| *id < u32::MAX).ok_or_else(wrong)?;
        match key {
            "uid" => uid = Some(id),
            "gid" => gid = Some(id),
            _ => return Err(wrong()),
        }
    }
    Ok(Userns::KeepId { uid, gid })
}
