//! Making and reading flags, for all verbs; and doing a thing for each of the names that were typed.

use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches};

use super::out;
use crate::engine::detach_keys::DetachKeys;
use crate::error;

pub(super) fn switch(long: &'static str, short: Option<char>, help: &'static str) -> Arg {
    let arg = Arg::new(long).long(long).help(help).action(ArgAction::SetTrue);
    match short {
        Some(short) => arg.short(short),
        None => arg,
    }
}

pub(super) fn value(long: &'static str, short: Option<char>, name: &'static str, help: &'static str) -> Arg {
    let arg =
        Arg::new(long).long(long).value_name(name).help(help).allow_hyphen_values(true).overrides_with(long);
    match short {
        Some(short) => arg.short(short),
        None => arg,
    }
}

pub(super) fn list(long: &'static str, short: Option<char>, name: &'static str, help: &'static str) -> Arg {
    let arg = Arg::new(long)
        .long(long)
        .value_name(name)
        .help(help)
        .allow_hyphen_values(true)
        .action(ArgAction::Append);
    match short {
        Some(short) => arg.short(short),
        None => arg,
    }
}

/// --detach-keys.
pub(super) fn detach_keys() -> Arg {
    value("detach-keys", None, "KEYS", "Keys that leave it to itself, none for no such keys (ctrl-p,ctrl-q)")
}

/// What --detach-keys says.
pub(super) fn read_detach_keys(matches: &ArgMatches) -> Result<DetachKeys> {
    let typed = matches.get_one::<String>("detach-keys");
    typed.map_or_else(|| Ok(DetachKeys::default()), |text| DetachKeys::parse(text))
}

pub(super) fn names(required: bool, what: &'static str) -> Arg {
    Arg::new("names").value_name(what).required(required).num_args(if required { 1.. } else { 0.. })
}

pub(super) fn many<'a>(matches: &'a ArgMatches, name: &str) -> Vec<&'a str> {
    matches.get_many::<String>(name).into_iter().flatten().map(String::as_str).collect()
}

/// Does it for all; errors are told one by one, and the code is 1 if there was any.
pub(super) fn each(names: &[&str], mut act: impl FnMut(&str) -> Result<()>) -> Result<u8> {
    let mut code = 0;
    for name in names {
        if let Err(error) = act(name) {
            out::err(&error::report(&error));
            code = 1;
        }
    }
    Ok(code)
}
