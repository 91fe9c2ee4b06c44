//! cp.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use clap::{Arg, ArgMatches, Command};

use super::flags::{many, switch};
use super::format::human;
use super::{Session, out};
use crate::engine::copy::{self, Copied, CopyOptions};
use crate::error::ResultExt;

pub(super) fn cp_args(command: Command) -> Command {
    command
        .arg(switch("archive", Some('a'), "Keep owners and all rights"))
        .arg(switch("follow-link", Some('L'), "Copy what a link leads to, not the link"))
        .arg(switch("quiet", Some('q'), "Do not say what was copied"))
        .arg(
            Arg::new("names")
                .value_names(["SOURCE", "DESTINATION"])
                .required(true)
                .num_args(2)
                .allow_hyphen_values(true)
                .help("CONTAINER:PATH and a path of the host, or the other way round; - is a tar archive"),
        )
}

/// One of the two things to type.
enum End<'a> {
    Host(&'a str),
    Container(&'a str, &'a str),
    Stream,
}

impl End<'_> {
    /// A path of the host may hold a colon if it begins with `/` or `.`.
    fn read(text: &str) -> End<'_> {
        if text == "-" {
            return End::Stream;
        }
        match text.split_once(':') {
            Some((container, path)) if !text.starts_with(['/', '.']) => End::Container(container, path),
            _ => End::Host(text),
        }
    }
}

pub(super) fn cp_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let names = many(matches, "names");
    let (from, to) = (names[0], names[1]);
    let options =
        CopyOptions { archive: matches.get_flag("archive"), follow: matches.get_flag("follow-link") };
    let mut engine = session.engine()?;
    let copied = match (End::read(from), End::read(to)) {
        (End::Container(name, path), End::Host(to)) => {
            copy::to_host(&mut engine, name, path, Path::new(to), options)?
        }
        (End::Host(from), End::Container(name, path)) => {
            copy::to_container(&mut engine, Path::new(from), name, path, options)?
        }
        (End::Container(name, path), End::Stream) => {
            refuse_terminal()?;
            let mut stdout = io::BufWriter::with_capacity(256 * 1024, io::stdout().lock());
            copy::to_stream(&mut engine, name, path, &mut stdout, options)?;
            stdout.flush().context("cannot write to stdout")?;
            return Ok(0);
        }
        (End::Stream, End::Container(name, path)) => {
            let copied = copy::from_stream(&mut engine, io::stdin(), name, path)?;
            tell_skipped(&copied);
            return Ok(0);
        }
        (End::Container(..), End::Container(..)) => {
            return Err(anyhow!("cannot copy between containers"))
                .hint(format!("dhow cp {from} - | dhow cp - CONTAINER:DIRECTORY"));
        }
        _ => {
            return Err(anyhow!("cannot copy {from} to {to}: neither is in a container"))
                .hint("a path in a container is CONTAINER:PATH");
        }
    };
    tell_skipped(&copied);
    if !matches.get_flag("quiet") {
        out::err(&format!("Successfully copied {} to {to}\n", human::size(copied.bytes)));
    }
    Ok(0)
}

fn tell_skipped(copied: &Copied) {
    for path in &copied.skipped {
        out::warn(&format!("{} is a device and was left out", path.escape_debug()));
    }
}

fn refuse_terminal() -> Result<()> {
    if rustix::termios::isatty(rustix::stdio::stdout()) {
        return Err(anyhow!("cannot write an archive to a terminal")).hint("redirect it: > FILE.tar");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_means_a_container_unless_the_path_says_otherwise() {
        assert!(matches!(End::read("c:/a:b"), End::Container("c", "/a:b")));
        assert!(matches!(End::read("./c:/a"), End::Host(_)));
        assert!(matches!(End::read("/c:/a"), End::Host(_)));
        assert!(matches!(End::read("c"), End::Host(_)));
        assert!(matches!(End::read("-"), End::Stream));
    }
}
