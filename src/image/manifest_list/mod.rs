//! A manifest list: an index in the making, kept as one small file in `manifests/` until it is pushed.
//!
//! An entry is an image of the store or of a registry, as it was when it was added. What is made here has its digest in a
//! registry only once it is packed, so an entry of the store may be called otherwise in the index that is pushed.
//!
//! Invariant: a list is changed under its lock and replaced as one step: two at once lose nothing of each other.

mod entry;
mod file;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::{NotFound, ResultExt};
use crate::event::Sink;
use crate::fs;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::registry::{Action, Client, Manifest};
use crate::store::Store;
use crate::store::blob;
use crate::store::gc;

use super::Platform;
use super::manifest;
use super::packing::Packing;
use super::push;
use super::push::Pushed;
use super::transfer;
use super::transfer::location::Location;

pub use entry::{Changes, Entry};
use entry::{change, digest_of, entries, position};
use file::{full, lock, path, read, write};

/// As many images as an index may sensibly name.
const ENTRIES_LIMIT: usize = 1000;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// Its name in full.
    pub name: String,
    /// Its annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Its images.
    #[serde(default)]
    pub entries: Vec<Entry>,
}

/// How to push a list.
#[derive(Debug, Clone)]
pub struct PushOptions {
    /// In docker's words (`Some(true)`), the specification's, or whichever its images use.
    pub as_docker: Option<bool>,
    /// How layers are packed that were made here.
    pub packing: Option<Packing>,
    /// Where unnamed files can be made.
    pub spool: PathBuf,
}

/// Makes an empty list. One that exists is an error, unless `amend` says that it is to be gone on with.
pub fn create(store: &Store, name: &Reference, amend: bool, annotations: &[(String, String)]) -> Result<()> {
    let _lock = lock(store)?;
    let mut list = match read(store, name)? {
        Some(_) if !amend => {
            return Err(anyhow!("cannot make the manifest list {}: there is one", name.familiar()))
                .hint("--amend adds to it; dhow manifest rm removes it");
        }
        Some(list) => list,
        None => List { name: full(name), annotations: BTreeMap::new(), entries: Vec::new() },
    };
    list.annotations.extend(annotations.iter().cloned());
    write(store, name, &list)
}

/// The list of this name; [`NotFound`] of kind `manifest list` where there is none.
pub fn find(store: &Store, name: &Reference) -> Result<List> {
    read(store, name)?.ok_or_else(|| NotFound { kind: "manifest list", name: name.familiar() }.into())
}

/// The entry of a list that is called so, as it was added or by its digest.
pub fn entry<'a>(list: &'a List, image: &str) -> Result<&'a Entry> {
    Ok(&list.entries[position(list, image)?])
}

/// Whether there is a list of this name.
pub fn exists(store: &Store, name: &Reference) -> Result<bool> {
    Ok(fs::symlink_metadata(&path(store, name))?.is_some())
}

/// Removes a list.
pub fn remove(store: &Store, name: &Reference) -> Result<()> {
    let _lock = lock(store)?;
    find(store, name)?;
    fs::remove_file(&path(store, name))
}

/// Adds an image, or with `all` everything that an index names; of the store if it is there, else of a registry. One
/// that the list has already is replaced.
pub fn add(
    store: &Store,
    client: &Client,
    name: &Reference,
    image: &str,
    all: bool,
    changes: &Changes,
) -> Result<Vec<Digest>> {
    let about = || format!("cannot add {image} to {}", name.familiar());
    // Asked before the lock is taken, since a registry may take its time.
    find(store, name)?;
    let mut entries = entries(store, client, image, all, changes).with_context(about)?;
    for entry in &mut entries {
        change(&mut entry.descriptor, changes);
    }
    let added = entries.iter().map(digest_of).collect::<Result<Vec<_>>>()?;
    edit(store, name, |list| {
        for entry in entries {
            // Freed since it was found: the list would name what nobody has.
            if entry.local && !blob::exists(store, &digest_of(&entry)?)? {
                return Err(NotFound { kind: "image", name: entry.image }.into());
            }
            list.entries.retain(|old| old.descriptor.get("digest") != entry.descriptor.get("digest"));
            list.entries.push(entry);
        }
        if list.entries.len() > ENTRIES_LIMIT {
            bail!("it would have more than {ENTRIES_LIMIT} images");
        }
        Ok(())
    })
    .with_context(about)?;
    Ok(added)
}

