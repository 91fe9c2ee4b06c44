//! What a container's root comes from: an image or a directory, found, and its layers made sure of.

use anyhow::{Context, Result, anyhow};

use super::Engine;
use super::create::From;
use crate::error::ResultExt;
use crate::fs;
use crate::oci::image::ImageConfiguration;
use crate::store::Store;
use crate::store::container::{Record, Source};
use crate::store::image;
use crate::store::layer;
use crate::store::pin::Pins;

/// The source, and the image's config: what the specification knows of it, and as it is.
pub(super) fn look_up(
    engine: &Engine,
    from: &From,
) -> Result<(Source, Option<ImageConfiguration>, Option<Vec<u8>>)> {
    match from {
        From::Image(name, found) => {
            let found = found.as_deref().cloned().map_or_else(|| image::find(&engine.store, name), Ok);
            let image = found.with_context(|| format!("cannot run {name}")).map_err(|e| {
                if super::is_not_found(&e) { e.context(crate::error::Hint(absent_hint(name))) } else { e }
            })?;
            let source =
                Source::Image { name: name.clone(), id: image.id.to_string(), diff_ids: image.diff_ids };
            Ok((source, Some(image.config), Some(image.config_bytes)))
        }
        From::Rootfs { path, throw_away } => {
            let path = fs::canonicalize(path).context("cannot use the root file system")?;
            anyhow::ensure!(
                fs::metadata(&path)?.is_some_and(|m| m.is_dir()),
                "cannot use the root file system {}: it is not a directory",
                path.display()
            );
            Ok((Source::Dir { path, throw_away: *throw_away }, None, None))
        }
    }
}

/// Layers of an additional store whose files are another user's cannot lie under a container of ours, which would see them
/// with the wrong owners: our own store gets them. What is returned is to be held until the container is there.
pub(super) fn take_home(store: &Store, source: &Source) -> Result<Option<Pins>> {
    let Source::Image { name, diff_ids, .. } = source else { return Ok(None) };
    let mut pins = None;
    for diff_id in diff_ids {
        if store.additional.is_empty() || layer::is_mountable(store, diff_id)? {
            continue;
        }
        let pins = match &mut pins {
            Some(pins) => pins,
            None => pins.insert(Pins::new(store)?),
        };
        pins.hold(store, &diff_id.0)?;
        layer::take_home(store, diff_id).with_context(|| format!("cannot run {name}"))?;
    }
    Ok(pins)
}

/// The image may have been removed since it was found, or a layer of it been lost. Notes which other stores are needed.
pub(super) fn check_layers(store: &Store, record: &mut Record) -> Result<()> {
    let Source::Image { name, diff_ids, .. } = &record.source else { return Ok(()) };
    for diff_id in diff_ids {
        match layer::store_with(store, diff_id)? {
            Some(data) if data != store.data => record.additional_stores.push(data.to_owned()),
            Some(_) => {}
            None => {
                return Err(anyhow!("its layer {} is missing", diff_id.0))
                    .with_context(|| format!("cannot run {name}"))
                    .hint("dhow system check --repair looks for it, and brings it back if that can be done");
            }
        }
    }
    record.additional_stores.sort();
    record.additional_stores.dedup();
    Ok(())
}

fn absent_hint(name: &str) -> String {
    format!("bring it here first: dhow pull {name}, or dhow load -i ARCHIVE")
}
