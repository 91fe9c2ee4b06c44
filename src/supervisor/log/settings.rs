//! What `--log-driver` and `--log-opt` mean. Unknown ones are refused, in the words that a person typed.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, bail};

use super::file::Bounds;
use super::{journald, syslog};
use crate::error::ResultExt;
use crate::fs;
use crate::oci::Digest;
use crate::oci::runtime::Spec;
use crate::quantity;
use crate::store::container::{ContainerDir, Record, Source};
use crate::store::log_config::LogConfig;

/// Options of the drivers that keep files.
const OF_FILES: &[&str] = &["max-size", "max-file", "compress"];
/// Options of all.
const OF_ALL: &[&str] = &["tag", "labels", "labels-regex", "env", "env-regex", "mode", "max-buffer-size"];
/// Options about the copy that is kept for `logs` where the log goes elsewhere.
const OF_COPY: &[&str] = &["cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"];

/// Where the log goes besides the container's own file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Nowhere.
    None,
    /// A syslog server, or this machine's.
    Syslog(syslog::Options),
    /// The journal of systemd.
    Journald,
}

/// A log config that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How much is kept with the container; `None`: nothing, and there is nothing to read.
    pub kept: Option<Bounds>,
    /// Where else it goes.
    pub destination: Destination,
    options: BTreeMap<String, String>,
}

impl Settings {
    /// Understands the words. An error names the one that is wrong.
    pub fn of(config: &LogConfig) -> Result<Settings> {
        let about = || format!("cannot use the log driver {}", config.driver);
        let options = &config.options;
        let refuse_others =
            |known: &[&[&str]]| match options.keys().find(|k| !known.concat().contains(&k.as_str())) {
                Some(key) => Err(anyhow!("unknown log opt '{key}'"))
                    .with_context(about)
                    .hint(format!("its options are {}", known.concat().join(", "))),
                None => Ok(()),
            };
        let (kept, destination) = match config.driver.as_str() {
            // `local` and podman's `k8s-file` are other forms of the same: a bounded file that `logs` reads.
            "json-file" | "local" | "k8s-file" => {
                refuse_others(&[OF_FILES, OF_ALL])?;
                (Some(bounds(options, "").with_context(about)?), Destination::None)
            }
            "none" => {
                refuse_others(&[])?;
                (None, Destination::None)
            }
            "syslog" => {
                refuse_others(&[syslog::OPTIONS, OF_ALL, OF_COPY])?;
                let destination = syslog::Options::of(options).with_context(about)?;
                (copy(options).with_context(about)?, Destination::Syslog(destination))
            }
            "journald" => {
                refuse_others(&[OF_ALL, OF_COPY])?;
                (copy(options).with_context(about)?, Destination::Journald)
            }
            _ => {
                return Err(anyhow!("there is no such driver"))
                    .with_context(about)
                    .hint("it is json-file, local, none, syslog or journald");
            }
        };
        let settings = Settings { kept, destination, options: options.clone() };
        settings.check().with_context(about)?;
        Ok(settings)
    }

    /// What can be said before a container is made.
    fn check(&self) -> Result<()> {
        let option = |key: &str| self.options.get(key).map(String::as_str);
        match option("mode") {
            // Nothing here blocks, whichever is asked for.
            None | Some("blocking" | "non-blocking") => {}
            Some(other) => bail!("mode is blocking or non-blocking, not {other:?}"),
        }
        if let Some(size) = option("max-buffer-size") {
            quantity::bytes(size).context("max-buffer-size")?;
        }
        for key in ["labels-regex", "env-regex"] {
            pattern(option(key)).context(key)?;
        }
        if let Some(tag) = option("tag") {
            expand(tag, &|_| Some(String::new())).context("tag")?;
        }
        Ok(())
    }

    /// What entries are marked with: the id's first twelve digits, unless `tag` says otherwise.
    pub fn tag(&self, record: &Record) -> String {
        let (image, image_id) = match &record.source {
            Source::Image { name, id, .. } => (name.clone(), id.clone()),
            Source::Dir { path, .. } => (path.display().to_string(), String::new()),
        };
        let short = |id: &str| Digest::bare(id).chars().take(12).collect();
        let value = |name: &str| match name {
            ".ID" => Some(short(&record.id)),
            ".FullID" => Some(record.id.clone()),
            ".Name" => Some(record.name.clone()),
            ".ImageID" => Some(short(&image_id)),
            ".ImageFullID" => Some(image_id.clone()),
            ".ImageName" => Some(image.clone()),
            ".DaemonName" => Some("dhow".to_owned()),
            _ => None,
        };
        let template = self.options.get("tag").map_or("{{.ID}}", String::as_str);
        expand(template, &value).unwrap_or_else(|_| short(&record.id))
    }

