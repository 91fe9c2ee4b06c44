//! The verbs for networks of a container that exists: connect, disconnect, reload.

use anyhow::{Context, Result};
use clap::{Arg, ArgMatches, Command};

use super::flags::{each, list, many, names, switch, value};
use super::network_values::{address, alias, link, mac};
use super::run_flags::one;
use super::{Session, out};
use crate::endpoint::Endpoint;
use crate::engine::connect;
use crate::engine::list as containers;

pub(super) fn connect_args(command: Command) -> Command {
    pair(
        command
            .arg(value("ip", None, "ADDRESS", "Ask for this IPv4 address"))
            .arg(value("ip6", None, "ADDRESS", "Ask for this IPv6 address"))
            .arg(value("mac-address", None, "MAC", "Ask for this hardware address"))
            .arg(list("alias", None, "NAME", "Add a name of the container in this network"))
            .arg(list(
                "link",
                None,
                "CONTAINER[:ALIAS]",
                "Know another container there under a name of its own",
            ))
            .arg(
                value("gw-priority", None, "N", "The default route is the network's with the highest")
                    .hide(true),
            ),
    )
}

fn pair(command: Command) -> Command {
    command
        .arg(Arg::new("network").value_name("NETWORK").required(true))
        .arg(Arg::new("container").value_name("CONTAINER").required(true))
}

pub(super) fn connect_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let (name, container) = both(matches);
    let asked =
        asked(matches).with_context(|| format!("cannot connect container {container} to network {name}"))?;
    let engine = session.engine()?;
    connect::connect(&engine, name, container, asked)?;
    Ok(0)
}

fn both(matches: &ArgMatches) -> (&str, &str) {
    (one(matches, "network").unwrap_or_default(), one(matches, "container").unwrap_or_default())
}

fn asked(matches: &ArgMatches) -> Result<Endpoint> {
    Ok(Endpoint {
        ip: one(matches, "ip").map(|ip| address(ip, "v4")).transpose()?,
        ip6: one(matches, "ip6").map(|ip| address(ip, "v6")).transpose()?,
        mac: one(matches, "mac-address").map(mac).transpose()?,
        aliases: many(matches, "alias").into_iter().map(alias).collect::<Result<_>>()?,
        links: many(matches, "link").into_iter().map(link).collect::<Result<_>>()?,
        ..Endpoint::default()
    })
}

pub(super) fn disconnect_args(command: Command) -> Command {
    pair(command.arg(switch("force", Some('f'), "Accepted: it is not asked")))
}

pub(super) fn disconnect_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let (name, container) = both(matches);
    let engine = session.engine()?;
    connect::disconnect(&engine, name, container)?;
    Ok(0)
}

pub(super) fn reload_args(command: Command) -> Command {
    command.arg(switch("all", Some('a'), "All containers that run")).arg(names(false, "CONTAINER"))
}

pub(super) fn reload_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let engine = session.engine()?;
    let mut names: Vec<String> = many(matches, "names").into_iter().map(str::to_owned).collect();
    if names.is_empty() || matches.get_flag("all") {
        names = containers::list(&engine)?.into_iter().filter(|c| c.runs()).map(|c| c.record.id).collect();
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    each(&names, |name| match connect::reload(&engine, name)? {
        Some(id) => out::out(&format!("{id}\n")),
        None => Ok(()),
    })
}
