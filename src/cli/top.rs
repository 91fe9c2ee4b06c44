//! top: the processes of a container, in the columns of ps(1) or of podman.

use std::io::Write;

use anyhow::{Result, anyhow};
use clap::{Arg, ArgMatches, Command};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tabwriter::TabWriter;

use super::flags::many;
use super::{Session, out};
use crate::engine::processes::{Process, TICKS};
use crate::engine::top::{self, Top};
use crate::error::ResultExt;

pub(super) fn top_args(command: Command) -> Command {
    command.arg(
        Arg::new("words")
            .value_name("CONTAINER [PS OPTIONS | COLUMNS]")
            .required(true)
            .num_args(1..)
            .trailing_var_arg(true)
            .allow_hyphen_values(true)
            .help("The container; then -ef (as without), aux, -o COLUMN,..., or podman's columns: pid,user,args"),
    )
}

pub(super) fn top_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let words = many(matches, "words");
    let columns = columns(&words[1..])?;
    let engine = session.engine()?;
    let top = top::top(&engine, words[0])?;
    let now = Timestamp::now();
    let mut text = line(columns.iter().map(|column| column.heading.clone()));
    for process in &top.processes {
        let row = Row { process, top: &top, now };
        text.push_str(&line(columns.iter().map(|column| (column.show)(&row))));
    }
    out::out(&aligned(&text))?;
    Ok(0)
}

fn line(cells: impl Iterator<Item = String>) -> String {
    cells.map(|cell| plain(&cell)).collect::<Vec<_>>().join("\t") + "\n"
}

/// What a program calls itself must not drive the terminal, nor shift the columns.
fn plain(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

/// Docker's columns: twenty wide at least.
fn aligned(lines: &str) -> String {
    let mut writer = TabWriter::new(Vec::new()).minwidth(17).padding(3);
    let bytes = writer.write_all(lines.as_bytes()).and_then(|()| writer.flush()).ok();
    let bytes = bytes.and_then(|()| writer.into_inner().ok()).expect("a Vec takes every byte");
    String::from_utf8(bytes).expect("cells and spaces are UTF-8")
}

/// What a cell is made from.
struct Row<'a> {
    process: &'a Process,
    top: &'a Top,
    now: Timestamp,
}

