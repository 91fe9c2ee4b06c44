//! manifest: lists of images for several platforms, as docker and podman spell it.

use std::path::Path;

use anyhow::{Result, anyhow, bail};
use clap::{Arg, ArgMatches, Command};
use serde_json::Value;

use super::flags::{each, list as listed, many, names, switch, value};
use super::format::json;
use super::image_copy::spool;
use super::progress::{Display, Headline};
use super::run_flags::one;
use super::{Session, out, push, registry_flags};
use crate::engine::Engine;
use crate::error::NotFound;
use crate::error::ResultExt;
use crate::fs;
use crate::image::manifest_list::{self, Changes, PushOptions};
use crate::image::remote;
use crate::oci::Reference;
use crate::registry::{Client, Options};

fn reference(text: &str) -> Result<Reference> {
    let text = text.strip_prefix("docker://").unwrap_or(text);
    Ok(text.parse::<Reference>()?.with_default_tag())
}

/// The registry's flags, with docker's word for `--tls-verify=false`.
fn with_registry(command: Command) -> Command {
    registry_flags::add(command).arg(switch("insecure", None, "The same as --tls-verify=false"))
}

/// A client of registries; `entering` is what is used after the user name space was entered.
fn client(matches: &ArgMatches, session: &Session, entering: Option<&Reference>) -> Result<Client> {
    let options = registry_flags::options(matches)?;
    let options = match matches.get_flag("insecure") {
        true => Options { tls_verify: Some(false), ..options },
        false => options,
    };
    let mut options = options;
    options.ask_helpers(&session.host, entering)?;
    Client::new(&session.host, options)
}

fn list_name(matches: &ArgMatches) -> Result<Reference> {
    reference(one(matches, "list").unwrap_or_default())
}

fn list_arg() -> Arg {
    Arg::new("list").value_name("LIST").required(true)
}

fn pairs(matches: &ArgMatches) -> Result<Vec<(String, String)>> {
    let pair = |text: &str| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(anyhow!("cannot read --annotation {text:?}: KEY=VALUE is wanted")),
    };
    many(matches, "annotation").into_iter().map(pair).collect()
}

pub(super) fn create_args(command: Command) -> Command {
    let command = command
        .arg(switch("amend", Some('a'), "Go on with a list that exists"))
        .arg(switch("all", None, "Add everything that an index names, not only what is for this machine"))
        .arg(listed("annotation", None, "KEY=VALUE", "Annotate the list"))
        .arg(list_arg())
        .arg(names(false, "IMAGE"));
    with_registry(command)
}

pub(super) fn create_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let (list, annotations) = (list_name(matches)?, pairs(matches)?);
    let client = client(matches, session, None)?;
    let engine = session.engine()?;
    let is_new = !manifest_list::exists(&engine.store, &list)?;
    manifest_list::create(&engine.store, &list, matches.get_flag("amend"), &annotations)?;
    for image in many(matches, "names") {
        let all = matches.get_flag("all");
        let added = manifest_list::add(&engine.store, &client, &list, image, all, &Changes::default());
        if added.is_err() && is_new {
            // Half a list is not what was asked for.
            let _ = manifest_list::remove(&engine.store, &list);
        }
        added?;
    }
    out::out(&format!("Created manifest list {list}\n"))?;
    Ok(0)
}

fn changes_args(command: Command) -> Command {
    command
        .arg(value("os", None, "OS", "What the image is for, otherwise than it says itself"))
        .arg(value("arch", None, "ARCH", "The same: the architecture"))
        .arg(value("variant", None, "VARIANT", "The same: the architecture's variant"))
        .arg(value("os-version", None, "VERSION", "The same: the version of the operating system"))
        .arg(listed("os-features", None, "FEATURE", "The same: features of the operating system"))
        .arg(listed("features", None, "FEATURE", "The same: features of the processor"))
        .arg(listed("annotation", None, "KEY=VALUE", "Annotate the image's entry"))
}

fn changes(matches: &ArgMatches) -> Result<Changes> {
    let text = |name| one(matches, name).map(str::to_owned);
    let all = |name| many(matches, name).iter().flat_map(|v| v.split(',')).map(str::to_owned).collect();
    Ok(Changes {
        os: text("os"),
        architecture: text("arch"),
        variant: text("variant"),
        os_version: text("os-version"),
        os_features: all("os-features"),
        features: all("features"),
        annotations: pairs(matches)?,
    })
}

pub(super) fn add_args(command: Command) -> Command {
    let command = changes_args(command)
        .arg(switch("all", None, "Add everything that an index names, not only what is for this machine"))
        .arg(list_arg())
        .arg(names(true, "IMAGE"));
    with_registry(command)
}

pub(super) fn add_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let (list, changes) = (list_name(matches)?, changes(matches)?);
    let client = client(matches, session, None)?;
    let engine = session.engine()?;
    for image in many(matches, "names") {
        let all = matches.get_flag("all");
        for digest in manifest_list::add(&engine.store, &client, &list, image, all, &changes)? {
            out::out(&format!("{digest}\n"))?;
        }
    }
    Ok(0)
}

pub(super) fn annotate_args(command: Command) -> Command {
    changes_args(command)
        .arg(list_arg())
        .arg(Arg::new("image").value_name("IMAGE").required(true).help("As it was added, or its digest"))
}

