//! What manifest lists name: images of the store that are to be there when their list is pushed, by whatever name or none.
//! Of a list's file this room reads only that; the rest is `image::manifest_list`'s.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::fs;
use crate::oci::Digest;
use crate::store::Store;

use super::Entry;
use super::names;

/// What the lists of our own store name.
#[derive(Debug, Clone, Default)]
pub struct Listed {
    /// The manifests, each with a list that names it.
    pub manifests: BTreeMap<Digest, String>,
    /// Files that cannot be read, by what they are called: they may name any image.
    pub damaged: Vec<String>,
}

#[derive(Deserialize)]
struct List {
    name: String,
    #[serde(default)]
    entries: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    local: bool,
    descriptor: Descriptor,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: Digest,
}

/// The directory of the lists.
pub fn dir(store: &Store) -> PathBuf {
    store.data.join("manifests")
}

/// The file of the list of this full name.
pub fn file(store: &Store, name: &str) -> PathBuf {
    dir(store).join(names::file_name(name))
}

impl Listed {
    /// Reads all lists.
    pub fn read(store: &Store) -> Result<Listed> {
        let mut listed = Listed::default();
        let dir = dir(store);
        for file in fs::read_dir(&dir)? {
            if file.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            match read(&dir.join(&file)) {
                Ok(Some(list)) => {
                    let local = list.entries.into_iter().filter(|entry| entry.local);
                    listed.manifests.extend(local.map(|entry| (entry.descriptor.digest, list.name.clone())));
                }
                // Removed since the directory was read.
                Ok(None) => {}
                Err(_) => listed.damaged.push(file.to_string_lossy().into_owned()),
            }
        }
        Ok(listed)
    }

    /// A list that names an image.
    pub fn list_of(&self, image: &Entry) -> Option<&str> {
        let mut manifests = std::iter::once(&image.manifest).chain(image.named.iter().map(|n| &n.manifest));
        manifests.find_map(|manifest| self.manifests.get(manifest)).map(String::as_str)
    }
}

fn read(path: &Path) -> Result<Option<List>> {
    let Some(text) = fs::read_to_string_if_exists(path)? else { return Ok(None) };
    serde_json::from_str(&text).with_context(|| format!("cannot read {}", path.display())).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Ids;
    use crate::store::tests::Scratch;

    #[test]
    fn only_images_of_the_store_are_told() {
        let scratch = Scratch::new(Ids::Root);
        let store = &scratch.store;
        assert!(Listed::read(store).unwrap().manifests.is_empty());
        fs::create_dir_all(&dir(store), 0o700).unwrap();
        let (own, other) = (Digest::of(b"1"), Digest::of(b"2"));
        let entry = |local: bool, digest: &Digest| serde_json::json!({"image": "x", "local": local, "descriptor": {"digest": digest.to_string()}});
        let list = serde_json::json!({"name": "a/b:c", "entries": [entry(true, &own), entry(false, &other)]});
        fs::write(&file(store, "a/b:c"), list.to_string().as_bytes()).unwrap();
        fs::write(&dir(store).join(".lock"), b"").unwrap();
        fs::write(&dir(store).join("bad"), b"{").unwrap();
        let listed = Listed::read(store).unwrap();
        assert_eq!(listed.manifests, [(own, "a/b:c".to_owned())].into());
        assert_eq!(listed.damaged, ["bad"]);
    }
}
