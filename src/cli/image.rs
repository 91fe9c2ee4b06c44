//! The image verbs: flags -> options, one call, render.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use clap::{Arg, ArgMatches, Command};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::flags::{list as listed, many, names, switch, value};
use super::format::{self, headers, human, quote};
use super::run_flags::one;
use super::{Session, events, out};
use crate::engine::{Engine, list};
use crate::error::{self, ResultExt};
use crate::image::compression::Compression;
use crate::image::remove::{InUse, Removed};
use crate::image::{self, Input, Platform};
use crate::oci::{Digest, Reference};
use crate::store::container::Source;
use crate::store::gc::Freed;

/// What `inspect` shows of an image.
pub(super) fn inspect_one(engine: &Engine, name: &str) -> Result<Value> {
    image::inspect::inspect(&engine.store, name)
}

pub(super) fn reference(text: &str) -> Result<Reference> {
    Ok(text.parse::<Reference>()?.with_default_tag())
}

/// A path, or standard input for `-` and nothing.
fn input(path: Option<&str>) -> Result<Input> {
    match path {
        Some("-") | None => {
            if rustix::termios::isatty(rustix::stdio::stdin()) {
                return Err(anyhow!("cannot read an archive from the terminal"))
                    .hint("name a file, or use < to redirect one");
            }
            let fd = rustix::stdio::stdin().try_clone_to_owned().context("cannot use stdin")?;
            Ok(Input::Stream(fd.into()))
        }
        Some(path) => Ok(Input::Path(path.into())),
    }
}

fn platform(matches: &ArgMatches) -> Result<Option<Platform>> {
    one(matches, "platform").map(|p| p.parse::<Platform>().map_err(Into::into)).transpose()
}

pub(super) fn import_args(command: Command) -> Command {
    command
        .arg(listed("change", Some('c'), "INSTRUCTION", "Apply a Dockerfile instruction: CMD, ENV, USER..."))
        .arg(value("message", Some('m'), "TEXT", "Comment in the history"))
        .arg(value("platform", None, "OS/ARCH", "What the file system is for"))
        .arg(switch("quiet", Some('q'), "Print only the id"))
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .required(true)
                .help("A tar, plain, gzip or zstd; - for stdin"),
        )
        .arg(Arg::new("reference").value_name("REFERENCE").help("The image's name"))
}

pub(super) fn import(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let options = image::import::Options {
        input: input(one(matches, "file"))?,
        reference: one(matches, "reference").map(reference).transpose()?,
        changes: many(matches, "change").into_iter().map(str::to_owned).collect(),
        message: one(matches, "message").map(str::to_owned),
        platform: platform(matches)?,
    };
    let engine = session.engine_as_root()?;
    let imported = image::import::import(&engine.store, &options, &mut events)?;
    out::out(&format!("{}\n", imported.id))?;
    Ok(0)
}

pub(super) fn load_args(command: Command) -> Command {
    command
        .arg(value("input", Some('i'), "FILE", "Read FILE (or an OCI directory) in place of stdin"))
        .arg(value("platform", None, "OS/ARCH", "Which image of several platforms"))
        .arg(switch("quiet", Some('q'), "Print no progress"))
}

pub(super) fn load(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let options = image::load::Options { input: input(one(matches, "input"))?, platform: platform(matches)? };
    let engine = session.engine_as_root()?;
    for loaded in image::load::load(&engine.store, &options, &mut events)? {
        if loaded.names.is_empty() {
            out::out(&format!("Loaded image ID: {}\n", loaded.id))?;
        }
        for name in loaded.names {
            out::out(&format!("Loaded image: {}\n", name.familiar()))?;
        }
    }
    Ok(0)
}

pub(super) fn save_args(command: Command) -> Command {
    command
        .arg(value("output", Some('o'), "FILE", "Write to FILE in place of stdout"))
        .arg(value("format", None, "FORMAT", "docker-archive, oci-archive or oci-dir (docker-archive)"))
        .arg(value("compress", None, "KIND", "gzip, zstd or none: the archive as a whole (none)"))
        .arg(names(true, "IMAGE"))
}

pub(super) fn save(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    use crate::image::save::{Format, Options, Output, save};
    let format = match one(matches, "format").unwrap_or("docker-archive") {
        "docker-archive" | "docker" => Format::DockerArchive,
        "oci-archive" | "oci" => Format::OciArchive,
        "oci-dir" => Format::OciDirectory,
        other => {
            return Err(anyhow!("cannot save as {other:?}"))
                .hint("use docker-archive, oci-archive or oci-dir");
        }
    };
    let compression = match one(matches, "compress").unwrap_or("none") {
        "none" => Compression::None,
        "gzip" => Compression::Gzip,
        "zstd" => Compression::Zstd,
        other => return Err(anyhow!("cannot compress with {other:?}")).hint("use gzip, zstd or none"),
    };
    let images = many(matches, "names").into_iter().map(str::to_owned).collect();
    let options = Options { images, format, compression };
    let engine = session.engine_as_root()?;
    match one(matches, "output").filter(|p| *p != "-") {
        Some(path) => save(&engine.store, &options, Output::Path(Path::new(path)))?,
        None => {
            if rustix::termios::isatty(rustix::stdio::stdout()) {
                return Err(anyhow!("cannot save an archive to the terminal"))
                    .hint("name a file with -o, or use > to redirect");
            }
            save(&engine.store, &options, Output::Stream(&mut std::io::stdout().lock()))?;
        }
    }
    Ok(0)
}

