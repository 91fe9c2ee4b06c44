//! The image verbs: flags -> options, one call, render.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use clap::{Arg, ArgMatches, Command};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::flags::{list as listed, many, names, switch, value};
use super::format::{self, filter::Filters, headers, human, quote};
use super::run_flags::one;
use super::{Session, events, out};
use crate::engine::{Engine, list};
use crate::error::{self, ResultExt};
use crate::image::compression::Compression;
use crate::image::remove::{InUse, Removed};
use crate::image::{self, Input, Platform};
use crate::oci::{Digest, Reference};
use crate::store::container::{Source, Status};
use crate::store::image::{Image, Named, list as list_images};

/// What `inspect` shows of an image.
pub(super) fn inspect_one(engine: &Engine, name: &str) -> Result<Value> {
    image::inspect::inspect(&engine.store, name)
}

fn reference(text: &str) -> Result<Reference> {
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

pub(super) fn images_args(command: Command) -> Command {
    command
        .arg(switch("all", Some('a'), "Show all images"))
        .arg(switch("quiet", Some('q'), "Only ids"))
        .arg(switch("no-trunc", None, "Do not shorten"))
        .arg(switch("digests", None, "Show digests"))
        .arg(listed("filter", Some('f'), "KEY=VALUE", "Only those that fit"))
        .arg(value("format", None, "TEMPLATE", "json, table TEMPLATE or a Go template"))
        .arg(Arg::new("reference").value_name("REPOSITORY[:TAG]").help("Only these"))
}

const IMAGE_FILTERS: &[&str] =
    &["dangling", "label", "label!", "before", "since", "until", "reference", "id"];

pub(super) fn images(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let filters = Filters::parse(&many(matches, "filter"), IMAGE_FILTERS)?;
    let engine = session.engine()?;
    let no_trunc = matches.get_flag("no-trunc");
    let mut rows = Vec::new();
    let mut seen = Vec::new();
    for image in list_images(&engine.store)? {
        for entry in rows_of(&engine, &image, &filters, one(matches, "reference"), no_trunc)? {
            if matches.get_flag("quiet") {
                let id = entry["ID"].as_str().unwrap_or_default().to_owned();
                if !seen.contains(&id) {
                    out::out(&format!("{id}\n"))?;
                    seen.push(id);
                }
            } else {
                rows.push(entry);
            }
        }
    }
    if matches.get_flag("quiet") {
        return Ok(0);
    }
    let default =
        if matches.get_flag("digests") { headers::IMAGES_DIGESTS_TABLE } else { headers::IMAGES_TABLE };
    out::out(&format::render_rows(one(matches, "format"), default, headers::IMAGES, &rows)?)?;
    Ok(0)
}

/// A row for each name that fits, or one without a name.
fn rows_of(
    engine: &Engine,
    image: &Image,
    filters: &Filters,
    pattern: Option<&str>,
    no_trunc: bool,
) -> Result<Vec<Value>> {
    let created = created(image);
    let labels = image.config.config().as_ref().and_then(|c| c.labels().clone()).unwrap_or_default();
    let created_of = |name: &str| -> Result<Timestamp> {
        Ok(self::created(&crate::store::image::find(&engine.store, name)?).unwrap_or(Timestamp::UNIX_EPOCH))
    };
    let at = created.unwrap_or(Timestamp::UNIX_EPOCH);
    let mut fits = filters.match_labels(|key| labels.get(key).map(String::as_str));
    if let Some(dangling) = filters.flag("dangling")? {
        fits &= dangling == image.names.is_empty();
    }
    if let Some(until) = filters.until(Timestamp::now(), &TimeZone::UTC)? {
        fits &= at < until;
    }
    for other in filters.values("before") {
        fits &= at < created_of(other)?;
    }
    for other in filters.values("since") {
        fits &= at > created_of(other)?;
    }
    let ids = filters.values("id");
    fits &= ids.is_empty()
        || ids.iter().any(|id| image.id.to_string().starts_with(id) || image.id.hex().starts_with(id));
    if !fits {
        return Ok(Vec::new());
    }
    let wanted = |named: &&Named| {
        let r = &named.reference;
        let patterns = filters.values("reference");
        let by_filter = patterns.is_empty() || patterns.iter().any(|p| matches_reference(p, r));
        by_filter && pattern.is_none_or(|p| matches_reference(p, r))
    };
    // Docker has a row without a tag only where the repository has no tag at all for it.
    let is_told = |named: &&Named| {
        let (r, same) = (&named.reference, |o: &Reference| o.familiar_repository());
        r.tag.is_some() || !image.names.iter().any(|o| o.tag.is_some() && same(o) == same(r))
    };
    let names: Vec<&Named> = image.named.iter().filter(wanted).filter(is_told).collect();
    if names.is_empty()
        && (!image.names.is_empty() || pattern.is_some() || !filters.values("reference").is_empty())
    {
        return Ok(Vec::new());
    }
    if names.is_empty() {
        return Ok(vec![row(image, None, created, no_trunc)]);
    }
    Ok(names.into_iter().map(|named| row(image, Some(named), created, no_trunc)).collect())
}

/// Docker's rule: the pattern names a repository, with or without a tag, `*` and the like allowed.
fn matches_reference(pattern: &str, reference: &Reference) -> bool {
    let (repository, whole) = (reference.familiar_repository(), reference.familiar());
    format::filter::glob(pattern, &repository)
        || format::filter::glob(pattern, &whole)
        || pattern.parse::<Reference>().is_ok_and(|p| {
            p.registry == reference.registry
                && p.repository == reference.repository
                && (p.tag.is_none() || p.tag == reference.tag)
        })
}

fn created(image: &Image) -> Option<Timestamp> {
    image.config.created().as_ref().and_then(|c| c.parse().ok())
}

fn row(image: &Image, named: Option<&Named>, created: Option<Timestamp>, no_trunc: bool) -> Value {
    let none = || "<none>".to_owned();
    let repository = named.map_or_else(none, |n| n.reference.familiar_repository());
    let tag = named.and_then(|n| n.reference.tag.clone()).unwrap_or_else(none);
    let digest = named.map_or(&image.manifest, Named::digest);
    let now = Timestamp::now();
    let id = image.id.to_string();
    json!({
        "ID": if no_trunc { id.as_str() } else { image.id.short() },
        "Repository": repository,
        "Tag": tag,
        "Digest": digest.to_string(),
        "CreatedSince": created.map_or("N/A".to_owned(), |c| human::ago(c, now)),
        "CreatedAt": created.map_or("N/A".to_owned(), |c| human::created_at(c, &TimeZone::UTC)),
        "Size": human::size(image.size),
        "VirtualSize": human::size(image.size),
        "Containers": "N/A",
        "SharedSize": "N/A",
        "UniqueSize": "N/A",
    })
}

pub(super) fn rmi_args(command: Command) -> Command {
    command
        .arg(switch("force", Some('f'), "Remove it even if it has several names or a stopped container"))
        .arg(switch("no-prune", None, "Accepted for docker's sake"))
        .arg(names(true, "IMAGE"))
}

pub(super) fn rmi(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let engine = session.engine_as_root()?;
    let in_use = list::list(&engine)?.iter().filter_map(claim).collect();
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

fn claim(container: &list::Listed) -> Option<InUse> {
    let Source::Image { id, diff_ids, .. } = &container.record.source else { return None };
    Some(InUse {
        container: container.record.name.clone(),
        image: id.parse::<Digest>().ok()?,
        diff_ids: diff_ids.clone(),
        running: matches!(container.status, Status::Running(_) | Status::Starting),
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
