//! The text of registries.conf -> rules. Pure. Source: containers-registries.conf(5), versions 1 and 2 of the format.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use serde::Deserialize;

/// What is to be done with the names under a prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// `host[:port][/namespace...][/repository[:tag|@digest]]`, or `*.domain`.
    pub prefix: String,
    /// What stands in the place of the prefix; `None` leaves the name as it is.
    pub location: Option<String>,
    /// Plain HTTP and certificates of nobody are allowed at the location.
    pub insecure: bool,
    /// Nothing under the prefix may be used.
    pub blocked: bool,
    /// Asked before the location.
    pub mirrors: Vec<Mirror>,
    /// Where this rule was read.
    pub file: PathBuf,
}

/// Another place that has what is under the prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// What stands in the place of the prefix.
    pub location: String,
    /// Plain HTTP and certificates of nobody are allowed there.
    pub insecure: bool,
    /// What it is asked for.
    pub pull_from: PullFrom,
}

/// Which references a mirror is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PullFrom {
    /// All.
    #[default]
    All,
    /// Those that have a digest: a mirror that lags behind cannot then give an old image.
    DigestOnly,
    /// Those that have none.
    TagOnly,
}

impl PullFrom {
    /// Whether a reference with, or without, a digest is asked for.
    pub fn serves(self, by_digest: bool) -> bool {
        match self {
            PullFrom::All => true,
            PullFrom::DigestOnly => by_digest,
            PullFrom::TagOnly => !by_digest,
        }
    }
}