/// Changes what the list says of an image, which is named as it was added or by its digest.
pub fn annotate(store: &Store, name: &Reference, image: &str, changes: &Changes) -> Result<()> {
    let about = || format!("cannot annotate {image} in {}", name.familiar());
    edit(store, name, |list| {
        let at = position(list, image)?;
        change(&mut list.entries[at].descriptor, changes);
        Ok(())
    })
    .with_context(about)
}

/// Takes an image out of a list.
pub fn take_out(store: &Store, name: &Reference, image: &str) -> Result<()> {
    let about = || format!("cannot take {image} out of {}", name.familiar());
    edit(store, name, |list| {
        let at = position(list, image)?;
        list.entries.remove(at);
        Ok(())
    })
    .with_context(about)
}

/// The index that the list makes.
pub fn index(list: &List, as_docker: Option<bool>) -> Value {
    let is_docker = |e: &Entry| e.descriptor.get("mediaType").is_some_and(|m| m == manifest::DOCKER_MANIFEST);
    let as_docker = as_docker.unwrap_or(!list.entries.is_empty() && list.entries.iter().all(is_docker));
    let media_type = if as_docker { manifest::DOCKER_INDEX } else { manifest::INDEX };
    let manifests: Vec<&Map<String, Value>> = list.entries.iter().map(|e| &e.descriptor).collect();
    let mut index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests});
    if !list.annotations.is_empty() && !as_docker {
        index["annotations"] = json!(list.annotations);
    }
    index
}

/// Pushes every image of a list to the repository of `destination`, and then the index.
pub fn push(
    store: &Store,
    client: &Client,
    list: &List,
    destination: &Reference,
    options: &PushOptions,
    events: Sink<'_>,
) -> Result<Pushed> {
    let about = || format!("cannot push the manifest list {}", destination.familiar());
    if list.entries.is_empty() {
        bail!("{}: it has no images", about());
    }
    let mut list = list.clone();
    for entry in &mut list.entries {
        let what = entry.image.clone();
        push_entry(store, client, entry, destination, options, events)
            .with_context(|| format!("cannot push {what}"))
            .with_context(about)?;
    }
    let to = client.repository(destination, Action::Push).with_context(about)?;
    let bytes = index(&list, options.as_docker).to_string().into_bytes();
    let media_type = manifest::media_type(&bytes)?;
    let index = Manifest { digest: Digest::of(&bytes), media_type, bytes };
    push::put_manifest(&to, destination.tag_or_latest(), &index).with_context(about)
}

fn push_entry(
    store: &Store,
    client: &Client,
    entry: &mut Entry,
    destination: &Reference,
    options: &PushOptions,
    events: Sink<'_>,
) -> Result<()> {
    let digest = digest_of(entry)?;
    if entry.local {
        if !blob::exists(store, &digest)? {
            return Err(NotFound { kind: "image", name: entry.image.clone() })
                .hint("it was removed after it was added to the list");
        }
        let to = client.repository(destination, Action::Push)?;
        let pushed = push::ship(store, &to, destination, &digest, None, options.packing, events)?;
        entry.descriptor.insert("mediaType".to_owned(), json!(pushed.media_type));
        entry.descriptor.insert("digest".to_owned(), json!(pushed.digest.to_string()));
        entry.descriptor.insert("size".to_owned(), json!(pushed.size));
        return Ok(());
    }
    let from: Reference = entry.image.parse()?;
    let at =
        |reference: &Reference| Reference { tag: None, digest: Some(digest.clone()), ..reference.clone() };
    let (from, to) = (Location::Registry(at(&from)), Location::Registry(at(destination)));
    if from == to {
        return match client.repository(destination, Action::Pull)?.head_manifest(&digest.to_string())? {
            Some(_) => Ok(()),
            None => Err(NotFound { kind: "manifest", name: digest.to_string() }.into()),
        };
    }
    let options = transfer::Options {
        all: true,
        platform: Platform::host(),
        packing: Packing::default(),
        spool: options.spool.clone(),
    };
    transfer::copy((&from, client), (&to, client), &options, events).map(drop)
}

