//! diff, export and commit: what a container changed, by itself, with all else, and as an image.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use clap::{Arg, ArgMatches, Command};

use super::flags::{list, many, names, switch, value};
use super::run_flags::one;
use super::{Session, out};
use crate::engine::commit::{self, CommitOptions};
use crate::engine::export;
use crate::error::ResultExt;
use crate::fs;

pub(super) fn diff_args(command: Command) -> Command {
    command.arg(names(true, "CONTAINER").num_args(1))
}

pub(super) fn diff_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let mut engine = session.engine()?;
    let mut lines = Vec::new();
    for (change, path) in export::diff(&mut engine, many(matches, "names")[0])? {
        lines.extend_from_slice(format!("{} /", change.letter()).as_bytes());
        // A file's name may hold anything, a line's end too.
        for byte in path {
            match byte {
                b'\n' => lines.extend_from_slice(b"\\n"),
                0..32 | 127 => lines.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
                byte => lines.push(byte),
            }
        }
        lines.push(b'\n');
    }
    out::out_bytes(&lines)?;
    Ok(0)
}

pub(super) fn export_args(command: Command) -> Command {
    command
        .arg(value("output", Some('o'), "FILE", "Write to FILE in place of stdout"))
        .arg(names(true, "CONTAINER").num_args(1))
}

pub(super) fn export_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let name = many(matches, "names")[0];
    let mut engine = session.engine()?;
    let Some(path) = one(matches, "output").filter(|path| *path != "-").map(Path::new) else {
        if rustix::termios::isatty(rustix::stdio::stdout()) {
            return Err(anyhow!("cannot export {name} to the terminal"))
                .hint("name a file with -o, or use > to redirect");
        }
        let mut stdout = io::BufWriter::with_capacity(256 * 1024, io::stdout().lock());
        export::export(&mut engine, name, &mut stdout)?;
        stdout.flush().context("cannot write to stdout")?;
        return Ok(0);
    };
    // A file appears whole or not at all, and no other is lost for an archive that is cut off.
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}.draft", std::process::id()));
    let draft = Path::new(&draft);
    let about = || format!("cannot write {}", path.display());
    let is_special = fs::metadata(path)?.is_some_and(|meta| !meta.is_file());
    let file = if is_special { fs::open_or_create(path, 0o600)? } else { fs::create_new(draft, 0o600)? };
    let mut file = io::BufWriter::with_capacity(256 * 1024, file);
    let written =
        export::export(&mut engine, name, &mut file).and_then(|()| file.flush().with_context(about));
    if is_special {
        return written.map(|()| 0);
    }
    let written = written.and_then(|()| fs::rename(draft, path));
    if written.is_err() {
        fs::remove_file(draft)?;
    }
    written.map(|()| 0)
}

pub(super) fn commit_args(command: Command) -> Command {
    command
        .arg(value("author", Some('a'), "AUTHOR", "Who made it"))
        .arg(value("message", Some('m'), "TEXT", "Why, for the history"))
        .arg(list("change", Some('c'), "INSTRUCTION", "Change the config as this line of a Dockerfile would"))
        .arg(
            Arg::new("pause")
                .long("pause")
                .short('p')
                .value_name("BOOL")
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .default_value("true")
                .value_parser(clap::value_parser!(bool))
                .help("Pause the container meanwhile (true)"),
        )
        .arg(switch("no-pause", None, "Do not pause it"))
        .arg(switch("quiet", Some('q'), "Accepted for podman's sake"))
        .arg(
            Arg::new("names")
                .value_name("CONTAINER [IMAGE[:TAG]]")
                .required(true)
                .num_args(1..=2)
                .help("The container, and what to call the image"),
        )
}

pub(super) fn commit_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let names = many(matches, "names");
    let reference = match names.get(1) {
        Some(name) => Some(super::image::reference(name)?),
        None => None,
    };
    let text = |name| one(matches, name).unwrap_or_default().to_owned();
    let options = CommitOptions {
        reference,
        changes: many(matches, "change").into_iter().map(str::to_owned).collect(),
        message: text("message"),
        author: text("author"),
        pause: matches.get_one::<bool>("pause").copied().unwrap_or(true) && !matches.get_flag("no-pause"),
    };
    let mut engine = session.engine()?;
    let id = commit::commit(&mut engine, names[0], &options)?;
    out::out(&format!("{id}\n"))?;
    Ok(0)
}