pub(super) fn rmi_args(command: Command) -> Command {
    command
        .arg(switch("force", Some('f'), "Remove it even if it has several names or a stopped container"))
        .arg(switch("no-prune", None, "Accepted for docker's sake"))
        .arg(names(true, "IMAGE"))
}

pub(super) fn rmi(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let engine = session.engine_as_root()?;
    let in_use = claims(&engine)?;
    let force = matches.get_flag("force");
    let options = image::remove::Options { force, in_use };
    let names: Vec<String> = many(matches, "names").into_iter().map(str::to_owned).collect();
    let outcome = image::remove::remove(&engine.store, &names, &options)?;
    for removed in &outcome.removed {
        match removed {
            Removed::Untagged(name) => out::out(&format!("Untagged: {}\n", name.familiar()))?,
            Removed::Deleted(id) => out::out(&format!("Deleted: {id}\n"))?,
        }
    }
    warn_unknown(&outcome.freed);
    let mut code = 0;
    for error in &outcome.errors {
        if force && crate::engine::is_not_found(error) {
            continue;
        }
        out::err(&error::report(error));
        code = 1;
    }
    Ok(code)
}

/// Says why nothing was freed, if so.
pub(super) fn warn_unknown(freed: &Freed) {
    if let Some(one) = freed.unknown.first() {
        out::warn(&format!(
            "nothing was freed, because nobody can tell what the damaged image {one} needs: dhow system check tells more"
        ));
    }
}

/// What containers say of the images that they need.
pub(super) fn claims(engine: &Engine) -> Result<Vec<InUse>> {
    Ok(list::list(engine)?.iter().filter_map(claim).collect())
}

fn claim(container: &list::Listed) -> Option<InUse> {
    let Source::Image { id, diff_ids, .. } = &container.record.source else { return None };
    Some(InUse {
        container: container.record.name.clone(),
        image: id.parse::<Digest>().ok()?,
        diff_ids: diff_ids.clone(),
        running: container.status.is_alive(),
    })
}

pub(super) fn tag_args(command: Command) -> Command {
    command
        .arg(Arg::new("source").value_name("IMAGE").required(true))
        .arg(Arg::new("target").value_name("NAME").required(true))
}

pub(super) fn tag(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let engine = session.engine_as_root()?;
    let (source, target) =
        (one(matches, "source").unwrap_or_default(), one(matches, "target").unwrap_or_default());
    image::tag::tag(&engine.store, source, &reference(target)?)?;
    Ok(0)
}

pub(super) fn untag_args(command: Command) -> Command {
    command.arg(Arg::new("source").value_name("IMAGE").required(true)).arg(
        Arg::new("targets").value_name("NAME").num_args(0..).help("These names; all that it has otherwise"),
    )
}

pub(super) fn untag(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let engine = session.engine_as_root()?;
    let targets = many(matches, "targets").into_iter().map(reference).collect::<Result<Vec<_>>>()?;
    for gone in image::tag::untag(&engine.store, one(matches, "source").unwrap_or_default(), &targets)? {
        out::out(&format!("Untagged: {}\n", gone.familiar()))?;
    }
    Ok(0)
}

pub(super) fn history_args(command: Command) -> Command {
    command
        .arg(switch("quiet", Some('q'), "Only ids"))
        .arg(switch("no-trunc", None, "Do not shorten"))
        .arg(switch("human", Some('H'), "Sizes and dates for people (always)"))
        .arg(value("format", None, "TEMPLATE", "json, table TEMPLATE or a Go template"))
        .arg(Arg::new("image").value_name("IMAGE").required(true))
}

pub(super) fn history(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let engine = session.engine()?;
    let no_trunc = matches.get_flag("no-trunc");
    let now = Timestamp::now();
    let steps = image::history::history(&engine.store, one(matches, "image").unwrap_or_default())?;
    let row = |step: &image::history::Step| {
        let id = match &step.id {
            Some(id) if no_trunc => id.to_string(),
            Some(id) => id.short().to_owned(),
            None => "<missing>".to_owned(),
        };
        let created: Option<Timestamp> = step.created.as_ref().and_then(|c| c.parse().ok());
        json!({
            "ID": id,
            "CreatedSince": created.map_or("N/A".to_owned(), |c| human::ago(c, now)),
            "CreatedAt": step.created.clone().unwrap_or_else(|| "N/A".into()),
            "CreatedBy": if no_trunc { step.created_by.clone() } else { quote::ellipsis(&step.created_by, 45) },
            "Size": human::size(step.size),
            "Comment": step.comment,
        })
    };
    let rows: Vec<Value> = steps.iter().map(row).collect();
    if matches.get_flag("quiet") {
        for row in rows {
            out::out(&format!("{}\n", row["ID"].as_str().unwrap_or_default()))?;
        }
        return Ok(0);
    }
    out::out(&format::render_rows(one(matches, "format"), headers::HISTORY_TABLE, headers::HISTORY, &rows)?)?;
    Ok(0)
}
