//! ps.

use anyhow::{Result, anyhow};
use clap::{ArgMatches, Command};

use super::flags::{list, many, of_flag, switch, value};
use super::format::filter::Filters;
use super::format::{headers, quote};
use super::ps_filter::{Chosen, KEYS};
use super::ps_row::row;
use super::run_flags::one;
use super::{Session, format, out, zone};
use crate::engine::list::Listed;
use crate::engine::{list, size};

pub(super) fn ps_args(command: Command) -> Command {
    command
        .arg(switch("all", Some('a'), "Show those that do not run, too"))
        .arg(switch("quiet", Some('q'), "Only ids"))
        .arg(switch("no-trunc", None, "Do not shorten"))
        .arg(switch(
            "size",
            Some('s'),
            "Show how much was written in each, and how much that is with its image",
        ))
        .arg(switch("latest", Some('l'), "Only the newest"))
        .arg(value("last", Some('n'), "N", "Only the N newest"))
        .arg(list("filter", Some('f'), "KEY=VALUE", "Only those that fit"))
        .arg(value("format", None, "TEMPLATE", "json, table TEMPLATE or a Go template"))
}

pub(super) fn ps_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let filters = Filters::parse(&many(matches, "filter"), KEYS)?;
    let last = last(matches)?;
    let format = one(matches, "format");
    // As docker: a format that shows the size asks for it.
    let with_size = matches.get_flag("size") || format.is_some_and(|f| f.contains(".Size"));
    let with_size = with_size && !matches.get_flag("quiet");
    // Only what counts files needs to see those of other users.
    let engine = if with_size { session.engine_as_root()? } else { session.engine()? };
    let chosen = Chosen::new(&engine, &filters)?;
    let all = list::list(&engine)?;
    let everything = matches.get_flag("all") || last.is_some() || chosen.is_about_all();
    let shown = all.iter().filter(|c| (everything || c.runs()) && chosen.fits(c));
    let shown: Vec<&Listed> = shown.take(last.unwrap_or(usize::MAX)).collect();
    let no_trunc = matches.get_flag("no-trunc");
    if matches.get_flag("quiet") {
        let id = |c: &&Listed| {
            if no_trunc { c.record.id.clone() } else { quote::short_id(&c.record.id).to_owned() }
        };
        let text: String = shown.iter().map(|c| id(c) + "\n").collect();
        out::out(&text)?;
        return Ok(0);
    }
    let zone = zone::local(&engine.host);
    let mut rows = Vec::new();
    for c in shown {
        // One that is removed at this moment has no size.
        let size = if with_size { size::of(&engine.store, &c.record).ok() } else { None };
        rows.push(row(c, size, &zone, no_trunc));
    }
    let table =
        if matches.get_flag("size") { headers::CONTAINERS_SIZE_TABLE } else { headers::CONTAINERS_TABLE };
    out::out(&format::render_rows(format, table, headers::CONTAINERS, &rows)?)?;
    Ok(0)
}

/// How many of the newest; as in docker, 0 and less ask for nothing.
fn last(matches: &ArgMatches) -> Result<Option<usize>> {
    let Some(text) = one(matches, "last") else { return Ok(matches.get_flag("latest").then_some(1)) };
    let number = text.parse::<i64>();
    let number =
        of_flag(number.map_err(|_| anyhow!("cannot show the last {text:?} containers: it is not a number")))?;
    Ok(usize::try_from(number).ok().filter(|n| *n > 0).or(matches.get_flag("latest").then_some(1)))
}
