//! Time zones for containers: a name, and what this machine or the image knows of it.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use super::create::From;
use crate::error::ResultExt;
use crate::fs;
use crate::runtime::rootfs::Root;
use crate::store::{Store, layer};

/// Where zones lie, on the machine and in images (tzfile(5)).
const ZONES: &str = "/usr/share/zoneinfo";
/// What a zone is called of which only the data is known: `TZ=localtime` finds it at its place among the zones.
const NAMELESS: &str = "localtime";
/// No zone is nearly as large.
const MAX_SIZE: u64 = 1 << 20;

/// A time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// `Europe/Berlin`: what the variable TZ is to say.
    pub name: String,
    /// This machine's file of it; without one the image has its own, or the name needs none.
    pub data: Option<Vec<u8>>,
}

/// Looks up what `--tz` was given: `local`, a zone's name, or the path of a zone's file on this machine.
pub(super) fn look_up(store: &Store, from: &From, wanted: &str) -> Result<Zone> {
    let about = || format!("cannot use the time zone {wanted:?}");
    if wanted == "local" {
        return local().with_context(about);
    }
    if wanted.starts_with('/') {
        let data = read(Path::new(wanted)).with_context(about)?;
        anyhow::ensure!(data.is_some(), "cannot use the time zone {wanted:?}: there is no such file");
        return Ok(Zone { name: name_of(Path::new(wanted)), data });
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || "+-_/".contains(c);
    if wanted.is_empty() || wanted.len() > 200 || !wanted.chars().all(is_name) {
        return Err(anyhow!("it is not the name of a zone"))
            .with_context(about)
            .hint("name one as in Europe/Berlin, the path of its file, or local for this machine's");
    }
    let data = read(&Path::new(ZONES).join(wanted)).with_context(about)?;
    let needs_none = matches!(wanted, "UTC" | "GMT" | "Etc/UTC" | "Etc/GMT");
    if data.is_none() && !needs_none && !image_has(store, from, wanted)? {
        return Err(anyhow!("neither this machine nor the image has it")).with_context(about).hint(format!(
            "{ZONES} lists what this machine has (Debian's packages tzdata and tzdata-legacy)"
        ));
    }
    Ok(Zone { name: wanted.to_owned(), data })
}

/// The zone of this machine (localtime(5)); UTC where it says nothing.
fn local() -> Result<Zone> {
    let path = Path::new("/etc/localtime");
    if fs::metadata(path)?.is_none() {
        return Ok(Zone { name: "UTC".into(), data: read(&Path::new(ZONES).join("UTC"))? });
    }
    let data = read(path)?;
    // The link says the name, where it is one; Debian writes it down beside it.
    let mut name = name_of(&fs::read_link(path)?.unwrap_or_default());
    if name == NAMELESS {
        let noted = fs::read_to_string_if_exists(Path::new("/etc/timezone"))?.unwrap_or_default();
        let noted_data = is_relative(noted.trim()).then(|| read(&Path::new(ZONES).join(noted.trim())));
        if data.is_some() && noted_data.transpose()?.flatten() == data {
            name = noted.trim().to_owned();
        }
    }
    Ok(Zone { name, data })
}

fn is_relative(name: &str) -> bool {
    !name.is_empty() && Path::new(name).components().all(|c| matches!(c, Component::Normal(_)))
}

/// The name of the zone whose file lies at `path`.
fn name_of(path: &Path) -> String {
    let text = path.to_string_lossy();
    match text.split_once("/zoneinfo/") {
        Some((_, name)) if is_relative(name) => name.to_owned(),
        _ => NAMELESS.to_owned(),
    }
}

/// A zone's file; `None` where there is none.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let Some(metadata) = fs::metadata(path)? else { return Ok(None) };
    let is_plain = metadata.is_file() && metadata.len() <= MAX_SIZE;
    let data = if is_plain { fs::read(path)? } else { Vec::new() };
    anyhow::ensure!(data.starts_with(b"TZif"), "{} is not the file of a time zone", path.display());
    Ok(Some(data))
}

/// Whether a layer of the image, or the directory, has a file of the zone.
fn image_has(store: &Store, from: &From, name: &str) -> Result<bool> {
    let trees: Vec<PathBuf> = match from {
        From::Image(_, Some(image)) => {
            let tree = |diff_id| layer::tree(store, diff_id).transpose();
            image.diff_ids.iter().filter_map(tree).collect::<Result<_>>()?
        }
        From::Image(_, None) => Vec::new(),
        From::Rootfs { path, .. } => vec![path.clone()],
    };
    let path = Path::new(ZONES).join(name);
    Ok(trees.iter().any(|tree| Root::open_host(tree).is_ok_and(|root| root.open_file(&path).is_ok())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_tells_the_name() {
        assert_eq!(name_of(Path::new("/usr/share/zoneinfo/Europe/Berlin")), "Europe/Berlin");
        assert_eq!(name_of(Path::new("../usr/share/zoneinfo/Etc/UTC")), "Etc/UTC");
        for path in ["/etc/zone", "/usr/share/zoneinfo/../../x", "/usr/share/zoneinfo/", ""] {
            assert_eq!(name_of(Path::new(path)), "localtime", "{path}");
        }
    }
}
