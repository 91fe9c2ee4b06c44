//! Looking images up: by name, by `name@digest`, by the beginning of an id. Reads only; takes no lock.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::error::NotFound;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::store::Store;
use crate::store::blob;

use super::Image;
use super::names;
use super::names::Names;

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
        return Ok((whole(store, &manifest)?, By::Name(reference)));
    }
    match prefix {
        Some(prefix) => by_id(store, name_or_id, prefix),
        None => Err(not_found().into()),
    }
}

/// All images, each id once, sorted by id.
pub fn list(store: &Store) -> Result<Vec<Image>> {
    let names = Names::read(store)?;
    let mut images: BTreeMap<Digest, Image> = BTreeMap::new();
    for manifest in names.manifests() {
        let own: Vec<_> = names.of(manifest).cloned().collect();
        let image = match super::image(store, manifest, own) {
            // Removed since its name was read.
            Err(_) if !blob::exists(store, manifest)? => continue,
            image => image?,
        };
        match images.get_mut(&image.id) {
            // A manifest with a name speaks for the id rather than one without.
            Some(other) if other.names.is_empty() => *other = image,
            Some(other) => other.named.extend(image.named),
            None => _ = images.insert(image.id.clone(), image),
        }
    }
    for image in images.values_mut() {
        image.sort_names();
    }
    Ok(images.into_values().collect())
}

/// The image of this manifest with all names of its id.
fn whole(store: &Store, manifest: &Digest) -> Result<Image> {
    let names = Names::read(store)?;
    let mut image = super::image(store, manifest, Vec::new())?;
    let mut ids: BTreeMap<&Digest, bool> = BTreeMap::new();
    for named in &names.named {
        let is_same = match ids.get(&named.manifest) {
            Some(known) => *known,
            None => {
                let same = named.manifest == *manifest || has_id(store, &named.manifest, &image.id)?;
                ids.insert(&named.manifest, same);
                same
            }
        };
        if is_same {
            image.named.push(named.clone());
        }
    }
    image.sort_names();
    Ok(image)
}

fn has_id(store: &Store, manifest: &Digest, id: &Digest) -> Result<bool> {
    match super::describe(store, manifest) {
        Ok(other) => Ok(other.id == *id),
        // Removed since its name was read.
        Err(_) if !blob::exists(store, manifest)? => Ok(false),
        Err(error) => Err(error),
    }
}

fn by_digest(store: &Store, reference: Reference, digest: &Digest) -> Result<Option<(Image, By)>> {
    let names = Names::read(store)?;
    let found = names.named.iter().find(|n| {
        let same =
            n.reference.registry == reference.registry && n.reference.repository == reference.repository;
        same && (n.manifest == *digest || n.digest() == digest)
    });
    match found {
        Some(named) => Ok(Some((whole(store, &named.manifest)?, By::Digest(reference)))),
        None => Ok(None),
    }
}

fn by_id(store: &Store, typed: &str, prefix: &str) -> Result<(Image, By)> {
    let mut found = list(store)?.into_iter().filter(|i| i.id.hex().starts_with(prefix));
    let Some(image) = found.next() else {
        return Err(NotFound { kind: "image", name: typed.to_owned() }.into());
    };
    if found.next().is_some() {
        bail!("cannot tell which image is meant by {typed}: several ids start like that");
    }
    Ok((image, By::Id))
}

/// The hex digits of an id, if the text can be one.
fn id_prefix(text: &str) -> Option<&str> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    ((2..=64).contains(&hex.len()) && hex.bytes().all(is_hex)).then_some(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_2_to_64_hex_digits() {
        let check = |text: &str, want: Option<&str>| assert_eq!(id_prefix(text), want, "{text}");
        check("ab", Some("ab"));
        check("sha256:abc", Some("abc"));
        check(&"a".repeat(64), Some(&"a".repeat(64)));
        check(&"a".repeat(65), None);
        check("a", None);
        check("AB", None);
        check("abx", None);
    }
}
