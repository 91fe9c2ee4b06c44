//! Looking images up: by name, by `name@digest`, by the beginning of an id. Reads only; takes no lock.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::error::NotFound;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::store::Store;
use crate::store::blob;

use super::Image;
use super::Named;
use super::names;
use super::names::{Names, Record};
use super::summary::Summary;

/// How an image was asked for, because removing one by its name means the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// By this name, with the tag written out.
    Name(Reference),
    /// By `name@digest`, which several names of the repository may match.
    Digest(Reference),
    /// By its id or the beginning of it.
    Id,
}

/// The image that a person means. A name goes before an id.
pub fn find(store: &Store, name_or_id: &str) -> Result<Image> {
    find_by(store, name_or_id).map(|(image, _)| image)
}

/// [`find`], with what the text turned out to be.
pub fn find_by(store: &Store, name_or_id: &str) -> Result<(Image, By)> {
    let (entry, by) = entry_by(store, name_or_id)?;
    let mut image = super::image(store, &entry.manifest, entry.named)?;
    image.is_read_only = entry.is_read_only;
    Ok((image, by))
}

/// [`find_by`] for who does not ask for the image's other names: where it is found by name, that is all that is told,
/// because the others take reading all there are.
pub fn find_alone(store: &Store, name_or_id: &str) -> Result<(Image, By)> {
    if let Ok(reference) = name_or_id.parse::<Reference>()
        && reference.digest.is_none()
    {
        let reference = reference.with_default_tag();
        if let Some(record) = names::record(store, &reference)? {
            let Record { manifest, index, created, .. } = record;
            let named = Named { reference: reference.clone(), manifest: manifest.clone(), index, created };
            return Ok((super::image(store, &manifest, vec![named])?, By::Name(reference)));
        }
    }
    find_by(store, name_or_id)
}

/// [`find_by`] for what needs no documents, so that damaged images are found too.
pub fn entry_by(store: &Store, name_or_id: &str) -> Result<(Entry, By)> {
    let not_found = || NotFound { kind: "image", name: name_or_id.to_owned() };
    let prefix = id_prefix(name_or_id);
    let reference = match name_or_id.parse::<Reference>() {
        Ok(reference) => reference,
        // Such as 64 hex digits, which are an id and nothing else.
        Err(_) if prefix.is_some() => return by_id(store, name_or_id, prefix.unwrap_or_default()),
        Err(error) => return Err(error.into()),
    };
    if let Some(digest) = &reference.digest {
        let digest = digest.clone();
        return by_digest(store, reference, &digest)?.ok_or_else(|| not_found().into());
    }
    let reference = reference.with_default_tag();
    if let Some(manifest) = names::resolve(store, &reference)? {
        return Ok((entry(store, &Names::visible(store)?, &manifest), By::Name(reference)));
    }
    match prefix {
        Some(prefix) => by_id(store, name_or_id, prefix),
        None => Err(not_found().into()),
    }
}

/// An image as a listing shows it: nothing is read but the files of its names.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The manifest; the one of several of this id that has a name, if any has.
    pub manifest: Digest,
    /// Its names, sorted.
    pub named: Vec<Named>,
    /// What it is; `None` where its documents cannot be read and nobody kept what they said.
    pub summary: Option<Summary>,
    /// Whether only an additional store has it.
    pub is_read_only: bool,
}

