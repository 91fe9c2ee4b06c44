//! A lender: a repository of the registry that is pushed to which may have a blob already: one that it was pulled from or
//! pushed to, or one after which an image of the store is named.

use std::collections::HashMap;

use crate::oci::DiffId;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::store::Store;
use crate::store::image;
use crate::store::image::names::Names;
use crate::store::shipped;

/// How many names of the store are looked through.
const SIBLINGS_LIMIT: usize = 64;

/// See the module.
pub(super) struct Lenders {
    registry: String,
    repository: String,
    siblings: HashMap<Digest, Vec<String>>,
}

impl Lenders {
    /// For a push to there.
    pub(super) fn new(store: &Store, to: &Reference) -> Lenders {
        let mut siblings: HashMap<Digest, Vec<String>> = HashMap::new();
        let named = Names::read(store).map(|names| names.named).unwrap_or_default();
        let others = named
            .iter()
            .filter(|n| n.reference.registry == to.registry && n.reference.repository != to.repository);
        for other in others.take(SIBLINGS_LIMIT) {
            // What cannot be read lends nothing.
            let Ok(described) = image::describe(store, &other.manifest) else { continue };
            for blob in described.layers.into_iter().chain([described.id]) {
                let lenders = siblings.entry(blob).or_default();
                if !lenders.contains(&other.reference.repository) {
                    lenders.push(other.reference.repository.clone());
                }
            }
        }
        Lenders { registry: to.registry.clone(), repository: to.repository.clone(), siblings }
    }

    /// Who may lend a layer in this form, the likeliest first.
    pub(super) fn of(&self, store: &Store, diff_id: &DiffId, digest: &Digest) -> Vec<String> {
        let forms = shipped::forms(store, diff_id);
        let mut all: Vec<String> = forms
            .iter()
            .filter(|f| f.digest == *digest)
            .flat_map(|f| &f.repositories)
            .filter_map(|name| name.strip_prefix(&self.registry)?.strip_prefix('/'))
            .filter(|name| *name != self.repository)
            .map(str::to_owned)
            .collect();
        for name in self.siblings(digest) {
            if !all.contains(name) {
                all.push(name.clone());
            }
        }
        all
    }

    /// Those after which images are named that have this blob.
    pub(super) fn siblings(&self, digest: &Digest) -> &[String] {
        self.siblings.get(digest).map_or(&[], Vec::as_slice)
    }
}
