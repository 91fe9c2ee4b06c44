//! Which box is meant, taking one's turn at it, and staying in it.

use anyhow::{Result, anyhow};

use super::{LABEL, MACHINE};
use crate::engine::{Engine, is_not_found, reap};
use crate::error::ResultExt;
use crate::runtime::sync::Socket;
use crate::store::container::{self, ContainerDir};
use crate::store::turn::Turn;
use crate::supervisor;

/// The name of the box that is made from this machine.
const MACHINE_BOX: &str = "shell";

/// What was typed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// An image or a box.
    pub target: Option<&'a str>,
    /// The image where nothing was typed.
    pub default_image: Option<&'a str>,
    /// A name for the box.
    pub name: Option<&'a str>,
    /// The box is to go when it ends.
    pub auto_remove: bool,
}

/// What is to be entered.
#[derive(Debug, PartialEq, Eq)]
pub enum Choice {
    /// A box that exists, by name.
    Box(String),
    /// A new one.
    New {
        /// From this image, or [`MACHINE`].
        from: String,
        /// Under this name; one is made up otherwise.
        name: Option<String>,
    },
}

impl Choice {
    /// The name of the box, if it is to have one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Choice::Box(name) => Some(name),
            Choice::New { name, .. } => name.as_deref(),
        }
    }
}

/// Finds out what the words mean, and waits for those who are making or starting the box at this moment: they have the
/// turn, and we have it when they are done. It is to be held until the box runs.
pub fn settle(engine: &Engine, asked: Asked<'_>) -> Result<(Choice, Option<Turn>)> {
    let mut choice = choose(engine, asked)?;
    loop {
        let Some(name) = choice.name() else { return Ok((choice, None)) };
        let turn = Turn::take(&engine.store, name)?;
        let now = choose(engine, asked)?;
        if now.name() == Some(name) {
            return Ok((now, Some(turn)));
        }
        choice = now;
    }
}

/// Finds out what the words mean: a box of that name, else an image.
fn choose(engine: &Engine, asked: Asked<'_>) -> Result<Choice> {
    let Asked { target, default_image, name, auto_remove } = asked;
    let from = target.or(default_image).unwrap_or(MACHINE).to_owned();
    if auto_remove {
        return Ok(Choice::New { from, name: name.map(str::to_owned) });
    }
    if let (Some(target), None) = (target, name)
        && let Some(found) = find(engine, target)?
        && found.image.is_some()
    {
        return Ok(Choice::Box(found.name));
    }
    let wanted = name.map_or_else(|| box_name(&from), str::to_owned);
    let Some(found) = find(engine, &wanted)? else {
        return Ok(Choice::New { from, name: Some(wanted) });
    };
    match found.image {
        None => Err(anyhow!("cannot use {wanted} as a box: it is a container that dhow shell did not make"))
            .hint(format!("name the box with --name, or use dhow exec -it {wanted} sh")),
        Some(image) if target.is_some() && image != from => {
            Err(anyhow!("cannot use the box {wanted} for {from}: it is made from {image}"))
                .hint("name another with --name, or remove it with dhow rm")
        }
        Some(_) => Ok(Choice::Box(found.name)),
    }
}

struct Found {
    name: String,
    /// What it is made from, if it is a box.
    image: Option<String>,
}

fn find(engine: &Engine, wanted: &str) -> Result<Option<Found>> {
    match engine.find(wanted).and_then(|dir| dir.record()) {
        Ok(record) => Ok(Some(Found { image: record.labels.get(LABEL).cloned(), name: record.name })),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The name of a box where none was typed: the last part of the image's, and its tag.
pub fn box_name(image: &str) -> String {
    if image == MACHINE {
        return MACHINE_BOX.into();
    }
    let short = image.split('@').next().unwrap_or_default();
    let short = short.rsplit('/').next().unwrap_or_default();
    let short = short.strip_suffix(":latest").unwrap_or(short);
    let name: String =
        short.chars().map(|c| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '-' }).collect();
    if container::is_name(&name) { name } else { "box".into() }
}

/// Stays in a box that runs: it goes on as long as this is held, also when the shell that began it ends. `None`: it is
/// ending.
pub fn stay(dir: &ContainerDir) -> Result<Option<Socket>> {
    let stay = supervisor::stay(dir)?;
    if stay.is_none() {
        reap::pause();
    }
    Ok(stay)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_named_after_their_image() {
        for (image, name) in [
            ("/", "shell"),
            ("alpine", "alpine"),
            ("alpine:latest", "alpine"),
            ("registry:5000/a/debian:12", "debian-12"),
            ("debian@sha256:00", "debian"),
            ("-x", "box"),
            ("", "box"),
        ] {
            assert_eq!(box_name(image), name, "{image}");
        }
    }
}
