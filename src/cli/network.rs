//! The verbs for networks.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, anyhow};
use clap::{Arg, ArgMatches, Command};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::flags::{each, list, many, names, of_flag, switch, value};
use super::format::filter::{Filters, Patterns};
use super::format::{self, Template, headers, json as text, quote};
use super::network_values::address;
use super::prompt::confirm;
use super::run_flags::one;
use super::{Session, out, parse, zone};
use crate::engine::is_not_found;
use crate::engine::network::{self, Listed, Wanted};
use crate::error::ResultExt;
use crate::store::network::Driver;
use crate::subnet::Subnet;

pub(super) fn create_args(command: Command) -> Command {
    command
        .arg(value("driver", Some('d'), "DRIVER", "bridge, macvlan or ipvlan (bridge)"))
        .arg(list("subnet", None, "SUBNET", "Its addresses: 10.1.2.0/24; once for IPv4, once for IPv6"))
        .arg(list("gateway", None, "ADDRESS", "The bridge's own address (the first one)"))
        .arg(list(
            "ip-range",
            None,
            "SUBNET",
            "The part of the subnet that containers get addresses of (all)",
        ))
        .arg(list("aux-address", None, "NAME=ADDRESS", "An address that no container gets"))
        .arg(switch("ipv6", None, "Give it addresses of IPv6 as well"))
        .arg(switch("internal", None, "No way to the outside"))
        .arg(switch("disable-dns", None, "Containers do not find each other by name"))
        .arg(list(
            "opt",
            Some('o'),
            "KEY=VALUE",
            "mtu, isolate, com.docker.network.bridge.name, parent, mode",
        ))
        .arg(list("label", None, "KEY=VALUE", "Set a label"))
        .arg(switch("attachable", None, "Accepted: every container can be attached"))
        .arg(value("scope", None, "SCOPE", "local, the only one").hide(true))
        .arg(value("ipam-driver", None, "DRIVER", "default, the only one").hide(true))
        .arg(switch("ignore", None, "One that exists is fine, as it is"))
        .arg(Arg::new("name").value_name("NAME").required(true))
}

pub(super) fn create_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let name = one(matches, "name").unwrap_or_default();
    let wanted = wanted(matches, name).with_context(|| format!("cannot create network {name}"))?;
    let engine = session.engine()?;
    if matches.get_flag("ignore") && network::exists(&engine, name)? {
        out::out(&format!("{}\n", network::find(&engine, name)?.id))?;
        return Ok(0);
    }
    out::out(&format!("{}\n", network::make(&engine, wanted)?.id))?;
    Ok(0)
}

fn wanted(matches: &ArgMatches, name: &str) -> Result<Wanted> {
    let driver = match one(matches, "driver") {
        None | Some("bridge") => Driver::Bridge,
        Some("macvlan") => Driver::Macvlan,
        Some("ipvlan") => Driver::Ipvlan,
        Some(driver @ ("host" | "null")) => {
            return Err(anyhow!("only one instance of {driver:?} network is allowed"));
        }
        Some(other) => {
            return Err(anyhow!("plugin {other:?} not found")).hint("it is bridge, macvlan or ipvlan");
        }
    };
    if let Some(scope) = one(matches, "scope").filter(|scope| *scope != "local") {
        return Err(anyhow!("there is no scope {scope:?}"));
    }
    if let Some(driver) = one(matches, "ipam-driver").filter(|driver| *driver != "default") {
        return Err(anyhow!("there is no IPAM driver {driver:?}"));
    }
    let subnets = |flag: &str| -> Result<Vec<Subnet>> {
        let one = |text: &&str| {
            text.parse().map_err(|_| anyhow!("invalid {flag} {text}: it is no subnet, as 10.1.2.0/24 is"))
        };
        many(matches, flag).iter().map(one).collect()
    };
    let reserved = |text: &&str| -> Result<(String, IpAddr)> {
        let (name, ip) =
            text.split_once('=').ok_or_else(|| anyhow!("invalid aux-address {text}: it is NAME=ADDRESS"))?;
        Ok((name.to_owned(), address(ip, "")?))
    };
    let option = |word: &&str| -> Result<(String, String)> {
        // As docker: one without a value is true.
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        anyhow::ensure!(!key.is_empty(), "the option {word:?} has no name");
        Ok((key.to_owned(), value.to_owned()))
    };
    let options = many(matches, "opt").iter().map(option).collect::<Result<BTreeMap<_, _>>>()?;
    check_options(&options)?;
    Ok(Wanted {
        name: name.to_owned(),
        driver,
        subnets: subnets("subnet")?,
        gateways: many(matches, "gateway").iter().map(|ip| address(ip, "")).collect::<Result<_>>()?,
        ranges: subnets("ip-range")?,
        reserved: many(matches, "aux-address").iter().map(reserved).collect::<Result<_>>()?,
        v6: matches.get_flag("ipv6"),
        internal: matches.get_flag("internal"),
        no_dns: matches.get_flag("disable-dns"),
        labels: of_flag(many(matches, "label").into_iter().map(parse::label).collect())?,
        options,
    })
}