impl Entry {
    /// The image id; of a damaged image the manifest's digest, which is all that is known.
    pub fn id(&self) -> &Digest {
        self.summary.as_ref().map_or(&self.manifest, |summary| &summary.id)
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &Reference> {
        self.named.iter().map(|n| &n.reference)
    }
}

/// All images, each id once, sorted by id; damaged ones too.
pub fn entries(store: &Store) -> Result<Vec<Entry>> {
    entries_of(store, Names::visible(store)?)
}

/// [`entries`] of names that were read already.
pub fn entries_of(store: &Store, mut names: Names) -> Result<Vec<Entry>> {
    let mut by_manifest: BTreeMap<Digest, Vec<Named>> = BTreeMap::new();
    for named in std::mem::take(&mut names.named) {
        by_manifest.entry(named.manifest.clone()).or_default().push(named);
    }
    for manifest in std::mem::take(&mut names.untagged) {
        by_manifest.entry(manifest).or_default();
    }
    let mut all: BTreeMap<Digest, Entry> = BTreeMap::new();
    for (manifest, named) in by_manifest {
        let summary = match names.summaries.remove(&manifest) {
            Some(summary) => Some(summary),
            None => match Summary::of(store, &manifest) {
                Ok((summary, _)) => Some(summary),
                // Removed since its name was read; or its only name is that of a manifest that was lost.
                Err(_) if is_gone(store, &manifest, &named)? => continue,
                Err(_) => None,
            },
        };
        let is_read_only = names.foreign.contains_key(&manifest);
        let entry = Entry { manifest, named, summary, is_read_only };
        match all.get_mut(entry.id()) {
            // A manifest with a name speaks for the id rather than one without, and our own rather than another's.
            Some(other) if other.named.is_empty() && !entry.named.is_empty() => {
                let is_read_only = other.is_read_only && entry.is_read_only;
                *other = Entry { is_read_only, ..entry };
            }
            Some(other) => {
                other.named.extend(entry.named);
                other.is_read_only &= entry.is_read_only;
            }
            None => _ = all.insert(entry.id().clone(), entry),
        }
    }
    for entry in all.values_mut() {
        entry.named.sort();
    }
    Ok(all.into_values().collect())
}

/// Whether no file says any more that there is such an image.
fn is_gone(store: &Store, manifest: &Digest, named: &[Named]) -> Result<bool> {
    if blob::exists(store, manifest)? {
        return Ok(false);
    }
    let names = Names::visible(store)?;
    Ok(!names.untagged.contains(manifest) && !named.iter().any(|n| names.named.contains(n)))
}

/// All images whose documents can be read, each id once, sorted by id.
pub fn list(store: &Store) -> Result<Vec<Image>> {
    let image = |entry: Entry| {
        let mut image = super::image(store, &entry.manifest, entry.named).ok()?;
        image.is_read_only = entry.is_read_only;
        Some(image)
    };
    Ok(entries(store)?.into_iter().filter_map(image).collect())
}

/// The image of this manifest with all names of its id.
fn entry(store: &Store, names: &Names, manifest: &Digest) -> Entry {
    let summary = names.summaries.get(manifest).cloned();
    let summary = summary.or_else(|| Summary::of(store, manifest).ok().map(|(summary, _)| summary));
    let mut same: BTreeMap<&Digest, bool> = BTreeMap::new();
    for other in names.named.iter().map(|n| &n.manifest).chain(&names.untagged) {
        same.entry(other).or_insert_with(|| {
            let has_id = |summary: &Summary| has_id(store, names, other, &summary.id);
            other == manifest || summary.as_ref().is_some_and(has_id)
        });
    }
    let is_same = |other: &Digest| same.get(other) == Some(&true);
    let named = names.named.iter().filter(|n| is_same(&n.manifest)).cloned().collect();
    let is_own = same.iter().any(|(other, is_same)| *is_same && !names.foreign.contains_key(*other));
    Entry { manifest: manifest.clone(), named, summary, is_read_only: !is_own }
}

/// Whether a manifest is of this id; one that is gone or damaged is not.
pub fn has_id(store: &Store, names: &Names, manifest: &Digest, id: &Digest) -> bool {
    match names.summaries.get(manifest) {
        Some(summary) => summary.id == *id,
        None => super::describe(store, manifest).is_ok_and(|other| other.id == *id),
    }
}

fn by_digest(store: &Store, reference: Reference, digest: &Digest) -> Result<Option<(Entry, By)>> {
    let names = Names::visible(store)?;
    let found = names.named.iter().find(|n| {
        let same =
            n.reference.registry == reference.registry && n.reference.repository == reference.repository;
        same && (n.manifest == *digest || n.digest() == digest)
    });
    Ok(found.map(|named| (entry(store, &names, &named.manifest), By::Digest(reference))))
}

fn by_id(store: &Store, typed: &str, prefix: &str) -> Result<(Entry, By)> {
    let mut found = entries(store)?.into_iter().filter(|e| e.id().hex().starts_with(prefix));
    let Some(entry) = found.next() else {
        return Err(NotFound { kind: "image", name: typed.to_owned() }.into());
    };
    if found.next().is_some() {
        bail!("cannot tell which image is meant by {typed}: several ids start like that");
    }
    Ok((entry, By::Id))
}

/// The hex digits of an id, if the text can be one.
fn id_prefix(text: &str) -> Option<&str> {
    let hex = Digest::bare(text);
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    ((2..=128).contains(&hex.len()) && hex.bytes().all(is_hex)).then_some(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_2_to_128_hex_digits() {
        let check = |text: &str, want: Option<&str>| assert_eq!(id_prefix(text), want, "{text}");
        check("ab", Some("ab"));
        check("sha256:abc", Some("abc"));
        check(&"a".repeat(128), Some(&"a".repeat(128)));
        check(&"a".repeat(129), None);
        check("sha512:abc", Some("abc"));
        check("md5:abc", None);
        check("a", None);
        check("AB", None);
        check("abx", None);
    }
}
