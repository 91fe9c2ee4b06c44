//! A candidate: an image that an archive says it has, its documents read and verified, its layers not yet looked at.

use crate::oci::DiffId;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::store::image::Document;

/// An image of an archive.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The manifest, if the format has one; its digest was verified.
    pub manifest: Option<Document>,
    /// The config; its digest was verified, if there was one to verify.
    pub config: Document,
    /// The layers, lowest first.
    pub layers: Vec<Listed>,
    /// The names that the archive gives it.
    pub names: Vec<Reference>,
}

/// A layer of a candidate.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The member of the archive that holds it.
    pub member: String,
    /// The digest of its uncompressed tar, as the config has it.
    pub diff_id: DiffId,
    /// Digest and size of the member, if there is a manifest that says so.
    pub blob: Option<(Digest, u64)>,
}