impl Rule {
    /// How many bytes of `name` the prefix matches, if it ends there or before a separator.
    pub fn matches(&self, name: &str) -> Option<usize> {
        let matched = match self.prefix.strip_prefix('*') {
            // Any number of labels in front, but all in the host.
            Some(domain) => {
                let host = name.split('/').next().unwrap_or_default();
                let host = host.split(':').next().unwrap_or_default();
                host.strip_suffix(domain).filter(|labels| !labels.is_empty())?;
                host.len()
            }
            None => {
                name.strip_prefix(self.prefix.as_str())?;
                self.prefix.len()
            }
        };
        name[matched..].chars().next().is_none_or(|c| matches!(c, '/' | ':' | '@')).then_some(matched)
    }
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    registry: Vec<Table>,
    /// Version 1 of the format.
    #[serde(default)]
    registries: Lists,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Table {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<MirrorTable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorTable {
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: String,
}

#[derive(Deserialize, Default)]
struct Lists {
    #[serde(default)]
    insecure: List,
    #[serde(default)]
    block: List,
}

#[derive(Deserialize, Default)]
struct List {
    #[serde(default)]
    registries: Vec<String>,
}

/// The rules of a file, in its order. Keys that this program does not use are passed over.
/// Errors: what is not TOML, with the line; a table that means nothing, with its number.
pub fn parse(text: &str, file: &Path) -> Result<Vec<Rule>> {
    let parsed: File = toml::from_str(text).map_err(|e| {
        let line = e.span().map_or(1, |s| text.bytes().take(s.start).filter(|b| *b == b'\n').count() + 1);
        anyhow!("line {line}: {}", e.message())
    })?;
    let mut rules: Vec<Rule> = Vec::new();
    let tables = parsed.registry.into_iter().enumerate();
    let tables =
        tables.map(|(n, table)| rule(table, file).map_err(|e| anyhow!("[[registry]] number {}: {e}", n + 1)));
    for rule in tables.chain(of_lists(parsed.registries, file)) {
        let rule = rule?;
        if rules.iter().any(|other| other.prefix == rule.prefix && !agrees(other, &rule)) {
            bail!("there are two [[registry]] tables for {}", rule.prefix);
        }
        rules.push(rule);
    }
    Ok(rules)
}

/// As podman: two tables of a prefix must not contradict each other.
fn agrees(one: &Rule, other: &Rule) -> bool {
    (one.insecure, one.blocked, &one.location) == (other.insecure, other.blocked, &other.location)
}

fn rule(table: Table, file: &Path) -> Result<Rule> {
    let location = location(&table.location)?;
    let prefix = if table.prefix.is_empty() { location.clone() } else { Some(name(&table.prefix)?) };
    let Some(prefix) = prefix else { bail!("it has neither a prefix nor a location") };
    if let Some(domain) = prefix.strip_prefix('*') {
        if !domain.starts_with('.') || domain.contains(['/', ':', '*']) {
            bail!("the prefix {prefix:?} has its * elsewhere than in *.DOMAIN");
        }
    } else if prefix.contains('*') {
        bail!("the prefix {prefix:?} has its * elsewhere than in *.DOMAIN");
    }
    let mut mirrors = Vec::new();
    for mirror in table.mirror {
        let pull_from = match (mirror.pull_from_mirror.as_str(), table.mirror_by_digest_only) {
            ("", false) | ("all", false) => PullFrom::All,
            ("", true) => PullFrom::DigestOnly,
            ("digest-only", false) => PullFrom::DigestOnly,
            ("tag-only", false) => PullFrom::TagOnly,
            ("all" | "digest-only" | "tag-only", true) => {
                bail!("pull-from-mirror cannot be used beside mirror-by-digest-only")
            }
            (other, _) => bail!("pull-from-mirror is {other:?}: it is all, digest-only or tag-only"),
        };
        let Some(location) = self::location(&mirror.location)? else { bail!("a mirror has no location") };
        mirrors.push(Mirror { location, insecure: mirror.insecure, pull_from });
    }
    let (insecure, blocked) = (table.insecure, table.blocked);
    Ok(Rule { prefix, location, insecure, blocked, mirrors, file: file.to_owned() })
}

/// The lists of version 1 as rules.
fn of_lists(lists: Lists, file: &Path) -> impl Iterator<Item = Result<Rule>> {
    let blocked = lists.block.registries;
    // What is in both lists is one rule, not two that contradict each other.
    let insecure: Vec<String> =
        lists.insecure.registries.into_iter().filter(|r| !blocked.contains(r)).collect();
    let file = file.to_owned();
    let all = blocked.into_iter().map(|r| (r, true)).chain(insecure.into_iter().map(|r| (r, false)));
    all.map(move |(registry, blocked)| {
        let prefix = name(&registry)?;
        Ok(Rule { prefix, insecure: !blocked, blocked, file: file.clone(), ..Rule::default() })
    })
}

fn location(text: &str) -> Result<Option<String>> {
    if text.is_empty() { Ok(None) } else { name(text).map(Some) }
}

/// A prefix or location: no scheme, no slash at its end.
fn name(text: &str) -> Result<String> {
    if text.contains("://") {
        bail!("{text:?} has a scheme: leave it out, and say insecure = true where there is no TLS");
    }
    let name = text.trim_end_matches('/');
    if name.is_empty()
        || name.starts_with('/')
        || name.contains(|c: char| c.is_whitespace() || c.is_control())
    {
        bail!("{text:?} is not the name of a registry");
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_named() {
        let check = |text: &str, expected: &str| {
            assert_eq!(parse(text, Path::new("/r")).unwrap_err().to_string(), expected, "{text}");
        };
        check("[[registry]]", "[[registry]] number 1: it has neither a prefix nor a location");
        check(
            "[[registry]]\nlocation='a'\n[[registry]]\nlocation='https://b'",
            "[[registry]] number 2: \"https://b\" has a scheme: leave it out, and say insecure = true where there is no TLS",
        );
        check(
            "[[registry]]\nprefix='a.*.b'",
            "[[registry]] number 1: the prefix \"a.*.b\" has its * elsewhere than in *.DOMAIN",
        );
        check(
            "[[registry]]\nprefix='*.b/c'",
            "[[registry]] number 1: the prefix \"*.b/c\" has its * elsewhere than in *.DOMAIN",
        );
        check(
            "[[registry]]\nlocation='a'\n[[registry.mirror]]\ninsecure=true",
            "[[registry]] number 1: a mirror has no location",
        );
        check(
            "[[registry]]\nlocation='a'\nmirror-by-digest-only=true\n[[registry.mirror]]\nlocation='b'\npull-from-mirror='all'",
            "[[registry]] number 1: pull-from-mirror cannot be used beside mirror-by-digest-only",
        );
        check(
            "[[registry]]\nlocation='a'\n[[registry.mirror]]\nlocation='b'\npull-from-mirror='never'",
            "[[registry]] number 1: pull-from-mirror is \"never\": it is all, digest-only or tag-only",
        );
        check(
            "[[registry]]\nlocation='a'\n[[registry]]\nlocation='a'\nblocked=true",
            "there are two [[registry]] tables for a",
        );
        let error = parse("[[registry]]\ninsecure = 'yes'", Path::new("/r")).unwrap_err().to_string();
        assert!(error.starts_with("line 2: "), "{error}");
        assert!(parse("[[registry]\n", Path::new("/r")).unwrap_err().to_string().starts_with("line 1: "));
    }

    #[test]
    fn version_1_of_the_format() {
        let text = "[registries.search]\nregistries=['a']\n[registries.insecure]\nregistries=['b', 'c']\n[registries.block]\nregistries=['c']";
        let rules = parse(text, Path::new("/r")).unwrap();
        let short: Vec<_> = rules.iter().map(|r| (r.prefix.as_str(), r.insecure, r.blocked)).collect();
        assert_eq!(short, [("c", false, true), ("b", true, false)]);
    }

    #[test]
    fn a_prefix_ends_at_a_separator() {
        let check = |prefix: &str, name: &str, expected: Option<usize>| {
            let rule = Rule { prefix: prefix.into(), ..Rule::default() };
            assert_eq!(rule.matches(name), expected, "{prefix} {name}");
        };
        check("a.io", "a.io/b:c", Some(4));
        check("a.io", "a.io:5000/b", Some(4));
        check("a.io", "a.iox/b", None);
        check("a.io/b", "a.io/b@sha256:1", Some(6));
        check("*.b.io", "a.b.io:5000/c", Some(6));
        check("*.b.io", "x.a.b.io/c", Some(8));
        check("*.b.io", "b.io/c", None);
        check("*.b.io", ".b.io/c", None);
        check("*.b.io", "c.io/a.b.io", None);
    }
}
