//! commit: what a container changed becomes a layer, and that on top of its image an image.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, anyhow};
use rustix::fs::OFlags;

use super::Engine;
use super::still;
use super::trees::{self, Trees};
use crate::error::ResultExt;
use crate::image::commit::{self, Base, Made};
use crate::oci::{Digest, Reference};
use crate::spec::Options;
use crate::store::container::Source;
use crate::store::image::{self, Image};
use crate::store::journal::{self, Event};
use crate::store::layer;
use crate::store::layer::files::changes::Change;
use crate::store::layer::files::{Links, Time, Writer, link};
use crate::store::pin::Pins;

/// How to commit.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// The image's name; without one it stays untagged.
    pub reference: Option<Reference>,
    /// Instructions that change the config.
    pub changes: Vec<String>,
    /// The comment in the history.
    pub message: String,
    /// Who made it.
    pub author: String,
    /// A container that runs stands still meanwhile.
    pub pause: bool,
}

const COPY_BUFFER: usize = 256 * 1024;

/// Makes an image of a container; returns the image's id.
pub fn commit(engine: &mut Engine, wanted: &str, options: &CommitOptions) -> Result<Digest> {
    let about = || format!("cannot commit {wanted}");
    let dir = engine.find(wanted)?;
    let record = dir.record()?;
    let asked: Options = serde_json::from_value(record.options.clone()).unwrap_or_default();
    let base = base(engine, &record.source).with_context(about)?;
    // Before anything is read or written, so that a wrong change costs nothing.
    let config =
        commit::config(base.as_ref().map(|image| &image.config_bytes[..]), &asked, &options.changes)?;
    if let Some(reference) = &options.reference {
        image::names::check_can_be_given(reference)?;
    }
    // While we are outside of its user name space, and without threads.
    let still = match options.pause {
        true => still::hold(engine, &dir).with_context(about)?,
        false => None,
    };
    let trees = trees::open(engine, wanted).with_context(about)?;
    let pins = Pins::new(&engine.store)?;
    for diff_id in base.iter().flat_map(|image| &image.diff_ids) {
        pins.hold(&engine.store, &diff_id.0)?;
    }
    let unpacked = unpack(engine, &trees).with_context(about)?;
    drop(still);
    let made = Made {
        config,
        layer: unpacked,
        author: options.author.clone(),
        message: options.message.clone(),
        created_by: commit::created_by(&asked),
    };
    let base = base.as_ref().map(|image| Base { manifest: &image.manifest, config: &image.config_bytes });
    let id = commit::publish(&engine.store, base, made, options.reference.as_ref()).with_context(about)?;
    let mut event = Event::of_container(&record, "commit").with("imageID", id.to_string());
    if let Some(reference) = &options.reference {
        event = event.with("imageRef", reference.to_string());
    }
    let mut events = vec![event];
    if let Some(reference) = &options.reference {
        events.push(Event::of_image("tag", &id, Some(reference)));
    }
    journal::note_all(&engine.store, &events);
    Ok(id)
}

fn base(engine: &Engine, source: &Source) -> Result<Option<Image>> {
    match source {
        Source::Image { id, name, .. } => match image::find(&engine.store, id) {
            Err(error) if super::is_not_found(&error) => Err(anyhow!("its image {name} is no more"))
                .hint("dhow export | dhow import makes an image of one layer"),
            found => found.map(Some),
        },
        Source::Dir { .. } => Ok(None),
    }
}

/// The container's changes as a layer that is not yet in its place; `None` if there are none.
fn unpack(engine: &Engine, trees: &Trees) -> Result<Option<layer::Unpacked>> {
    let all = match &trees.record.source {
        Source::Dir { throw_away: false, .. } => None,
        _ => Some(trees.changes()?),
    };
    if all.as_ref().is_some_and(Vec::is_empty) {
        return Ok(None);
    }
    let (reader, writer) = io::pipe().context("cannot make a pipe")?;
    let unpacked = std::thread::scope(|scope| {
        let unpacked = scope.spawn(|| layer::extract(&engine.store, reader, None));
        let packed = pack(trees, all.as_deref(), &mut io::BufWriter::with_capacity(COPY_BUFFER, writer));
        let unpacked = unpacked.join().map_err(|_| anyhow!("its archive could not be unpacked"))?;
        match (packed, unpacked) {
            (Ok(()), unpacked) => unpacked,
            // Nobody read any more: why is what matters.
            (Err(pack), Err(error)) if is_broken_pipe(&pack) => Err(error),
            (Err(error), _) => Err(error),
        }
    })?;
    Ok(Some(unpacked))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// The archive of a layer: the same changes give the same bytes.
fn pack(trees: &Trees, changes: Option<&[(Change, Vec<u8>)]>, out: &mut dyn Write) -> Result<()> {
    let mut writer = Writer::new(out, true);
    let mut links = Links::new();
    let Some(changes) = changes else {
        trees.now.walk(&mut |found| match found.path {
            b"" => Ok(()),
            path => put(trees, &mut writer, &mut links, (found.parent, found.name), path),
        })?;
        return writer.finish();
    };
    let tree = trees.changed();
    let mut parent: Option<(Vec<u8>, OwnedFd)> = None;
    for (change, path) in changes {
        if *change == Change::Deleted {
            writer.whiteout(path, Time { seconds: 0, nanoseconds: 0 })?;
            continue;
        }
        let base = path.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
        let (dir, name) = (&path[..base.saturating_sub(1)], &path[base..]);
        let open = match parent.take() {
            Some((known, fd)) if known == dir => fd,
            _ => tree.open(dir, OFlags::RDONLY | OFlags::DIRECTORY)?,
        };
        put(trees, &mut writer, &mut links, (&open, name), path)?;
        parent = Some((dir.to_vec(), open));
    }
    writer.finish()
}

fn put(
    trees: &Trees,
    writer: &mut Writer<'_>,
    links: &mut Links,
    (parent, name): (&OwnedFd, &[u8]),
    path: &[u8],
) -> Result<()> {
    let mut inode = trees.read(parent, name, path)?;
    link(links, &mut inode);
    writer.entry(&inode.entry, inode.file.as_mut().map(|file| file as &mut dyn Read))
}
