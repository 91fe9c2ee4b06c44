//! ps.

use anyhow::{Result, anyhow};
use clap::{ArgMatches, Command};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::flags::{list, many, switch, value};
use super::format::filter::Filters;
use super::format::{headers, human, quote};
use super::run_flags::one;
use super::{Session, format, out};
use crate::engine::list::Listed;
use crate::engine::{Engine, list};
use crate::store::container::Status;

pub(super) fn ps_args(command: Command) -> Command {
    command
        .arg(switch("all", Some('a'), "Show those that do not run, too"))
        .arg(switch("quiet", Some('q'), "Only ids"))
        .arg(switch("no-trunc", None, "Do not shorten"))
        .arg(switch("latest", Some('l'), "Only the newest"))
        .arg(value("last", Some('n'), "N", "Only the N newest"))
        .arg(list("filter", Some('f'), "KEY=VALUE", "Only those that fit"))
        .arg(value("format", None, "TEMPLATE", "json, table TEMPLATE or a Go template"))
}

const PS_FILTERS: &[&str] = &["id", "name", "label", "status", "exited", "ancestor", "before", "since"];

pub(super) fn ps_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let filters = Filters::parse(&many(matches, "filter"), PS_FILTERS)?;
    let engine = session.engine()?;
    let all = list::list(&engine)?;
    let last = match one(matches, "last") {
        Some(n) => {
            n.parse().map_err(|_| anyhow!("cannot show the last {n:?} containers: it is not a number"))?
        }
        None => usize::from(matches.get_flag("latest")),
    };
    let everything = matches.get_flag("all")
        || last > 0
        || !filters.values("status").is_empty()
        || !filters.values("exited").is_empty();
    let shown: Vec<&Listed> = {
        let fits = all
            .iter()
            .map(|c| Ok((c, fits(&engine, &filters, c, &all)?)))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .filter(|(c, fits)| {
                *fits
                    && (everything
                        || matches!(
                            c.status,
                            Status::Running(_) | Status::Paused(_) | Status::Restarting(..)
                        ))
            })
            .map(|(c, _)| c);
        if last > 0 { fits.take(last).collect() } else { fits.collect() }
    };
    let no_trunc = matches.get_flag("no-trunc");
    if matches.get_flag("quiet") {
        for c in shown {
            out::out(&format!("{}\n", if no_trunc { &c.record.id } else { quote::short_id(&c.record.id) }))?;
        }
        return Ok(0);
    }
    let rows: Vec<serde_json::Value> = shown.into_iter().map(|c| row(c, no_trunc)).collect();
    out::out(&format::render_rows(
        one(matches, "format"),
        headers::CONTAINERS_TABLE,
        headers::CONTAINERS,
        &rows,
    )?)?;
    Ok(0)
}

fn fits(engine: &Engine, filters: &Filters, c: &Listed, all: &[Listed]) -> Result<bool> {
    let record = &c.record;
    let created_of = |wanted: &str| -> Result<Timestamp> { Ok(engine.find(wanted)?.record()?.created) };
    let code = match &c.status {
        Status::Exited(exit) => Some(exit.code),
        _ => None,
    };
    let states = filters.states()?;
    let exits = filters.exit_codes()?;
    let mut fits = (states.is_empty() || states.iter().any(|s| s == c.state()))
        && (exits.is_empty() || code.is_some_and(|c| exits.contains(&c)))
        && filters.match_labels(|key| record.labels.get(key).map(String::as_str));
    fits &= filters.values("name").is_empty() || filters.patterns("name")?.match_name(&record.name);
    fits &= filters.values("id").is_empty() || filters.patterns("id")?.match_id(&record.id);
    let ancestors = filters.values("ancestor");
    fits &= ancestors.is_empty() || ancestors.iter().any(|a| c.image() == *a || is_image(c, a));
    for other in filters.values("before") {
        fits &= record.created < created_of(other)?;
    }
    for other in filters.values("since") {
        fits &= record.created > created_of(other)?;
    }
    let _ = all;
    Ok(fits)
}

fn is_image(c: &Listed, wanted: &str) -> bool {
    use crate::store::container::Source;
    let Source::Image { id, name, .. } = &c.record.source else { return false };
    let bare = id.strip_prefix("sha256:").unwrap_or(id);
    let full = |n: &str| n.parse::<crate::oci::Reference>().map(|r| r.with_default_tag()).ok();
    id == wanted
        || (wanted.len() >= 4 && bare.starts_with(wanted))
        || full(name).is_some_and(|n| full(wanted) == Some(n))
}

pub(super) fn row(c: &Listed, no_trunc: bool) -> serde_json::Value {
    let now = Timestamp::now();
    let record = &c.record;
    let status = match &c.status {
        Status::Running(state) => format!("Up {}", human::duration(now.duration_since(state.started_at))),
        Status::Paused(state) => {
            format!("Up {} (Paused)", human::duration(now.duration_since(state.started_at)))
        }
        Status::Restarting(_, exit) => {
            format!("Restarting ({}) {}", exit.code, human::ago(exit.finished_at, now))
        }
        Status::Exited(exit) => format!("Exited ({}) {}", exit.code, human::ago(exit.finished_at, now)),
        Status::Dead(_) => "Exited (137)".to_owned(),
        Status::Created | Status::Starting => "Created".to_owned(),
    };
    let program = c.command.first().map_or("", String::as_str);
    let line = quote::command_line(program, c.command.get(1..).unwrap_or_default());
    let id = if no_trunc { &record.id } else { quote::short_id(&record.id) };
    serde_json::json!({
        "ID": id,
        "Names": record.name,
        "Image": c.image(),
        "Command": quote::command_column(&line, no_trunc),
        "CreatedAt": human::created_at(record.created, &TimeZone::UTC),
        "RunningFor": human::ago(record.created, now),
        "Ports": "",
        "State": c.state(),
        "Status": status,
        "HealthStatus": "",
        "Size": "0B",
        "Labels": record.labels,
        "Mounts": "",
        "LocalVolumes": "0",
        "Networks": record.options.get("network").and_then(|n| n.as_str()).unwrap_or("Host").to_lowercase(),
        "Platform": "linux",
    })
}
