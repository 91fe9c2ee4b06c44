//! prune, of images, containers and all together, in docker's words.

use anyhow::{Result, anyhow};
use clap::{ArgMatches, Command};
use jiff::Timestamp;

use crate::cli::flags::{list, many, switch};
use crate::cli::format::filter::Filters;
use crate::cli::format::human;
use crate::cli::image::{claims, warn_unknown};
use crate::cli::prompt::confirm;
use crate::cli::{Session, out, zone};
use crate::engine::list::Listed;
use crate::engine::{self, Engine};
use crate::error;
use crate::image::remove::{self, Options, Removed};
use crate::store::image::Entry;
use crate::store::journal::{self, Event, Kind};
use crate::store::layer::usage;
use crate::store::volume::Volume;
use crate::store::{container, draft};

const PRUNE_FILTERS: &[&str] = &["until", "label", "label!"];
const IMAGE_PRUNE_FILTERS: &[&str] = &["until", "label", "label!", "dangling"];

pub(in crate::cli) fn image_args(command: Command) -> Command {
    common(command.arg(switch("all", Some('a'), "Remove all images that no container uses")))
}

pub(in crate::cli) fn container_args(command: Command) -> Command {
    common(command)
}

pub(in crate::cli) fn system_args(command: Command) -> Command {
    common(command.arg(switch("all", Some('a'), "Remove all images that no container uses")).arg(switch(
        "volumes",
        None,
        "Remove anonymous volumes that no container uses",
    )))
}

fn common(command: Command) -> Command {
    command.arg(switch("force", Some('f'), "Do not ask")).arg(list(
        "filter",
        None,
        "KEY=VALUE",
        "Only those that fit: until, label, label!",
    ))
}

pub(in crate::cli) fn image_prune(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let filters = Filters::parse(&many(matches, "filter"), IMAGE_PRUNE_FILTERS)?;
    let all = matches.get_flag("all") || filters.flag("dangling")? == Some(false);
    let chosen = Chosen::new(&filters, session)?;
    let warning = if all {
        "WARNING! This will remove all images without at least one container associated to them."
    } else {
        "WARNING! This will remove all dangling images."
    };
    if !matches.get_flag("force") && !confirm(warning)? {
        return Ok(0);
    }
    let engine = session.engine_as_root()?;
    let mut pruned = Pruned::default();
    pruned.images(&engine, &chosen, all)?;
    pruned.tell()
}

pub(in crate::cli) fn container_prune(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let filters = Filters::parse(&many(matches, "filter"), PRUNE_FILTERS)?;
    let chosen = Chosen::new(&filters, session)?;
    if !matches.get_flag("force") && !confirm("WARNING! This will remove all stopped containers.")? {
        return Ok(0);
    }
    let engine = session.engine_as_root()?;
    let mut pruned = Pruned::default();
    pruned.containers(&engine, &chosen)?;
    let event = Event::now(Kind::Container, "prune", "").with("reclaimed", pruned.bytes.to_string());
    journal::note(&engine.store, &event);
    pruned.tell()
}

pub(in crate::cli) fn system_prune(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let filters = Filters::parse(&many(matches, "filter"), PRUNE_FILTERS)?;
    let chosen = Chosen::new(&filters, session)?;
    let all = matches.get_flag("all");
    let images = if all {
        "all images without at least one container associated to them"
    } else {
        "all dangling images"
    };
    let volumes = if matches.get_flag("volumes") {
        "  - all anonymous volumes not used by at least one container\n"
    } else {
        ""
    };
    let warning = format!(
        "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n{volumes}  - {images}\n  - what interrupted commands left behind\n"
    );
    if !matches.get_flag("force") && !confirm(&warning)? {
        return Ok(0);
    }
    let engine = session.engine_as_root()?;
    let mut pruned = Pruned::default();
    pruned.containers(&engine, &chosen)?;
    pruned.networks(&engine, &chosen)?;
    if matches.get_flag("volumes") {
        pruned.volumes(&engine, &chosen)?;
    }
    pruned.leftovers(&engine)?;
    pruned.images(&engine, &chosen, all)?;
    pruned.tell()
}

/// What `--filter` leaves.
struct Chosen<'a> {
    filters: &'a Filters,
    until: Option<Timestamp>,
}

