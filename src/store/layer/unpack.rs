//! An archive becomes a layer directory: the loop over its entries.
//!
//! 1. `input` reads and hashes the stream ahead;
//! 2. the parser of `tar-core` finds the next header, `entry` makes it safe;
//! 3. `place` puts it into the `tree`, its payload going to a file;
//! 4. `split` keeps every other byte.

use std::path::Path;

use anyhow::{Context, Result, bail};
use tar_core::parse::{Limits, ParseError, ParseEvent, Parser};

use crate::fs;
use crate::host::Ids;

use super::entry::{self, Defaults, Entry};
use super::input::Input;
use super::layout;
use super::place::{Body, place};
use super::split;
use super::stacking;
use super::tree::Tree;

const BLOCK: usize = 512;
/// All headers of one entry: name, PAX records, sparse map.
const MAX_HEADER: usize = 4 << 20;

pub(super) fn limits() -> Limits {
    Limits {
        max_metadata_size: 1 << 20,
        // Longer than PATH_MAX, because trees can be deeper than one call reaches; short enough to be kept for each.
        max_path_len: Some(256 << 10),
        max_pending_entries: 16,
        max_sparse_entries: 100_000,
    }
}

/// Unpacks a stream into `layer`, a directory of ours that is empty. For `write_out` see [`split::Writer::new`].
pub(super) fn unpack(input: &mut Input, layer: &Path, ids: &Ids, write_out: u64) -> Result<()> {
    let root = layer.join(layout::DIFF);
    fs::create_dir(&root, 0o755)?;
    let mut split = split::Writer::new(fs::create_new(&layer.join(layout::SPLIT), 0o644)?, write_out)
        .context("cannot write split")?;
    let mut tree = Tree::new(&root, layer, ids)?;
    let mut parser = Parser::new(limits());
    // Times before 1970 are "malformed" to the parser; `entry` reads all such values again, strictly where it matters.
    parser.set_ignore_pax_errors(true);
    let mut defaults = Defaults::default();
    loop {
        let (header_size, found) = next(&mut parser, input, &mut defaults)?;
        split.raw(&input.available()[..header_size])?;
        input.consume(header_size);
        match found {
            Found::Nothing => {}
            Found::End => break,
            Found::Entry(entry) => take(&mut tree, &entry, input, &mut split)
                .with_context(|| format!("cannot unpack {}", String::from_utf8_lossy(&entry.path)))?,
        }
    }
    // What follows the end is no entry, but it is part of what the digest covers.
    input.drain(|bytes| split.raw(bytes))?;
    split.finish()?;
    let mut stacking = stacking::Writer::new(layer, tree.is_opaque)?;
    tree.finish(|path| stacking.implied(path))?;
    stacking.finish()
}

/// Reads a stream and puts nothing anywhere: `look` gets the entries.
pub(super) fn entries(input: &mut Input, mut look: impl FnMut(&Entry) -> Result<()>) -> Result<()> {
    let mut parser = Parser::new(limits());
    parser.set_ignore_pax_errors(true);
    let mut defaults = Defaults::default();
    loop {
        let (header_size, found) = next(&mut parser, input, &mut defaults)?;
        input.consume(header_size);
        match found {
            Found::Nothing => {}
            Found::End => return Ok(()),
            Found::Entry(entry) => {
                look(&entry)?;
                input.skip(entry.payload)?;
                let padding = entry.payload.next_multiple_of(BLOCK as u64) - entry.payload;
                let there = (input.fill(padding as usize)? as u64).min(padding);
                input.skip(there)?;
            }
        }
    }
}

/// What a stream goes on with.
pub(super) enum Found {
    Entry(Entry),
    Nothing,
    End,
}

/// The next entry, and how many available bytes its headers take.
pub(super) fn next(
    parser: &mut Parser,
    input: &mut Input,
    defaults: &mut Defaults,
) -> Result<(usize, Found)> {
    let about = "cannot read the archive";
    let mut wanted = BLOCK;
    loop {
        let available = input.fill(wanted)?;
        let (consumed, parsed, sparse) = match parser.parse(input.available()) {
            Ok(ParseEvent::NeedData { min_bytes }) => {
                if available < wanted {
                    return Ok((available, end(input.available())?));
                }
                // The parser may ask for less than it has seen, where it looks for an end that is not there.
                wanted = min_bytes.max(available + BLOCK);
                if wanted > MAX_HEADER {
                    bail!("{about}: an entry has more than {MAX_HEADER} bytes of headers");
                }
                continue;
            }
            Ok(ParseEvent::End { consumed }) => return Ok((consumed, Found::End)),
            Ok(ParseEvent::GlobalExtensions { consumed, pax_data }) => {
                defaults.update(pax_data).context(about)?;
                return Ok((consumed, Found::Nothing));
            }
            Ok(ParseEvent::Entry { consumed, entry }) => (consumed, entry, None),
            Ok(ParseEvent::SparseEntry { consumed, entry, sparse_map, real_size }) => {
                (consumed, entry, Some((sparse_map, real_size)))
            }
            Err(ParseError::Header(_)) => bail!("{about}: a header is damaged, or this is no tar archive"),
            Err(error) => return Err(error).context(about),
        };
        let name = || format!("cannot unpack {}", parsed.path_lossy());
        return Ok((consumed, Found::Entry(entry::read(&parsed, sparse, defaults).with_context(name)?)));
    }
}

/// What a stream means that ends where a header should be: an archive may end without its two empty blocks.
fn end(rest: &[u8]) -> Result<Found> {
    if rest.iter().any(|b| *b != 0) {
        bail!("cannot read the archive: it is cut off");
    }
    Ok(Found::End)
}

fn take(tree: &mut Tree, entry: &Entry, input: &mut Input, split: &mut split::Writer) -> Result<()> {
    let mut body = Body { input, split, left: entry.payload };
    place(tree, entry, &mut body)?;
    body.keep()?;
    // The padding up to the next block, which umoci leaves out after the last entry, as it does the end mark.
    let padding = entry.payload.next_multiple_of(BLOCK as u64) - entry.payload;
    body.left = padding.min(body.input.fill(padding as usize)? as u64);
    body.keep()
}
