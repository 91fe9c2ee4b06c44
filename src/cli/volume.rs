//! The verbs for volumes.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use clap::{Arg, ArgMatches, Command};
use serde_json::{Value, json};

use super::flags::{each, list, many, names, of_flag, switch, value};
use super::format::filter::Filters;
use super::format::{self, headers, human};
use super::prompt::confirm;
use super::run_flags::one;
use super::{Session, inspect, mount_flags, out, parse};
use crate::engine::volume::{self, Listed};
use crate::error::ResultExt;
use crate::store::volume::{Volume, anonymous_name, data, find};

pub(super) fn create_args(command: Command) -> Command {
    command
        .arg(value("driver", Some('d'), "DRIVER", "local, the only one (local)"))
        .arg(list("opt", Some('o'), "KEY=VALUE", "type, device and o, as mount(8) has them"))
        .arg(list("label", Some('l'), "KEY=VALUE", "Set a label"))
        .arg(value("uid", None, "UID", "Give its root to this user of the containers"))
        .arg(value("gid", None, "GID", "Give its root to this group of the containers"))
        .arg(switch("ignore", None, "Accepted: a volume that exists is fine in any case"))
        .arg(Arg::new("name").value_name("NAME"))
}

pub(super) fn create_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    mount_flags::check_driver(one(matches, "driver").unwrap_or_default())?;
    let id = |flag: &str| {
        let number = |text: &str| {
            text.parse::<u32>().map_err(|_| anyhow!("cannot use --{flag} {text:?}: it is not a number"))
        };
        of_flag(one(matches, flag).map(number).transpose())
    };
    let owner = match (id("uid")?, id("gid")?) {
        (None, None) => None,
        (uid, gid) => Some((uid.unwrap_or(0), gid.unwrap_or(0))),
    };
    let option = |word: &&str| {
        word.split_once('=')
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .ok_or_else(|| anyhow!("cannot use the option {word:?}: it is not KEY=VALUE"))
    };
    let options = many(matches, "opt").iter().map(option).collect::<Result<BTreeMap<_, _>>>()?;
    let labels = of_flag(many(matches, "label").into_iter().map(parse::label).collect())?;
    let (name, anonymous) = match one(matches, "name") {
        Some(name) => (name.to_owned(), false),
        None => (anonymous_name()?, true),
    };
    let wanted = Volume { labels, options, owner, anonymous, ..Volume::new(&name) };
    let engine = session.engine_as_root()?;
    let volume = volume::create(&engine, &wanted)?;
    out::out(&format!("{}\n", volume.name))?;
    Ok(0)
}

pub(super) fn ls_args(command: Command) -> Command {
    command
        .arg(switch("quiet", Some('q'), "Only names"))
        .arg(list("filter", Some('f'), "KEY=VALUE", "Only those that fit: dangling, driver, label, name"))
        .arg(value("format", None, "TEMPLATE", "json, table TEMPLATE or a Go template"))
}

const LS_FILTERS: &[&str] = &["dangling", "driver", "label", "name"];

pub(super) fn ls_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let filters = Filters::parse(&many(matches, "filter"), LS_FILTERS)?;
    let (dangling, patterns) = (filters.flag("dangling")?, filters.patterns("name")?);
    let engine = session.engine()?;
    let fits = |listed: &Listed| {
        dangling.is_none_or(|wanted| listed.users.is_empty() == wanted)
            && filters.is_one_of("driver", "local")
            && patterns.match_name(&listed.volume.name)
            && filters.match_labels(|key| label(&listed.volume, key))
    };
    let listed: Vec<Listed> = volume::list(&engine)?.into_iter().filter(fits).collect();
    if matches.get_flag("quiet") {
        let names: String = listed.iter().map(|l| format!("{}\n", l.volume.name)).collect();
        out::out(&names)?;
        return Ok(0);
    }
    let row = |listed: &Listed| {
        json!({
            "Availability": "N/A",
            "Driver": "local",
            "Group": "N/A",
            "Labels": listed.volume.labels,
            "Links": "N/A",
            "Mountpoint": data(&engine.store, &listed.volume.name).display().to_string(),
            "Name": listed.volume.name,
            "Scope": "local",
            "Size": "N/A",
            "Status": "N/A",
        })
    };
    let rows: Vec<Value> = listed.iter().map(row).collect();
    out::out(&format::render_rows(one(matches, "format"), headers::VOLUMES_TABLE, headers::VOLUMES, &rows)?)?;
    Ok(0)
}

/// A label of a volume; one that nobody named has docker's for that.
fn label<'v>(volume: &'v Volume, key: &str) -> Option<&'v str> {
    let given = volume.labels.get(key).map(String::as_str);
    given.or_else(|| (volume.anonymous && key == volume::ANONYMOUS).then_some(""))
}

pub(super) fn inspect_args(command: Command) -> Command {
    command.arg(value("format", Some('f'), "TEMPLATE", "json or a Go template")).arg(names(true, "VOLUME"))
}

pub(super) fn inspect_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let engine = session.engine()?;
    inspect::show(matches, |name| volume::inspect(&engine, name))
}

pub(super) fn rm_args(command: Command) -> Command {
    command.arg(switch("force", Some('f'), "One that is not there is fine")).arg(names(true, "VOLUME"))
}

pub(super) fn rm_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let engine = session.engine_as_root()?;
    each(&many(matches, "names"), |name| {
        match volume::remove(&engine, name) {
            Err(error) if matches.get_flag("force") && crate::engine::is_not_found(&error) => {}
            other => other?,
        }
        out::out(&format!("{name}\n"))
    })
}

pub(super) fn prune_args(command: Command) -> Command {
    command
        .arg(switch("all", Some('a'), "Those with a name, too"))
        .arg(switch("force", Some('f'), "Do not ask"))
        .arg(list("filter", None, "KEY=VALUE", "Only those that fit: all, label, label!"))
}

const PRUNE_FILTERS: &[&str] = &["label", "label!", "all"];

pub(super) fn prune_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let filters = Filters::parse(&many(matches, "filter"), PRUNE_FILTERS)?;
    let all = matches.get_flag("all") || filters.flag("all")? == Some(true);
    let warning = if all {
        "WARNING! This will remove all local volumes not used by at least one container."
    } else {
        "WARNING! This will remove anonymous local volumes not used by at least one container."
    };
    if !matches.get_flag("force") && !confirm(warning)? {
        return Ok(0);
    }
    let engine = session.engine_as_root()?;
    let pruned = volume::prune(&engine, all, |volume| filters.match_labels(|key| label(volume, key)))?;
    let mut shown = String::new();
    if !pruned.names.is_empty() {
        shown.push_str(&format!("Deleted Volumes:\n{}\n\n", pruned.names.join("\n")));
    }
    shown.push_str(&format!("Total reclaimed space: {}\n", human::size_exact(pruned.bytes)));
    out::out(&shown)?;
    Ok(0)
}

pub(super) fn exists_args(command: Command) -> Command {
    command.arg(Arg::new("name").value_name("VOLUME").required(true))
}

pub(super) fn exists_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let engine = session.engine()?;
    match find(&engine.store, one(matches, "name").unwrap_or_default()) {
        Ok(_) => Ok(0),
        Err(error) if crate::engine::is_not_found(&error) => Ok(1),
        Err(error) => Err(error).context("cannot look for the volume").exit_with(125),
    }
}
