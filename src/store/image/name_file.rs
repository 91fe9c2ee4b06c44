//! The file of a name in `images/`: what it is called, read, and replaced as one durable step.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::fs;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::store::Store;
use crate::store::draft::Draft;

use super::names::Record;

pub(super) fn read(path: &Path) -> Result<Option<Record>> {
    let Some(text) = fs::read_to_string_if_exists(path)? else { return Ok(None) };
    serde_json::from_str(&text).with_context(|| format!("cannot read {}", path.display())).map(Some)
}

/// Replaces the file, durably: a power cut must not leave an empty one, which would stand for an image that cannot be
/// removed.
pub(super) fn write(store: &Store, path: &Path, record: &Record) -> Result<()> {
    let bytes = serde_json::to_vec(record).expect("a record is plain data");
    let draft = Draft::new(store)?;
    let made = draft.path().join("name");
    let mut file = fs::create_new(&made, 0o644)?;
    file.write_all(&bytes)
        .and_then(|()| file.sync_data())
        .with_context(|| format!("cannot write {}", path.display()))?;
    fs::rename(&made, path)?;
    let dir = fs::open(&store.data.join("images"))?;
    dir.sync_all().with_context(|| format!("cannot sync {}", store.data.join("images").display()))
}

pub(super) fn path(store: &Store, reference: &Reference) -> PathBuf {
    path_in(&store.data, reference)
}

pub(super) fn path_in(data: &Path, reference: &Reference) -> PathBuf {
    data.join("images").join(file_name(&reference.clone().with_default_tag().to_string()))
}

pub(super) fn untagged_path(store: &Store, manifest: &Digest) -> PathBuf {
    store.data.join("images").join(format!("@{}-{}", manifest.algorithm().name(), manifest.hex()))
}

/// The file for a reference: percent-escaped, so that it has no `/` and does not start with `.` or `@`; one that would
/// be longer than a file name may be is hashed instead. Read back only where the file is damaged: the reference is in it.
pub fn file_name(reference: &str) -> String {
    let mut name = String::new();
    for byte in reference.bytes() {
        let plain =
            byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') || byte == b'.' && !name.is_empty();
        if plain {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02X}"));
        }
    }
    if name.len() > 200 { format!("~{}", Digest::of(reference.as_bytes()).hex()) } else { name }
}

/// The name that a file is for, by what the file is called: for one whose content is damaged.
pub fn name_of_file(file: &str) -> Option<Reference> {
    let mut bytes = Vec::new();
    let mut rest = file.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    let reference: Reference = String::from_utf8(bytes).ok()?.parse().ok()?;
    (file_name(&reference.to_string()) == file).then_some(reference)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_reference_is_one_safe_file_name() {
        let check = |reference: &str, want: &str| assert_eq!(file_name(reference), want);
        check("docker.io/library/a:1.0-x_y", "docker.io%2Flibrary%2Fa%3A1.0-x_y");
        check("[::1]:5000/a", "%5B%3A%3A1%5D%3A5000%2Fa");
        check("../a", "%2E.%2Fa");
        check("@x", "%40x");
        let long = file_name(&"a/".repeat(100));
        assert!(long.starts_with('~') && long.len() == 65);
    }

    #[test]
    fn a_damaged_file_is_told_by_what_it_is_called() {
        let check = |reference: &str| {
            let reference = reference.parse::<Reference>().unwrap().with_default_tag();
            assert_eq!(name_of_file(&file_name(&reference.to_string())), Some(reference));
        };
        check("a:1.0-x_y");
        check("[::1]:5000/a/b");
        for bad in ["", "%", "%4", "%zz", "a", "docker.io%2flibrary%2Fa", "@sha256-00", "~00"] {
            assert_eq!(name_of_file(bad), None, "{bad}");
        }
    }
}
