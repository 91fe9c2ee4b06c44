//! Repairing what was found.
//!
//! A layer is made again from its compressed blob, if that is whole; everything else that is broken is taken out of its
//! place and fetched again with what the store lacks of its image, and nothing else of it. What cannot be repaired is
//! put back: a layer with one bad file is worth more than none.
//!
//! Invariant: in its place there is the damaged object or the whole one, at any moment that may be the last.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};

use crate::error;
use crate::oci::DiffId;
use crate::oci::Digest;
use crate::store::Store;
use crate::store::blob;
use crate::store::container;
use crate::store::draft;
use crate::store::draft::Removed;
use crate::store::gc;
use crate::store::layer;
use crate::store::layer::Depth;
use crate::store::layer::decompress::decompress;
use crate::store::partial;

use super::look;
use super::wanted::Wanted;
use super::{Finding, Kind, Object, Outcome, Refetch};

pub(super) fn repair(
    store: &Store,
    wanted: &Wanted,
    depth: Depth,
    findings: &mut [Finding],
    refetch: Refetch<'_>,
) -> Result<()> {
    // First, because it may be what fills the disk.
    sweep(store, findings)?;
    // Documents first: only they tell what else there should be. Then blobs, then layers, which blobs give.
    for documents in [true, false] {
        for finding in findings.iter_mut().filter(|f| f.kind == Kind::Broken && f.outcome == Outcome::Found) {
            let is_document = matches!(finding.object, Object::Manifest(_) | Object::Config(_));
            if is_document == documents {
                finding.outcome = match again(store, wanted, depth, &finding.object, &mut *refetch) {
                    Ok(how) => Outcome::Repaired(how),
                    Err(error) => Outcome::Failed(error::chain(&error)),
                };
            }
        }
    }
    free(store, findings);
    Ok(())
}

/// Removes leftovers that are neither blobs nor layers.
fn sweep(store: &Store, findings: &mut [Finding]) -> Result<()> {
    let has =
        |wanted: fn(&Object) -> bool| findings.iter().any(|f| f.kind == Kind::Leftover && wanted(&f.object));
    if has(|o| matches!(o, Object::Draft(_))) {
        container::sweep(store)?;
        draft::sweep(store)?;
    }
    if has(|o| matches!(o, Object::ContainerName(_))) {
        container::sweep_names(store, true)?;
    }
    if has(|o| matches!(o, Object::Partial(_))) {
        partial::sweep_dead(store)?;
    }
    if has(|o| matches!(o, Object::Extra(_))) {
        // While no container is made that could be about to use it.
        let _held_off = gc::hold_off(store)?;
        layer::sweep_extra(store, &look::stacks(store)?, true)?;
    }
    let is_swept = |o: &Object| {
        matches!(o, Object::Draft(_) | Object::Partial(_) | Object::ContainerName(_) | Object::Extra(_))
    };
    for finding in findings.iter_mut().filter(|f| f.kind == Kind::Leftover && is_swept(&f.object)) {
        finding.outcome = Outcome::Repaired("removed".to_owned());
    }
    Ok(())
}

/// Makes a layer again from a compressed form of it that is whole; returns which. `None` where there is none.
fn from_blob(store: &Store, wanted: &Wanted, diff_id: &DiffId) -> Result<Option<Digest>> {
    let Some(layer) = wanted.layers.get(diff_id) else { return Ok(None) };
    for digest in &layer.blobs {
        let Some(file) = blob::open(store, digest)? else { continue };
        check_no_runners(store, diff_id)?;
        // The blob need not be verified: what it gives is.
        let unpack = || -> Result<layer::Unpacked> {
            let (_, tar) = decompress(file, &layer::windows(store))?;
            layer::extract_again(store, tar, diff_id)
        };
        let Ok(unpacked) = unpack() else { continue };
        check_no_runners(store, diff_id)?;
        layer::replace(store, unpacked)?;
        return Ok(Some(digest.clone()));
    }
    Ok(None)
}

/// What lies under a mounted overlay must not change.
fn check_no_runners(store: &Store, diff_id: &DiffId) -> Result<()> {
    match look::runners(store, diff_id)?.first() {
        Some(name) => bail!("the running container {name} stands on it: stop it first"),
        None => Ok(()),
    }
}

