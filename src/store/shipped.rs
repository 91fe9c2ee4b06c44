//! A form: what a layer looked like when it was shipped, and where that lies now. By it the second push of a layer
//! compresses nothing, and a push to another repository of the same registry moves nothing. `shipped/HEX` is a small
//! file named by the diff id.
//!
//! A form is a hint: it may be missing, and what it says of a registry may have ceased to be true. Only that these bytes
//! decompress to this layer is certain, because it was seen here.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::fs;
use crate::oci::DiffId;
use crate::oci::Digest;

use super::Store;
use super::draft::Draft;

/// The forms of a layer, and the repositories of a form, that are remembered: the newest.
const FORMS_LIMIT: usize = 8;
const REPOSITORIES_LIMIT: usize = 8;
const DIR: &str = "shipped";

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Form {
    /// The digest of the bytes as they were shipped.
    pub digest: Digest,
    /// How many bytes.
    pub size: u64,
    /// How they were made of the tar, in the words of who made them; `None` for bytes that were pulled.
    #[serde(default)]
    pub packing: Option<String>,
    /// The repositories that had them, as `registry/repository`, newest first.
    #[serde(default)]
    pub repositories: Vec<String>,
}

/// What is known of a layer, newest first. What cannot be read is not known.
pub fn forms(store: &Store, diff_id: &DiffId) -> Vec<Form> {
    let text = fs::read_to_string_if_exists(&path(store, diff_id)).ok().flatten();
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// Remembers a form. Of two who do so at once one may be forgotten.
pub fn note(store: &Store, diff_id: &DiffId, form: Form) -> Result<()> {
    let old = forms(store, diff_id);
    let new = merged(old.clone(), form);
    if new == old {
        return Ok(());
    }
    let draft = Draft::new(store)?;
    let made = draft.path().join(DIR);
    fs::write(&made, &serde_json::to_vec(&new).context("cannot write what is known of a layer")?)?;
    fs::create_dir_all(&store.data.join(DIR), 0o700)?;
    fs::rename(&made, &path(store, diff_id))
}

/// Forgets all layers but those for which `is_needed` says so.
pub fn forget(store: &Store, is_needed: impl Fn(&DiffId) -> bool) -> Result<()> {
    let dir = store.data.join(DIR);
    for name in fs::read_dir(&dir)? {
        let diff_id = name.to_str().and_then(Digest::from_hex).map(DiffId);
        if !diff_id.is_some_and(|d| is_needed(&d)) {
            fs::remove_file(&dir.join(name))?;
        }
    }
    Ok(())
}

fn merged(mut forms: Vec<Form>, mut form: Form) -> Vec<Form> {
    if let Some(at) = forms.iter().position(|f| f.digest == form.digest) {
        let old = forms.remove(at);
        form.packing = form.packing.or(old.packing);
        for repository in old.repositories {
            if !form.repositories.contains(&repository) {
                form.repositories.push(repository);
            }
        }
    }
    form.repositories.truncate(REPOSITORIES_LIMIT);
    forms.insert(0, form);
    forms.truncate(FORMS_LIMIT);
    forms
}

fn path(store: &Store, diff_id: &DiffId) -> std::path::PathBuf {
    store.data.join(DIR).join(diff_id.0.hex())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Ids;
    use crate::store::tests::Scratch;

    fn form(text: &[u8], packing: Option<&str>, repository: &str) -> Form {
        let (packing, repositories) = (packing.map(str::to_owned), vec![repository.to_owned()]);
        Form { digest: Digest::of(text), size: 1, packing, repositories }
    }

    #[test]
    fn the_newest_come_first_and_are_few() {
        let scratch = Scratch::new(Ids::Root);
        let (store, layer) = (&scratch.store, DiffId(Digest::of(b"layer")));
        assert_eq!(forms(store, &layer), []);
        note(store, &layer, form(b"a", Some("gzip"), "r/1")).unwrap();
        note(store, &layer, form(b"b", None, "r/1")).unwrap();
        for n in 0..20 {
            note(store, &layer, form(b"a", None, &format!("r/{n}"))).unwrap();
        }
        let found = forms(store, &layer);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].packing.as_deref(), found[0].repositories.len()), (Some("gzip"), 8));
        assert_eq!(found[0].repositories[0], "r/19");
        for n in 0..20u8 {
            note(store, &layer, form(&[n], None, "r/1")).unwrap();
        }
        assert_eq!(forms(store, &layer).len(), FORMS_LIMIT);

        forget(store, |_| true).unwrap();
        assert_eq!(forms(store, &layer).len(), FORMS_LIMIT);
        fs::write(&path(store, &layer), b"{").unwrap();
        assert_eq!(forms(store, &layer), []);
        forget(store, |_| false).unwrap();
        assert!(fs::read_dir(&store.data.join(DIR)).unwrap().is_empty());
        assert!(scratch.is_tidy());
    }
}