impl<'a> Chosen<'a> {
    fn new(filters: &'a Filters, session: &Session) -> Result<Chosen<'a>> {
        Ok(Chosen { filters, until: filters.until(Timestamp::now(), &zone::local(&session.host))? })
    }

    fn image(&self, image: &Entry) -> bool {
        let Some(summary) = &image.summary else { return self.filters.is_empty() };
        self.filters.match_labels(|key| summary.labels.get(key).map(String::as_str))
            && self.until.is_none_or(|until| summary.created.unwrap_or(Timestamp::UNIX_EPOCH) < until)
    }

    /// As docker: the age of a volume is no reason.
    fn volume(&self, volume: &Volume) -> bool {
        self.filters.match_labels(|key| volume.labels.get(key).map(String::as_str))
    }

    fn network(&self, network: &engine::network::Listed) -> bool {
        self.filters.match_labels(|key| network.labels.get(key).map(String::as_str))
            && self.until.is_none_or(|until| network.created.is_some_and(|created| created < until))
    }

    fn container(&self, container: &Listed) -> bool {
        let record = &container.record;
        let is_ended = !container.status.is_alive();
        is_ended
            && self.filters.match_labels(|key| record.labels.get(key).map(String::as_str))
            && self.until.is_none_or(|until| record.created < until)
    }
}

/// What is gone.
#[derive(Default)]
struct Pruned {
    containers: Vec<String>,
    volumes: Vec<String>,
    networks: Vec<String>,
    images: Vec<Removed>,
    errors: Vec<anyhow::Error>,
    bytes: u64,
}

impl Pruned {
    fn containers(&mut self, engine: &Engine, chosen: &Chosen<'_>) -> Result<()> {
        for listed in engine::list::list(engine)?.iter().filter(|c| chosen.container(c)) {
            let id = &listed.record.id;
            let dir = container::ContainerDir::of(&engine.store, id);
            // One that cannot be counted can still be removed.
            let bytes = usage::of(&dir.path).unwrap_or(0);
            match engine::remove::remove(engine, id, false) {
                Ok(()) => {
                    self.containers.push(id.clone());
                    self.bytes += bytes;
                }
                Err(error) => self.errors.push(error),
            }
        }
        Ok(())
    }

    fn images(&mut self, engine: &Engine, chosen: &Chosen<'_>, all: bool) -> Result<()> {
        let options = Options { force: true, in_use: claims(engine)? };
        let outcome = remove::prune(&engine.store, &options, all, &|image| chosen.image(image))?;
        warn_unknown(&outcome.freed);
        self.images.extend(outcome.removed);
        self.errors.extend(outcome.errors);
        self.bytes += outcome.freed.bytes;
        Ok(())
    }

    fn volumes(&mut self, engine: &Engine, chosen: &Chosen<'_>) -> Result<()> {
        let done = engine::volume::prune(engine, false, |volume| chosen.volume(volume))?;
        self.volumes.extend(done.names);
        self.bytes += done.bytes;
        Ok(())
    }

    fn networks(&mut self, engine: &Engine, chosen: &Chosen<'_>) -> Result<()> {
        self.networks.extend(engine::network::prune(engine, |network| chosen.network(network))?);
        Ok(())
    }

    fn leftovers(&mut self, engine: &Engine) -> Result<()> {
        let store = &engine.store;
        for name in draft::abandoned(store)? {
            self.bytes += usage::of(&store.data.join("tmp").join(name)).unwrap_or(0);
        }
        engine::reap::sweep(store)
    }

    fn tell(self) -> Result<u8> {
        let mut text = String::new();
        if !self.containers.is_empty() {
            text.push_str(&format!("Deleted Containers:\n{}\n\n", self.containers.join("\n")));
        }
        if !self.volumes.is_empty() {
            text.push_str(&format!("Deleted Volumes:\n{}\n\n", self.volumes.join("\n")));
        }
        if !self.networks.is_empty() {
            text.push_str(&format!("Deleted Networks:\n{}\n\n", self.networks.join("\n")));
        }
        if !self.images.is_empty() {
            text.push_str("Deleted Images:\n");
            for removed in &self.images {
                text.push_str(&match removed {
                    Removed::Untagged(name) => format!("untagged: {}\n", name.familiar()),
                    Removed::Deleted(id) => format!("deleted: {id}\n"),
                });
            }
            text.push('\n');
        }
        text.push_str(&format!("Total reclaimed space: {}\n", human::size_exact(self.bytes)));
        out::out(&text)?;
        for error in &self.errors {
            out::err(&error::report(error));
        }
        Ok(u8::from(!self.errors.is_empty()))
    }
}

pub(in crate::cli) fn reset_args(command: Command) -> Command {
    command.arg(switch("force", Some('f'), "Do not ask, and kill containers that run"))
}

pub(in crate::cli) fn reset_verb(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    use crate::error::ResultExt;
    let force = matches.get_flag("force");
    let warning = "WARNING! This will remove:\n  - all containers\n  - all images\n  - all volumes\n  - everything else in the store\n";
    // Before we are root of a name space of our own, from which those of the containers cannot be reached.
    let engine = session.engine()?;
    let runs = |c: &Listed| c.status.is_alive();
    let running: Vec<Listed> = engine::list::list(&engine)?.into_iter().filter(runs).collect();
    if !force && let Some(one) = running.first() {
        return Err(anyhow!("cannot reset the store: container {} is running", one.record.name))
            .hint("stop the containers first, or use --force, which kills them")
            .exit_with(1);
    }
    if !force && !confirm(warning)? {
        return Ok(0);
    }
    for container in &running {
        let at_once = engine::stop::StopOptions { timeout: Some(0), signal: None, is_removal: true };
        engine::stop::stop(&engine, &container.record.id, at_once)?;
    }
    let engine = session.engine_as_root()?;
    engine::reset::reset(&engine)?;
    Ok(0)
}
