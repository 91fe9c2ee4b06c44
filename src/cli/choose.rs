//! Which containers a verb is for: those that were named, or, with `--all`, all in a certain state.

use anyhow::{Result, anyhow};
use clap::ArgMatches;

use super::flags::many;
use crate::engine::{Engine, list};
use crate::error::ResultExt;
use crate::store::container::Status;

/// The names that were typed; with `--all`, those of all containers whose status is meant.
pub(super) fn names_or_all(
    matches: &ArgMatches,
    engine: &Engine,
    is_meant: fn(&Status) -> bool,
) -> Result<Vec<String>> {
    let names: Vec<String> = many(matches, "names").into_iter().map(str::to_owned).collect();
    match (matches.get_flag("all"), names.is_empty()) {
        (false, false) => Ok(names),
        (false, true) => Err(anyhow!("cannot read the command line: no container was named"))
            .hint("name one or more, or use --all"),
        (true, false) => {
            Err(anyhow!("cannot read the command line: --all goes with no names")).hint("use either")
        }
        (true, true) => {
            let all = list::list(engine)?;
            Ok(all.into_iter().filter(|c| is_meant(&c.status)).map(|c| c.record.name).collect())
        }
    }
}