/// Options that mean something here, and those of docker that say what is so anyway.
fn check_options(options: &BTreeMap<String, String>) -> Result<()> {
    const KNOWN: &[&str] = &[
        "mtu",
        "com.docker.network.driver.mtu",
        "isolate",
        "com.docker.network.bridge.name",
        "com.docker.network.bridge.enable_icc",
        "com.docker.network.bridge.enable_ip_masquerade",
        "parent",
        "mode",
        "macvlan_mode",
        "ipvlan_mode",
    ];
    for (key, value) in options {
        let is_number = value.parse::<u32>().is_ok_and(|mtu| (68..=65_535).contains(&mtu));
        let is_flag = matches!(value.as_str(), "" | "true" | "false" | "1" | "0");
        let is_fine = match key.as_str() {
            "mtu" | "com.docker.network.driver.mtu" => is_number,
            "isolate" => is_flag || value == "strict",
            "com.docker.network.bridge.enable_icc" | "com.docker.network.bridge.enable_ip_masquerade" => {
                matches!(value.as_str(), "" | "true" | "1")
            }
            key if KNOWN.contains(&key) => !value.is_empty(),
            _ => {
                return Err(anyhow!("there is no option {key:?}"))
                    .hint(format!("there are {}", KNOWN.join(", ")));
            }
        };
        anyhow::ensure!(is_fine, "the option {key} cannot be {value:?}");
    }
    Ok(())
}

pub(super) fn ls_args(command: Command) -> Command {
    command
        .arg(switch("quiet", Some('q'), "Only ids"))
        .arg(switch("no-trunc", None, "Do not shorten"))
        .arg(list(
            "filter",
            Some('f'),
            "KEY=VALUE",
            "Only those that fit: dangling, driver, id, label, name, scope, type",
        ))
        .arg(value("format", None, "TEMPLATE", "json, table TEMPLATE or a Go template"))
}

/// What `--filter` leaves.
struct Chosen<'a> {
    filters: &'a Filters,
    ids: Patterns,
    names: Patterns,
    dangling: Option<bool>,
}

impl<'a> Chosen<'a> {
    fn new(filters: &'a Filters) -> Result<Chosen<'a>> {
        if let Some(kind) =
            filters.values("type").iter().find(|kind| !["custom", "builtin"].contains(&kind.as_str()))
        {
            return Err(anyhow!("invalid filter 'type={kind}': it is custom or builtin"));
        }
        Ok(Chosen {
            filters,
            ids: filters.patterns("id")?,
            names: filters.patterns("name")?,
            dangling: filters.flag("dangling")?,
        })
    }

    fn fits(&self, one: &Listed) -> bool {
        let kind = if one.is_builtin() { "builtin" } else { "custom" };
        self.ids.match_id(&one.id)
            && self.names.match_name(&one.name)
            && self.filters.is_one_of("driver", one.driver)
            && self.filters.is_one_of("scope", "local")
            && self.filters.is_one_of("type", kind)
            && self.filters.match_labels(|key| one.labels.get(key).map(String::as_str))
            // What is always there is in nobody's way.
            && self.dangling.is_none_or(|wanted| wanted == (!one.is_used && !one.is_builtin()))
    }
}

pub(super) fn ls_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    const FILTERS: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];
    let filters = Filters::parse(&many(matches, "filter"), FILTERS)?;
    let chosen = Chosen::new(&filters)?;
    let engine = session.engine()?;
    let mut all: Vec<Listed> = network::list(&engine)?.into_iter().filter(|one| chosen.fits(one)).collect();
    all.sort_by(|one, other| natural(&one.name, &other.name));
    let id = |one: &Listed| {
        if matches.get_flag("no-trunc") { one.id.clone() } else { quote::short_id(&one.id).to_owned() }
    };
    if matches.get_flag("quiet") {
        out::out(&all.iter().map(|one| id(one) + "\n").collect::<String>())?;
        return Ok(0);
    }
    let row = |one: &Listed| {
        json!({
            "CreatedAt": one.created.map_or_else(|| "0001-01-01 00:00:00 +0000 UTC".to_owned(), created_at),
            "Driver": one.driver,
            "ID": id(one),
            "IPv4": one.families.0.to_string(),
            "IPv6": one.families.1.to_string(),
            "Internal": one.internal.to_string(),
            "Labels": one.labels,
            "Name": one.name,
            "Scope": "local",
        })
    };
    let rows: Vec<Value> = all.iter().map(row).collect();
    out::out(&format::render_rows(
        one(matches, "format"),
        headers::NETWORKS_TABLE,
        headers::NETWORKS,
        &rows,
    )?)?;
    Ok(0)
}

/// As Go prints a time.
fn created_at(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string()
}

