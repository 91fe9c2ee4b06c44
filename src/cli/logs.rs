//! logs.

use std::os::fd::AsFd;

use anyhow::{Result, anyhow};
use clap::{ArgMatches, Command};
use jiff::Timestamp;

use super::flags::{many, names, switch, value};
use super::run_flags::one;
use super::{Session, out, zone};
use crate::engine::logs::{Author, LogOptions, Shown, logs};
use crate::quantity;
use crate::supervisor::log::{Entry, Stream};

pub(super) fn logs_args(command: Command) -> Command {
    command
        .arg(switch("follow", Some('f'), "Go on as it grows"))
        .arg(switch("timestamps", Some('t'), "Show when each line was written"))
        .arg(value("tail", Some('n'), "N", "Only the last N lines; all for all"))
        .arg(value("since", None, "TIME", "Only from this moment on: 2024-01-02T03:04:05Z, 10m"))
        .arg(value("until", None, "TIME", "Only up to this moment"))
        .arg(switch("details", None, "Show what --log-opt labels= and env= ask for"))
        .arg(switch("show-names", None, "Show the container's name before each line").long("names"))
        .arg(names(true, "CONTAINER"))
}

pub(super) fn logs_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let zone = zone::local(&session.host);
    let moment =
        |name: &str| one(matches, name).map(|t| quantity::moment(t, Timestamp::now(), &zone)).transpose();
    let tail = match one(matches, "tail") {
        None | Some("all" | "-1") => None,
        Some(n) => {
            Some(n.parse().map_err(|_| anyhow!("cannot show the last {n:?} lines: it is not a number"))?)
        }
    };
    let stdout = std::io::stdout();
    let options = LogOptions {
        follow: matches.get_flag("follow"),
        tail,
        since: moment("since")?,
        until: moment("until")?,
        details: matches.get_flag("details"),
        reader: Some(stdout.as_fd()),
    };
    let names = many(matches, "names");
    let style = Style {
        timestamps: matches.get_flag("timestamps"),
        details: options.details,
        names: matches.get_flag("show-names"),
        ids: names.len() > 1,
    };
    let engine = session.engine()?;
    let mut page = Page::default();
    // Whose line is not ended yet: another's must not go on in it.
    let mut unended: Option<String> = None;
    let shown = logs(&engine, &names, options, &mut |shown| match shown {
        Shown::Entry { author, entry, starts_line } => {
            if unended.as_ref().is_some_and(|id| *id != author.id) {
                page.bytes.push(b'\n');
                unended = None;
            }
            if style.ids {
                unended = (!entry.is_whole).then(|| author.id.clone());
            }
            page.turn_to(entry.stream)?;
            style.line(&mut page.bytes, author, &entry, starts_line);
            if page.bytes.len() >= PAGE { page.flush() } else { Ok(()) }
        }
        Shown::Pause => page.flush(),
    });
    out::until_reader_leaves(shown)?;
    Ok(0)
}

/// What stands before a line.
struct Style {
    timestamps: bool,
    details: bool,
    names: bool,
    ids: bool,
}

impl Style {
    fn line(&self, to: &mut Vec<u8>, author: &Author, entry: &Entry<'_>, starts_line: bool) {
        // A line in parts gets all that once, at its beginning.
        if starts_line {
            if self.names {
                to.extend_from_slice(author.name.as_bytes());
                to.push(b' ');
            } else if self.ids {
                to.extend_from_slice(author.id.get(..12).unwrap_or(&author.id).as_bytes());
                to.push(b' ');
            }
            if self.timestamps {
                to.extend_from_slice(entry.stamp.as_bytes());
                to.push(b' ');
            }
            if self.details {
                let pairs: Vec<String> =
                    author.details.iter().map(|(k, v)| format!("{}={}", escape(k), escape(v))).collect();
                to.extend_from_slice(pairs.join(",").as_bytes());
                to.push(b' ');
            }
        }
        to.extend_from_slice(entry.content);
        if entry.is_whole {
            to.push(b'\n');
        }
    }
}

/// As docker does: what could be taken for a separator is percent-encoded, a space is a plus sign.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(byte.into()),
            b' ' => escaped.push('+'),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// Bytes that are written at once.
const PAGE: usize = 64 << 10;

/// Lines of one stream that wait to be written: a write for each of a million lines would take longer than all the rest.
struct Page {
    stream: Stream,
    bytes: Vec<u8>,
}

impl Default for Page {
    fn default() -> Page {
        Page { stream: Stream::Out, bytes: Vec::new() }
    }
}

impl Page {
    /// The next bytes are for this stream: what was before them goes out first, so that the order stays.
    fn turn_to(&mut self, stream: Stream) -> Result<()> {
        if self.stream != stream {
            self.flush()?;
            self.stream = stream;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        match self.stream {
            Stream::Out => out::to_reader(&self.bytes)?,
            Stream::Err => out::err_bytes(&self.bytes),
        }
        self.bytes.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_before_a_line() {
        let details = [("a".to_owned(), "1, 2".to_owned()), ("b/c".to_owned(), "é".to_owned())].into();
        let author = Author { id: "0123456789abcdef".into(), name: "web".into(), details };
        let entry = |is_whole| Entry { stamp: "T", stream: Stream::Out, is_whole, content: b"x" };
        let check = |style: Style, expected: &str| {
            let mut bytes = Vec::new();
            style.line(&mut bytes, &author, &entry(false), true);
            style.line(&mut bytes, &author, &entry(true), false);
            assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        };
        let none = || Style { timestamps: false, details: false, names: false, ids: false };
        check(none(), "xx\n");
        check(Style { ids: true, timestamps: true, ..none() }, "0123456789ab T xx\n");
        check(Style { ids: true, names: true, ..none() }, "web xx\n");
        check(Style { timestamps: true, details: true, ..none() }, "T a=1%2C+2,b%2Fc=%C3%A9 xx\n");
    }
}
