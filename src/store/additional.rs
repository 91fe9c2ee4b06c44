//! Additional stores: those whose images are used where they are, and which of them there are.
//!
//! Named by `--storage-opt additionalimagestore=DIR`, then by `storage.additional-stores` of `config.toml`, then by
//! `additionalimagestores` of the `storage.conf` of containers/storage (containers-storage.conf(5)). What a file names is
//! passed over where it is no store of ours: podman's key names podman's. In our own file one that may not be read is an
//! error.
//!
//! Nothing is ever written there, and no lock is taken: a store that others may use has to be readable for them, which is
//! for its owner to decide (`chmod 755` on the directory: what is in it is only guarded by that one).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;

use crate::error::ResultExt;
use crate::fs;
use crate::host::Host;

/// More than anybody stacks; keeps a file of nonsense from costing a look-up for each line of it.
const MAX_STORES: usize = 64;

/// The additional stores that the options, our own configuration and podman's name, each once, in the order of looking.
pub fn stores(host: &Host, options: &[String], configured: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut stores = Vec::new();
    for option in options {
        let path = of_option(option)?;
        let path =
            std::path::absolute(&path).with_context(|| format!("cannot resolve {}", path.display()))?;
        if !is_readable_store(&path)? {
            return Err(anyhow!(
                "cannot use the additional store {}: there is no store of dhow",
                path.display()
            ))
            .hint("name the directory that --root has where the store is written");
        }
        stores.push(path);
    }
    for path in configured {
        if is_readable_store(path)? {
            stores.push(path.clone());
        }
    }
    if let Some(file) = file_of_podman(host)
        && let Some(text) = fs::read_to_string_if_exists(&file)?
        // Most files do not have the key: they are not even parsed.
        && text.lines().any(|l| !l.trim_start().starts_with('#') && l.contains("additionalimagestores"))
    {
        // A mistake in the file of another program is that program's to tell.
        let named = parse(&text).unwrap_or_default().into_iter().map(|path| host.at_home(path));
        stores.extend(named.filter(|path| path.is_absolute() && is_store(path).unwrap_or(false)));
    }
    let mut seen = std::collections::HashSet::new();
    stores.retain(|path| *path != host.data && seen.insert(path.clone()));
    if stores.len() > MAX_STORES {
        bail!("cannot use {} additional stores: {MAX_STORES} are the most", stores.len());
    }
    Ok(stores)
}

/// `additionalimagestore=DIR`, which may have the name of a driver before it.
fn of_option(option: &str) -> Result<PathBuf> {
    let about = || format!("cannot read --storage-opt {option:?}");
    let (key, value) =
        option.split_once('=').context("it is not of the form KEY=VALUE").with_context(about)?;
    let key = key.rsplit_once('.').map_or(key, |(_, key)| key);
    if !matches!(key, "additionalimagestore" | "imagestore") {
        return Err(anyhow!("there is no such option"))
            .with_context(about)
            .hint("the one option is additionalimagestore=DIR");
    }
    if value.is_empty() {
        return Err(anyhow!("it names no directory")).with_context(about);
    }
    Ok(value.into())
}

/// The file of containers/storage that podman would read.
fn file_of_podman(host: &Host) -> Option<PathBuf> {
    if let Some(named) = host.env("CONTAINERS_STORAGE_CONF") {
        return Some(named.into());
    }
    let of_user = host.config_dir().filter(|_| host.is_rootless());
    let of_user = of_user.map(|dir| dir.join("containers/storage.conf"));
    let all = of_user
        .into_iter()
        .chain(["/etc", "/usr/share"].map(|dir| Path::new(dir).join("containers/storage.conf")));
    all.into_iter().find(|path| fs::metadata(path).ok().flatten().is_some())
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct File {
    storage: Storage,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Storage {
    options: Options,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Options {
    additionalimagestores: Vec<PathBuf>,
}

/// The stores that a file names.
fn parse(text: &str) -> Result<Vec<PathBuf>> {
    let file: File = toml::from_str(text)?;
    Ok(file.storage.options.additionalimagestores)
}

/// Whether a directory is a store of ours.
fn is_store(path: &Path) -> Result<bool> {
    for name in ["blobs/sha256", "layers", "images"] {
        if !fs::metadata(&path.join(name))?.is_some_and(|meta| meta.is_dir()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// [`is_store`], and an error that says the way out where nobody but its owner can tell.
fn is_readable_store(path: &Path) -> Result<bool> {
    is_store(path)
        .and_then(|is_store| if is_store { super::format::check(path).map(|_| true) } else { Ok(false) })
        .with_context(|| format!("cannot use the additional store {}", path.display()))
        .with_hint(|| format!("its owner lets others read it by chmod 755 {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let check = |option: &str, want: Option<&str>| {
            assert_eq!(of_option(option).ok(), want.map(PathBuf::from), "{option}");
        };
        check("additionalimagestore=/a", Some("/a"));
        check("overlay.additionalimagestore=/a=b", Some("/a=b"));
        check("overlay.imagestore=a", Some("a"));
        check("additionalimagestore=", None);
        check("additionalimagestore", None);
        check("size=1g", None);
    }

    #[test]
    fn files_are_read() {
        let check = |text: &str, want: &[&str]| {
            assert_eq!(parse(text).unwrap(), want.iter().map(PathBuf::from).collect::<Vec<_>>(), "{text}");
        };
        check("", &[]);
        check(
            "[storage]\ndriver = \"overlay\"\n[storage.options]\nadditionalimagestores = [\n \"/a\", \"/b\",\n]\nsize = \"\"\n",
            &["/a", "/b"],
        );
        check("[storage.options.overlay]\nmountopt = \"nodev\"\n", &[]);
        for bad in ["[storage", "[storage.options]\nadditionalimagestores = [1]"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let long = "[storage.options]\nadditionalimagestores = [\"/a\"]\n";
        for (end, _) in long.char_indices() {
            let _ = parse(&long[..end]);
        }
    }
}
