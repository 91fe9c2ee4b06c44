//! `--preserve-fds` and `--preserve-fd`: descriptors of the caller's that the program gets.

use anyhow::{Result, anyhow};
use clap::{ArgMatches, Command};

use super::flags::{list, value};
use crate::error::ResultExt;

/// Adds them.
pub(super) fn add(command: Command) -> Command {
    command.arg(value("preserve-fds", None, "N", "Hand on so many open descriptors, from 3 on")).arg(list(
        "preserve-fd",
        None,
        "N[,N]",
        "Hand on these open descriptors",
    ))
}

/// The numbers, in order; none where a verb has no such flags.
pub(super) fn read(matches: &ArgMatches) -> Result<Vec<i32>> {
    let count = matches.try_get_one::<String>("preserve-fds").ok().flatten();
    let lists = matches.try_get_many::<String>("preserve-fd").ok().flatten();
    let mut numbers = Vec::new();
    if let Some(text) = count {
        let count: i32 = text
            .parse()
            .ok()
            .filter(|n| (0..=MOST).contains(n))
            .ok_or_else(|| anyhow!("cannot use --preserve-fds {text:?}"))
            .hint("it is how many descriptors are handed on, from 3 on")?;
        numbers.extend(3..3 + count);
    }
    for word in lists.into_iter().flatten().flat_map(|text| text.split(',')) {
        let number = word.trim().parse().ok().filter(|n| (3..3 + MOST).contains(n));
        numbers.push(
            number
                .ok_or_else(|| anyhow!("cannot use --preserve-fd {word:?}"))
                .hint("it is the number of a descriptor, from 3 on; 0, 1 and 2 are the standard streams")?,
        );
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

/// More than a shell has.
const MOST: i32 = 500;
