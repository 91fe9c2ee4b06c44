//! The journal: what happened to containers, images, volumes and networks, for `events`. DATA/events/log and what was
//! rotated away from it.
//!
//! Each process adds to it by itself, with one write(2) for all that it has to say of one moment: the file is open for
//! appending, so that entries of many processes never mix. An entry is a JSON text sequence's (RFC 7464): a record
//! separator, an object, a newline. So an entry that a full disk or a crash cut short spoils no other.
//!
//! Best effort: no verb fails because it could not tell about itself. Bounded: `MAX_SIZE` times `N_FILES`. Whoever finds
//! the file full rotates it, if it can have the lock on that very file; one that has it still open writes to its end, and
//! readers look there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Store;
use super::container::{Record, Source, VolumeUse};
use super::network::Network;
use super::rotated::{self, Lines};
use crate::fs;
use crate::oci::Reference;
use crate::sys::lock::{self, Kind as LockKind};

/// Health checks are told of, too: fifty containers with one each write about this much in half an hour.
const MAX_SIZE: u64 = 4 << 20;
const N_FILES: u32 = 4;
/// An entry that would be longer leaves its long attributes out (labels may hold anything).
const MAX_ENTRY: usize = 32 << 10;
const MAX_ATTRIBUTE: usize = 256;

/// What something happened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A volume.
    Volume,
    /// A network.
    Network,
}

impl Kind {
    /// Docker's word.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Container => "container",
            Kind::Image => "image",
            Kind::Volume => "volume",
            Kind::Network => "network",
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub time: Timestamp,
    /// To what.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// What, in docker's words: create, start, die, `exec_create: sh -c ls`, pull, mount.
    pub action: String,
    /// The id of a container or an image, the name of a volume.
    pub id: String,
    /// What else is to be known of it.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

impl Event {
    /// Something that happens now.
    pub fn now(kind: Kind, action: impl Into<String>, id: impl Into<String>) -> Event {
        Event {
            time: Timestamp::now(),
            kind,
            action: action.into(),
            id: id.into(),
            attributes: BTreeMap::new(),
        }
    }

    /// Something that happens now to the container of this record, with the attributes docker gives: image, name, labels.
    pub fn of_container(record: &Record, action: impl Into<String>) -> Event {
        let mut event = Event::now(Kind::Container, action, &record.id);
        event.attributes.extend(record.labels.clone());
        let image = match &record.source {
            Source::Image { name, .. } => name.clone(),
            Source::Dir { path, .. } => path.display().to_string(),
        };
        event.with("image", image).with("name", &record.name)
    }

    /// Something that happens now to an image, which has this name or none.
    pub fn of_image(action: &str, id: impl ToString, name: Option<&Reference>) -> Event {
        let id = id.to_string();
        let name = name.map_or_else(|| id.clone(), Reference::familiar);
        Event::now(Kind::Image, action, id).with("name", name)
    }

    /// Something that happens now to a network, with the attributes docker gives.
    pub fn of_network(network: &Network, action: &str) -> Event {
        let event = Event::now(Kind::Network, action, &network.id);
        event.with("name", &network.name).with("type", network.driver.word())
    }

    /// Something that happens now to each volume of this container: mount, unmount.
    pub fn of_volumes(record: &Record, action: &str) -> Vec<Event> {
        let one = |used: &VolumeUse| {
            Event::now(Kind::Volume, action, &used.name)
                .with("container", &record.id)
                .with("destination", used.destination.display().to_string())
                .with("driver", "local")
                .with("propagation", "")
                .with("read/write", if used.read_only { "false" } else { "true" })
        };
        record.volumes.iter().map(one).collect()
    }

    /// The same with one more attribute.
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Event {
        self.attributes.insert(key.to_owned(), value.into());
        self
    }
}

/// Notes one event. Costs one open, one write.
pub fn note(store: &Store, event: &Event) {
    note_all(store, std::slice::from_ref(event));
}

/// Notes the events of one moment, in this order, with one write.
pub fn note_all(store: &Store, events: &[Event]) {
    // Nobody could do anything about it, and what was to be told of did happen.
    let _ = try_note(store, events, MAX_SIZE);
}

fn try_note(store: &Store, events: &[Event], max_size: u64) -> Result<()> {
    let mut entries = Vec::with_capacity(events.len() * 512);
    events.iter().for_each(|event| entry(&mut entries, event));
    if entries.is_empty() {
        return Ok(());
    }
    let path = path(store);
    let mut file = match fs::append(&path, 0o600) {
        Ok(file) => file,
        Err(_) => {
            fs::create_dir_all(&dir(store), 0o700)?;
            fs::append(&path, 0o600)?
        }
    };
    let about = || format!("cannot write {}", path.display());
    file.write_all(&entries).with_context(about)?;
    // After a write for appending, the offset is the end of what was written.
    if file.stream_position().with_context(about)? >= max_size {
        rotate(&file, &path)?;
    }
    Ok(())
}

fn entry(to: &mut Vec<u8>, event: &Event) {
    let start = to.len();
    let mut write = |event: &Event| {
        to.truncate(start);
        to.push(SEPARATOR);
        if serde_json::to_writer(&mut *to, event).is_err() {
            to.truncate(start);
            return 0;
        }
        to.push(b'\n');
        to.len() - start
    };
    if write(event) <= MAX_ENTRY {
        return;
    }
    let mut shorter = event.clone();
    shorter.action = shorter.action.chars().take(MAX_ATTRIBUTE).collect();
    let known = ["image", "name", "exitCode", "execID", "signal"];
    shorter.attributes.retain(|key, value| {
        value.len() <= MAX_ATTRIBUTE && (known.contains(&key.as_str()) || key.len() <= MAX_ATTRIBUTE)
    });
    if write(&shorter) > MAX_ENTRY {
        shorter.attributes.retain(|key, _| known.contains(&key.as_str()));
        write(&shorter);
    }
}

/// RFC 7464.
const SEPARATOR: u8 = 0x1e;

/// Rotates if `file` is still the one that is written to, and nobody else is at it. The lock is on the file, and ends with
/// it: whoever died while rotating is no obstacle.
fn rotate(file: &File, path: &std::path::Path) -> Result<()> {
    let about = || format!("cannot rotate {}", path.display());
    if !lock::try_acquire(file, LockKind::Exclusive).with_context(about)? {
        return Ok(());
    }
    let ours = file.metadata().with_context(about)?;
    match fs::metadata(path)? {
        Some(now) if (now.dev(), now.ino()) == (ours.dev(), ours.ino()) => rotated::rotate(path, N_FILES),
        _ => Ok(()),
    }
}

/// The directory to watch for what is new.
pub fn dir(store: &Store) -> PathBuf {
    store.data.join("events")
}

fn path(store: &Store) -> PathBuf {
    dir(store).join("log")
}

/// Reads the journal, and on from there when called again.
#[derive(Debug)]
pub struct Reader(Lines);

impl Reader {
    /// A reader that begins with the oldest entry. Makes the directory if it is missing, so that it can be watched.
    pub fn open(store: &Store) -> Result<Reader> {
        fs::create_dir_all(&dir(store), 0o700)?;
        Ok(Reader(Lines::new(&path(store), N_FILES)))
    }

