//! -v, --mount, --tmpfs, --volumes-from, --image-volume: text in, mounts out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::ArgMatches;

use super::flags::many;
use super::run_flags::one;
use crate::error::ResultExt;
use crate::quantity;
use crate::spec::mount::{Mount, Origin, Recursive, normal};
use crate::spec::options::{ImageVolumes, Options};
use crate::store::volume;

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

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
struct Words {
    read_only: bool,
    propagation: Option<String>,
    no_copy: bool,
    own: bool,
    non_recursive: bool,
    create_source: Option<bool>,
    recursive: Recursive,
    subpath: Option<PathBuf>,
    labels: BTreeMap<String, String>,
    options: BTreeMap<String, String>,
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

    fn bind(self, source: &str, target: PathBuf, cwd: &Path, origin: Origin) -> Result<Mount> {
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

    fn volume(self, name: &str, target: PathBuf, origin: Origin) -> Result<Mount> {
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

/// `--mount type=...,source=...,target=...`, with docker's fields and docker's complaints.
fn mount_flag(text: &str, cwd: &Path) -> Result<Mount> {
    let about = || format!("cannot use the mount {text:?}");
    let mut fields = Fields::default();
    for field in split_csv(text).with_context(about)? {
        fields.field(&field).with_context(about)?;
    }
    fields.mount(cwd).with_context(about)
}

/// The fields of one --mount.
#[derive(Default)]
struct Fields {
    kind: Option<String>,
    source: Option<String>,
    target: Option<String>,
    words: Words,
    tmpfs: Vec<String>,
    image_subpath: Option<PathBuf>,
    /// Which kinds of mount fields of one kind alone were given for.
    special: Vec<&'static str>,
}

/// Fields that may come without a value.
const BARE: [&str; 6] = ["readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src", "own"];

impl Fields {
    fn field(&mut self, field: &str) -> Result<()> {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), value),
            None if BARE.contains(&field.to_ascii_lowercase().as_str()) => {
                (field.to_ascii_lowercase(), "true")
            }
            None => bail!("invalid field '{field}' must be a key=value pair"),
        };
        for kind in ["bind", "volume", "tmpfs", "image"] {
            if key.strip_prefix(kind).is_some_and(|rest| rest.starts_with('-')) {
                self.special.push(kind);
            }
        }
        let truth = || truth(&key, value);
        let words = &mut self.words;
        match key.as_str() {
            "type" => self.kind = Some(value.to_ascii_lowercase()),
            "source" | "src" => self.source = Some(value.to_owned()),
            "target" | "destination" | "dst" => self.target = Some(value.to_owned()),
            "readonly" | "ro" => words.read_only = truth()?,
            "rw" => words.read_only = !truth()?,
            "own" => words.own = truth()?,
            "consistency" | "relabel" => {}
            "bind-propagation" => {
                anyhow::ensure!(PROPAGATIONS.contains(&value), "invalid propagation mode: {value}");
                words.propagation = Some(value.to_owned());
            }
            "bind-nonrecursive" => words.non_recursive = truth()?,
            "bind-create-src" => words.create_source = Some(truth()?),
            "bind-recursive" => match value {
                "enabled" => {}
                "disabled" => words.non_recursive = true,
                "writable" => words.recursive = Recursive::Writable,
                "readonly" => words.recursive = Recursive::ReadOnly,
                _ => bail!(
                    "invalid value for {key}: {value} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")"
                ),
            },
            "volume-nocopy" => words.no_copy = truth()?,
            "volume-subpath" => words.subpath = Some(subpath(value)?),
            "volume-label" => drop(words.labels.insert(pair(value).0, pair(value).1)),
            "volume-opt" => drop(words.options.insert(pair(value).0, pair(value).1)),
            "volume-driver" => check_driver(value)?,
            "image-subpath" => self.image_subpath = Some(subpath(value)?),
            "tmpfs-size" => {
                let size =
                    quantity::bytes(value).with_context(|| format!("invalid value for {key}: {value}"))?;
                self.tmpfs.push(format!("size={size}"));
            }
            "tmpfs-mode" => {
                let is_octal = u32::from_str_radix(value, 8).is_ok_and(|mode| mode <= 0o7777);
                anyhow::ensure!(is_octal, "invalid value for {key}: {value}");
                self.tmpfs.push(format!("mode={value}"));
            }
            _ => bail!("unexpected key '{key}' in '{field}'"),
        }
        Ok(())
    }

    fn mount(mut self, cwd: &Path) -> Result<Mount> {
        let kind = self.kind.take().unwrap_or_else(|| "volume".to_owned());
        if let Some(other) = self.special.iter().find(|special| **special != kind) {
            bail!("cannot mix '{other}-*' options with mount type '{kind}'");
        }
        let target = absolute(&self.target.filter(|t| !t.is_empty()).context("target is required")?)?;
        let source = self.source.filter(|s| !s.is_empty());
        if self.words.recursive != Recursive::Enabled {
            let word = if self.words.recursive == Recursive::ReadOnly { "readonly" } else { "writable" };
            anyhow::ensure!(
                self.words.read_only,
                "option 'bind-recursive={word}' requires 'readonly' to be specified in conjunction"
            );
            let is_private = self.words.propagation.as_deref() == Some("rprivate");
            anyhow::ensure!(
                word == "writable" || is_private,
                "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction"
            );
        }
        anyhow::ensure!(!self.words.own || kind == "bind", "own is for type=bind");
        match kind.as_str() {
            "bind" => {
                let source = source.context("type=bind requires a source")?;
                self.words.bind(&source, target, cwd, Origin::Mount)
            }
            "volume" => self.words.volume(&source.unwrap_or_default(), target, Origin::Mount),
            "image" => {
                let image = source.context("type=image requires a source, an image")?;
                Ok(Mount::Image { image, target, subpath: self.image_subpath })
            }
            "tmpfs" => {
                anyhow::ensure!(source.is_none(), "must not set source for a tmpfs");
                if self.words.read_only {
                    self.tmpfs.push("ro".into());
                }
                Ok(Mount::Tmpfs { target, options: self.tmpfs, origin: Origin::Mount })
            }
            other => bail!("invalid mount type {other:?}: it is bind, volume, tmpfs or image"),
        }
    }
}