fn edit(store: &Store, name: &Reference, change: impl FnOnce(&mut List) -> Result<()>) -> Result<()> {
    let _lock = lock(store)?;
    // A sweep sees what the list names from now on, or it is over, and it is seen what it took.
    let _held_off = gc::hold_off(store)?;
    let mut list = find(store, name)?;
    change(&mut list)?;
    write(store, name, &list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Ids;
    use crate::store::tests::Scratch;

    fn added(image: &str, media_type: &str) -> Entry {
        let Value::Object(descriptor) = json!({
            "mediaType": media_type, "digest": Digest::of(image.as_bytes()).to_string(), "size": 1,
        }) else {
            unreachable!()
        };
        Entry { image: image.to_owned(), local: false, descriptor }
    }

    fn name(text: &str) -> Reference {
        text.parse().unwrap()
    }

    #[test]
    fn lists_are_made_changed_and_removed() {
        let scratch = Scratch::new(Ids::Root);
        let (store, list) = (&scratch.store, name("reg:5000/a/list"));
        assert!(find(store, &list).unwrap_err().is::<NotFound>());
        create(store, &list, false, &[]).unwrap();
        assert!(create(store, &list, false, &[]).is_err());
        create(store, &list, true, &[("k".into(), "v".into())]).unwrap();
        assert!(exists(store, &name("reg:5000/a/list:latest")).unwrap());
        edit(store, &list, |l| {
            l.entries.push(added("docker.io/library/one:latest", manifest::MANIFEST));
            Ok(())
        })
        .unwrap();
        let changes = Changes {
            architecture: Some("arm".into()),
            variant: Some("v7".into()),
            annotations: vec![("a".into(), "b".into())],
            ..Changes::default()
        };
        annotate(store, &list, "one", &changes).unwrap();
        assert!(annotate(store, &list, "two", &changes).is_err());
        let made = index(&find(store, &list).unwrap(), None);
        let image = &made["manifests"][0];
        assert_eq!(image["platform"], json!({"architecture": "arm", "os": "", "variant": "v7"}));
        assert_eq!([&image["annotations"]["a"], &made["annotations"]["k"]], ["b", "v"]);
        take_out(store, &list, image["digest"].as_str().unwrap()).unwrap();
        assert!(find(store, &list).unwrap().entries.is_empty());
        remove(store, &list).unwrap();
        assert!(!exists(store, &list).unwrap());
        assert!(remove(store, &list).unwrap_err().is::<NotFound>());
        assert!(scratch.is_tidy());
    }

    #[test]
    fn two_at_once_lose_nothing() {
        let scratch = Scratch::new(Ids::Root);
        let (store, list) = (&scratch.store, name("list"));
        create(store, &list, false, &[]).unwrap();
        std::thread::scope(|scope| {
            for half in 0..2 {
                let list = &list;
                scope.spawn(move || {
                    for n in 0..20 {
                        let add = |l: &mut List| {
                            l.entries.push(added(&format!("{half}-{n}"), manifest::MANIFEST));
                            Ok(())
                        };
                        edit(store, list, add).unwrap();
                    }
                });
            }
        });
        assert_eq!(find(store, &list).unwrap().entries.len(), 40);
    }

    #[test]
    fn an_index_speaks_as_its_images_do() {
        let docker = added("a", manifest::DOCKER_MANIFEST);
        let oci = added("b", manifest::MANIFEST);
        let check = |entries: &[&Entry], as_docker: Option<bool>, want: &str| {
            let entries = entries.iter().map(|e| (*e).clone()).collect();
            let list = List { name: "x".into(), annotations: BTreeMap::new(), entries };
            assert_eq!(index(&list, as_docker)["mediaType"], want);
        };
        check(&[&docker], None, manifest::DOCKER_INDEX);
        check(&[&docker, &oci], None, manifest::INDEX);
        check(&[&docker], Some(false), manifest::INDEX);
        check(&[&oci], Some(true), manifest::DOCKER_INDEX);
        check(&[], None, manifest::INDEX);
    }
}
