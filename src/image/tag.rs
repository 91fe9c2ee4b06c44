//! `tag` and `untag`: names given and taken away.

use anyhow::{Context, Result};

use crate::oci::Reference;
use crate::store::Store;
use crate::store::image;
use crate::store::image::names;
use crate::store::journal::{self, Event};

/// Gives the image `source`, a name or an id, the further name `target`.
pub fn tag(store: &Store, source: &str, target: &Reference) -> Result<()> {
    names::check_can_be_given(target)?;
    let about = || format!("cannot name {source} {}", target.familiar());
    let image = image::find(store, source).with_context(about)?;
    names::tag(store, target, &image.manifest).with_context(about)?;
    journal::note(store, &Event::of_image("tag", &image.id, Some(target)));
    Ok(())
}

/// Takes names away from the image `source`; all that it has, if `targets` is empty. The image stays. Returns the names
/// that are gone.
pub fn untag(store: &Store, source: &str, targets: &[Reference]) -> Result<Vec<Reference>> {
    let image = image::find(store, source)?;
    let all = if targets.is_empty() { image.names } else { targets.to_vec() };
    let mut gone = Vec::new();
    for reference in all {
        let reference = reference.with_default_tag();
        names::untag(store, &reference).with_context(|| format!("cannot untag {}", reference.familiar()))?;
        journal::note(store, &Event::of_image("untag", &image.id, Some(&reference)));
        gone.push(reference);
    }
    Ok(gone)
}
