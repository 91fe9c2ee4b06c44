//! A name: a file in `images/` that says which manifest a reference stands for. An image without any name has a file
//! too, called after its manifest, so that it is still listed and not freed.
//!
//! Invariant: between two holders of the names' lock, every manifest that had a file has one, unless it was asked to go.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error;
use crate::error::NotFound;
use crate::fs;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::store::Store;
use crate::sys::lock;

use super::Named;
use super::name_file::{path, path_in, read, untagged_path, write};
use super::summary::Summary;

pub use super::name_file::{file_name, name_of_file};

/// What is in a name's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The name in full; `None` for the file of an untagged image.
    pub reference: Option<String>,
    /// What it stands for.
    pub manifest: Digest,
    /// What a registry knows the name by, where that is not the manifest: the index that it was chosen from, or the
    /// manifest as it was pushed, whose layers are packed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Digest>,
    /// When it was written.
    pub created: Timestamp,
    /// What a listing needs; `None` where a layer was missing when it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
}

/// All names and untagged images. To be trusted for freeing only while [`Lock`] is held.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// The names, sorted.
    pub named: Vec<Named>,
    /// The manifests that have a file of their own, whether or not they also have a name.
    pub untagged: Vec<Digest>,
    /// Files that cannot be read, by what they are called, and why: they may stand for any image.
    pub damaged: BTreeMap<String, String>,
    /// What their files say of the manifests.
    pub summaries: BTreeMap<Digest, Summary>,
    /// Manifests that only an additional store names.
    pub foreign: BTreeMap<Digest, PathBuf>,
}

/// Held while files in `images/` are changed on the ground of what the others say.
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock. Nobody holds it for longer than a removal takes.
    pub fn new(store: &Store) -> Result<Lock> {
        let path = store.data.join("images/.names");
        let file = fs::open_or_create(&path, 0o600)?;
        lock::acquire(&file, lock::Kind::Exclusive)
            .with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(Lock { _file: file })
    }
}

impl Names {
    /// Reads all files of our own store.
    pub fn read(store: &Store) -> Result<Names> {
        let mut names = Names::default();
        names.add(&store.data)?;
        names.sort();
        Ok(names)
    }

    /// Our own names, and those of the additional stores that ours do not hide.
    pub fn visible(store: &Store) -> Result<Names> {
        let mut names = Names::read(store)?;
        for data in &store.additional {
            let mut more = Names::default();
            more.add(data)?;
            let own: BTreeSet<&Digest> =
                names.named.iter().map(|n| &n.manifest).chain(&names.untagged).collect();
            let foreign = |m: &&Digest| !own.contains(m) && !names.foreign.contains_key(*m);
            let all = more.named.iter().map(|n| &n.manifest).chain(&more.untagged);
            let foreign: Vec<Digest> = all.filter(foreign).cloned().collect();
            let taken: BTreeSet<&Reference> = names.named.iter().map(|n| &n.reference).collect();
            more.named.retain(|n| !taken.contains(&n.reference));
            names.foreign.extend(foreign.into_iter().map(|manifest| (manifest, data.clone())));
            names.named.extend(more.named);
            names.untagged.extend(more.untagged);
            names.damaged.extend(more.damaged);
            // What another user says of an image is read from its documents, which have digests.
            let owner = fs::symlink_metadata(data)?.map(|meta| meta.uid());
            if owner == Some(rustix::process::geteuid().as_raw()) {
                for (manifest, summary) in more.summaries {
                    names.summaries.entry(manifest).or_insert(summary);
                }
            }
        }
        names.sort();
        Ok(names)
    }

    fn add(&mut self, data: &Path) -> Result<()> {
        let dir = data.join("images");
        for file in fs::read_dir(&dir)? {
            if file.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let record = match read(&dir.join(&file)) {
                Ok(Some(record)) => record,
                // Removed since the directory was read.
                Ok(None) => continue,
                Err(error) => {
                    self.damaged.insert(file.to_string_lossy().into_owned(), error::chain(&error));
                    continue;
                }
            };
            let Record { reference, manifest, index, created, summary } = record;
            if let Some(summary) = summary {
                self.summaries.entry(manifest.clone()).or_insert(summary);
            }
            match reference.map(|text| text.parse()) {
                Some(Ok(reference)) => self.named.push(Named { reference, manifest, index, created }),
                Some(Err(error)) => {
                    self.damaged.insert(file.to_string_lossy().into_owned(), error.to_string());
                }
                None => self.untagged.push(manifest),
            }
        }
        Ok(())
    }

    fn sort(&mut self) {
        self.named.sort();
        self.untagged.sort();
        self.untagged.dedup();
    }

