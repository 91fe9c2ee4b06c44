//! `rmi`: names go at once; what nothing needs any more is freed in one sweep at the end.
//!
//! A name that is not the image's last one is only taken away. With the last one goes the image, unless a container
//! uses it. An id means the whole image, so it must be forced where there are several names.

use anyhow::{Result, anyhow, bail};

use crate::error::ResultExt;
use crate::oci::DiffId;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::store::Store;
use crate::store::gc;
use crate::store::image::Image;
use crate::store::image::find;
use crate::store::image::find::By;
use crate::store::image::names;

/// A container's claim on an image.
#[derive(Debug, Clone)]
pub struct InUse {
    /// What the container is called in messages.
    pub container: String,
    /// The image it was made from.
    pub image: Digest,
    /// The layers it stands on; these are never freed.
    pub diff_ids: Vec<DiffId>,
    /// Whether it runs: then not even force removes its image.
    pub running: bool,
}

/// How to remove.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Remove images of several names by id, and images of containers that do not run.
    pub force: bool,
    /// All containers there are.
    pub in_use: Vec<InUse>,
}

/// One line of docker's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name is gone.
    Untagged(Reference),
    /// An image is gone.
    Deleted(Digest),
}

/// What became of a removal.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What is gone, in the order of the names asked for.
    pub removed: Vec<Removed>,
    /// What could not be removed; the rest was, nevertheless.
    pub errors: Vec<anyhow::Error>,
    /// What the disk has got back.
    pub freed: gc::Freed,
}

/// Removes images by name or id.
pub fn remove(store: &Store, names_or_ids: &[String], options: &Options) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for name_or_id in names_or_ids {
        match remove_one(store, name_or_id, options) {
            Ok(removed) => outcome.removed.extend(removed),
            Err(error) => outcome.errors.push(error),
        }
    }
    if outcome.removed.iter().any(|r| matches!(r, Removed::Deleted(_))) {
        let in_use: Vec<DiffId> = options.in_use.iter().flat_map(|u| u.diff_ids.clone()).collect();
        outcome.freed = gc::sweep(store, &in_use)?;
    }
    Ok(outcome)
}

fn remove_one(store: &Store, name_or_id: &str, options: &Options) -> Result<Vec<Removed>> {
    // Held from looking at the names until the last one is gone: two removers must not each leave it to the other.
    let lock = names::Lock::new(store)?;
    let (image, by) = find::find_by(store, name_or_id)?;
    let goes: Vec<&Reference> = match &by {
        By::Name(name) => vec![name],
        By::Digest(name) => image.names.iter().filter(|r| is_of_repository(r, name)).collect(),
        By::Id => image.names.iter().collect(),
    };
    if by == By::Id && goes.len() > 1 && !options.force {
        let names: Vec<_> = image.names.iter().map(Reference::familiar).collect();
        return Err(anyhow!("cannot remove image {name_or_id}: it has several names: {}", names.join(", ")))
            .hint("remove it by its names, or all of them with --force");
    }
    let is_last = goes.len() == image.names.len();
    if is_last {
        check_not_in_use(&image, name_or_id, options)?;
    }
    let mut removed = Vec::new();
    for name in &goes {
        names::forget(store, &lock, name)?;
        removed.push(Removed::Untagged((*name).clone()));
    }
    if is_last {
        forget_untagged(store, &lock, &image)?;
        removed.push(Removed::Deleted(image.id));
    }
    Ok(removed)
}

fn is_of_repository(reference: &Reference, other: &Reference) -> bool {
    reference.registry == other.registry && reference.repository == other.repository
}

fn check_not_in_use(image: &Image, name_or_id: &str, options: &Options) -> Result<()> {
    let users = || options.in_use.iter().filter(|u| u.image == image.id);
    if let Some(user) = users().find(|u| u.running) {
        bail!("cannot remove image {name_or_id}: the running container {} uses it", user.container);
    }
    match users().next() {
        Some(user) if !options.force => {
            Err(anyhow!("cannot remove image {name_or_id}: container {} uses it", user.container))
                .hint("remove the container first, or use --force")
        }
        _ => Ok(()),
    }
}

/// Every manifest of this id may have been kept untagged.
fn forget_untagged(store: &Store, lock: &names::Lock, image: &Image) -> Result<()> {
    for manifest in names::Names::read(store)?.untagged {
        if manifest == image.manifest || crate::store::image::describe(store, &manifest)?.id == image.id {
            names::forget_untagged(store, lock, &manifest)?;
        }
    }
    Ok(())
}
