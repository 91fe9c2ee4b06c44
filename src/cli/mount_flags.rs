//! -v, --mount, --tmpfs, --volumes-from, --image-volume: text in, mounts out. The fields of --mount are `mount_fields`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::ArgMatches;

use super::flags::many;
use super::mount_fields::mount_flag;
use super::run_flags::one;
use crate::error::ResultExt;
use crate::spec::mount::{Mount, Origin, Recursive, normal};
use crate::spec::options::{ImageVolumes, Options};
use crate::store::volume;

pub(super) const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// Flags that can be given often: long name, short, value, help.
pub(super) const MANY: &[(&str, char, &str, &str)] = &[
    (
        "volume",
        'v',
        "[SRC:]DST[:OPTIONS]",
        "Mount a path of the host or a volume, made if missing; OPTIONS: ro, nocopy, own (what is written there belongs to the caller), rshared...",
    ),
    (
        "mount",
        '\0',
        "FIELDS",
        "type=bind|volume|tmpfs|image,source=...,target=...; a missing path is an error",
    ),
    ("tmpfs", '\0', "DIR[:OPTIONS]", "Mount an empty file system in memory"),
    ("volumes-from", '\0', "CONTAINER[:ro]", "Mount what is mounted in another container"),
];

/// Flags with one value.
pub(super) const ONE: &[(&str, char, &str, &str)] = &[(
    "image-volume",
    '\0',
    "HOW",
    "What the image's volumes become: anonymous, tmpfs or ignore (anonymous)",
)];

/// Reads them all.
pub(super) fn read(matches: &ArgMatches, options: &mut Options) -> Result<()> {
    let cwd = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    for word in many(matches, "volume") {
        options.mounts.push(volume_flag(word, &cwd)?);
    }
    for word in many(matches, "mount") {
        options.mounts.push(mount_flag(word, &cwd)?);
    }
    for word in many(matches, "tmpfs") {
        options.mounts.push(tmpfs(word)?);
    }
    options.volumes_from = many(matches, "volumes-from").into_iter().map(str::to_owned).collect();
    options.image_volumes = match one(matches, "image-volume") {
        None | Some("anonymous" | "bind") => ImageVolumes::Volume,
        Some("tmpfs") => ImageVolumes::Tmpfs,
        Some("ignore") => ImageVolumes::Ignore,
        Some(other) => {
            return Err(anyhow!("cannot use --image-volume {other:?}"))
                .hint("it is anonymous, tmpfs or ignore");
        }
    };
    Ok(())
}

/// `-v [SOURCE:]TARGET[:OPTIONS]`.
fn volume_flag(text: &str, cwd: &Path) -> Result<Mount> {
    let about = || format!("cannot use the volume {text:?}");
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, words) = match parts[..] {
        [target] => (None, target, ""),
        [source, target] => (Some(source), target, ""),
        [source, target, words] => (Some(source), target, words),
        _ => return Err(anyhow!("it is not [SOURCE:]TARGET[:OPTIONS]")).with_context(about),
    };
    if source == Some("") || target.is_empty() {
        return Err(anyhow!("source and target must not be empty")).with_context(about);
    }
    let target = absolute(target).with_context(about)?;
    let mut said = Words::default();
    for word in words.split(',').filter(|w| !w.is_empty()) {
        said.word(word).with_context(about)?;
    }
    match source {
        Some(path) if path.starts_with(['/', '.', '~']) => {
            said.bind(path, target, cwd, Origin::Volume).with_context(about)
        }
        name => said.volume(name.unwrap_or_default(), target, Origin::Volume).with_context(about),
    }
}

/// What the words after a mount say.
#[derive(Default)]
pub(super) struct Words {
    pub(super) read_only: bool,
    pub(super) propagation: Option<String>,
    pub(super) no_copy: bool,
    pub(super) own: bool,
    pub(super) non_recursive: bool,
    pub(super) create_source: Option<bool>,
    pub(super) recursive: Recursive,
    pub(super) subpath: Option<PathBuf>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) options: BTreeMap<String, String>,
}

impl Words {
    fn word(&mut self, word: &str) -> Result<()> {
        match word {
            "ro" | "readonly" => self.read_only = true,
            "nocopy" => self.no_copy = true,
            "own" => self.own = true,
            // Labels of SELinux: nothing to do where there is none.
            "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" | "rbind" | "copy" => {}
            "bind" => self.non_recursive = true,
            p if PROPAGATIONS.contains(&p) => self.propagation = Some(p.to_owned()),
            other => bail!("there is no option {other:?}"),
        }
        Ok(())
    }

