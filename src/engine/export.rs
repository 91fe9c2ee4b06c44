//! diff and export: what a container changed, and all that it has as an archive.

use std::io::{Read, Write};

use anyhow::{Context, Result};
use rustix::io::Errno;

use super::Engine;
use super::trees;
use crate::store::journal::{self, Event};
use crate::store::layer::files::changes::Change;
use crate::store::layer::files::{Kind, Links, Writer, link};

/// What a container changed: paths without the `/` in front, each directory before what is in it.
pub fn diff(engine: &mut Engine, wanted: &str) -> Result<Vec<(Change, Vec<u8>)>> {
    let about = || format!("cannot compare {wanted} with its image");
    trees::open(engine, wanted).and_then(|trees| trees.changes()).with_context(about)
}

/// Writes a container's root as a tar archive, without what is mounted in it.
pub fn export(engine: &mut Engine, wanted: &str, out: &mut dyn Write) -> Result<()> {
    let about = || format!("cannot export {wanted}");
    let trees = trees::open(engine, wanted).with_context(about)?;
    journal::note(&engine.store, &Event::of_container(&trees.record, "export"));
    let mut writer = Writer::new(out, false);
    let mut links = Links::new();
    let mut write = || {
        trees.now.walk(&mut |found| {
            let mut inode = match trees.read(found.parent, found.name, found.path) {
                // It was removed just now.
                Err(error) if error.downcast_ref() == Some(&Errno::NOENT) => return Ok(()),
                inode => inode?,
            };
            if found.path.is_empty() {
                return Ok(());
            }
            if found.is_covered && inode.entry.kind == Kind::File {
                inode.entry.payload = 0;
                inode.file = None;
            }
            link(&mut links, &mut inode);
            writer.entry(&inode.entry, inode.file.as_mut().map(|file| file as &mut dyn Read))
        })
    };
    write().with_context(about)?;
    writer.finish().with_context(about)
}
