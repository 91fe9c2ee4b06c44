//! inspect, of containers, images, volumes and networks.

use anyhow::{Result, anyhow};
use clap::{ArgMatches, Command};
use serde_json::Value;

use super::flags::{each, many, names, switch, value};
use super::format::{Template, json};
use super::run_flags::one;
use super::{Session, out};
use crate::engine::{Engine, inspect, is_not_found, network, volume};
use crate::error;
use crate::error::ResultExt;
use crate::oci::reference::InvalidReference;

/// What there is to inspect; where nobody says which, the first that has the name.
const KINDS: &[&str] = &["container", "image", "volume", "network"];

pub(super) fn inspect_args(command: Command) -> Command {
    container_inspect_args(command).arg(value("type", None, "TYPE", "container, image, volume or network"))
}

/// [`inspect_args`] for containers alone.
pub(super) fn container_inspect_args(command: Command) -> Command {
    image_inspect_args(command).arg(switch(
        "size",
        Some('s'),
        "Of a container, also how much was written in it, and how much that is with its image",
    ))
}

/// [`inspect_args`] for images alone.
pub(super) fn image_inspect_args(command: Command) -> Command {
    command.arg(value("format", Some('f'), "TEMPLATE", "json or a Go template")).arg(names(true, "NAME"))
}

pub(super) fn inspect_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let kinds = match one(matches, "type") {
        None | Some("") => KINDS,
        Some(kind) => match KINDS.iter().position(|known| *known == kind) {
            Some(at) => &KINDS[at..=at],
            None => {
                return Err(anyhow!("cannot inspect a {kind:?}"))
                    .hint(format!("the types are {}", KINDS.join(", ")))
                    .exit_with(1);
            }
        },
    };
    inspect_with(matches, session, kinds, matches.get_flag("size"))
}

pub(super) fn container_inspect(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    inspect_with(matches, session, &["container"], matches.get_flag("size"))
}

pub(super) fn image_inspect(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    inspect_with(matches, session, &["image"], false)
}

fn inspect_with(
    matches: &ArgMatches,
    session: &mut Session,
    kinds: &[&'static str],
    with_size: bool,
) -> Result<u8> {
    // Only what counts files needs to see those of other users.
    let engine = if with_size { session.engine_as_root()? } else { session.engine()? };
    show(matches, |name| one_object(&engine, name, kinds, with_size))
}

/// Shows each of the `names` as `--format` says; `look` finds one.
pub(super) fn show(matches: &ArgMatches, mut look: impl FnMut(&str) -> Result<Value>) -> Result<u8> {
    let template = match one(matches, "format") {
        None | Some("" | "json") => None,
        Some(text) => Some(Template::parse(text)?),
    };
    let mut found = Vec::new();
    let code = each(&many(matches, "names"), |name| {
        let value = look(name)?;
        match &template {
            Some(template) => out::out(&format!("{}\n", template.render(&value)?))?,
            None => found.push(value),
        }
        Ok(())
    })?;
    if template.is_none() {
        let all = Value::Array(found);
        let text =
            if one(matches, "format") == Some("json") { json::compact(&all) } else { json::pretty(&all) };
        out::out(&format!("{text}\n"))?;
    }
    Ok(code)
}

/// The first of `kinds` that has something of this name. What is there and cannot be read is an error of its own.
fn one_object(engine: &Engine, name: &str, kinds: &[&'static str], with_size: bool) -> Result<Value> {
    for kind in kinds {
        let looked = match *kind {
            "container" => inspect::inspect(engine, name, with_size),
            "image" => super::image::inspect_one(engine, name),
            "volume" => volume::inspect(engine, name),
            _ => network::inspect(engine, name),
        };
        match looked {
            Err(error) if is_not_found(&error) || error.is::<InvalidReference>() => {}
            other => return other,
        }
    }
    // Docker's word where it may have been anything.
    let kind = if let [kind] = kinds { kind } else { "object" };
    Err(error::NotFound { kind, name: name.to_owned() }.into())
}
