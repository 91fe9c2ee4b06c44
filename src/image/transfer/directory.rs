//! A `dir:` as a target: one image, each of its blobs and manifests a file. What it had before goes, once the new image is
//! there, as after skopeo, which empties it first: ours is never without an image. Files of other names are left alone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;

use crate::fs;
use crate::oci::Digest;
use crate::registry::Manifest;

/// See the module.
pub(super) struct Directory {
    path: PathBuf,
    /// The files of the new image.
    own: Mutex<BTreeSet<String>>,
}

impl Directory {
    /// A directory that was found to be of this kind, or is new.
    pub(super) fn new(path: &Path) -> Directory {
        Directory { path: path.to_owned(), own: Mutex::default() }
    }

    /// Where a blob goes.
    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.file(digest.hex().to_owned())
    }

    /// Where a manifest goes that an index names.
    pub(super) fn manifest(&self, digest: &Digest) -> PathBuf {
        self.file(format!("{}.manifest.json", digest.hex()))
    }

    fn file(&self, name: String) -> PathBuf {
        let path = self.path.join(&name);
        self.own.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
        path
    }

    /// Takes what is at the top, and removes what is of no image any more.
    pub(super) fn finish(&self, top: &Manifest) -> Result<()> {
        fs::write_atomic(&self.path.join("manifest.json"), &top.bytes)?;
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        for name in fs::read_dir(&self.path)? {
            let Some(name) = name.to_str().filter(|name| is_of_an_image(name) && !own.contains(*name)) else {
                continue;
            };
            fs::remove_file(&self.path.join(name))?;
        }
        Ok(())
    }
}

/// Whether a file is called as those are that come and go with an image.
fn is_of_an_image(name: &str) -> bool {
    let is_hex = |text: &str| Digest::from_hex(text).is_some();
    is_hex(name)
        || name.strip_suffix(".manifest.json").is_some_and(is_hex)
        || name.split_once("signature-").is_some_and(|(before, number)| {
            // `signature-1`, or of one image of an index `HEX.signature-1`.
            let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
            is_number && (before.is_empty() || before.strip_suffix(['.', '-']).is_some_and(is_hex))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_image_s_files_come_and_go() {
        let hex = "0a".repeat(32);
        for own in
            [hex.clone(), format!("{hex}.manifest.json"), "signature-1".into(), format!("{hex}-signature-2")]
        {
            assert!(is_of_an_image(&own), "{own}");
        }
        for other in [
            "version",
            "manifest.json",
            "README",
            &hex[1..],
            "signature-x",
            "x-signature-1",
            ".manifest.json",
        ] {
            assert!(!is_of_an_image(other), "{other}");
        }
    }
}
