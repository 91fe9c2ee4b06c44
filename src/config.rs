//! `config.toml`: a person's and a machine's own defaults. Two small files; where there is none, it costs two open(2).
//!
//! The user's file wins over the machine's, key by key, and flags win over both. What is not known, or of the wrong type, is
//! an error that names file, line and key: a setting that does nothing because of a slip is worse than none.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use serde::Deserialize;

use crate::error::ResultExt;
use crate::fs;
use crate::host::Host;

/// All settings.
#[derive(Debug, Clone, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What `run`, `create` and `shell` do where no flag says otherwise.
    pub run: Run,
    /// Where things are kept.
    pub storage: Storage,
    /// What `shell` does.
    pub shell: Shell,
}

/// Defaults of flags, under their names.
#[derive(Debug, Clone, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Run {
    /// `--network`.
    pub network: Option<String>,
    /// `--log-driver`.
    pub log_driver: Option<String>,
    /// `--log-opt`, by key.
    pub log_opts: BTreeMap<String, String>,
    /// `--detach-keys`.
    pub detach_keys: Option<String>,
    /// `--init`.
    pub init: Option<bool>,
    /// `--pull`.
    pub pull: Option<Pull>,
    /// `--tz`.
    pub tz: Option<String>,
    /// `--stop-timeout`.
    pub stop_timeout: Option<u32>,
    /// `--ulimit`.
    pub ulimits: Option<Vec<String>>,
}

/// When the registry is asked.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the words of --pull")]
pub enum Pull {
    Always,
    Missing,
    Newer,
    Never,
}

/// Where things are kept.
#[derive(Debug, Clone, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Storage {
    /// `--root`. In the machine's file it is root's: two users cannot share a store that both write.
    pub root: Option<PathBuf>,
    /// Stores that are only read.
    pub additional_stores: Option<Vec<PathBuf>>,
}

/// What `shell` does.
#[derive(Debug, Clone, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Shell {
    /// The image where none is named.
    pub image: Option<String>,
}

impl Config {
    /// Reads both files, as far as they exist.
    pub fn load(host: &Host) -> Result<Config> {
        let mut config = match read(host, Path::new("/etc/dhow/config.toml"))? {
            Some(system) if host.is_rootless() => {
                Config { storage: Storage { root: None, ..system.storage }, ..system }
            }
            system => system.unwrap_or_default(),
        };
        let user = host.config_dir().map(|dir| dir.join("dhow/config.toml"));
        if let Some(user) = user.map(|path| read(host, &path)).transpose()?.flatten() {
            config = user.over(config);
        }
        Ok(config)
    }

    /// What is set here, else what is set there.
    fn over(self, other: Config) -> Config {
        let (run, there) = (self.run, other.run);
        let mut log_opts = there.log_opts;
        log_opts.extend(run.log_opts);
        Config {
            run: Run {
                network: run.network.or(there.network),
                log_driver: run.log_driver.or(there.log_driver),
                log_opts,
                detach_keys: run.detach_keys.or(there.detach_keys),
                init: run.init.or(there.init),
                pull: run.pull.or(there.pull),
                tz: run.tz.or(there.tz),
                stop_timeout: run.stop_timeout.or(there.stop_timeout),
                ulimits: run.ulimits.or(there.ulimits),
            },
            storage: Storage {
                root: self.storage.root.or(other.storage.root),
                additional_stores: self.storage.additional_stores.or(other.storage.additional_stores),
            },
            shell: Shell { image: self.shell.image.or(other.shell.image) },
        }
    }
}

fn read(host: &Host, path: &Path) -> Result<Option<Config>> {
    let Some(text) = fs::read_to_string_if_exists(path)? else { return Ok(None) };
    parse(&text)
        .and_then(|config| with_whole_paths(host, &text, config))
        .map(Some)
        .map_err(|(line, cause)| anyhow!("cannot read {}:{line}: {cause}", path.display()))
        .hint("README.md lists the settings")
}

/// Paths begin at the root or at home: the directory that a command is run in is no place for a setting to depend on.
fn with_whole_paths(host: &Host, text: &str, mut config: Config) -> Parsed {
    let Storage { root, additional_stores } = &mut config.storage;
    let stores = additional_stores.iter_mut().flatten().map(|path| ("additional-stores", path));
    for (key, path) in root.iter_mut().map(|path| ("root", path)).chain(stores) {
        *path = host.at_home(std::mem::take(path));
        if !path.is_absolute() {
            let line = text.lines().position(|line| line.trim_start().starts_with(key)).unwrap_or(0) + 1;
            return Err((line, format!("storage.{key}: {path:?} does not begin with /")));
        }
    }
    Ok(config)
}

