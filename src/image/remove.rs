//! `rmi`: names go at once; what nothing needs any more is freed in one sweep at the end.
//!
//! A name that is not the image's last one is only taken away. With the last one goes the image, unless a container
//! uses it; one that a manifest list names goes on without a name, until the list is no more. An id means the whole image,
//! so it must be forced where there are several names.

use anyhow::{Result, anyhow, bail};

use crate::error::ResultExt;
use crate::oci::DiffId;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::store::Store;
use crate::store::gc;
use crate::store::image::Entry;
use crate::store::image::find;
use crate::store::image::find::By;
use crate::store::image::listed::Listed;
use crate::store::image::names;
use crate::store::journal::{self, Event};

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

impl Options {
    /// The layers that containers stand on.
    pub fn diff_ids(&self) -> Vec<DiffId> {
        self.in_use.iter().flat_map(|u| u.diff_ids.clone()).collect()
    }
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
        outcome.freed = gc::sweep(store, &options.diff_ids())?;
    }
    Ok(outcome)
}

/// Removes all images that have no name and no container, or with `all` those of any name; of these, what `is_chosen`
/// says. Then frees what nobody needs.
pub fn prune(
    store: &Store,
    options: &Options,
    all: bool,
    is_chosen: &dyn Fn(&Entry) -> bool,
) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let listed = Listed::read(store)?;
    let is_used = |image: &Entry| {
        options.in_use.iter().any(|u| u.image == *image.id()) || listed.list_of(image).is_some()
    };
    let goes = |image: &Entry| {
        !image.is_read_only && (all || image.named.is_empty()) && !is_used(image) && is_chosen(image)
    };
    for image in find::entries(store)?.iter().filter(|image| goes(image)) {
        match prune_one(store, image, &goes) {
            Ok(removed) => outcome.removed.extend(removed),
            Err(error) => outcome.errors.push(error),
        }
    }
    outcome.freed = gc::sweep_counted(store, &options.diff_ids())?;
    Ok(outcome)
}

fn prune_one(store: &Store, image: &Entry, goes: &dyn Fn(&Entry) -> bool) -> Result<Vec<Removed>> {
    let lock = names::Lock::new(store)?;
    // It may have been given a name, or be gone, since we looked.
    let now = match find::entry_by(store, &image.id().to_string()) {
        Ok((now, _)) if goes(&now) => now,
        _ => return Ok(Vec::new()),
    };
    let own = own_names(store, &now)?;
    remove_names(store, &lock, &now, &own.iter().collect::<Vec<_>>(), true)
}

fn remove_names(
    store: &Store,
    lock: &names::Lock,
    image: &Entry,
    goes: &[&Reference],
    is_last: bool,
) -> Result<Vec<Removed>> {
    let mut removed = Vec::new();
    for name in goes {
        names::forget(store, lock, name)?;
        removed.push(Removed::Untagged((*name).clone()));
    }
    if is_last {
        forget_untagged(store, lock, image)?;
        removed.push(Removed::Deleted(image.id().clone()));
    }
    let events: Vec<Event> = removed
        .iter()
        .map(|what| match what {
            Removed::Untagged(name) => Event::of_image("untag", image.id(), Some(name)),
            Removed::Deleted(id) => Event::of_image("delete", id, None),
        })
        .collect();
    journal::note_all(store, &events);
    Ok(removed)
}

fn remove_one(store: &Store, name_or_id: &str, options: &Options) -> Result<Vec<Removed>> {
    // Held from looking at the names until the last one is gone: two removers must not each leave it to the other.
    let lock = names::Lock::new(store)?;
    let (image, by) = match find::entry_by(store, name_or_id) {
        Ok(found) => found,
        Err(error) => return remove_damaged_name(store, &lock, name_or_id, error),
    };
    let own = own_names(store, &image)?;
    let goes: Vec<&Reference> = match &by {
        By::Name(name) => own.iter().filter(|r| *r == name).collect(),
        By::Digest(name) => own.iter().filter(|r| is_of_repository(r, name)).collect(),
        By::Id => own.iter().collect(),
    };
    if image.is_read_only || goes.is_empty() && by != By::Id {
        return Err(anyhow!(
            "cannot remove image {name_or_id}: it is in an additional store, which is only read"
        ))
        .hint("remove it there, or leave that store out of the configuration");
    }
    if by == By::Id && goes.len() > 1 && !options.force {
        let names: Vec<_> = own.iter().map(Reference::familiar).collect();
        return Err(anyhow!("cannot remove image {name_or_id}: it has several names: {}", names.join(", ")))
            .hint("remove it by its names, or all of them with --force");
    }
    let is_last = goes.len() == own.len();
    if is_last {
        check_not_in_use(&image, name_or_id, options)?;
        let listed = Listed::read(store)?;
        match (listed.list_of(&image), &by) {
            (Some(list), By::Id) => {
                return Err(anyhow!("cannot remove image {name_or_id}: the manifest list {list} names it"))
                    .hint("remove the list first: dhow manifest rm");
            }
            (Some(_), _) => {
                names::keep(store, &lock, &image.manifest)?;
                return remove_names(store, &lock, &image, &goes, false);
            }
            (None, _) => {}
        }
    }
    remove_names(store, &lock, &image, &goes, is_last)
}

/// A name whose file is damaged can still be taken away; what it stood for is nobody's to know.
fn remove_damaged_name(
    store: &Store,
    lock: &names::Lock,
    name_or_id: &str,
    error: anyhow::Error,
) -> Result<Vec<Removed>> {
    let reference = name_or_id.parse::<Reference>().map(Reference::with_default_tag);
    match reference {
        Ok(reference) if names::has_file(store, &reference)? => {
            names::forget(store, lock, &reference)?;
            Ok(vec![Removed::Untagged(reference)])
        }
        _ => Err(error),
    }
}

/// Those names of an image that are ours to take away.
fn own_names(store: &Store, image: &Entry) -> Result<Vec<Reference>> {
    let mut own = Vec::new();
    for name in image.names() {
        if names::has_file(store, name)? {
            own.push(name.clone());
        }
    }
    Ok(own)
}

fn is_of_repository(reference: &Reference, other: &Reference) -> bool {
    reference.registry == other.registry && reference.repository == other.repository
}

fn check_not_in_use(image: &Entry, name_or_id: &str, options: &Options) -> Result<()> {
    let users = || options.in_use.iter().filter(|u| u.image == *image.id());
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
fn forget_untagged(store: &Store, lock: &names::Lock, image: &Entry) -> Result<()> {
    let names = names::Names::read(store)?;
    for manifest in &names.untagged {
        if *manifest == image.manifest || find::has_id(store, &names, manifest, image.id()) {
            names::forget_untagged(store, lock, manifest)?;
        }
    }
    Ok(())
}