pub(super) fn annotate_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let engine = session.engine()?;
    let image = one(matches, "image").unwrap_or_default();
    manifest_list::annotate(&engine.store, &list_name(matches)?, image, &changes(matches)?)?;
    Ok(0)
}

pub(super) fn take_out_args(command: Command) -> Command {
    command.arg(list_arg()).arg(names(true, "IMAGE"))
}

pub(super) fn take_out_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let engine = session.engine()?;
    let list = list_name(matches)?;
    each(&many(matches, "names"), |image| manifest_list::take_out(&engine.store, &list, image))
}

pub(super) fn inspect_args(command: Command) -> Command {
    let command = command
        .arg(switch("verbose", Some('v'), "Show each image's manifest, and what the index says of it"))
        .arg(switch("raw", None, "Print exactly the bytes that the registry has"))
        .arg(
            Arg::new("names")
                .value_name("[LIST] MANIFEST")
                .required(true)
                .num_args(1..=2)
                .help("A list that is here, one of its images, or what a registry has"),
        );
    with_registry(command)
}

pub(super) fn inspect_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let typed = many(matches, "names");
    let client = client(matches, session, None)?;
    let engine = session.engine()?;
    if let [list, image] = typed[..] {
        let list = manifest_list::find(&engine.store, &reference(list)?)?;
        let entry = manifest_list::entry(&list, image)?;
        return show(&Value::Object(entry.descriptor.clone()));
    }
    let name = typed.first().copied().unwrap_or_default();
    let wanted = reference(name)?;
    let is_elsewhere = name.starts_with("docker://");
    if !is_elsewhere && manifest_list::exists(&engine.store, &wanted)? {
        let list = manifest_list::find(&engine.store, &wanted)?;
        return show(&manifest_list::index(&list, None));
    }
    if matches.get_flag("verbose") {
        return show(&remote::verbose(&client, &wanted)?);
    }
    let document = remote::document(&client, &wanted)?;
    if matches.get_flag("raw") {
        out::out_bytes(&document.bytes)?;
        return Ok(0);
    }
    show(&serde_json::from_slice(&document.bytes)?)
}

fn show(value: &Value) -> Result<u8> {
    out::out(&format!("{}\n", json::pretty(value)))?;
    Ok(0)
}

pub(super) fn push_args(command: Command) -> Command {
    let command = command
        .arg(switch("purge", Some('p'), "Remove the list here when it is there").visible_alias("rm"))
        .arg(switch(
            "all",
            None,
            "Push the images too, which is done anyway: an index cannot be without them",
        ))
        .arg(switch("quiet", Some('q'), "Print no progress"))
        .arg(value("digestfile", None, "FILE", "Write the digest of the index to FILE"))
        .arg(value("format", Some('f'), "FORMAT", "oci or v2s2 (what the images are)"))
        .arg(push::compression())
        .arg(push::compression_level())
        .arg(list_arg())
        .arg(Arg::new("destination").value_name("DESTINATION").help("What it is to be called there (LIST)"));
    with_registry(command)
}

pub(super) fn push_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let name = list_name(matches)?;
    let destination = match one(matches, "destination") {
        Some(text) => reference(text)?,
        None => name.clone(),
    };
    if destination.digest.is_some() {
        bail!(
            "cannot push {}: a digest cannot be given to an index, it is found out",
            destination.familiar()
        );
    }
    let as_docker = match one(matches, "format") {
        None => None,
        Some("oci") => Some(false),
        Some("v2s2" | "docker") => Some(true),
        Some(other) => return Err(anyhow!("cannot push as {other:?}")).hint("use oci or v2s2"),
    };
    let options = PushOptions { as_docker, packing: push::packing(matches)?, spool: spool(&session.host) };
    let client = client(matches, session, Some(&destination))?;
    let engine = session.engine_as_root()?;
    let list = manifest_list::find(&engine.store, &name)?;
    let mut display = Display::new(Headline::Stderr, matches.get_flag("quiet"));
    let tell = &mut |event| display.tell(event);
    let pushed = manifest_list::push(&engine.store, &client, &list, &destination, &options, tell)?;
    if let Some(file) = one(matches, "digestfile") {
        fs::write_atomic(Path::new(file), pushed.digest.to_string().as_bytes())?;
    }
    if matches.get_flag("purge") {
        manifest_list::remove(&engine.store, &name)?;
    }
    out::out(&format!("{}\n", pushed.digest))?;
    Ok(0)
}

pub(super) fn rm_args(command: Command) -> Command {
    command.arg(names(true, "LIST"))
}

pub(super) fn rm_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let engine = session.engine()?;
    each(&many(matches, "names"), |name| manifest_list::remove(&engine.store, &reference(name)?))
}

pub(super) fn exists_args(command: Command) -> Command {
    command.arg(list_arg())
}

/// Says it by its exit code alone, as podman's does.
pub(super) fn exists_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let engine: Engine = session.engine()?;
    Ok(u8::from(!manifest_list::exists(&engine.store, &list_name(matches)?)?))
}

/// What to add to the error of a push of something that is a list.
pub(super) fn hint_for_list(engine: &Engine, name: &str, error: anyhow::Error) -> anyhow::Error {
    let is_list = || reference(name).and_then(|r| manifest_list::exists(&engine.store, &r)).unwrap_or(false);
    if error.is::<NotFound>() && is_list() {
        let hint = format!("{name} is a manifest list: dhow manifest push {name}");
        return Err::<(), _>(error).hint(hint).expect_err("a hint is added to an error");
    }
    error
}
