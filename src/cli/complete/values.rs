//! What the words and values of flags can be, by the names that the help gives them.

use clap::Arg;

use super::Answer;
use super::names::{Names, Which};

/// Values of flags that are known beforehand; the flags of all verbs, since a name means the same everywhere.
const WORDS: &[(&str, &[&str])] = &[
    ("pull", &["always", "missing", "never", "newer"]),
    ("log-driver", &["journald", "json-file", "local", "none", "syslog"]),
    ("restart", &["always", "no", "on-failure", "unless-stopped"]),
    ("isolation", &["auto", "full"]),
    ("format", &["json", "table"]),
    ("if-running", &["fail", "replace", "skip", "wait"]),
    ("health-on-failure", &["kill", "none", "restart", "stop"]),
    ("condition", &["exited", "healthy", "removed", "running", "stopped"]),
    ("signal", SIGNALS),
    ("stop-signal", SIGNALS),
    ("userns", &["auto", "host", "keep-id", "nomap"]),
    ("uts", &["host", "private"]),
    ("ipc", &["host", "none", "private", "shareable"]),
    ("pid", &["host", "private"]),
    ("type", &["container", "image", "network", "volume"]),
];

const SIGNALS: &[&str] = &["HUP", "INT", "KILL", "QUIT", "TERM", "USR1", "USR2", "WINCH"];

/// The values of a flag.
pub(super) fn of_flag(flag: &Arg, names: &mut Names) -> Answer {
    let possible = flag.get_possible_values();
    if !possible.is_empty() {
        return Answer::words(possible.iter().map(|v| v.get_name().to_owned()));
    }
    let long = flag.get_long().unwrap_or_default();
    if let Some((_, words)) = WORDS.iter().find(|(name, _)| *name == long) {
        return Answer::words(words.iter().copied());
    }
    match long {
        "volumes-from" => Answer { files: false, words: names.containers(Which::All) },
        "network" => Answer { files: false, words: names.networks() },
        "volume" => Answer { files: true, words: names.volumes() },
        _ => Answer::files(),
    }
}

/// The words of a verb of a group; one without a group has an empty one.
pub(super) fn of_word((group, verb): (&str, &str), id: &str, name: &str, names: &mut Names) -> Answer {
    let words = |words| Answer { files: false, words };
    let bare = name.trim_matches(['[', ']', '.']);
    match bare {
        "CONTAINER" => words(names.containers(which(verb))),
        "IMAGE" | "IMAGE[:TAG" | "REPOSITORY[:TAG" => words(names.images()),
        "VOLUME" => words(names.volumes()),
        "NETWORK" => words(names.networks()),
        "IMAGE|NAME" => {
            let mut all = names.containers(Which::Boxes);
            all.extend(names.images());
            words(all)
        }
        "SHELL" => Answer::words(["bash", "fish", "zsh"]),
        "SOURCE" | "DESTINATION" if verb == "cp" => {
            let containers = names.containers(Which::All).into_iter();
            Answer {
                files: true,
                words: containers.map(|(name, about)| (format!("{name}:"), about)).collect(),
            }
        }
        "NAME" if id == "image" => words(names.images()),
        "NAME" if verb == "inspect" => words(match group {
            "container" => names.containers(Which::All),
            "image" => names.images(),
            "volume" => names.volumes(),
            _ => {
                let mut all = names.containers(Which::All);
                all.extend(names.images());
                all.extend(names.volumes());
                all.extend(names.networks());
                all
            }
        }),
        _ => Answer::files(),
    }
}

/// Whom a verb can do something with.
fn which(verb: &str) -> Which {
    match verb {
        "stop" | "kill" | "exec" | "attach" | "pause" | "top" | "stats" => Which::Running,
        "unpause" => Which::Paused,
        "start" => Which::Resting,
        _ => Which::All,
    }
}
