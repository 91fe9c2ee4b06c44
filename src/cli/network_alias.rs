//! network alias.

use anyhow::{Result, anyhow};
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::Session;
use super::flags::{exclude, many, switch};
use super::network_values;
use super::run_flags::one;
use crate::engine::network_alias::{self, Change};

pub(super) fn args(command: Command) -> Command {
    let word = |id: &'static str, shown: &'static str| Arg::new(id).value_name(shown).required(true);
    command
        .arg(switch("add", None, "The names mean others as well"))
        .arg(switch("remove", None, "The names no longer mean this container"))
        .arg(word("network", "NETWORK"))
        .arg(word("container", "CONTAINER"))
        .arg(word("alias", "ALIAS").num_args(1..).action(ArgAction::Append))
}

pub(super) fn verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    exclude(matches, "add", &["remove"])?;
    let change = match (matches.get_flag("add"), matches.get_flag("remove")) {
        (true, _) => Change::Add,
        (_, true) => Change::Remove,
        _ => Change::Move,
    };
    let name = |text: &&str| network_values::alias(text).map_err(|e| anyhow!("cannot use the alias: {e}"));
    let aliases = many(matches, "alias").iter().map(name).collect::<Result<Vec<String>>>()?;
    let (network, container) = (one(matches, "network"), one(matches, "container"));
    let (network, container) = (network.unwrap_or_default(), container.unwrap_or_default());
    network_alias::alias(&session.engine()?, network, container, &aliases, change)?;
    Ok(0)
}
