//! A pin: a note in a draft that a blob or layer of the store is counted on by an image that is still being put
//! together. The notes die with their maker: a draft is only alive while its lock is held.

use anyhow::Result;

use crate::fs;
use crate::oci::Digest;

use super::Store;
use super::draft::{self, Draft};
use super::gc;

const PINS: &str = "pins";

/// The pins of one publisher; taken away when dropped, which is to be after the names are written.
#[derive(Debug)]
pub struct Pins {
    draft: Draft,
}

impl Pins {
    /// No pins yet.
    pub fn new(store: &Store) -> Result<Pins> {
        let draft = Draft::new(store)?;
        fs::create_dir(&draft.path().join(PINS), 0o700)?;
        Ok(Pins { draft })
    }

    /// From now on this blob, or the layer of this diff id, is not freed. To be called before looking whether it
    /// exists.
    pub fn hold(&self, store: &Store, digest: &Digest) -> Result<()> {
        // A sweep that is under way may have looked at the pins already.
        let _held_off = gc::hold_off(store)?;
        fs::write(&self.draft.path().join(PINS).join(digest.hex()), b"")
    }
}

/// Everything that is pinned by somebody who lives.
pub(super) fn all(store: &Store) -> Result<Vec<Digest>> {
    let tmp = store.data.join("tmp");
    let mut pinned = Vec::new();
    for draft in fs::read_dir(&tmp)? {
        let path = tmp.join(draft);
        let names = fs::read_dir(&path.join(PINS))?;
        if names.is_empty() || !draft::is_alive(&path) {
            continue;
        }
        for name in names {
            pinned.extend(name.to_str().and_then(Digest::from_hex));
        }
    }
    Ok(pinned)
}