    pub(super) fn bind(self, source: &str, target: PathBuf, cwd: &Path, origin: Origin) -> Result<Mount> {
        anyhow::ensure!(!self.no_copy, "nocopy is for volumes, and {source:?} is a path");
        Ok(Mount::Bind {
            source: std::path::absolute(cwd.join(source))?,
            target,
            read_only: self.read_only,
            propagation: self.propagation,
            non_recursive: self.non_recursive,
            create_source: self.create_source.unwrap_or(origin == Origin::Volume),
            recursive: self.recursive,
            own: self.own,
            origin,
        })
    }

    pub(super) fn volume(self, name: &str, target: PathBuf, origin: Origin) -> Result<Mount> {
        if !name.is_empty() {
            volume::check_name(name)?;
        }
        if self.own {
            return Err(anyhow!(
                "own is for paths of the host: what is in a volume belongs to the container"
            ))
            .hint("give a path: -v ./DIR:/dir:own");
        }
        anyhow::ensure!(
            self.subpath.is_none() || !name.is_empty(),
            "a subpath is of a volume that has a name"
        );
        volume::check_options(&self.options)?;
        Ok(Mount::Volume {
            name: name.to_owned(),
            target,
            read_only: self.read_only,
            anonymous: name.is_empty(),
            no_copy: self.no_copy,
            subpath: self.subpath,
            propagation: self.propagation,
            labels: self.labels,
            options: self.options,
            origin,
        })
    }
}

pub(super) fn check_driver(driver: &str) -> Result<()> {
    if matches!(driver, "" | "local") {
        return Ok(());
    }
    Err(anyhow!("cannot use the volume driver {driver:?}: there is none of that name"))
        .hint("the driver is local")
}

/// `--tmpfs PATH[:OPTIONS]`.
fn tmpfs(text: &str) -> Result<Mount> {
    let (target, words) = text.split_once(':').unwrap_or((text, ""));
    let target = absolute(target).with_context(|| format!("cannot use the tmpfs {text:?}"))?;
    let options = words.split(',').filter(|w| !w.is_empty()).map(str::to_owned).collect();
    Ok(Mount::Tmpfs { target, options, origin: Origin::Volume })
}

/// The target of a mount. Something on top of the container's root would hide all of it.
pub(super) fn absolute(target: &str) -> Result<PathBuf> {
    anyhow::ensure!(target.starts_with('/'), "the target {target:?} is not absolute");
    let path = normal(target);
    anyhow::ensure!(path != Path::new("/"), "its target is the container's root");
    Ok(path)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn shown(mount: Result<Mount>) -> String {
        match mount {
            Ok(Mount::Bind { source, target, read_only, propagation, own, .. }) => {
                format!("bind {} {} {read_only} {propagation:?} {own}", source.display(), target.display())
            }
            Ok(Mount::Volume { name, target, read_only, no_copy, subpath, labels, options, .. }) => {
                format!(
                    "volume {name:?} {} {read_only} {no_copy} {subpath:?} {labels:?} {options:?}",
                    target.display()
                )
            }
            Ok(other) => format!("{other:?}"),
            Err(error) => error.root_cause().to_string(),
        }
    }

    #[test]
    fn volumes_parse() {
        let check = |text: &str, want: &str| {
            let got = shown(volume_flag(text, Path::new("/cwd")));
            assert!(got.contains(want), "{text}: {got}");
        };
        check("/a:/b", "bind /a /b false None");
        check("./a:/b/../c:ro,rshared", "/cwd/a /c true Some(\"rshared\")");
        check("/a:/b:own", "false None true");
        check("name:/b:nocopy,ro,z", "volume \"name\" /b true true");
        check("/b", "volume \"\" /b false false");
        check("name:/b:own", "own is for paths");
        check("/a:/b:nocopy", "nocopy is for volumes");
        check("na/me:/b", "as a volume's name");
        check("/a:b", "not absolute");
        check("/a:/b:no", "no option");
        check("/a:/b:ro:x", "[SOURCE:]TARGET");
        check(":/b", "must not be empty");
        check("/a:/b/..", "container's root");
        check("/", "container's root");
    }
}
