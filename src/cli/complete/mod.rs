//! Completion of what is typed in a shell. The scripts (`dhow completion SHELL`) know no flags: they ask `dhow __complete`,
//! which answers from the very tables that the command line is read with, and with the names that are there right now.
//!
//! The answer: a line `words`, `files` (the shell completes paths) or `both`, then a line for each word, and after a tab
//! what it is. Whatever goes wrong, there is no answer: nothing may be written over a line that is being typed.

mod names;
mod scripts;
mod values;

use std::ffi::OsString;

use clap::{Arg, ArgMatches, Command};

pub(super) use scripts::completion_args;

use super::{Session, Verb, out, verbs};
use crate::config::Config;
use crate::host::Host;
use names::Names;

/// What may stand at a place.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer {
    /// Paths too.
    files: bool,
    /// Word, and what it is.
    words: Vec<(String, String)>,
}

impl Answer {
    fn files() -> Answer {
        Answer { files: true, words: Vec::new() }
    }

    fn words<W: Into<String>>(words: impl IntoIterator<Item = W>) -> Answer {
        Answer { files: false, words: words.into_iter().map(|w| (w.into(), String::new())).collect() }
    }

    /// Those that go on as `current` begins.
    fn text(mut self, current: &str) -> String {
        self.words.retain(|(word, _)| word.starts_with(current));
        let kind = match (self.files, self.words.is_empty()) {
            (true, true) => "files",
            (true, false) => "both",
            (false, _) => "words",
        };
        let lines = self.words.iter().map(|(word, about)| format!("{word}\t{about}\n"));
        format!("{kind}\n{}", lines.collect::<String>())
    }
}

/// The hidden command: `args` are the words after `dhow`, the last of which is being typed.
pub(super) fn answer(args: &[OsString], found: anyhow::Result<(Host, Config)>) -> u8 {
    let words: Vec<String> = args.iter().map(|w| w.to_string_lossy().into_owned()).collect();
    let Some((current, before)) = words.split_last() else { return 0 };
    let session = found.ok().map(|(host, config)| Session {
        host,
        config,
        additional_stores: Vec::new(),
        store: None,
        forward: None,
        // What is typed is only looked at.
        is_forward_seen: true,
    });
    let answer = complete(before, current, &mut Names { session });
    u8::from(out::out(&answer.text(current)).is_err())
}

/// `dhow completion SHELL`.
pub(super) fn completion(matches: &ArgMatches, _: &mut Session) -> anyhow::Result<u8> {
    let shell = matches.get_one::<String>("shell").map_or("", String::as_str);
    out::out(scripts::script(shell))?;
    Ok(0)
}

fn complete(before: &[String], current: &str, names: &mut Names) -> Answer {
    let mut words = before.iter();
    let mut place: Option<&(&str, &str, &[Verb])> = None;
    while let Some(word) = words.next() {
        match word.as_str() {
            "--root" | "--storage-opt" if place.is_none() => {
                if words.next().is_none() {
                    return Answer::files();
                }
            }
            option if option.starts_with('-') => {}
            name => {
                let group = verbs::GROUPS.iter().find(|(group, ..)| place.is_none() && *group == name);
                if group.is_some() {
                    place = group;
                    continue;
                }
                let table = place.map_or(verbs::TOP, |(_, _, table)| table);
                let verb = table.iter().find(|v| v.name == name || v.aliases.contains(&name));
                let Some(verb) = verb else { return Answer::default() };
                let group = place.map_or("", |(group, ..)| group);
                return in_verb(verb, group, words.as_slice(), current, names);
            }
        }
    }
    let about = |verb: &Verb| (verb.name.to_owned(), verb.about.to_owned());
    if let Some((_, _, table)) = place {
        return Answer { files: false, words: table.iter().map(about).collect() };
    }
    if current.starts_with('-') {
        return Answer::words(["--root", "--storage-opt", "--help", "--version"]);
    }
    let groups = verbs::GROUPS.iter().map(|(name, about, _)| ((*name).to_owned(), (*about).to_owned()));
    Answer { files: false, words: verbs::TOP.iter().map(about).chain(groups).collect() }
}

/// Where the words after a verb have got to.
#[derive(Default)]
struct Position<'a> {
    /// The flag whose value comes next.
    pending: Option<&'a Arg>,
    /// How many words that are no flags there were.
    n_words: usize,
    /// There are no flags any more.
    is_raw: bool,
}

fn in_verb(verb: &Verb, group: &str, before: &[String], current: &str, names: &mut Names) -> Answer {
    let mut command = (verb.flags)(Command::new(verb.name));
    command.build();
    let at = position(&command, before);
    if let Some(flag) = at.pending {
        return values::of_flag(flag, names);
    }
    if !at.is_raw
        && let Some((name, _)) = current.split_once('=').filter(|(name, _)| name.starts_with("--"))
    {
        let Some(flag) = by_long(&command, &name[2..]) else { return Answer::default() };
        let mut answer = values::of_flag(flag, names);
        answer.words.iter_mut().for_each(|(word, _)| *word = format!("{name}={word}"));
        return answer;
    }
    if !at.is_raw && current.starts_with('-') {
        return flags(&command);
    }
    match word_name(&command, at.n_words) {
        Some((id, kind)) => values::of_word((group, verb.name), &id, &kind, names),
        None => Answer::default(),
    }
}

