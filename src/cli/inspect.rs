//! inspect, of containers and images.

use anyhow::{Result, anyhow};
use clap::{ArgMatches, Command};

use super::flags::{each, many, names, value};
use super::format::{Template, json};
use super::run_flags::one;
use super::{Session, out};
use crate::engine::{Engine, inspect};
use crate::error;
use crate::error::ResultExt;
use crate::oci::reference::InvalidReference;

pub(super) fn inspect_args(command: Command) -> Command {
    command
        .arg(value("format", Some('f'), "TEMPLATE", "json or a Go template"))
        .arg(value("type", None, "TYPE", "container or image"))
        .arg(names(true, "NAME"))
}

/// [`inspect_args`] for images alone.
pub(super) fn image_inspect_args(command: Command) -> Command {
    command.arg(value("format", Some('f'), "TEMPLATE", "json or a Go template")).arg(names(true, "NAME"))
}

pub(super) fn inspect_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    inspect_with(matches, session, one(matches, "type"))
}

pub(super) fn container_inspect(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    inspect_with(matches, session, Some("container"))
}

pub(super) fn image_inspect(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    inspect_with(matches, session, Some("image"))
}

fn inspect_with(matches: &ArgMatches, session: &mut Session, kind: Option<&str>) -> Result<u8> {
    let engine = session.engine()?;
    let template = match one(matches, "format") {
        None | Some("json") => None,
        Some(text) => Some(Template::parse(text)?),
    };
    let mut found = Vec::new();
    let code = each(&many(matches, "names"), |name| {
        let value = one_object(&engine, name, kind)?;
        match &template {
            Some(template) => out::out(&format!("{}\n", template.render(&value)?))?,
            None => found.push(value),
        }
        Ok(())
    })?;
    if template.is_none() {
        let all = serde_json::Value::Array(found);
        let text =
            if one(matches, "format") == Some("json") { json::compact(&all) } else { json::pretty(&all) };
        out::out(&format!("{text}\n"))?;
    }
    Ok(code)
}

/// Where there is neither, docker speaks of an object; an image that is there and cannot be read is told as such.
fn missing(error: anyhow::Error, name: &str) -> anyhow::Error {
    let is_missing = crate::engine::is_not_found(&error) || error.is::<InvalidReference>();
    if is_missing { error::NotFound { kind: "object", name: name.to_owned() }.into() } else { error }
}

fn one_object(engine: &Engine, name: &str, kind: Option<&str>) -> Result<serde_json::Value> {
    match kind {
        Some("container") => inspect::inspect(engine, name),
        Some("image") => super::image::inspect_one(engine, name),
        Some(other) => {
            Err(anyhow!("cannot inspect a {other:?}")).hint("use --type container or --type image")
        }
        None => match inspect::inspect(engine, name) {
            Err(error) if crate::engine::is_not_found(&error) => {
                super::image::inspect_one(engine, name).map_err(|error| missing(error, name))
            }
            other => other,
        },
    }
}
