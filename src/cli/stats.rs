//! stats: a table of what containers use, drawn anew every second.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{ArgMatches, Command};
use serde_json::{Value, json};

use super::flags::{many, names, switch, value};
use super::format::{headers, human, quote};
use super::run_flags::one;
use super::{Session, format, out};
use crate::engine::stats::{self, Sample};
use crate::engine::{Engine, is_not_found, list};
use crate::store::container::Record;
use crate::sys::process::pause;

pub(super) fn stats_args(command: Command) -> Command {
    command
        .arg(switch("all", Some('a'), "Show those that do not run, too"))
        .arg(switch("no-stream", None, "Show it once"))
        .arg(switch("no-trunc", None, "Do not shorten"))
        .arg(value("format", None, "TEMPLATE", "json, table TEMPLATE or a Go template"))
        .arg(names(false, "CONTAINER"))
}

/// Between two samples; processor time is only known of a span of time.
const INTERVAL: Duration = Duration::from_secs(1);
/// The same where there is only one.
const GLANCE: Duration = Duration::from_millis(250);

pub(super) fn stats_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let engine = session.engine()?;
    let names = many(matches, "names");
    let once = matches.get_flag("no-stream");
    let format = one(matches, "format");
    let is_screen = !once
        && rustix::termios::isatty(rustix::stdio::stdout())
        && format.is_none_or(|format| format.is_empty() || format.starts_with("table"));
    let mut before = take(&engine, &wanted(&engine, &names, matches.get_flag("all"))?);
    loop {
        pause(if once { GLANCE } else { INTERVAL });
        let records = match wanted(&engine, &names, matches.get_flag("all")) {
            // One that was named and is gone has nothing more to show.
            Err(error) if is_not_found(&error) && !once => return Ok(0),
            records => records?,
        };
        let now = take(&engine, &records);
        let rows: Vec<Value> = records
            .iter()
            .filter_map(|(typed, record)| {
                let mut row = row(record, before.get(&record.id), now.get(&record.id)?, matches);
                // Docker's: what it was asked for by.
                if let Some(typed) = typed {
                    row["Container"] = typed.as_str().into();
                }
                Some(row)
            })
            .collect();
        let text = format::render_rows(format, headers::STATS_TABLE, headers::STATS, &rows)?;
        if is_screen {
            // From the top, each line to its end, and what is left of an older, longer table.
            out::out(&format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")))?;
        } else if !out::try_out(&text)? {
            return Ok(0);
        }
        if once {
            return Ok(0);
        }
        before = now;
    }
}

type Samples = HashMap<String, (Instant, Sample)>;

fn take(engine: &Engine, wanted: &[(Option<String>, Record)]) -> Samples {
    // One that is removed at this moment has no figures.
    let of =
        |record: &Record| Some((record.id.clone(), (Instant::now(), stats::sample(engine, record).ok()?)));
    wanted.iter().map(|(_, record)| record).filter_map(of).collect()
}

/// Those that were named, as they were, or those that run.
fn wanted(engine: &Engine, names: &[&str], all: bool) -> Result<Vec<(Option<String>, Record)>> {
    if names.is_empty() {
        let listed = list::list(engine)?.into_iter().filter(|container| all || container.runs());
        return Ok(listed.map(|container| (None, container.record)).collect());
    }
    names.iter().map(|name| Ok((Some((*name).to_owned()), engine.find(name)?.record()?))).collect()
}

fn row(
    record: &Record,
    before: Option<&(Instant, Sample)>,
    now: &(Instant, Sample),
    matches: &ArgMatches,
) -> Value {
    let (moment, sample) = now;
    let share = |part: f64, whole: f64| if whole > 0.0 { part * 100.0 / whole } else { 0.0 };
    let cpu = before.map_or(0.0, |(then, old)| {
        let used = sample.cpu_nanoseconds.saturating_sub(old.cpu_nanoseconds);
        // Started in between: all that it used is of this span.
        share(used as f64, moment.duration_since(*then).as_nanos() as f64)
    });
    let pair = |(one, other): (u64, u64)| format!("{} / {}", human::size(one), human::size(other));
    let id = if matches.get_flag("no-trunc") { &record.id } else { quote::short_id(&record.id) };
    json!({
        "BlockIO": pair(sample.block),
        "CPUPerc": format!("{cpu:.2}%"),
        "Container": id,
        "ID": id,
        "MemPerc": format!("{:.2}%", share(sample.memory as f64, sample.memory_limit as f64)),
        "MemUsage": format!("{} / {}", human::size_binary(sample.memory), human::size_binary(sample.memory_limit)),
        "Name": record.name,
        "NetIO": pair(sample.network),
        "PIDs": sample.n_pids.to_string(),
    })
}
