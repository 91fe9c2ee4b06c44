//! Making and reading flags, for all verbs; and doing a thing for each of the names that were typed.

use anyhow::{Result, anyhow};
use clap::builder::BoolishValueParser;
use clap::{Arg, ArgAction, ArgMatches};

use super::out;
use crate::engine::detach_keys::DetachKeys;
use crate::error::{self, ResultExt};

/// What stands for the word that a switch may have. No help shows it: that would be on every other line.
const SWITCH: &str = "ON";

/// A help text or a manual page without that.
pub(super) fn without_switch_words(text: &str) -> String {
    let text = text.replace("[=\\fI<ON>\\fR]", "").replace("[=<ON>]  ", "         ");
    text.replace("[=<ON>]", "")
}

/// A flag that is there or not: `--rm`, and, as people write for docker, `--rm=true` and `--rm=false`. The last one wins.
pub(super) fn switch(long: &'static str, short: Option<char>, help: &'static str) -> Arg {
    let arg = Arg::new(long)
        .long(long)
        .help(help)
        .value_name(SWITCH)
        .num_args(0..=1)
        .require_equals(true)
        .value_parser(BoolishValueParser::new())
        .default_missing_value("true")
        .default_value("false")
        .hide_default_value(true)
        .hide_possible_values(true)
        .overrides_with(long);
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

/// Reads what a flag says: what is no such value ends with 125 whatever the verb, as every mistake about flags. What docker
/// leaves to its daemon to judge (signals, moments, restart policies) keeps the verb's own code, and is not read by this.
pub(super) fn of_flag<T>(read: Result<T>) -> Result<T> {
    read.exit_with(125)
}

/// Refuses two flags that cannot both be meant. Not clap's to do: to it a switch that is said to be off is there.
pub(super) fn exclude(matches: &ArgMatches, one: &str, others: &[&str]) -> Result<()> {
    let is_meant = |name: &str| match matches.try_get_one::<bool>(name) {
        Ok(switch) => switch.copied().unwrap_or(false),
        Err(_) => matches.try_contains_id(name).unwrap_or(false),
    };
    match others.iter().find(|other| is_meant(one) && is_meant(other)) {
        Some(other) => of_flag(Err(anyhow!("cannot use --{one} together with --{other}"))),
        None => Ok(()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_off_excludes_nothing() {
        let check = |line: &str, is_fine: bool| {
            let command = clap::Command::new("x").args([
                switch("rmi", None, ""),
                switch("detach", Some('d'), ""),
                value("what", None, "", ""),
            ]);
            let matches = command.try_get_matches_from(line.split(' ')).unwrap();
            let excluded = exclude(&matches, "rmi", &["detach", "what", "of-another-verb"]);
            assert_eq!(excluded.is_ok(), is_fine, "{line}");
            assert!(excluded.is_ok() || error::exit_code(&excluded.unwrap_err()) == 125);
        };
        check("x", true);
        check("x --rmi", true);
        check("x -d --what=1", true);
        check("x --rmi=false -d", true);
        check("x --rmi -d=false", true);
        check("x --rmi -d", false);
        check("x --rmi=true --what=1", false);
    }

    #[test]
    fn switches_take_a_word_as_in_docker_and_the_last_one_wins() {
        let check = |line: &str, interactive, tty, words: usize| {
            let command = clap::Command::new("x")
                .args([switch("interactive", Some('i'), ""), switch("tty", Some('t'), "")])
                .arg(names(false, "WORD").trailing_var_arg(true));
            let matches =
                command.try_get_matches_from(line.split(' ')).unwrap_or_else(|e| panic!("{line}: {e}"));
            assert_eq!(
                (matches.get_flag("interactive"), matches.get_flag("tty")),
                (interactive, tty),
                "{line}"
            );
            assert_eq!(many(&matches, "names").len(), words, "{line}");
        };
        check("x", false, false, 0);
        check("x -it a", true, true, 1);
        check("x -ti a -i", true, true, 2);
        check("x -i -t=true true", true, true, 1);
        check("x -t=false a", false, false, 1);
        check("x --tty=1 --interactive=0 a", false, true, 1);
        check("x --tty --tty=false a", false, false, 1);
        check("x --tty=false -t false", false, true, 1);
        let command = clap::Command::new("x").arg(switch("tty", None, ""));
        assert!(command.try_get_matches_from(["x", "--tty=perhaps"]).is_err());
    }
}