/// Brings an object from a registry again; says in which way it came back.
fn again(
    store: &Store,
    wanted: &Wanted,
    depth: Depth,
    object: &Object,
    refetch: Refetch<'_>,
) -> Result<String> {
    // One that something else's repair brought along.
    if is_whole(store, depth, object) {
        return Ok("fetched again with its image".to_owned());
    }
    if let Object::Layer(diff_id) = object
        && let Some(blob) = from_blob(store, wanted, diff_id)?
    {
        return Ok(format!("made again from blob {}", blob.short()));
    }
    let manifests = manifests_of(wanted, object)?;
    let removed = take_away(store, object)?;
    let mut why = None;
    for origin in manifests.iter().flat_map(|m| wanted.origins.get(m).into_iter().flatten()) {
        match refetch(origin) {
            Ok(()) if is_whole(store, depth, object) => {
                return Ok(format!("fetched again from {}", origin.familiar()));
            }
            Ok(()) => why = why.or_else(|| Some(anyhow::anyhow!("{} did not bring it", origin.familiar()))),
            Err(error) => why = why.or(Some(error)),
        }
    }
    for one in removed {
        one.put_back()?;
    }
    Err(why.context("no name of its image tells where to fetch it from")?)
}

fn manifests_of(wanted: &Wanted, object: &Object) -> Result<BTreeSet<Digest>> {
    let manifests = match object {
        Object::Manifest(digest) => vec![digest.clone()],
        Object::Config(digest) => wanted.configs.get(digest).cloned().unwrap_or_default(),
        Object::Blob(digest) => wanted.blobs.get(digest).map(|b| b.manifests.clone()).unwrap_or_default(),
        Object::Layer(diff_id) => wanted.layers.get(diff_id).map(|l| l.manifests.clone()).unwrap_or_default(),
        Object::Name(_) => bail!("remove it with dhow rmi, or give it again with dhow pull or dhow tag"),
        Object::Container(id) => bail!("remove it with dhow rm -f {}", &id[..id.len().min(12)]),
        _ => bail!("there is no way to make it again"),
    };
    Ok(manifests.into_iter().collect())
}

fn take_away(store: &Store, object: &Object) -> Result<Vec<Removed>> {
    Ok(match object {
        Object::Manifest(digest) | Object::Config(digest) | Object::Blob(digest) => {
            blob::take_away(store, digest)?.into_iter().collect()
        }
        Object::Layer(diff_id) => {
            check_no_runners(store, diff_id)?;
            layer::take_away(store, std::slice::from_ref(diff_id))?
        }
        _ => Vec::new(),
    })
}

fn is_whole(store: &Store, depth: Depth, object: &Object) -> bool {
    match object {
        Object::Manifest(digest) | Object::Config(digest) | Object::Blob(digest) => {
            blob::verify(store, digest).is_ok()
        }
        Object::Layer(diff_id) => layer::verify(store, diff_id, depth).is_ok(),
        _ => false,
    }
}

/// Frees blobs and layers that nothing needs, broken ones too.
fn free(store: &Store, findings: &mut [Finding]) {
    let is_object = |f: &Finding| matches!(f.object, Object::Blob(_) | Object::Layer(_));
    let mut unneeded = findings
        .iter_mut()
        .filter(|f| is_object(f) && f.needed_by.is_empty() && !matches!(f.outcome, Outcome::Repaired(_)))
        .peekable();
    if unneeded.peek().is_none() {
        return;
    }
    let freed = gc::sweep(store, &[]);
    for finding in unneeded {
        finding.outcome = match (&freed, &finding.object) {
            (Ok(freed), Object::Blob(digest)) if freed.blobs.contains(digest) => {
                Outcome::Repaired("removed".to_owned())
            }
            (Ok(freed), Object::Layer(diff_id)) if freed.layers.contains(diff_id) => {
                Outcome::Repaired("removed".to_owned())
            }
            (Ok(_), _) => continue,
            (Err(error), _) => Outcome::Failed(error::chain(error)),
        };
    }
}
