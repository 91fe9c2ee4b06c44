//! What the store takes on disk, as du(1) counts it: by blocks, every object once however many images share it.
//!
//! The trees are walked on all processors.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::event::Sink;
use crate::fs;
use crate::oci::DiffId;
use crate::oci::Digest;
use crate::store::Store;
use crate::store::blob;
use crate::store::image::find;
use crate::store::image::find::Entry;
use crate::store::image::listed::Listed;
use crate::store::layer::usage;

use super::parallel;
use super::remove::InUse;

/// All there is.
#[derive(Debug, Default)]
pub struct Usage {
    /// The images, by id.
    pub images: Vec<ImageUsage>,
    /// All blobs, layers, names, partial and unfinished things together, and the directories of a store in which nothing is.
    pub images_bytes: u64,
    /// What would be free if the images went that no container uses.
    pub images_reclaimable: u64,
    /// By container id.
    pub containers: BTreeMap<String, u64>,
    /// By volume name.
    pub volumes: BTreeMap<String, u64>,
    /// The build cache.
    pub build_cache: u64,
}

/// One image.
#[derive(Debug)]
pub struct ImageUsage {
    /// The image.
    pub image: Entry,
    /// What is on disk only for it.
    pub unique: u64,
    /// What it shares with other images.
    pub shared: u64,
    /// The containers that were made from it.
    pub n_containers: usize,
}

/// What a tree belongs to.
enum Tree {
    Layer(DiffId),
    Container(String),
    Volume(String),
    BuildCache,
    /// Whatever else there is.
    ImagesBesides,
}

/// Counts everything. `in_use` are all containers there are.
pub fn usage(store: &Store, in_use: &[InUse], events: Sink<'_>) -> Result<Usage> {
    let mut objects: HashMap<Digest, u64> = HashMap::new();
    for digest in blob::list(store)? {
        objects.insert(digest.clone(), blob::size_on_disk(store, &digest)?);
    }
    let images_bytes = objects.values().sum::<u64>() + own_size(&store.data)?;
    let mut usage = Usage { images_bytes, ..Usage::default() };
    let mut trees = Vec::new();
    for name in fs::read_dir(&store.data)? {
        let path = store.data.join(&name);
        match name.to_str().unwrap_or_default() {
            "blobs" => {
                usage.images_bytes += own_size(&path)?;
                for dir in blob::dirs(store)? {
                    usage.images_bytes += own_size(&dir)?;
                }
            }
            "layers" => {
                usage.images_bytes += own_size(&path)?;
                trees.extend(children(&path)?.map(|(name, path)| match Digest::from_hex(&name) {
                    Some(digest) => (Tree::Layer(DiffId(digest)), path),
                    None => (Tree::ImagesBesides, path),
                }));
            }
            "containers" => {
                usage.images_bytes += own_size(&path)?;
                trees.extend(children(&path)?.map(|(name, path)| (Tree::Container(name), path)));
            }
            "volumes" => trees.extend(children(&path)?.map(|(name, path)| (Tree::Volume(name), path))),
            "build" => trees.push((Tree::BuildCache, path)),
            _ => trees.push((Tree::ImagesBesides, path)),
        }
    }
    let counted = parallel::map(trees, events, |(tree, path), _| Ok((tree, size(&path)?)))?;
    for (tree, bytes) in counted {
        match tree {
            Tree::Layer(diff_id) => {
                usage.images_bytes += bytes;
                objects.insert(diff_id.0, bytes);
            }
            Tree::ImagesBesides => usage.images_bytes += bytes,
            Tree::Container(id) => _ = usage.containers.insert(id, bytes),
            Tree::Volume(name) => _ = usage.volumes.insert(name, bytes),
            Tree::BuildCache => usage.build_cache += bytes,
        }
    }
    share_out(store, in_use, &objects, &mut usage)?;
    Ok(usage)
}

/// Which image needs what.
fn share_out(
    store: &Store,
    in_use: &[InUse],
    objects: &HashMap<Digest, u64>,
    usage: &mut Usage,
) -> Result<()> {
    let mut users: HashMap<Digest, usize> = HashMap::new();
    let listed = Listed::read(store)?;
    let mut kept: HashSet<Digest> =
        in_use.iter().flat_map(|u| u.diff_ids.iter().map(|d| d.0.clone())).collect();
    let images: Vec<(Entry, HashSet<Digest>, usize)> = find::entries(store)?
        .into_iter()
        .map(|image| {
            let needs = needs(&image);
            let n_containers = in_use.iter().filter(|u| u.image == *image.id()).count();
            (image, needs, n_containers)
        })
        .collect();
    for (image, needs, n_containers) in &images {
        for digest in needs {
            *users.entry(digest.clone()).or_default() += 1;
        }
        if *n_containers > 0 || image.summary.is_none() || listed.list_of(image).is_some() {
            kept.extend(needs.iter().cloned());
        }
    }
    usage.images_reclaimable =
        objects.iter().filter(|(digest, _)| !kept.contains(digest)).map(|(_, n)| n).sum();
    for (image, needs, n_containers) in images {
        let bytes = |is_shared: bool| {
            let fits = |d: &&Digest| (users.get(*d).copied().unwrap_or(0) > 1) == is_shared;
            needs.iter().filter(fits).filter_map(|d| objects.get(d)).sum()
        };
        usage.images.push(ImageUsage { unique: bytes(false), shared: bytes(true), image, n_containers });
    }
    Ok(())
}

/// Everything that an image needs, each once.
fn needs(image: &Entry) -> HashSet<Digest> {
    let mut needs: HashSet<Digest> = [image.manifest.clone()].into();
    needs.extend(image.named.iter().map(|n| n.manifest.clone()));
    if let Some(summary) = &image.summary {
        needs.insert(summary.id.clone());
        needs.extend(summary.layers.iter().cloned());
        needs.extend(summary.diff_ids.iter().map(|d| d.0.clone()));
    }
    needs
}

fn children(dir: &Path) -> Result<impl Iterator<Item = (String, PathBuf)>> {
    let names = fs::read_dir(dir)?;
    let dir = dir.to_owned();
    Ok(names.into_iter().map(move |name| (name.to_string_lossy().into_owned(), dir.join(name))))
}

/// A file or directory alone.
fn own_size(path: &Path) -> Result<u64> {
    Ok(fs::symlink_metadata(path)?.map_or(0, |meta| meta.blocks() * 512))
}

/// A file or a tree; what vanishes while it is counted takes no room.
fn size(path: &Path) -> Result<u64> {
    match fs::symlink_metadata(path)? {
        Some(meta) if meta.is_dir() => match usage::of(path) {
            Err(_) if fs::symlink_metadata(path)?.is_none() => Ok(0),
            counted => counted,
        },
        Some(meta) => Ok(meta.blocks() * 512),
        None => Ok(0),
    }
}
