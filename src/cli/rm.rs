//! rm, and whether a container exists.

use anyhow::{Result, anyhow, bail};
use clap::{ArgMatches, Command};

use super::flags::{each, list, many, names, switch, value};
use super::format::filter::Filters;
use super::ps_filter::{Chosen, KEYS};
use super::stop::seconds;
use super::{Session, out};
use crate::engine::stop::{self, StopOptions};
use crate::engine::{Engine, is_not_found, list as listing, remove, unlink};
use crate::error::ResultExt;

pub(super) fn rm_args(command: Command) -> Command {
    command
        .arg(switch("force", Some('f'), "Kill it first if it runs; one that is not there is fine"))
        .arg(switch("volumes", Some('v'), "Remove its anonymous volumes too"))
        .arg(switch("link", Some('l'), "Remove a link, CONTAINER/ALIAS, and no container"))
        .arg(switch("all", Some('a'), "All containers"))
        .arg(list("filter", None, "KEY=VALUE", "All that fit, as ps shows them"))
        .arg(switch("ignore", Some('i'), "One that is not there is fine"))
        .arg(value("time", Some('t'), "SECONDS", "With --force, give it this time to end; -1 waits for ever"))
        .arg(names(false, "CONTAINER"))
}

pub(super) fn rm_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let (force, volumes) = (matches.get_flag("force"), matches.get_flag("volumes"));
    let time = seconds(matches)?;
    if time.is_some() && !force {
        return Err(anyhow!("cannot use --time without --force")).hint("rm kills nothing unasked");
    }
    let engine = session.engine()?;
    if matches.get_flag("link") {
        return each(&many(matches, "names"), |link| {
            unlink::unlink(&engine, link)?;
            out::out(&format!("{link}\n"))
        });
    }
    let named = chosen(&engine, matches)?;
    let mut names: Vec<&str> = named.iter().map(String::as_str).collect();
    if force {
        // Before we are root of a name space of our own, from which those of the containers cannot be reached.
        // Why one does not end is told when it cannot be removed; one that is not there now may come at any moment.
        let options = StopOptions { timeout: Some(time.unwrap_or(0)), signal: None, is_removal: true };
        let is_absent =
            |name: &str| stop::stop(&engine, name, options).is_err_and(|error| is_not_found(&error));
        names.retain(|name| !is_absent(name));
    }
    let is_lenient = force || matches.get_flag("ignore");
    let engine = session.engine_as_root()?;
    each(&names, |name| {
        match remove::remove(&engine, name, volumes) {
            Err(error) if is_lenient && is_not_found(&error) => return Ok(()),
            other => other?,
        }
        out::out(&format!("{name}\n"))
    })
}

/// The names as typed, or the ids of those that were asked for otherwise.
fn chosen(engine: &Engine, matches: &ArgMatches) -> Result<Vec<String>> {
    let names = many(matches, "names");
    let wanted = many(matches, "filter");
    let is_all = matches.get_flag("all");
    if wanted.is_empty() && !is_all {
        if names.is_empty() {
            return Err(anyhow!("cannot remove: no container was named"))
                .hint("dhow rm CONTAINER..., or --all");
        }
        return Ok(names.into_iter().map(str::to_owned).collect());
    }
    if !names.is_empty() {
        bail!("cannot remove: {} is named beside --all or --filter, which choose by themselves", names[0]);
    }
    let filters = Filters::parse(&wanted, KEYS)?;
    let chosen = Chosen::new(engine, &filters)?;
    let all = listing::list(engine)?;
    Ok(all
        .iter()
        .filter(|container| chosen.fits(container))
        .map(|container| container.record.id.clone())
        .collect())
}

pub(super) fn exists_args(command: Command) -> Command {
    command.arg(names(true, "CONTAINER").num_args(1))
}

/// 0 or 1, and not a word.
pub(super) fn exists_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let engine = session.engine()?;
    match engine.find(many(matches, "names")[0]) {
        Ok(_) => Ok(0),
        Err(error) if is_not_found(&error) => Ok(1),
        Err(error) => Err(error).exit_with(125),
    }
}
