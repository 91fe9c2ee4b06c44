//! Which shape the files of a store have: one number, in DATA/format, so that no dhow misreads what another wrote.
//!
//! Invariant: a store without the file has format 1, as those have that were made before there was one. Within a format,
//! files only gain fields that may be missing; whatever else is changed is another format, with its migration here.

use std::path::Path;

use anyhow::{Context, Result, anyhow};

use crate::error::ResultExt;
use crate::fs;

/// What this program reads and writes.
const FORMAT: u32 = 1;

/// The file's name in the store's directory.
const NAME: &str = "format";

/// Refuses the store in `data` if its files have a shape that this program does not know. Whether the store says so itself.
pub(super) fn check(data: &Path) -> Result<bool> {
    let path = data.join(NAME);
    let Some(text) = fs::read_to_string_if_exists(&path)? else { return Ok(false) };
    let about = || format!("cannot use the store {}", data.display());
    // Cut off by a machine that lost power: as good as none.
    if text.bytes().all(|b| b == 0) {
        return Ok(false);
    }
    let format: u32 = text
        .trim_end()
        .parse()
        .map_err(|_| anyhow!("{} holds no number", path.display()))
        .with_context(about)
        .hint("if the store is of dhow, and of no newer one, remove that file")?;
    if format == FORMAT {
        return Ok(true);
    }
    Err(anyhow!(
        "its files have format {format}, and this dhow ({}) knows {FORMAT}",
        env!("CARGO_PKG_VERSION")
    ))
    .with_context(about)
    .hint("use the dhow that made it, or another store: --root DIR")
}

/// Says in a store that does not say it yet which format it has. Best effort: without it the format is 1.
pub(super) fn note(data: &Path) {
    let path = data.join(NAME);
    let _ = fs::write_atomic(&path, format!("{FORMAT}\n").as_bytes());
    // Whoever may use the store's images may read it, whatever the umask of who made it.
    let _ = rustix::fs::chmod(&path, rustix::fs::Mode::from_raw_mode(0o644));
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::super::tests::Scratch;
    use super::*;
    use crate::host::Ids;

    #[test]
    fn a_store_says_its_format_and_another_one_is_refused_untouched() {
        let scratch = Scratch::new(Ids::Root);
        let data = &scratch.store.data;
        assert_eq!(fs::read_to_string(&data.join(NAME)).unwrap(), "1\n");
        fs::remove_tree(&data.join("containers")).unwrap();
        for (text, word) in [("2\n", "format 2"), ("0", "format 0"), ("next\n", "no number"), ("", "")] {
            fs::write(&data.join(NAME), text.as_bytes()).unwrap();
            match Store::at(data, Ids::Root) {
                Err(error) => {
                    assert!(!word.is_empty() && format!("{error:#}").contains(word), "{text:?}: {error:#}");
                    assert!(fs::metadata(&data.join("containers")).unwrap().is_none());
                }
                Ok(_) => assert_eq!(fs::read_to_string(&data.join(NAME)).unwrap(), "1\n", "{text:?}"),
            }
        }
        fs::remove_file(&data.join(NAME)).unwrap();
        Store::at(data, Ids::Root).unwrap();
        assert!(check(data).unwrap(), "one from before the file has format 1");
    }
}
