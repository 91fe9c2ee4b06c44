//! push: an image, or all tags of a repository, to a registry.

use std::path::Path;

use anyhow::{Result, anyhow, bail};
use clap::{Arg, ArgMatches, Command};

use super::flags::{of_flag, switch, value};
use super::progress::{Display, Headline};
use super::run_flags::one;
use super::{Session, manifest, out, registry_flags};
use crate::engine::Engine;
use crate::error::ResultExt;
use crate::fs;
use crate::image::Platform;
use crate::image::compression::Compression;
use crate::image::packing::Packing;
use crate::image::push::{self, Options};
use crate::oci::Reference;
use crate::registry::Client;
use crate::store::image::Image;
use crate::store::image::find::{By, find_by};
use crate::store::image::names::Names;

pub(super) fn push_args(command: Command) -> Command {
    let command = command
        .arg(switch("all-tags", Some('a'), "Push all tags of the repository NAME"))
        .arg(switch("quiet", Some('q'), "Print only what the image is called there"))
        .arg(value("digestfile", None, "FILE", "Write the digest of what was pushed to FILE"))
        .arg(value("platform", None, "OS/ARCH", "Fail if the image is for another platform"))
        .arg(compression())
        .arg(compression_level())
        .arg(switch("disable-content-trust", None, "Accepted for docker's sake").hide(true))
        .arg(Arg::new("image").value_name("NAME").required(true))
        .arg(Arg::new("destination").value_name("DESTINATION").help("What it is to be called there (NAME)"));
    registry_flags::add(command)
}

/// `--compression`
pub(super) fn compression() -> Arg {
    value("compression", None, "KIND", "gzip or zstd: pack all layers like this").alias("compression-format")
}

/// `--compression-level`
pub(super) fn compression_level() -> Arg {
    value("compression-level", None, "N", "1 to 9 for gzip (6), 1 to 19 for zstd (3)")
}

pub(super) fn push_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let name = one(matches, "image").unwrap_or_default();
    let platform = one(matches, "platform").map(str::parse::<Platform>).transpose()?;
    let options = Options { packing: packing(matches)?, platform };
    let mut registry = registry_flags::options(matches)?;
    let destination = one(matches, "destination").map(destination).transpose()?;
    // An image may be named by its id too, and then needs a destination.
    registry.ask_helpers(&session.host, destination.as_ref().or(name.parse().ok().as_ref()))?;
    let engine = session.engine_as_root()?;
    let jobs = if matches.get_flag("all-tags") {
        if destination.is_some() {
            bail!("cannot push all tags to one destination");
        }
        all_tags(&engine, name)?
    } else {
        vec![single(&engine, name, destination)?]
    };
    let client = Client::new(&session.host, registry)?;
    let is_quiet = matches.get_flag("quiet");
    if let Some((_, to)) = jobs.first().filter(|_| !is_quiet) {
        out::out(&format!("The push refers to repository [{}/{}]\n", to.registry, to.repository))?;
    }
    for (image, to) in &jobs {
        let mut display = Display::new(Headline::Stdout, is_quiet);
        let tell = &mut |event| display.tell(event);
        let pushed = push::push(&engine.store, &client, image, to, &options, tell)?;
        match to.tag_or_latest() {
            _ if is_quiet => out::out(&format!("{to}\n"))?,
            tag => out::out(&format!(
                "{}: digest: {} size: {}\n",
                tag.unwrap_or_default(),
                pushed.digest,
                pushed.size
            ))?,
        }
        if let Some(file) = one(matches, "digestfile") {
            fs::write_atomic(Path::new(file), pushed.digest.to_string().as_bytes())?;
        }
    }
    Ok(0)
}

/// `--compression` and `--compression-level`; `None` where neither was given.
pub(super) fn packing(matches: &ArgMatches) -> Result<Option<Packing>> {
    let level = one(matches, "compression-level").map(|text| {
        text.parse::<u32>().map_err(|_| anyhow!("cannot read --compression-level: {text:?} is not a number"))
    });
    let level = of_flag(level.transpose())?;
    let compression = match one(matches, "compression") {
        None if level.is_none() => return Ok(None),
        None | Some("gzip") => Compression::Gzip,
        Some("zstd") => Compression::Zstd,
        Some(other) => return Err(anyhow!("cannot compress with {other:?}")).hint("use gzip or zstd"),
    };
    Packing::new(compression, level).map(Some)
}

/// `docker://` is how podman and skopeo spell that a registry is meant.
fn destination(text: &str) -> Result<Reference> {
    let text = text.strip_prefix("docker://").unwrap_or(text);
    if let Some((transport, _)) = text.split_once(':')
        && ["oci", "oci-archive", "docker-archive", "dir"].contains(&transport)
    {
        return Err(anyhow!("cannot push to {text}: it is not in a registry"))
            .hint("dhow save writes archives and directories");
    }
    Ok(text.parse::<Reference>()?.with_default_tag())
}

fn single(engine: &Engine, name: &str, destination: Option<Reference>) -> Result<(Image, Reference)> {
    let found = find_by(&engine.store, name).map_err(|e| manifest::hint_for_list(engine, name, e));
    let (image, by) = found?;
    match (destination, by) {
        (Some(to), _) | (None, By::Name(to)) => Ok((image, to)),
        (None, _) => Err(anyhow!("cannot push {name}: it says where to, but not under which tag"))
            .hint("name the tag, or say where to: dhow push IMAGE DESTINATION"),
    }
}

/// Every tag of a repository.
fn all_tags(engine: &Engine, name: &str) -> Result<Vec<(Image, Reference)>> {
    let wanted: Reference = name.parse()?;
    if wanted.tag.is_some() || wanted.digest.is_some() {
        return Err(anyhow!("cannot push all tags of {name}: it has a tag itself"))
            .hint(format!("dhow push -a {}", wanted.familiar_repository()));
    }
    let mut jobs = Vec::new();
    for named in Names::visible(&engine.store)?.named {
        let reference = named.reference;
        let same = reference.registry == wanted.registry && reference.repository == wanted.repository;
        if same && reference.tag.is_some() && reference.digest.is_none() {
            jobs.push((crate::store::image::find(&engine.store, &reference.to_string())?, reference));
        }
    }
    if jobs.is_empty() {
        bail!("cannot push {name}: no image here is called so");
    }
    Ok(jobs)
}
