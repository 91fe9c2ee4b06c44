//! What the images need, from their documents; and which documents cannot be read.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::error;
use crate::oci::DiffId;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::oci::image::ImageManifest;
use crate::store::Store;
use crate::store::blob;
use crate::store::container;
use crate::store::container::{ContainerDir, Source};
use crate::store::image::DOCUMENT_LIMIT;
use crate::store::image::names::Names;
use crate::store::image::parse_config;

use super::{Finding, Object};

/// What all images together need.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) blobs: BTreeMap<Digest, Blob>,
    pub(super) layers: BTreeMap<DiffId, Layer>,
    /// By manifest, where it could be fetched from: `repository@digest`.
    pub(super) origins: BTreeMap<Digest, Vec<Reference>>,
    /// By config, the manifests that name it.
    pub(super) configs: BTreeMap<Digest, Vec<Digest>>,
    /// Documents that are missing or damaged, names that are.
    pub(super) findings: Vec<Finding>,
    pub(super) n_images: usize,
}

/// A compressed layer that should be there.
#[derive(Debug, Default)]
pub(super) struct Blob {
    /// As the manifest has it.
    pub(super) size: Option<u64>,
    pub(super) needed_by: Vec<String>,
    pub(super) manifests: Vec<Digest>,
}

/// A layer that should be there.
#[derive(Debug, Default)]
pub(super) struct Layer {
    /// Its compressed forms.
    pub(super) blobs: Vec<Digest>,
    pub(super) needed_by: Vec<String>,
    pub(super) manifests: Vec<Digest>,
}

pub(super) fn of(store: &Store, names: &Names) -> Wanted {
    let mut wanted = Wanted::default();
    for file in names.damaged.keys() {
        let object = Object::Name(file.clone());
        wanted.findings.push(Finding::broken(object, "its file is damaged", &[]));
    }
    for manifest in names.manifests() {
        wanted.n_images += 1;
        let called: Vec<String> = names.of(manifest).map(|n| n.reference.familiar()).collect();
        let summary = names.summaries.get(manifest);
        let image = Image {
            manifest,
            called: if called.is_empty() {
                vec![summary.map_or(manifest, |s| &s.id).short().to_owned()]
            } else {
                called
            },
        };
        let origins = names.of(manifest).map(|n| {
            let reference = n.reference.clone();
            Reference { tag: None, digest: Some(manifest.clone()), ..reference }
        });
        wanted.origins.insert(manifest.clone(), origins.collect());
        if let Err(()) = wanted.add(store, &image)
            && let Some(summary) = summary
        {
            // What the name's file kept tells what else there should be.
            for (layer, diff_id) in summary.layers.iter().zip(&summary.diff_ids) {
                wanted.add_layer(&image, (layer, None), diff_id);
            }
        }
    }
    wanted.add_containers(store);
    wanted
}

struct Image<'a> {
    manifest: &'a Digest,
    called: Vec<String>,
}

impl Wanted {
    /// An error where a document cannot be read; that is a finding then.
    fn add(&mut self, store: &Store, image: &Image<'_>) -> Result<(), ()> {
        let about = |object: Object, problem: String| Finding::broken(object, problem, &image.called);
        let read = |digest: &Digest| match blob::exists(store, digest) {
            Ok(false) => Err("it is missing".to_owned()),
            _ => blob::read(store, digest, DOCUMENT_LIMIT).map_err(|e| error::chain(&e)),
        };
        let manifest = read(image.manifest)
            .and_then(|bytes| serde_json::from_slice::<ImageManifest>(&bytes).map_err(|e| e.to_string()));
        let manifest = match manifest {
            Ok(manifest) => manifest,
            Err(problem) => {
                self.findings.push(about(Object::Manifest(image.manifest.clone()), problem));
                return Err(());
            }
        };
        let id: Digest = manifest.config().digest().to_string().parse().map_err(drop)?;
        self.configs.entry(id.clone()).or_default().push(image.manifest.clone());
        let config = read(&id).and_then(|bytes| parse_config(&bytes).map_err(|e| error::chain(&e)));
        let diff_ids = match config {
            Ok((_, diff_ids)) => diff_ids,
            Err(problem) => {
                self.findings.push(about(Object::Config(id), problem));
                return Err(());
            }
        };
        for (descriptor, diff_id) in manifest.layers().iter().zip(&diff_ids) {
            let Ok(digest) = descriptor.digest().to_string().parse() else { continue };
            self.add_layer(image, (&digest, Some(descriptor.size())), diff_id);
        }
        Ok(())
    }

    fn add_layer(&mut self, image: &Image<'_>, (digest, size): (&Digest, Option<u64>), diff_id: &DiffId) {
        let layer = self.layers.entry(diff_id.clone()).or_default();
        layer.needed_by.extend(image.called.iter().cloned());
        layer.manifests.push(image.manifest.clone());
        // A layer that is named by its uncompressed tar has no blob: the layer gives the bytes.
        if *digest == diff_id.0 {
            return;
        }
        layer.blobs.push(digest.clone());
        let blob = self.blobs.entry(digest.clone()).or_default();
        blob.size = blob.size.or(size);
        blob.needed_by.extend(image.called.iter().cloned());
        blob.manifests.push(image.manifest.clone());
    }

    /// Containers keep their layers when their image goes.
    fn add_containers(&mut self, store: &Store) {
        for id in container::ids(store).unwrap_or_default() {
            let Ok(record) = ContainerDir::of(store, &id).record() else { continue };
            let Source::Image { diff_ids, .. } = record.source else { continue };
            for diff_id in diff_ids {
                let layer = self.layers.entry(diff_id).or_default();
                layer.needed_by.push(format!("container {}", record.name));
            }
        }
    }
}
