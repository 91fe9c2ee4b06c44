//! top: the processes of a container, and who they are.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};

use super::Engine;
use super::processes::{self, Process};
use crate::fs;
use crate::runtime::rootfs::Root;
use crate::store::container::{State, Status};
use crate::store::journal::{self, Event};

/// What a listing of processes is made of.
#[derive(Debug)]
pub struct Top {
    /// The processes, oldest first.
    pub processes: Vec<Process>,
    /// How users and groups of the machine are called in the container.
    pub users: Names,
    /// The same for groups.
    pub groups: Names,
    /// Seconds since boot.
    pub uptime: f64,
    /// When the machine was started, in seconds since the epoch.
    pub boot: i64,
    /// Bytes of memory that the machine has.
    pub memory: u64,
}

/// Ids of the machine as the container has them.
#[derive(Debug, Default)]
pub struct Names {
    /// First id inside, first outside, how many.
    map: Vec<(u32, u32, u32)>,
    names: HashMap<u32, String>,
}

impl Names {
    /// The id inside; the machine's own where it has none there.
    pub fn inside(&self, id: u32) -> u32 {
        let found = self.map.iter().find(|(_, outside, n)| id >= *outside && id - outside < *n);
        found.map_or(id, |(inside, outside, _)| inside.saturating_add(id - outside))
    }

    /// Its name inside, or its number.
    pub fn name(&self, id: u32) -> String {
        let id = self.inside(id);
        self.names.get(&id).cloned().unwrap_or_else(|| id.to_string())
    }
}

/// Lists the processes of a container that runs.
pub fn top(engine: &Engine, wanted: &str) -> Result<Top> {
    let about = || format!("cannot list the processes of {wanted}");
    let (dir, status) = engine.alive(wanted).with_context(about)?;
    let (Status::Running(state) | Status::Paused(state)) = status else {
        anyhow::bail!("cannot list the processes of {wanted}: it is not running");
    };
    let processes = processes::of(&state).with_context(about)?;
    journal::note(&engine.store, &Event::of_container(&dir.record()?, "top"));
    let (uptime, boot) = processes::clock();
    let names = |map: &str, file: &str| Names { map: id_map(&state, map), names: names_of(&state, file) };
    Ok(Top {
        processes,
        users: names("uid_map", "/etc/passwd"),
        groups: names("gid_map", "/etc/group"),
        uptime,
        boot,
        memory: processes::total_memory(),
    })
}

fn id_map(state: &State, file: &str) -> Vec<(u32, u32, u32)> {
    let text = fs::read_to_string(Path::new(&format!("/proc/{}/{file}", state.init.pid))).unwrap_or_default();
    let line = |line: &str| {
        let mut words = line.split_whitespace().map(|word| word.parse().ok());
        Some((words.next()??, words.next()??, words.next()??))
    };
    text.lines().filter_map(line).collect()
}

/// `NAME:x:ID:...`; none where we may not look.
fn names_of(state: &State, file: &str) -> HashMap<u32, String> {
    let root = match &state.chroot {
        Some(path) => Root::open_host(path),
        None => Root::open_host(Path::new(&format!("/proc/{}/root", state.init.pid))),
    };
    let mut bytes = Vec::new();
    if let Some(file) = root.ok().and_then(|root| root.open_file(Path::new(file)).ok()) {
        let _ = std::fs::File::from(file).take(4 << 20).read_to_end(&mut bytes);
    }
    let text = String::from_utf8_lossy(&bytes);
    let mut names = HashMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(Ok(id))) = (fields.next(), fields.nth(1).map(str::parse)) {
            names.entry(id).or_insert_with(|| name.to_owned());
        }
    }
    names
}