/// Settings, or the line and what is wrong with it.
type Parsed = std::result::Result<Config, (usize, String)>;

/// The settings of a text.
fn parse(text: &str) -> Parsed {
    toml::from_str(text).map_err(|error| {
        let at = error.span().unwrap_or(Range { start: 0, end: 0 }).start.min(text.len());
        let before = text.get(..at).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let message = error.message().trim().replace('\n', ", ");
        match key_at(text, line) {
            key if key.is_empty() => (line, message),
            key => (line, format!("{key}: {message}")),
        }
    })
}

/// The key that a line belongs to, with its section; empty where there is none.
fn key_at(text: &str, line: usize) -> String {
    let above = text.lines().take(line).collect::<Vec<_>>();
    let section_of = |line: &str| {
        let inner = line.trim().strip_prefix('[')?.split(']').next()?;
        (!inner.contains(['"', ',', '[']) && !inner.is_empty()).then(|| inner.trim().to_owned())
    };
    let is_key = |key: &str| {
        key.chars().all(|c| c.is_alphanumeric() || "-_.\" ".contains(c)) && !key.trim().is_empty()
    };
    let key = above.iter().rev().take_while(|line| section_of(line).is_none()).find_map(|line| {
        let (key, _) = line.split_once('=')?;
        is_key(key).then(|| key.trim().to_owned())
    });
    let section = above.iter().rev().find_map(|line| section_of(line));
    [section, key].into_iter().flatten().collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = "[run]\nnetwork = \"none\"\nlog-driver = \"none\"\nlog-opts = { max-size = \"1m\" }\n\
        detach-keys = \"ctrl-x\"\ninit = true\npull = \"always\"\ntz = \"local\"\nstop-timeout = 3\n\
        ulimits = [\"nofile=1:2\"]\n[storage]\nroot = \"/r\"\nadditional-stores = [\"/a\"]\n[shell]\nimage = \"i\"\n";

    #[test]
    fn files_are_read() {
        let config = parse(ALL).unwrap();
        assert_eq!(config.run.network.as_deref(), Some("none"));
        assert_eq!(config.run.log_opts["max-size"], "1m");
        assert_eq!(config.run.pull, Some(Pull::Always));
        assert_eq!(config.storage.additional_stores, Some(vec!["/a".into()]));
        assert_eq!(parse("").unwrap(), Config::default());
        for (end, _) in ALL.char_indices() {
            let _ = parse(&ALL[..end]);
        }
    }

    #[test]
    fn mistakes_are_named_by_line_and_key() {
        let check = |text: &str, line: usize, about: &[&str]| {
            let (at, cause) = parse(text).unwrap_err();
            assert_eq!(at, line, "{text}: {cause}");
            for word in about {
                assert!(cause.contains(word), "{text}: {cause}");
            }
        };
        check("[run]\n\nnetwrok = \"none\"\n", 3, &["run.netwrok: ", "network"]);
        check("[run]\ninit = 1\n", 2, &["run.init: ", "boolean"]);
        check("[run]\ninit = true\npull = \"often\"\n", 3, &["run.pull: ", "often", "missing"]);
        check("[run]\nstop-timeout = -1\n", 2, &["run.stop-timeout: "]);
        check("[storage]\nadditional-stores = [\n  \"/a\",\n  1,\n]\n", 4, &["storage.additional-stores: "]);
        check("[shel]\nimage = \"x\"\n", 1, &["shel", "shell"]);
        check("run = 1\n", 1, &["run: "]);
        check("[run\n", 1, &[]);
        check("[run]\ninit = true\ninit = false\n", 3, &["run.init: ", "duplicate"]);
    }

    #[test]
    fn the_users_file_wins_key_by_key() {
        let user =
            parse("[run]\nnetwork = \"host\"\nlog-opts = { max-file = \"2\" }\n[shell]\nimage = \"u\"\n");
        let both = user.unwrap().over(parse(ALL).unwrap());
        assert_eq!(both.run.network.as_deref(), Some("host"));
        assert_eq!(both.run.log_opts.len(), 2);
        assert_eq!((both.run.init, both.shell.image.as_deref()), (Some(true), Some("u")));
        assert_eq!(both.storage.root, Some("/r".into()));
    }
}