    /// Passes over all that happened so far.
    pub fn skip(&mut self) -> Result<()> {
        self.0.skip()
    }

    /// Gives each event since the last call. What cannot be read (half an entry, one of a later version) is left out.
    pub fn read(&mut self, each: &mut dyn FnMut(Event) -> Result<()>) -> Result<()> {
        self.0.read(&mut |line| parse(line).map_or(Ok(()), &mut *each))
    }
}

fn parse(line: &[u8]) -> Option<Event> {
    let start = memchr::memrchr(SEPARATOR, line)?;
    serde_json::from_slice(&line[start + 1..]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Ids;
    use crate::store::tests::Scratch;

    fn event(id: impl Into<String>) -> Event {
        Event::now(Kind::Container, "start", id).with("name", "web")
    }

    fn all(reader: &mut Reader) -> Vec<Event> {
        let mut all = Vec::new();
        reader
            .read(&mut |event| {
                all.push(event);
                Ok(())
            })
            .unwrap();
        all
    }

    #[test]
    fn what_is_noted_is_read() {
        let s = Scratch::new(Ids::Root);
        let events = [event("1"), event("2"), event("3")];
        note(&s.store, &events[0]);
        let mut reader = Reader::open(&s.store).unwrap();
        assert_eq!(all(&mut reader), events[..1]);
        note_all(&s.store, &events[1..]);
        assert_eq!(all(&mut reader), events[1..]);
        assert!(all(&mut reader).is_empty());
    }

    #[test]
    fn half_an_entry_spoils_no_other() {
        let s = Scratch::new(Ids::Root);
        note(&s.store, &event("1"));
        let mut whole = Vec::new();
        entry(&mut whole, &event("lost"));
        for end in 0..whole.len() {
            fs::append(&path(&s.store), 0o600).unwrap().write_all(&whole[..end]).unwrap();
        }
        note(&s.store, &event("2"));
        let ids: Vec<String> = all(&mut Reader::open(&s.store).unwrap()).into_iter().map(|e| e.id).collect();
        assert_eq!(ids, ["1", "2"]);
    }

    #[test]
    fn a_long_entry_is_cut_to_what_matters() {
        let s = Scratch::new(Ids::Root);
        let mut long = event("1").with("label", "x".repeat(1 << 20));
        long.attributes.extend((0..10_000).map(|n| (format!("l{n}"), "y".to_owned())));
        note(&s.store, &long);
        let found = all(&mut Reader::open(&s.store).unwrap());
        assert_eq!(found[0].attributes["name"], "web");
        assert!(fs::metadata(&path(&s.store)).unwrap().unwrap().len() < MAX_ENTRY as u64);
    }

    #[test]
    fn many_writers_lose_nothing_while_they_rotate() {
        const EACH: usize = 300;
        let s = Scratch::new(Ids::Root);
        let mut reader = Reader::open(&s.store).unwrap();
        let (done, ended) = std::sync::mpsc::channel();
        let mut seen = std::collections::BTreeSet::new();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let (store, done) = (&s.store, done.clone());
                scope.spawn(move || {
                    for n in 0..EACH {
                        // Small files, so that all of them rotate all the time, and none is gone before it is read.
                        try_note(store, &[event(format!("{writer}-{n}"))], 40_000).unwrap();
                    }
                    done.send(()).unwrap();
                });
            }
            let mut n_ended = 0;
            while n_ended < 4 {
                seen.extend(all(&mut reader).into_iter().map(|e| e.id));
                n_ended += ended.try_iter().count();
            }
        });
        seen.extend(all(&mut reader).into_iter().map(|e| e.id));
        let missing: Vec<String> = (0..4)
            .flat_map(|writer| (0..EACH).map(move |n| format!("{writer}-{n}")))
            .filter(|id| !seen.contains(id))
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
        assert!(fs::metadata(&rotated::numbered(&path(&s.store), 1)).unwrap().is_some(), "nobody rotated");
    }

    #[test]
    fn a_directory_that_cannot_be_written_costs_nothing() {
        let s = Scratch::new(Ids::Root);
        fs::write(&dir(&s.store), b"in the way").unwrap();
        note(&s.store, &event("1"));
    }
}
