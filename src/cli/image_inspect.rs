//! image inspect: of images that are here, and, spelt `docker://NAME`, of one in a registry, without pulling it.

use anyhow::{Result, anyhow};
use clap::{ArgMatches, Command};

use super::flags::{many, switch, value};
use super::format::{Template, json};
use super::run_flags::one;
use super::{Session, inspect, out, registry_flags};
use crate::error::ResultExt;
use crate::image::Platform;
use crate::image::remote;
use crate::oci::Reference;
use crate::registry::Client;

pub(super) fn inspect_args(command: Command) -> Command {
    let command = inspect::image_inspect_args(command)
        .arg(switch("raw", None, "Print exactly the bytes of the manifest or index (of docker://NAME)"))
        .arg(switch("config", None, "Print the config (of docker://NAME)"))
        .arg(value("platform", None, "OS/ARCH", "Which image of several platforms (of docker://NAME)"));
    registry_flags::add(command)
}

pub(super) fn inspect_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let names = many(matches, "names");
    let remote: Vec<&str> = names.iter().filter_map(|n| n.strip_prefix("docker://")).collect();
    if remote.is_empty() {
        for flag in ["raw", "config"] {
            if matches.get_flag(flag) {
                return Err(anyhow!("cannot inspect with --{flag} what is not in a registry"))
                    .hint("spell it docker://NAME");
            }
        }
        return inspect::image_inspect(matches, session);
    }
    if remote.len() < names.len() {
        return Err(anyhow!("cannot inspect images that are here and in a registry at once"))
            .hint("take two commands");
    }
    let client = Client::new(&session.host, registry_flags::options(matches)?)?;
    let platform = one(matches, "platform").map_or_else(|| Ok(Platform::host()), str::parse)?;
    let mut found = Vec::new();
    for name in remote {
        let reference = name.parse::<Reference>()?.with_default_tag();
        match (matches.get_flag("raw"), matches.get_flag("config")) {
            (true, false) => out::out_bytes(&remote::document(&client, &reference)?.bytes)?,
            (true, true) => out::out_bytes(&remote::image(&client, &reference, &platform)?.config.bytes)?,
            (false, true) => {
                let config = remote::image(&client, &reference, &platform)?.config;
                out::out(&format!("{}\n", json::pretty(&serde_json::from_slice(&config.bytes)?)))?;
            }
            (false, false) => {
                let image = remote::image(&client, &reference, &platform)?;
                found.push(remote::describe(&reference, &image)?);
            }
        }
    }
    if matches.get_flag("raw") || matches.get_flag("config") {
        return Ok(0);
    }
    match one(matches, "format") {
        None => out::out(&format!("{}\n", json::pretty(&found.into())))?,
        Some("json") => out::out(&format!("{}\n", json::compact(&found.into())))?,
        Some(text) => {
            let template = Template::parse(text)?;
            for value in &found {
                out::out(&format!("{}\n", template.render(value)?))?;
            }
        }
    }
    Ok(0)
}