    /// The names of a manifest.
    pub fn of(&self, manifest: &Digest) -> impl Iterator<Item = &Named> {
        self.named.iter().filter(move |n| n.manifest == *manifest)
    }

    /// Every manifest that must be kept, each once.
    pub fn manifests(&self) -> Vec<&Digest> {
        let mut all: Vec<_> = self.named.iter().map(|n| &n.manifest).chain(&self.untagged).collect();
        all.sort();
        all.dedup();
        all
    }
}

/// Gives an image of the store a further name, away from whatever image had it.
pub fn tag(store: &Store, reference: &Reference, manifest: &Digest) -> Result<()> {
    let lock = Lock::new(store)?;
    // Under the lock, because the image may have been removed since it was found. That its blob is still there says
    // nothing: it may be about to be freed.
    if !Names::read(store)?.manifests().contains(&manifest) {
        if !Names::visible(store)?.foreign.contains_key(manifest) {
            return Err(NotFound { kind: "image", name: manifest.to_string() }.into());
        }
        super::adopt(store, manifest)?;
    }
    assign(store, &lock, reference, manifest)
}

/// Takes a name away. An image that had no other one goes on as an untagged image. Returns what the name stood for.
pub fn untag(store: &Store, reference: &Reference) -> Result<Digest> {
    let lock = Lock::new(store)?;
    let path = path(store, reference);
    let Some(record) = read(&path)? else {
        return Err(NotFound { kind: "image", name: reference.familiar() }.into());
    };
    if Names::read(store)?.of(&record.manifest).count() <= 1 {
        keep(store, &lock, &record.manifest)?;
    }
    fs::remove_file(&path)?;
    Ok(record.manifest)
}

/// What a name stands for; in the additional stores too.
pub fn resolve(store: &Store, reference: &Reference) -> Result<Option<Digest>> {
    Ok(record(store, reference)?.map(|record| record.manifest))
}