    /// What `labels`, `env` and `tag` ask for to be told with each line, in the order of the keys.
    pub fn attributes(&self, dir: &ContainerDir, record: &Record) -> Result<BTreeMap<String, String>> {
        let option = |key: &str| self.options.get(key).map(String::as_str);
        let mut all = BTreeMap::new();
        if let Some(wanted) = Wanted::of(option("labels"), option("labels-regex"))? {
            all.extend(record.labels.clone().into_iter().filter(|(key, _)| wanted.has(key)));
        }
        if let Some(wanted) = Wanted::of(option("env"), option("env-regex"))? {
            let path = dir.file("config.json");
            let spec: Spec = serde_json::from_str(&fs::read_to_string(&path)?)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let env = spec.process().as_ref().and_then(|p| p.env().clone()).unwrap_or_default();
            let pairs = env.iter().filter_map(|e| e.split_once('=')).filter(|(key, _)| wanted.has(key));
            all.extend(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())));
        }
        if option("tag").is_some() {
            all.insert("tag".to_owned(), self.tag(record));
        }
        Ok(all)
    }

    /// Whether the machine has what is asked for.
    pub fn check_machine(&self) -> Result<()> {
        match &self.destination {
            Destination::Journald => journald::check().context("cannot use the log driver journald"),
            _ => Ok(()),
        }
    }
}

/// Names that are wanted: listed, or fitting a pattern.
struct Wanted<'a> {
    names: Vec<&'a str>,
    pattern: Option<regex::bytes::Regex>,
}

impl<'a> Wanted<'a> {
    fn of(names: Option<&'a str>, pattern_text: Option<&str>) -> Result<Option<Wanted<'a>>> {
        if names.is_none() && pattern_text.is_none() {
            return Ok(None);
        }
        let names = names.unwrap_or_default().split(',').map(str::trim).collect();
        Ok(Some(Wanted { names, pattern: pattern(pattern_text)? }))
    }

    fn has(&self, name: &str) -> bool {
        self.names.contains(&name) || self.pattern.as_ref().is_some_and(|p| p.is_match(name.as_bytes()))
    }
}

fn pattern(text: Option<&str>) -> Result<Option<regex::bytes::Regex>> {
    let build = |text| regex::bytes::RegexBuilder::new(text).unicode(false).size_limit(1 << 20).build();
    text.map(|text| build(text).map_err(|e| anyhow!("{text:?} is no regular expression: {e}"))).transpose()
}

fn bounds(options: &BTreeMap<String, String>, prefix: &str) -> Result<Bounds> {
    let mut bounds = Bounds::default();
    let option = |name: &str| {
        let key = format!("{prefix}{name}");
        options.get(&key).map(|value| (key, value.as_str()))
    };
    if let Some((key, value)) = option("max-size") {
        let size = quantity::bytes_or_unlimited(value).with_context(|| key.clone())?;
        if size == 0 {
            bail!("{key}: a file of no bytes holds nothing");
        }
        bounds.max_size = u64::try_from(size).unwrap_or(u64::MAX);
    }
    if let Some((key, value)) = option("max-file") {
        bounds.n_files = match value.parse() {
            Ok(n @ 1..=MOST_FILES) => n,
            _ => bail!("{key}: it is a number from 1 to {MOST_FILES}, not {value:?}"),
        };
    }
    match option("compress") {
        None | Some((_, "false")) => {}
        Some((key, "true")) if bounds.n_files < 2 || bounds.max_size == u64::MAX => {
            bail!(
                "{key}: what is compressed are the files before the last, and max-file or max-size leave none"
            )
        }
        Some((_, "true")) => bounds.compress = true,
        Some((key, other)) => bail!("{key}: it is true or false, not {other:?}"),
    }
    Ok(bounds)
}

/// Each look at a log asks for all of them.
const MOST_FILES: u32 = 1000;

/// The copy that `logs` reads.
fn copy(options: &BTreeMap<String, String>) -> Result<Option<Bounds>> {
    let bounds = bounds(options, "cache-")?;
    match options.get("cache-disabled").map(String::as_str) {
        None | Some("false") => Ok(Some(bounds)),
        Some("true") => Ok(None),
        Some(other) => bail!("cache-disabled: it is true or false, not {other:?}"),
    }
}

/// `{{.Name}}` in a tag; nothing else of Go's templates.
fn expand(template: &str, value: &dyn Fn(&str) -> Option<String>) -> Result<String> {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").with_context(|| format!("{template:?} has no }}}}"))?;
        const NAMES: &[&str] =
            &[".ID", ".FullID", ".Name", ".ImageID", ".ImageFullID", ".ImageName", ".DaemonName"];
        let name = name.trim();
        if !NAMES.contains(&name) {
            bail!("{template:?}: there is no {name:?}; there are {}", NAMES.join(", "));
        }
        text.push_str(before);
        text.push_str(&value(name).unwrap_or_default());
        rest = after;
    }
    text.push_str(rest);
    // It stands in a line of a protocol.
    Ok(text.chars().filter(|c| !c.is_control()).collect())
}