/// Numbers within names by their size: `n2` before `n10`.
fn natural(one: &str, other: &str) -> Ordering {
    let (mut a, mut b) = (one.as_bytes(), other.as_bytes());
    let digits = |text: &[u8]| text.iter().take_while(|c| c.is_ascii_digit()).count();
    while let (Some(x), Some(y)) = (a.first(), b.first()) {
        let (n, m) = (digits(a), digits(b));
        if n > 0 && m > 0 {
            let number = |text: &[u8]| {
                let at = text.iter().take_while(|c| **c == b'0').count();
                (text.len() - at, text[at..].to_vec())
            };
            match number(&a[..n]).cmp(&number(&b[..m])) {
                Ordering::Equal => (a, b) = (&a[n..], &b[m..]),
                other => return other,
            }
        } else if x == y {
            (a, b) = (&a[1..], &b[1..]);
        } else {
            return x.cmp(y);
        }
    }
    a.len().cmp(&b.len()).then_with(|| one.cmp(other))
}

pub(super) fn inspect_args(command: Command) -> Command {
    command
        .arg(value("format", Some('f'), "TEMPLATE", "json or a Go template"))
        .arg(switch("verbose", Some('v'), "Accepted: there is no more to tell"))
        .arg(names(true, "NETWORK"))
}

pub(super) fn inspect_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let engine = session.engine()?;
    let template = match one(matches, "format") {
        None | Some("" | "json") => None,
        Some(format) => Some(Template::parse(format)?),
    };
    let mut found = Vec::new();
    let code = each(&many(matches, "names"), |name| {
        let value = network::inspect(&engine, name)?;
        match &template {
            Some(template) => out::out(&format!("{}\n", template.render(&value)?))?,
            None => found.push(value),
        }
        Ok(())
    })?;
    if template.is_none() {
        let all = Value::Array(found);
        let shown =
            if one(matches, "format") == Some("json") { text::compact(&all) } else { text::pretty(&all) };
        out::out(&format!("{shown}\n"))?;
    }
    Ok(code)
}

pub(super) fn rm_args(command: Command) -> Command {
    command.arg(switch("force", Some('f'), "One that is not there is fine")).arg(names(true, "NETWORK"))
}

pub(super) fn rm_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let engine = session.engine_as_root()?;
    each(&many(matches, "names"), |name| {
        match network::remove(&engine, name) {
            Err(error) if matches.get_flag("force") && is_not_found(&error) => {}
            other => other?,
        }
        out::out(&format!("{name}\n"))
    })
}

pub(super) fn prune_args(command: Command) -> Command {
    command.arg(switch("force", Some('f'), "Do not ask")).arg(list(
        "filter",
        None,
        "KEY=VALUE",
        "Only those that fit: until, label, label!",
    ))
}

pub(super) fn prune_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let filters = Filters::parse(&many(matches, "filter"), &["until", "label", "label!"])?;
    let until = filters.until(Timestamp::now(), &zone::local(&session.host))?;
    let warning = "WARNING! This will remove all custom networks not used by at least one container.";
    if !matches.get_flag("force") && !confirm(warning)? {
        return Ok(0);
    }
    let engine = session.engine_as_root()?;
    let fits = |one: &Listed| {
        filters.match_labels(|key| one.labels.get(key).map(String::as_str))
            && until.is_none_or(|until| one.created.is_some_and(|created| created < until))
    };
    let names = network::prune(&engine, fits)?;
    if !names.is_empty() {
        out::out(&format!("Deleted Networks:\n{}\n\n", names.join("\n")))?;
    }
    Ok(0)
}

pub(super) fn exists_args(command: Command) -> Command {
    command.arg(Arg::new("name").value_name("NETWORK").required(true))
}

pub(super) fn exists_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let engine = session.engine()?;
    let found = network::exists(&engine, one(matches, "name").unwrap_or_default());
    Ok(u8::from(!found.context("cannot look for the network").exit_with(125)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_as_docker_sorts_them() {
        let mut names = ["n1", "a10", "bridge", "a4", "host", "a18", "n", "a04"];
        names.sort_by(|one, other| natural(one, other));
        assert_eq!(names, ["a04", "a4", "a10", "a18", "bridge", "host", "n", "n1"]);
    }

    #[test]
    fn times_are_as_go_prints_them() {
        let shown = |text: &str| created_at(text.parse().unwrap());
        assert_eq!(shown("2026-11-21T20:22:16.71259243Z"), "2026-11-21 20:22:16.71259243 +0000 UTC");
        assert_eq!(shown("2026-11-21T20:22:16Z"), "2026-11-21 20:22:16 +0000 UTC");
    }

    #[test]
    fn options_are_known() {
        let check = |key: &str, value: &str, fine: bool| {
            let options = [(key.to_owned(), value.to_owned())].into_iter().collect();
            assert_eq!(check_options(&options).is_ok(), fine, "{key}={value}");
        };
        check("mtu", "1400", true);
        check("mtu", "x", false);
        check("isolate", "true", true);
        check("com.docker.network.bridge.enable_icc", "false", false);
        check("com.docker.network.bridge.name", "br9", true);
        check("nosuch", "1", false);
    }
}
