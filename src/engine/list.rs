//! ps: one entry a container, whatever state it is in.

use anyhow::Result;

use super::{Engine, port, reap};
use crate::endpoint::Network;
use crate::spec::options::Mount;
use crate::store::container::{self, ContainerDir, Record, Source, Status};
use crate::store::health::{self, Health};

/// A container as `ps` sees it.
#[derive(Debug, Clone)]
pub struct Listed {
    /// What was asked for.
    pub record: Record,
    /// What it does.
    pub status: Status,
    /// The command line, program first.
    pub command: Vec<String>,
    /// What its health check came to, where it has one.
    health: Option<String>,
    /// Its ports, while it runs.
    ports: Vec<port::Listed>,
}

impl Listed {
    /// The image as typed, or the directory.
    pub fn image(&self) -> String {
        match &self.record.source {
            Source::Image { name, .. } => name.clone(),
            Source::Dir { path, .. } => path.display().to_string(),
        }
    }

    /// Whether `ps` shows it unasked: it has processes, or is about to have some again.
    pub fn runs(&self) -> bool {
        matches!(self.status, Status::Running(_) | Status::Paused(_) | Status::Restarting(..))
    }

    /// What its health check came to, where it has one: docker's word.
    pub fn health(&self) -> Option<&str> {
        self.health.as_deref()
    }

    /// The networks that it is in.
    pub fn networks(&self) -> Vec<String> {
        match &self.record.wiring.network {
            Network::Own => self.record.wiring.endpoints.iter().map(|end| end.network.clone()).collect(),
            Network::Container(_) => Vec::new(),
            // A record of an older version says it in the options alone.
            Network::Host | Network::None => {
                let network = self.record.options.get("network").and_then(|n| n.as_str()).unwrap_or("Host");
                vec![network.to_lowercase()]
            }
        }
    }

    /// What is mounted in it, apart from what is in memory.
    pub fn mounts(&self) -> Vec<Mounted> {
        let mounts = self.record.options.get("mounts").cloned().unwrap_or_default();
        let mounts: Vec<Mount> = serde_json::from_value(mounts).unwrap_or_default();
        mounts.iter().filter_map(Mounted::of).collect()
    }

    /// Its ports, while it runs.
    pub fn ports(&self) -> &[port::Listed] {
        &self.ports
    }

    /// Docker's word for its state.
    pub fn state(&self) -> &'static str {
        self.status.word()
    }
}

/// A mount as a listing names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// The volume's name, or the path on the host.
    pub name: String,
    /// Where it is in the container.
    pub destination: String,
    /// Whether it is a volume of ours.
    pub is_volume: bool,
}

impl Mounted {
    fn of(mount: &Mount) -> Option<Mounted> {
        let text = |path: &std::path::Path| path.display().to_string();
        match mount {
            Mount::Bind { source, target, .. } => {
                Some(Mounted { name: text(source), destination: text(target), is_volume: false })
            }
            Mount::Volume { name, target, .. } => {
                Some(Mounted { name: name.clone(), destination: text(target), is_volume: true })
            }
            Mount::Image { image, target, .. } => {
                Some(Mounted { name: image.clone(), destination: text(target), is_volume: false })
            }
            Mount::Tmpfs { .. } => None,
        }
    }
}

/// All containers, newest first. One that vanishes while we look is left out.
pub fn list(engine: &Engine) -> Result<Vec<Listed>> {
    let mut all = Vec::new();
    for id in container::ids(&engine.store)? {
        let dir = ContainerDir::of(&engine.store, &id);
        let Ok(record) = dir.record() else { continue };
        let status = match reap::settled(&engine.store, &dir) {
            Ok(status) => status,
            // Not ours to settle (a user without its name space) or gone: what the files say must do.
            Err(_) => match dir.status() {
                Ok(status) => status,
                Err(_) => continue,
            },
        };
        // Settling it may have been its removal.
        if crate::fs::metadata(&dir.file("record.json"))?.is_none() {
            continue;
        }
        let command = command_of(&dir, &record);
        let is_checked =
            status.is_alive() && record.healthcheck.as_ref().is_some_and(|c| c.command().is_some());
        // One that has just begun to run may not have it written down yet.
        let none_yet = || status.run().map(|_| Health::default());
        let health = if is_checked { health::read(&dir).or_else(none_yet) } else { None };
        let health = health.map(|health| health.status);
        let ports = if status.run().is_some() { port::listed(&engine.store, &record) } else { Vec::new() };
        all.push(Listed { record, status, command, health, ports });
    }
    all.sort_by_key(|c| std::cmp::Reverse(c.record.created));
    Ok(all)
}

/// The command line; for records that do not have it, from the bundle.
pub(super) fn command_of(dir: &ContainerDir, record: &Record) -> Vec<String> {
    if !record.config.args.is_empty() {
        return record.config.args.clone();
    }
    let text = crate::fs::read_to_string(&dir.file("config.json")).unwrap_or_default();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let args = value.get("process").and_then(|p| p.get("args")).cloned().unwrap_or_default();
    serde_json::from_value(args).unwrap_or_default()
}