pub(super) fn check_driver(driver: &str) -> Result<()> {
    if matches!(driver, "" | "local") {
        return Ok(());
    }
    Err(anyhow!("cannot use the volume driver {driver:?}: there is none of that name"))
        .hint("the driver is local")
}

fn pair(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (key.to_owned(), value.to_owned())
}

/// A path in a volume or an image. That it leads nowhere else is seen to when it is opened; this is for the honest mistake.
fn subpath(text: &str) -> Result<PathBuf> {
    let path = Path::new(text);
    let goes_up = path.components().any(|c| matches!(c, std::path::Component::ParentDir));
    anyhow::ensure!(
        path.is_relative() && !goes_up && !text.is_empty(),
        "invalid subpath {text:?}: it is a relative path without .."
    );
    Ok(path.to_owned())
}

/// Fields as encoding/csv reads them: a field in double quotes may hold commas, and a double quote twice for one.
fn split_csv(text: &str) -> Result<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, after) =
                rest.split_once(',').map_or((rest, None), |(field, after)| (field, Some(after)));
            anyhow::ensure!(!field.contains('"'), "a double quote stands in the middle of {field:?}");
            fields.push(field.to_owned());
            match after {
                Some(after) => rest = after,
                None => return Ok(fields),
            }
            continue;
        };
        let (mut field, mut inner) = (String::new(), quoted);
        loop {
            let (part, after) = inner.split_once('"').context("a double quote is not closed")?;
            field.push_str(part);
            match after.strip_prefix('"') {
                Some(after) => {
                    field.push('"');
                    inner = after;
                }
                None => {
                    inner = after;
                    break;
                }
            }
        }
        fields.push(field);
        match inner.strip_prefix(',') {
            Some(after) => rest = after,
            None if inner.is_empty() => return Ok(fields),
            None => bail!("text follows a closed double quote"),
        }
    }
}