/// All that is known of a name; in the additional stores too.
pub fn record(store: &Store, reference: &Reference) -> Result<Option<Record>> {
    for data in store.places() {
        if let Some(record) = read(&path_in(data, reference))? {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

/// Whether our own store has this name, be its file damaged or not.
pub fn has_file(store: &Store, reference: &Reference) -> Result<bool> {
    Ok(fs::symlink_metadata(&path(store, reference))?.is_some())
}

/// Removes a file in `images/` whatever is in it.
pub fn forget_file(store: &Store, _: &Lock, file: &str) -> Result<()> {
    if file.starts_with('.') || file.contains('/') {
        bail!("cannot remove the name {file}: no name is kept so");
    }
    fs::remove_file(&store.data.join("images").join(file))
}

/// Writes a name, for publishers: the image is durable. The one that had the name, if this was its last, is kept
/// untagged, with its file written first, so that no moment and no crash loses it.
pub fn assign(store: &Store, lock: &Lock, reference: &Reference, manifest: &Digest) -> Result<()> {
    assign_chosen(store, lock, reference, manifest, None)
}

/// [`assign`] for a manifest that was chosen from an index.
pub fn assign_chosen(
    store: &Store,
    lock: &Lock,
    reference: &Reference,
    manifest: &Digest,
    index: Option<&Digest>,
) -> Result<()> {
    let reference = reference.clone().with_default_tag();
    let path = path(store, &reference);
    // A file that is damaged stands for nothing that could be kept.
    if let Ok(Some(old)) = read(&path)
        && old.manifest != *manifest
        && Names::read(store)?.of(&old.manifest).count() <= 1
    {
        keep(store, lock, &old.manifest)?;
    }
    let record = new_record(store, Some(&reference), manifest);
    write(store, &path, &Record { index: index.cloned(), ..record })?;
    fs::remove_file(&untagged_path(store, manifest))
}

/// Writes the file of an untagged image.
pub fn keep(store: &Store, _: &Lock, manifest: &Digest) -> Result<()> {
    let path = untagged_path(store, manifest);
    write(store, &path, &new_record(store, None, manifest))
}

fn new_record(store: &Store, reference: Option<&Reference>, manifest: &Digest) -> Record {
    // Without it everything works; and an image whose documents cannot be read may be given names nevertheless.
    let summary =
        Summary::of(store, manifest).ok().filter(|(_, is_whole)| *is_whole).map(|(summary, _)| summary);
    let reference = reference.map(ToString::to_string);
    Record { reference, manifest: manifest.clone(), index: None, created: Timestamp::now(), summary }
}

/// Removes a name, and with it, if it was the last one, the image.
pub fn forget(store: &Store, _: &Lock, reference: &Reference) -> Result<()> {
    fs::remove_file(&path(store, reference))
}

/// Removes the file of an untagged image.
pub fn forget_untagged(store: &Store, _: &Lock, manifest: &Digest) -> Result<()> {
    fs::remove_file(&untagged_path(store, manifest))
}

/// A reference that is to become a name: one with a digest says what it stands for, and cannot be given away.
pub fn check_can_be_given(reference: &Reference) -> Result<()> {
    if reference.digest.is_some() {
        bail!("cannot name an image {}: the name has a digest", reference.familiar());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Ids;
    use crate::store::tests::Scratch;

    fn name(text: &str) -> Reference {
        text.parse().unwrap()
    }

    #[test]
    fn one_damaged_file_hides_no_other() {
        let scratch = Scratch::new(Ids::Root);
        let store = &scratch.store;
        let lock = Lock::new(store).unwrap();
        assign(store, &lock, &name("good"), &Digest::of(b"1")).unwrap();
        for (file, text) in [("bad", &b"{"[..]), ("zeros", &[0; 100]), ("empty", b"")] {
            fs::write(&store.data.join("images").join(file), text).unwrap();
        }
        let names = Names::read(store).unwrap();
        assert_eq!(
            (names.named.len(), names.damaged.into_keys().collect::<Vec<_>>()),
            (1, ["bad", "empty", "zeros"].map(str::to_owned).into())
        );
        forget_file(store, &lock, "bad").unwrap();
        assert!(forget_file(store, &lock, "../x").is_err() && forget_file(store, &lock, ".names").is_err());
    }

    #[test]
    fn own_names_hide_those_of_additional_stores() {
        let (own, other) = (Scratch::new(Ids::Root), Scratch::new(Ids::Root));
        let (one, two, three) = (Digest::of(b"1"), Digest::of(b"2"), Digest::of(b"3"));
        let give = |store: &Store, text: &str, manifest: &Digest| {
            assign(store, &Lock::new(store).unwrap(), &name(text), manifest).unwrap();
        };
        give(&own.store, "a", &one);
        give(&other.store, "a", &two);
        give(&other.store, "b", &one);
        give(&other.store, "c", &three);
        let mut store = own.store.clone();
        store.additional = vec![other.store.data.clone()];
        let names = Names::visible(&store).unwrap();
        let told: Vec<_> = names.named.iter().map(|n| (n.reference.familiar(), &n.manifest)).collect();
        let want = [("a:latest", &one), ("b:latest", &one), ("c:latest", &three)];
        assert_eq!(told, want.map(|(text, manifest)| (text.to_owned(), manifest)));
        assert!(names.foreign.len() == 2 && !names.foreign.contains_key(&one));
        assert_eq!(resolve(&store, &name("a")).unwrap(), Some(one));
        assert_eq!(resolve(&store, &name("c")).unwrap(), Some(three.clone()));
        assert!(untag(&store, &name("c")).unwrap_err().is::<NotFound>());
        // Its documents are not there to be taken over.
        assert!(tag(&store, &name("mine"), &three).is_err());
        assert_eq!(Names::read(&store).unwrap().named.len(), 1);
    }

    #[test]
    fn an_image_that_lost_its_last_name_is_kept() {
        let scratch = Scratch::new(Ids::Root);
        let store = &scratch.store;
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let lock = Lock::new(store).unwrap();
        keep(store, &lock, &one).unwrap();
        keep(store, &lock, &two).unwrap();
        drop(lock);
        tag(store, &name("a"), &one).unwrap();
        tag(store, &name("b"), &one).unwrap();
        assert_eq!(resolve(store, &name("a:latest")).unwrap(), Some(one.clone()));

        tag(store, &name("a"), &two).unwrap();
        assert_eq!(Names::read(store).unwrap().untagged, []);
        tag(store, &name("b"), &two).unwrap();
        assert_eq!(Names::read(store).unwrap().untagged, std::slice::from_ref(&one));
        tag(store, &name("c"), &one).unwrap();
        assert_eq!(Names::read(store).unwrap().untagged, []);

        assert_eq!(untag(store, &name("c")).unwrap(), one);
        assert_eq!(Names::read(store).unwrap().untagged, std::slice::from_ref(&one));
        assert_eq!(untag(store, &name("a")).unwrap(), two);
        let names = Names::read(store).unwrap();
        assert_eq!(names.named.iter().map(|n| n.reference.familiar()).collect::<Vec<_>>(), ["b:latest"]);
        assert_eq!(names.manifests().len(), 2);
        assert!(untag(store, &name("a")).unwrap_err().is::<NotFound>());
        assert!(tag(store, &name("a"), &Digest::of(b"none")).unwrap_err().is::<NotFound>());
        assert!(scratch.is_tidy());
    }
}
