//! Looking at what is there: blobs, layers, and what lies about.

use std::collections::HashSet;

use anyhow::{Context, Result};

use crate::error;
use crate::event::Sink;
use crate::fs;
use crate::image::parallel;
use crate::oci::DiffId;
use crate::oci::Digest;
use crate::store::Store;
use crate::store::blob;
use crate::store::container;
use crate::store::container::{ContainerDir, Source};
use crate::store::draft;
use crate::store::gc::Snapshot;
use crate::store::layer;
use crate::store::layer::Depth;
use crate::store::partial;

use super::wanted::Wanted;
use super::{Finding, Object, Report};

enum Job<'a> {
    Blob(&'a Digest),
    Layer(&'a DiffId),
}

/// Every blob and layer of our own, and those that should be there and are not.
pub(super) fn objects(
    store: &Store,
    snapshot: &Snapshot,
    wanted: &Wanted,
    depth: Depth,
    events: Sink<'_>,
) -> Result<Report> {
    // Documents that are damaged were found when they were read.
    let known: HashSet<&Digest> = wanted
        .findings
        .iter()
        .filter_map(|f| match &f.object {
            Object::Manifest(digest) | Object::Config(digest) => Some(digest),
            _ => None,
        })
        .collect();
    let layers = snapshot.layers.iter().map(Job::Layer);
    let jobs = layers.chain(snapshot.blobs.iter().filter(|d| !known.contains(d)).map(Job::Blob)).collect();
    let looked = parallel::map(jobs, events, |job, _| {
        Ok(match job {
            Job::Blob(digest) => look_at_blob(store, digest, wanted, depth),
            Job::Layer(diff_id) => look_at_layer(store, diff_id, wanted, depth),
        })
    })?;
    let mut report =
        Report { n_blobs: snapshot.blobs.len(), n_layers: snapshot.layers.len(), ..Report::default() };
    for one in looked {
        match one {
            Ok(bytes) => report.bytes += if depth == Depth::Full { bytes } else { 0 },
            Err(finding) => report.findings.push(finding),
        }
    }
    let missing = "it is missing";
    for (digest, blob) in &wanted.blobs {
        if !blob::exists(store, digest)? {
            report.findings.push(Finding::broken(Object::Blob(digest.clone()), missing, &blob.needed_by));
        }
    }
    for (diff_id, layer) in &wanted.layers {
        if !layer::exists(store, diff_id)? {
            report.findings.push(Finding::broken(Object::Layer(diff_id.clone()), missing, &layer.needed_by));
        }
    }
    report.findings.extend(unneeded(snapshot, &report.findings));
    Ok(report)
}

fn look_at_blob(store: &Store, digest: &Digest, wanted: &Wanted, depth: Depth) -> Result<u64, Finding> {
    let blob = wanted.blobs.get(digest);
    let expected = blob.and_then(|b| b.size);
    let size = match depth {
        Depth::Full => blob::verify(store, digest),
        Depth::Quick => blob::size(store, digest).and_then(|size| size.context("it is missing")),
    };
    let problem = match (size, expected) {
        (Ok(size), Some(expected)) if size != expected => format!("it has {size} bytes, not {expected}"),
        (Ok(size), _) => return Ok(size),
        (Err(error), _) => error::chain(&error),
    };
    let needed_by = blob.map_or(&[][..], |b| &b.needed_by);
    Err(Finding::broken(Object::Blob(digest.clone()), problem, needed_by))
}

fn look_at_layer(store: &Store, diff_id: &DiffId, wanted: &Wanted, depth: Depth) -> Result<u64, Finding> {
    layer::verify(store, diff_id, depth).map_err(|error| {
        let needed_by = wanted.layers.get(diff_id).map_or(&[][..], |l| &l.needed_by);
        Finding::broken(Object::Layer(diff_id.clone()), error::chain(&error), needed_by)
    })
}

/// What nothing needs; unless something is damaged, so that nobody can tell.
fn unneeded(snapshot: &Snapshot, broken: &[Finding]) -> Vec<Finding> {
    if !snapshot.needs.unknown.is_empty() {
        return Vec::new();
    }
    let needed = |digest: &Digest| snapshot.needs.digests.contains(digest);
    let blobs = snapshot.blobs.iter().filter(|d| !needed(d)).cloned().map(Object::Blob);
    let layers = snapshot.layers.iter().filter(|d| !needed(&d.0)).cloned().map(Object::Layer);
    let is_new = |object: &Object| broken.iter().all(|f| f.object != *object);
    blobs.chain(layers).filter(is_new).map(|object| Finding::leftover(object, "nothing needs it")).collect()
}

/// What lies about beside blobs and layers.
pub(super) fn surroundings(store: &Store) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for name in draft::abandoned(store)? {
        findings.push(Finding::leftover(Object::Draft(name), "its maker is dead"));
    }
    for digest in partial::dead(store)? {
        findings.push(Finding::leftover(Object::Partial(digest), "nobody goes on with it"));
    }
    for name in layer::sweep_extra(store, &stacks(store)?, false)? {
        findings.push(Finding::leftover(Object::Extra(name), "it is made of layers that are not there"));
    }
    for name in container::sweep_names(store, false)? {
        findings.push(Finding::leftover(Object::ContainerName(name), "it stands for no container"));
    }
    for id in container::ids(store)? {
        let dir = ContainerDir::of(store, &id);
        if let Some(problem) = problem_of(&dir)
            && fs::symlink_metadata(&dir.path)?.is_some()
        {
            findings.push(Finding::broken(Object::Container(id), problem, &[]));
        }
    }
    Ok(findings)
}

fn problem_of(dir: &ContainerDir) -> Option<String> {
    if let Err(error) = dir.record() {
        return Some(error::chain(&error));
    }
    let spec = fs::read_to_string(&dir.file("config.json"));
    let spec = spec.and_then(|text| serde_json::from_str::<serde_json::Value>(&text).map_err(Into::into));
    match spec {
        Err(error) => Some(format!("its config.json is damaged: {}", error::chain(&error))),
        Ok(_) => None,
    }
}

/// The layers that containers stand on.
pub(super) fn stacks(store: &Store) -> Result<Vec<Vec<DiffId>>> {
    let stack = |id: &String| match ContainerDir::of(store, id).record().ok()?.source {
        Source::Image { diff_ids, .. } => Some(diff_ids),
        Source::Dir { .. } => None,
    };
    Ok(container::ids(store)?.iter().filter_map(stack).collect())
}

/// The running containers that stand on a layer.
pub(super) fn runners(store: &Store, diff_id: &DiffId) -> Result<Vec<String>> {
    let mut runners = Vec::new();
    for id in container::ids(store)? {
        let dir = ContainerDir::of(store, &id);
        let Ok(record) = dir.record() else { continue };
        let stands = matches!(&record.source, Source::Image { diff_ids, .. } if diff_ids.contains(diff_id));
        if stands && dir.status().is_ok_and(|status| status.is_alive()) {
            runners.push(record.name);
        }
    }
    Ok(runners)
}
