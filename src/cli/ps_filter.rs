//! Which containers `ps` shows: what its filters mean.

use anyhow::{Context, Result, anyhow, bail};
use jiff::Timestamp;

use super::format::filter::{Filters, Patterns};
use super::zone;
use crate::engine::list::Listed;
use crate::engine::{Engine, is_not_found};
use crate::error::ResultExt;
use crate::oci::DiffId;
use crate::oci::Digest;
use crate::oci::reference::InvalidReference;
use crate::store::container::{Source, Status};
use crate::store::image;

pub(super) const KEYS: &[&str] = &[
    "id", "name", "label", "exited", "status", "ancestor", "before", "since", "until", "volume", "network",
    "publish", "expose", "health", "command", "is-task",
];

/// Docker's words for the state of a health check.
const HEALTH: &[&str] = &["starting", "healthy", "unhealthy", "none"];

/// All filters, looked up and checked: before anything is listed, so that wrong ones are always told.
pub(super) struct Chosen<'a> {
    filters: &'a Filters,
    ids: Patterns,
    names: Patterns,
    commands: Patterns,
    states: &'a [String],
    exits: Vec<i32>,
    ancestors: Vec<Ancestor<'a>>,
    before: Vec<Timestamp>,
    since: Vec<Timestamp>,
    until: Option<Timestamp>,
    published: Vec<Ports>,
    exposed: Vec<Ports>,
    is_task: bool,
}

impl<'a> Chosen<'a> {
    pub(super) fn new(engine: &Engine, filters: &'a Filters) -> Result<Chosen<'a>> {
        let created = |key: &str| -> Result<Vec<Timestamp>> {
            let one = |name: &String| Ok(engine.find(name)?.record()?.created);
            filters.values(key).iter().map(one).collect()
        };
        let ports = |key: &str| -> Result<Vec<Ports>> {
            let one =
                |text: &String| Ports::parse(text).with_context(|| format!("invalid filter '{key}={text}'"));
            filters.values(key).iter().map(one).collect()
        };
        if let Some(unknown) = filters.values("health").iter().find(|h| !HEALTH.contains(&h.as_str())) {
            bail!("invalid filter 'health={unknown}': the words are {}", HEALTH.join(", "));
        }
        Ok(Chosen {
            filters,
            ids: filters.patterns("id")?,
            names: filters.patterns("name")?,
            commands: filters.patterns("command")?,
            states: filters.states()?,
            exits: filters.exit_codes()?,
            ancestors: filters
                .values("ancestor")
                .iter()
                .map(|text| Ancestor::find(engine, text))
                .collect::<Result<_>>()?,
            before: created("before")?,
            since: created("since")?,
            until: filters.until(Timestamp::now(), &zone::local(&engine.host))?,
            published: ports("publish")?,
            exposed: ports("expose")?,
            // Of a swarm, which there is none of.
            is_task: filters.flag("is-task")?.unwrap_or(false),
        })
    }

    /// Whether those that do not run are asked for by the filters themselves.
    pub(super) fn is_about_all(&self) -> bool {
        !self.states.is_empty() || !self.exits.is_empty()
    }

    pub(super) fn fits(&self, c: &Listed) -> bool {
        let record = &c.record;
        let code = match &c.status {
            Status::Exited(exit) | Status::Restarting(_, exit) => Some(exit.code),
            _ => None,
        };
        let any = |key: &str, fits: &dyn Fn(&str) -> bool| {
            let values = self.filters.values(key);
            values.is_empty() || values.iter().any(|value| fits(value))
        };
        let ports = |wanted: &[Ports], there: &[String]| {
            let there: Vec<Ports> = there.iter().filter_map(|text| Ports::parse(text).ok()).collect();
            wanted.is_empty() || wanted.iter().any(|w| there.iter().any(|t| w.meets(t)))
        };
        let published: Vec<String> = c
            .ports()
            .iter()
            .filter_map(|port| Some(format!("{}/{}", port.host.as_ref()?.1, port.protocol)))
            .collect();
        !self.is_task
            && self.ids.match_id(&record.id)
            && self.names.match_name(&record.name)
            && self.commands.match_id(c.command.first().map_or("", String::as_str))
            && (self.states.is_empty() || self.states.iter().any(|s| s == c.state()))
            && (self.exits.is_empty() || code.is_some_and(|c| self.exits.contains(&c)))
            && self.filters.match_labels(|key| record.labels.get(key).map(String::as_str))
            && (self.ancestors.is_empty() || self.ancestors.iter().any(|a| a.is_of(c)))
            && self.before.iter().all(|other| record.created < *other)
            && self.since.iter().all(|other| record.created > *other)
            && self.until.is_none_or(|until| record.created < until)
            && any("volume", &|wanted| c.mounts().iter().any(|m| m.name == wanted || m.destination == wanted))
            && any("network", &|wanted| c.networks().iter().any(|network| network == wanted))
            && any("health", &|wanted| c.health().unwrap_or("none") == wanted)
            && ports(&self.published, &published)
            && ports(&self.exposed, &record.config.exposed_ports.iter().cloned().collect::<Vec<_>>())
    }
}

/// An image that containers may have been made from, or images whose layers lie on top of it.
struct Ancestor<'a> {
    typed: &'a str,
    image: Option<(String, Vec<DiffId>)>,
}

