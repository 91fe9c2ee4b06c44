//! `system check`: everything in the store is looked at, and, if asked for, repaired.
//!
//! ```text
//! 1 gc::snapshot        names, blobs and layers of one moment; others go on afterwards
//! 2 wanted              what the images of these names need, from their documents
//! 3 look                blobs and layers hashed, on all processors; what else lies about
//! 4 confirm             what was removed meanwhile by others is nobody's damage
//! 5 repair              see that module
//! ```
//! Takes no lock while it hashes: what others publish or free at the same time is whole or gone.

mod look;
mod repair;
mod wanted;

use anyhow::Result;

use crate::event::Sink;
use crate::oci::DiffId;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::store::Store;
use crate::store::gc;
use crate::store::layer::Depth;

/// How to look.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How closely.
    pub depth: Depth,
    /// Whether to repair what can be repaired.
    pub repair: bool,
}

/// Brings what the store lacks of an image, `repository@digest`, from its registry, and gives it no name.
pub type Refetch<'a> = &'a mut dyn FnMut(&Reference) -> Result<()>;

/// What a finding is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    /// The file of an image's name, by what it is called.
    Name(String),
    /// A manifest.
    Manifest(Digest),
    /// A config.
    Config(Digest),
    /// Any other blob.
    Blob(Digest),
    /// A layer.
    Layer(DiffId),
    /// A blob that was being fetched.
    Partial(Digest),
    /// Directories made of several layers.
    Extra(String),
    /// A container, by its id.
    Container(String),
    /// A container's name.
    ContainerName(String),
    /// A draft in `tmp/`.
    Draft(String),
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Something is not what it should be.
    Broken,
    /// Something is there that nobody needs.
    Leftover,
}

/// What became of a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was done.
    Found,
    /// It is as it should be; in what way.
    Repaired(String),
    /// It could not be repaired; why.
    Failed(String),
}

/// One thing that is not as it should be.
#[derive(Debug, Clone)]
pub struct Finding {
    /// What.
    pub object: Object,
    /// How bad.
    pub kind: Kind,
    /// What is the matter with it.
    pub problem: String,
    /// The images (by name, or id), or containers, that need it.
    pub needed_by: Vec<String>,
    /// What was done.
    pub outcome: Outcome,
}

/// What a check came to.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Everything that is not as it should be, in the order of [`Object`].
    pub findings: Vec<Finding>,
    /// How many images there are.
    pub n_images: usize,
    /// How many blobs were looked at.
    pub n_blobs: usize,
    /// How many layers were looked at.
    pub n_layers: usize,
    /// How many bytes were read for it; 0 for a quick look.
    pub bytes: u64,
}

impl Report {
    /// Whether something is broken and was not repaired.
    pub fn is_broken(&self) -> bool {
        self.findings.iter().any(|f| f.kind == Kind::Broken && !matches!(f.outcome, Outcome::Repaired(_)))
    }
}

/// Looks at the whole store.
pub fn check(store: &Store, options: &Options, refetch: Refetch<'_>, events: Sink<'_>) -> Result<Report> {
    let snapshot = gc::snapshot(store)?;
    let mut wanted = wanted::of(store, &snapshot.names);
    let mut report = look::objects(store, &snapshot, &wanted, options.depth, events)?;
    report.findings.append(&mut wanted.findings);
    report.findings.extend(look::surroundings(store)?);
    confirm(store, &mut report.findings)?;
    report.findings.sort_by(|a, b| a.object.cmp(&b.object));
    // Two images may share what is damaged.
    report.findings.dedup_by(|later, first| {
        let is_same = later.object == first.object;
        if is_same {
            first.needed_by.append(&mut later.needed_by);
        }
        is_same
    });
    for finding in &mut report.findings {
        finding.needed_by.sort();
        finding.needed_by.dedup();
    }
    report.n_images = wanted.n_images;
    if options.repair {
        repair::repair(store, &wanted, options.depth, &mut report.findings, refetch)?;
    }
    Ok(report)
}

/// Drops what is about objects that nobody needs any more, and that are gone.
fn confirm(store: &Store, findings: &mut Vec<Finding>) -> Result<()> {
    if findings.is_empty() {
        return Ok(());
    }
    let now = gc::snapshot(store)?;
    findings.retain(|finding| match &finding.object {
        Object::Manifest(digest) | Object::Config(digest) | Object::Blob(digest) => {
            now.needs.digests.contains(digest) && finding.kind == Kind::Broken || now.blobs.contains(digest)
        }
        Object::Layer(diff_id) => {
            now.needs.digests.contains(&diff_id.0) && finding.kind == Kind::Broken
                || now.layers.contains(diff_id)
        }
        _ => true,
    });
    Ok(())
}

impl Finding {
    fn broken(object: Object, problem: impl Into<String>, needed_by: &[String]) -> Finding {
        let needed_by = needed_by.to_vec();
        Finding { object, kind: Kind::Broken, problem: problem.into(), needed_by, outcome: Outcome::Found }
    }

    fn leftover(object: Object, problem: impl Into<String>) -> Finding {
        let (kind, problem) = (Kind::Leftover, problem.into());
        Finding { object, kind, problem, needed_by: Vec::new(), outcome: Outcome::Found }
    }
}