/// `--tmpfs PATH[:OPTIONS]`.
fn tmpfs(text: &str) -> Result<Mount> {
    let (target, words) = text.split_once(':').unwrap_or((text, ""));
    let target = absolute(target).with_context(|| format!("cannot use the tmpfs {text:?}"))?;
    let options = words.split(',').filter(|w| !w.is_empty()).map(str::to_owned).collect();
    Ok(Mount::Tmpfs { target, options, origin: Origin::Volume })
}

/// The target of a mount. Something on top of the container's root would hide all of it.
fn absolute(target: &str) -> Result<PathBuf> {
    anyhow::ensure!(target.starts_with('/'), "the target {target:?} is not absolute");
    let path = normal(target);
    anyhow::ensure!(path != Path::new("/"), "its target is the container's root");
    Ok(path)
}

fn truth(key: &str, value: &str) -> Result<bool> {
    match value {
        "true" | "1" | "t" | "T" | "TRUE" | "True" => Ok(true),
        "false" | "0" | "f" | "F" | "FALSE" | "False" => Ok(false),
        _ => bail!("invalid value for {key}: {value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(mount: Result<Mount>) -> String {
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

    #[test]
    fn mounts_parse() {
        let check = |text: &str, want: &str| {
            let got = shown(mount_flag(text, Path::new("/cwd")));
            assert!(got.contains(want), "{text}: {got}");
        };
        check("type=bind,src=/a,dst=/b,readonly", "bind /a /b true");
        check("TYPE=bind,source=a,destination=/b,ro=false,own", "bind /cwd/a /b false None true");
        check("target=/b", "volume \"\" /b");
        check("src=v,target=/b,volume-nocopy,volume-subpath=x/y", "volume \"v\" /b false true Some(\"x/y\")");
        check("src=v,dst=/b,volume-subpath=../y", "invalid subpath");
        check(
            "src=v,dst=/b,\"volume-opt=o=a,b\",volume-opt=type=tmpfs",
            "{\"o\": \"a,b\", \"type\": \"tmpfs\"}",
        );
        check("src=v,dst=/b,volume-label=k=v", "{\"k\": \"v\"}");
        check("src=v,dst=/b,volume-driver=nfs", "there is none of that name");
        check("type=tmpfs,dst=/t,tmpfs-size=64k,tmpfs-mode=1770", "[\"size=65536\", \"mode=1770\"]");
        check("type=tmpfs,dst=/t,tmpfs-mode=9", "invalid value for tmpfs-mode: 9");
        check("type=tmpfs,src=x,dst=/t", "must not set source");
        check("type=image,src=alpine,dst=/i,image-subpath=etc", "Image { image: \"alpine\", target: \"/i\"");
        check(
            "type=bind,src=/a,dst=/b,volume-nocopy",
            "cannot mix 'volume-*' options with mount type 'bind'",
        );
        check("type=bind,src=/a,dst=/b,nosuch=1", "unexpected key 'nosuch' in 'nosuch=1'");
        check("type=bind,src=/a,dst=/b,nosuch", "invalid field 'nosuch' must be a key=value pair");
        check("type=bind,src=/a,dst=/b,ro=maybe", "invalid value for ro: maybe");
        check("type=bind,src=/a", "target is required");
        check("type=bind,dst=/b", "requires a source");
        check("type=odd,dst=/b", "invalid mount type");
        check("type=bind,src=/a,dst=/b,bind-recursive=maybe", "must be \"enabled\"");
        check("type=bind,src=/a,dst=/b,bind-recursive=readonly", "requires 'readonly'");
        check("type=bind,src=/a,dst=/b,ro,bind-recursive=readonly", "requires 'bind-propagation=rprivate'");
        check("\"type=bind", "not closed");
    }
}