type Show = fn(&Row<'_>) -> String;

struct Column {
    heading: String,
    show: Show,
}

/// The columns that can be asked for: the words of ps, heading there, what is shown.
const PS: &[(&[&str], &str, Show)] = &[
    (&["pid", "tgid"], "PID", |r| r.process.pid.to_string()),
    (&["ppid"], "PPID", |r| r.process.parent.to_string()),
    (&["pgid", "pgrp"], "PGID", |r| r.process.group.to_string()),
    (&["sid", "sess", "session"], "SID", |r| r.process.session.to_string()),
    (&["user", "euser", "uname"], "USER", |r| r.top.users.name(r.process.users.1)),
    (&["ruser"], "RUSER", |r| r.top.users.name(r.process.users.0)),
    (&["uid", "euid"], "UID", |r| r.top.users.inside(r.process.users.1).to_string()),
    (&["ruid"], "RUID", |r| r.top.users.inside(r.process.users.0).to_string()),
    (&["group", "egroup"], "GROUP", |r| r.top.groups.name(r.process.groups.1)),
    (&["rgroup"], "RGROUP", |r| r.top.groups.name(r.process.groups.0)),
    (&["gid", "egid"], "GID", |r| r.top.groups.inside(r.process.groups.1).to_string()),
    (&["rgid"], "RGID", |r| r.top.groups.inside(r.process.groups.0).to_string()),
    (&["cmd"], "CMD", |r| r.args()),
    (&["args", "command"], "COMMAND", |r| r.args()),
    (&["comm", "ucmd", "ucomm"], "COMMAND", |r| r.process.name.clone()),
    (&["%cpu", "pcpu"], "%CPU", |r| format!("{:.1}", r.cpu_share())),
    (&["c"], "C", |r| (r.cpu_share() as u64).min(99).to_string()),
    (&["%mem", "pmem"], "%MEM", |r| r.memory_share()),
    (&["vsz", "vsize"], "VSZ", |r| (r.process.virtual_size / 1024).to_string()),
    (&["rss", "rssize"], "RSS", |r| (r.process.resident / 1024).to_string()),
    (&["tty", "tt", "tname"], "TTY", |r| r.terminal()),
    (&["s", "state"], "S", |r| r.process.state.to_string()),
    (&["stat"], "STAT", |r| r.states()),
    (&["bsdtime"], "TIME", |r| format!("{}:{:02}", r.process.cpu / TICKS / 60, r.process.cpu / TICKS % 60)),
    (&["time", "cputime"], "TIME", |r| clock(r.process.cpu / TICKS)),
    (&["etime"], "ELAPSED", |r| elapsed(r.seconds())),
    (&["etimes"], "ELAPSED", |r| r.seconds().to_string()),
    (&["stime", "start_time"], "STIME", |r| r.start("%b%d")),
    (&["start", "bsdstart"], "START", |r| r.start("%b %d")),
    (&["ni", "nice"], "NI", |r| r.process.nice.to_string()),
    (&["nlwp", "thcount"], "NLWP", |r| r.process.n_threads.to_string()),
];

/// Podman's columns: its word, its heading, what is shown.
const PODMAN: &[(&str, &str, Show)] = &[
    ("args", "COMMAND", |r| r.args()),
    ("comm", "COMMAND", |r| r.process.name.clone()),
    ("etime", "ELAPSED", |r| elapsed(r.seconds())),
    ("group", "GROUP", |r| r.top.groups.name(r.process.groups.1)),
    ("hgroup", "HGROUP", |r| r.process.groups.1.to_string()),
    ("hpid", "HPID", |r| r.process.pid.to_string()),
    ("huser", "HUSER", |r| r.process.users.1.to_string()),
    ("nice", "NI", |r| r.process.nice.to_string()),
    ("pcpu", "%CPU", |r| format!("{:.3}", r.cpu_share())),
    ("pgid", "PGID", |r| r.process.group.to_string()),
    ("pid", "PID", |r| r.process.inner_pid.to_string()),
    ("ppid", "PPID", |r| r.inner_parent()),
    ("rgroup", "RGROUP", |r| r.top.groups.name(r.process.groups.0)),
    ("ruser", "RUSER", |r| r.top.users.name(r.process.users.0)),
    ("seccomp", "SECCOMP", |r| r.seccomp()),
    ("state", "STATE", |r| r.process.state.to_string()),
    ("stime", "STIME", |r| r.start("%b%d")),
    ("time", "TIME", |r| clock(r.process.cpu / TICKS)),
    ("tty", "TTY", |r| r.terminal()),
    ("user", "USER", |r| r.top.users.name(r.process.users.1)),
    ("vsz", "VSZ", |r| (r.process.virtual_size / 1024).to_string()),
];

const FULL: &[&str] = &["user=UID", "pid", "ppid", "c", "stime", "tty", "time", "cmd"];
const SHORT: &[&str] = &["pid", "tty", "time", "comm=CMD"];
const BSD: &[&str] =
    &["user", "pid", "%cpu", "%mem", "vsz", "rss", "tty", "stat", "start", "bsdtime", "command"];

/// What to show, by the words after the container.
fn columns(words: &[&str]) -> Result<Vec<Column>> {
    if words.is_empty() {
        return of_ps(FULL.iter().copied());
    }
    let names: Vec<&str> = words.iter().flat_map(|word| word.split(',')).collect();
    let is_podmans = |name: &&str| PODMAN.iter().any(|(known, ..)| known == name);
    if names.iter().all(is_podmans) {
        let column = |name: &str| {
            let (_, heading, show) = PODMAN.iter().find(|(known, ..)| *known == name)?;
            Some(Column { heading: (*heading).to_owned(), show: *show })
        };
        return Ok(names.into_iter().filter_map(column).collect());
    }
    let mut asked: Vec<&str> = Vec::new();
    let (mut layout, mut words) = (SHORT, words.iter());
    while let Some(word) = words.next() {
        let letters = word.strip_prefix('-').unwrap_or(word);
        let is_bsd = !word.starts_with('-');
        if let Some(list) = word.strip_prefix("--format") {
            asked.extend(
                list.strip_prefix('=').or_else(|| words.next().copied()).unwrap_or_default().split(','),
            );
            continue;
        }
        let (letters, list) = match letters.split_once('o') {
            Some((before, "")) => (before, Some(words.next().copied().unwrap_or_default())),
            Some((before, list)) => (before, Some(list)),
            None => (letters, None),
        };
        asked.extend(list.into_iter().flat_map(|list| list.split(',')));
        for letter in letters.chars() {
            match letter {
                'u' if is_bsd => layout = BSD,
                'f' if !is_bsd => layout = FULL,
                // Which processes: those of the container, whatever was typed. How wide: as wide as it is.
                'e' | 'A' | 'a' | 'x' | 'w' | 'd' => {}
                _ => {
                    return Err(anyhow!("cannot read the ps option {word:?}")).hint(
                        "what can be asked for: -ef, aux, -o COLUMN,... in the words of ps(1), or podman's columns: pid,user,args",
                    );
                }
            }
        }
    }
    match asked.is_empty() {
        true => of_ps(layout.iter().copied()),
        false => of_ps(asked.into_iter()),
    }
}

/// `NAME` or `NAME=HEADING`.
fn of_ps<'a>(names: impl Iterator<Item = &'a str>) -> Result<Vec<Column>> {
    let column = |text: &str| {
        let (name, heading) = match text.split_once('=') {
            Some((name, heading)) => (name, Some(heading)),
            None => (text, None),
        };
        let found = PS.iter().find(|(known, ..)| known.contains(&name));
        let (_, usual, show) = found.ok_or_else(|| {
            let known: Vec<&str> = PS.iter().map(|(names, ..)| names[0]).collect();
            anyhow!("cannot show {name:?}: the columns are {}", known.join(", "))
        })?;
        Ok(Column { heading: heading.unwrap_or(usual).to_owned(), show: *show })
    };
    names.map(column).collect()
}

