//! The fields of `--mount`: docker's text in, a mount out.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::mount_flags::{PROPAGATIONS, Words, absolute, check_driver};
use crate::quantity;
use crate::spec::mount::{Mount, Origin, Recursive};

/// `--mount type=...,source=...,target=...`, with docker's fields and docker's complaints.
pub(super) fn mount_flag(text: &str, cwd: &Path) -> Result<Mount> {
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

fn truth(key: &str, value: &str) -> Result<bool> {
    match value {
        "true" | "1" | "t" | "T" | "TRUE" | "True" => Ok(true),
        "false" | "0" | "f" | "F" | "FALSE" | "False" => Ok(false),
        _ => bail!("invalid value for {key}: {value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::mount_flags::tests::shown;
    use super::*;

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