fn position<'a>(command: &'a Command, before: &[String]) -> Position<'a> {
    // After the first word of a command line in the command line, all is that one's.
    let has_trailing = command.get_positionals().any(Arg::is_trailing_var_arg_set);
    let mut at = Position::default();
    for word in before {
        if at.pending.take().is_some() {
            continue;
        }
        match word.strip_prefix("--") {
            _ if at.is_raw => at.n_words += 1,
            Some("") => at.is_raw = true,
            Some(name) => at.pending = by_long(command, name).filter(|a| takes_value(a)),
            None if word.len() > 1 && word.starts_with('-') => at.pending = by_shorts(command, &word[1..]),
            None => {
                at.n_words += 1;
                at.is_raw = has_trailing;
            }
        }
    }
    at
}

fn by_long<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    let is = |arg: &&Arg| {
        arg.get_long() == Some(name) || arg.get_all_aliases().unwrap_or_default().contains(&name)
    };
    command.get_arguments().find(is)
}

/// The flag of a cluster such as `-itv` that still wants its value.
fn by_shorts<'a>(command: &'a Command, cluster: &str) -> Option<&'a Arg> {
    for (at, short) in cluster.char_indices() {
        let arg = command.get_arguments().find(|a| a.get_short() == Some(short))?;
        if takes_value(arg) {
            return Some(arg).filter(|_| at + short.len_utf8() == cluster.len());
        }
    }
    None
}

fn takes_value(arg: &Arg) -> bool {
    arg.get_action().takes_values() && arg.get_num_args().is_none_or(|range| range.min_values() > 0)
}

fn flags(command: &Command) -> Answer {
    let shown = command.get_arguments().filter(|a| !a.is_hide_set());
    let long = |arg: &Arg| {
        let about = arg.get_help().map(ToString::to_string).unwrap_or_default();
        Some((format!("--{}", arg.get_long()?), about))
    };
    Answer { files: false, words: shown.filter_map(long).collect() }
}

/// What the help calls the word at this place, and the argument it belongs to.
fn word_name(command: &Command, n: usize) -> Option<(String, String)> {
    let mut places = Vec::new();
    for arg in command.get_positionals() {
        let names = arg.get_value_names().unwrap_or_default().join(" ");
        for name in names.split_whitespace() {
            places.push((arg.get_id().to_string(), name.to_owned()));
        }
    }
    places
        .get(n)
        .or(places.last().filter(|_| {
            command.get_positionals().any(|a| a.get_num_args().is_some_and(|range| range.max_values() > 1))
        }))
        .cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a line is completed to, with no store; the last word is being typed.
    fn lines(line: &str) -> Vec<String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let (current, before) = words.split_last().unwrap();
        let text = complete(before, current, &mut Names { session: None }).text(current);
        text.lines().map(|l| l.split('\t').next().unwrap().to_owned()).collect()
    }

    #[track_caller]
    fn check(line: &str, want: &[&str]) {
        assert_eq!(lines(line), want, "{line}");
    }

    #[test]
    fn words_are_completed_where_they_stand() {
        check("unta", &["words", "untag"]);
        check("--root /x --storage-opt a=b unta", &["words", "untag"]);
        check("--root ", &["files"]);
        check("--ver", &["words", "--version"]);
        check("container renam", &["words", "rename"]);
        check("nosuch x", &["words"]);
        check("run --ulim", &["words", "--ulimit"]);
        check("run --network n", &["words", "none"]);
        check("run --network=n", &["words", "--network=none"]);
        check("run --rm --pull ne", &["words", "never", "newer"]);
        check("run -it --pull=ne", &["words", "--pull=never", "--pull=newer"]);
        check("run -itv ", &["files"]);
        check("run -it busybox --he", &["files"]);
        check("completion z", &["words", "zsh"]);
        check("load -i ", &["files"]);
        check("shell alpine -- l", &["files"]);
    }

    #[test]
    fn every_verb_answers_for_every_flag() {
        let mut names = Names { session: None };
        for verb in verbs::TOP.iter().chain(verbs::GROUPS.iter().flat_map(|(_, _, table)| *table)) {
            let mut command = (verb.flags)(Command::new(verb.name));
            command.build();
            for arg in command.get_arguments() {
                let long = arg.get_long().map(|l| format!("--{l}")).unwrap_or_default();
                let before = [verb.name.to_owned(), long.clone()];
                complete(&before[..1], &long, &mut names);
                complete(&before, "", &mut names);
            }
        }
    }
}