impl<'a> Ancestor<'a> {
    fn find(engine: &Engine, typed: &'a str) -> Result<Ancestor<'a>> {
        let image = match image::find(&engine.store, typed) {
            Ok(image) => Some((image.id.to_string(), image.diff_ids)),
            // Its name may be all that is left of it.
            Err(error) if is_not_found(&error) || error.is::<InvalidReference>() => None,
            Err(error) => return Err(error),
        };
        Ok(Ancestor { typed, image })
    }

    fn is_of(&self, c: &Listed) -> bool {
        let Source::Image { id, name, diff_ids } = &c.record.source else { return c.image() == self.typed };
        if let Some((wanted, layers)) = &self.image {
            let is_above =
                diff_ids.len() > layers.len() && diff_ids.starts_with(layers) && !layers.is_empty();
            return id == wanted || is_above;
        }
        let bare = Digest::bare(id);
        name == self.typed || id == self.typed || (self.typed.len() >= 4 && bare.starts_with(self.typed))
    }
}

/// `PORT[-PORT][/PROTOCOL]`.
#[derive(Debug, PartialEq, Eq)]
struct Ports {
    first: u16,
    last: u16,
    protocol: String,
}

impl Ports {
    fn parse(text: &str) -> Result<Ports> {
        let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = protocol.to_ascii_lowercase();
        if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
            return Err(anyhow!("there is no protocol {protocol:?}")).hint("it is tcp, udp or sctp");
        }
        let port = |text: &str| text.parse::<u16>().with_context(|| format!("{text:?} is not a port"));
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (port(first)?, port(last)?),
            None => (port(range)?, port(range)?),
        };
        if first > last {
            bail!("{first} is after {last}");
        }
        Ok(Ports { first, last, protocol })
    }

    fn meets(&self, other: &Ports) -> bool {
        self.protocol == other.protocol && self.first <= other.last && other.first <= self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_meet() {
        let check = |wanted: &str, there: &str, meets: bool| {
            assert_eq!(
                Ports::parse(wanted).unwrap().meets(&Ports::parse(there).unwrap()),
                meets,
                "{wanted} {there}"
            );
        };
        check("80", "80/tcp", true);
        check("80/TCP", "80", true);
        check("80/udp", "80/tcp", false);
        check("1-79", "80", false);
        check("1-80", "80-90", true);
        check("85/tcp", "80-90/tcp", true);
        for bad in ["", "x", "80-", "-80", "90-80", "80/ip", "65536", "1-2-3"] {
            assert!(Ports::parse(bad).is_err(), "{bad}");
        }
    }
}