impl Row<'_> {
    /// Seconds since it was started.
    fn seconds(&self) -> u64 {
        (self.top.uptime - self.process.start as f64 / TICKS as f64).max(0.0) as u64
    }

    /// Percents of one processor over its life.
    fn cpu_share(&self) -> f64 {
        let life = self.top.uptime - self.process.start as f64 / TICKS as f64;
        if life <= 0.0 { 0.0 } else { self.process.cpu as f64 / TICKS as f64 * 100.0 / life }
    }

    fn memory_share(&self) -> String {
        format!("{:.1}", self.process.resident as f64 * 100.0 / self.top.memory.max(1) as f64)
    }

    /// The command line, or, as ps has it, the name in brackets.
    fn args(&self) -> String {
        match self.process.args.is_empty() {
            true => format!("[{}]", self.process.name),
            false => self.process.args.clone(),
        }
    }

    /// Numbers of devices as in proc_pid_stat(5).
    fn terminal(&self) -> String {
        let device = self.process.terminal;
        let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00));
        match major {
            136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
            4 => format!("tty{minor}"),
            5 if minor == 1 => "console".to_owned(),
            _ => "?".to_owned(),
        }
    }

    fn states(&self) -> String {
        let process = self.process;
        let marks = [
            (process.nice < 0, '<'),
            (process.nice > 0, 'N'),
            (process.session == process.pid, 's'),
            (process.n_threads > 1, 'l'),
        ];
        let marks = marks.iter().filter(|(is_set, _)| *is_set).map(|(_, mark)| *mark);
        std::iter::once(process.state).chain(marks).collect()
    }

    /// The time of day if it was today, else the day.
    fn start(&self, day: &str) -> String {
        let seconds = self.top.boot + (self.process.start / TICKS) as i64;
        let Ok(moment) = Timestamp::from_second(seconds) else { return "?".to_owned() };
        let zone = TimeZone::UTC;
        let (moment, now) = (moment.to_zoned(zone.clone()), self.now.to_zoned(zone));
        let form = if moment.date() == now.date() { "%H:%M" } else { day };
        moment.strftime(form).to_string()
    }

    fn inner_parent(&self) -> String {
        let parent = self.top.processes.iter().find(|process| process.pid == self.process.parent);
        parent.map_or(0, |parent| parent.inner_pid).to_string()
    }

    fn seccomp(&self) -> String {
        match self.process.seccomp {
            0 => "disabled",
            1 => "strict",
            _ => "filter",
        }
        .to_owned()
    }
}

fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// `[[DAYS-]HOURS:]MINUTES:SECONDS`.
fn elapsed(seconds: u64) -> String {
    let (days, hours, rest) =
        (seconds / 86400, seconds / 3600 % 24, format!("{:02}:{:02}", seconds / 60 % 60, seconds % 60));
    match (days, hours) {
        (0, 0) => rest,
        (0, hours) => format!("{hours:02}:{rest}"),
        (days, hours) => format!("{days}-{hours:02}:{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headings(words: &[&str]) -> String {
        match columns(words) {
            Ok(columns) => columns.into_iter().map(|c| c.heading).collect::<Vec<_>>().join(" "),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn words_choose_columns() {
        let full = "UID PID PPID C STIME TTY TIME CMD";
        assert_eq!(headings(&[]), full);
        assert_eq!(headings(&["-ef"]), full);
        assert_eq!(headings(&["-e", "-f"]), full);
        assert_eq!(headings(&["-e"]), "PID TTY TIME CMD");
        let bsd = "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND";
        assert_eq!(headings(&["aux"]), bsd);
        assert_eq!(headings(&["auxww"]), bsd);
        assert_eq!(headings(&["-o", "pid,cmd"]), "PID CMD");
        assert_eq!(headings(&["-eo", "pid,comm=NAME"]), "PID NAME");
        assert_eq!(headings(&["-opid", "-o", "rss"]), "PID RSS");
        assert_eq!(headings(&["axo", "pid,stat"]), "PID STAT");
        assert_eq!(headings(&["--format=pid"]), "PID");
        assert_eq!(headings(&["pid,user,args"]), "PID USER COMMAND");
        assert_eq!(headings(&["hpid", "seccomp"]), "HPID SECCOMP");
        assert!(headings(&["-q"]).starts_with("error"));
        assert!(headings(&["-o", "nonsense"]).starts_with("error"));
        assert!(headings(&["-o"]).starts_with("error"));
    }

    #[test]
    fn times() {
        assert_eq!(
            (clock(0).as_str(), clock(3661).as_str(), clock(360_000).as_str()),
            ("00:00:00", "01:01:01", "100:00:00")
        );
        assert_eq!(
            (elapsed(61).as_str(), elapsed(3661).as_str(), elapsed(90_061).as_str()),
            ("01:01", "01:01:01", "1-01:01:01")
        );
    }

    #[test]
    fn no_column_is_named_twice() {
        let mut names: Vec<&str> = PS.iter().flat_map(|(names, ..)| names.iter().copied()).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }
}
