//! `--filter key=value`: reading, and those meanings that need nothing but the value at hand.
//!
//! What refers to other objects (`ancestor`, `before`, `volume`) is decided by the verb.
//!
//! Invariant: a key that the verb does not know is refused before anything is looked up or changed.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, bail};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use regex::bytes::{Regex, RegexBuilder};

use crate::error::ResultExt;
use crate::quantity;

/// The states that the filter `status` may name.
const STATES: &[&str] = &["created", "running", "paused", "restarting", "removing", "exited", "dead"];

/// Filters by key. Values of one key are alternatives, except labels, all of which must match; keys must all match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    values: BTreeMap<String, Vec<String>>,
}

impl Filters {
    /// Reads the arguments of `--filter`. `allowed` are the keys of this verb; `label!` is a key of its own.
    pub fn parse<S: AsRef<str>>(arguments: &[S], allowed: &[&str]) -> Result<Filters> {
        let mut filters = Filters::default();
        for argument in arguments.iter().map(AsRef::as_ref) {
            // docker takes an empty filter for none at all.
            if argument.is_empty() {
                continue;
            }
            let Some((key, value)) = argument.split_once('=') else {
                // Docker's code for a value that no flag takes; keys are for its daemon to judge.
                return Err(anyhow!("invalid filter '{argument}': a filter is key=value")).exit_with(125);
            };
            let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
            if !allowed.contains(&key.as_str()) {
                bail!("invalid filter '{key}': the filters here are {}", allowed.join(", "));
            }
            filters.values.entry(key).or_default().push(value.to_owned());
        }
        Ok(filters)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The values of a key.
    pub fn values(&self, key: &str) -> &[String] {
        self.values.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether a value is among those of a key, or the key is not filtered by.
    pub fn is_one_of(&self, key: &str, value: &str) -> bool {
        let values = self.values(key);
        values.is_empty() || values.iter().any(|v| v == value)
    }

    /// The one value of a key that is true or false (`dangling`, `publish`).
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        let mut flags = Vec::new();
        for value in self.values(key) {
            flags.push(match value.as_str() {
                "1" | "t" | "true" | "True" | "TRUE" => true,
                "0" | "f" | "false" | "False" | "FALSE" => false,
                _ => bail!("invalid filter '{key}={value}': it is true or false"),
            });
        }
        flags.dedup();
        match flags.as_slice() {
            [] => Ok(None),
            [flag] => Ok(Some(*flag)),
            _ => bail!("invalid filter '{key}': both true and false are asked for"),
        }
    }

    /// The moment of `until`: what is older passes.
    pub fn until(&self, now: Timestamp, zone: &TimeZone) -> Result<Option<Timestamp>> {
        match self.values("until") {
            [] => Ok(None),
            [one] => quantity::moment(one, now, zone)
                .map(Some)
                .with_context(|| format!("invalid filter 'until={one}'")),
            _ => bail!("invalid filter 'until': it is given more than once"),
        }
    }

    /// The states of `status`, none for all.
    pub fn states(&self) -> Result<&[String]> {
        let states = self.values("status");
        if let Some(unknown) = states.iter().find(|s| !STATES.contains(&s.as_str())) {
            bail!("invalid filter 'status={unknown}': the states are {}", STATES.join(", "));
        }
        Ok(states)
    }

    /// The exit codes of `exited`, none for all.
    pub fn exit_codes(&self) -> Result<Vec<i32>> {
        let code = |v: &String| v.parse().with_context(|| format!("invalid filter 'exited={v}'"));
        self.values("exited").iter().map(code).collect()
    }

    /// The patterns of `name` or `id`.
    pub fn patterns(&self, key: &str) -> Result<Patterns> {
        let pattern = |text: &String| {
            // Names are ASCII, and Unicode tables weigh more than this whole room.
            let regex = RegexBuilder::new(text).unicode(false).size_limit(1 << 20).build();
            regex.with_context(|| format!("invalid filter '{key}={text}'"))
        };
        Ok(Patterns(self.values(key).iter().map(pattern).collect::<Result<_>>()?))
    }

    /// Whether labels pass `label` (all values) and `label!` (none): each is `key`, or `key=value`.
    pub fn match_labels<'l>(&self, label: impl Fn(&str) -> Option<&'l str>) -> bool {
        let has = |filter: &String| match filter.split_once('=') {
            Some((key, value)) => label(key) == Some(value),
            None => label(filter).is_some(),
        };
        self.values("label").iter().all(has) && !self.values("label!").iter().any(has)
    }
}

/// Alternatives for a name or an id; everything matches none.
#[derive(Debug)]
pub struct Patterns(Vec<Regex>);

impl Patterns {
    /// Whether a part of the name matches. As in docker, a pattern may show a container's name with a slash before it.
    pub fn match_name(&self, name: &str) -> bool {
        let with_slash = format!("/{name}");
        self.0.is_empty()
            || self.0.iter().any(|p| p.is_match(name.as_bytes()) || p.is_match(with_slash.as_bytes()))
    }

    /// Whether a part of the id matches.
    pub fn match_id(&self, id: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|p| p.is_match(id.as_bytes()))
    }
}

/// Whether a file-name pattern as in the filter `reference` fits the whole text: `*` and `?` stop at a slash,
/// `[a-z]` and `[^a-z]` are sets, a backslash takes the next character as it is.
pub fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Only the last star need be tried again: so the work is bounded by the product of the lengths.
    let mut last_star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&'*') {
            last_star = Some((p, t));
            p += 1;
            continue;
        }
        if p == pattern.len() && t == text.len() {
            return true;
        }
        if let Some(after) = text.get(t).and_then(|c| one_of(&pattern, p, *c)) {
            (p, t) = (after, t + 1);
            continue;
        }
        match last_star {
            Some((star, from)) if text.get(from).is_some_and(|c| *c != '/') => {
                last_star = Some((star, from + 1));
                (p, t) = (star + 1, from + 1);
            }
            _ => return false,
        }
    }
}

/// Where the pattern goes on, if its part at `p` fits the character.
fn one_of(pattern: &[char], p: usize, c: char) -> Option<usize> {
    match *pattern.get(p)? {
        '?' => (c != '/').then_some(p + 1),
        '\\' => (pattern.get(p + 1) == Some(&c)).then_some(p + 2),
        '[' => {
            let negated = pattern.get(p + 1) == Some(&'^');
            let mut at = p + 1 + usize::from(negated);
            let mut found = false;
            while *pattern.get(at)? != ']' {
                let low = *pattern.get(at)?;
                let is_range =
                    pattern.get(at + 1) == Some(&'-') && pattern.get(at + 2).is_some_and(|h| *h != ']');
                let high = if is_range { pattern[at + 2] } else { low };
                found |= (low..=high).contains(&c);
                at += if is_range { 3 } else { 1 };
            }
            (found != negated && c != '/').then_some(at + 1)
        }
        literal => (literal == c).then_some(p + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error;

    const KEYS: &[&str] = &["name", "id", "label", "label!", "status", "until", "exited", "dangling"];

    fn filters(arguments: &[&str]) -> Filters {
        Filters::parse(arguments, KEYS).unwrap()
    }

    #[test]
    fn reading() {
        let parsed = filters(&["name=web", "Name = db", "label=a=b", "", "label!=c"]);
        assert_eq!(parsed.values("name"), ["web", "db"]);
        assert_eq!(parsed.values("label"), ["a=b"]);
        assert_eq!(parsed.values("label!"), ["c"]);
        assert!(filters(&[]).is_empty());
        let error = |argument: &str| error::chain(&Filters::parse(&[argument], &["name", "id"]).unwrap_err());
        assert_eq!(error("x=1"), "invalid filter 'x': the filters here are name, id");
        assert_eq!(error("name"), "invalid filter 'name': a filter is key=value");
    }

    #[test]
    fn names() {
        let cases: &[(&[&str], &str, bool)] = &[
            (&[], "web", true),
            (&["name=we"], "web", true),
            (&["name=^web$"], "web", true),
            (&["name=^/web$"], "web", true),
            (&["name=^eb"], "web", false),
            (&["name=db", "name=w.b"], "web", true),
            (&[r"name=\d\w"], "a1b", true),
            (&["name=(?i)WEB"], "web", true),
        ];
        for (arguments, name, expected) in cases {
            assert_eq!(
                filters(arguments).patterns("name").unwrap().match_name(name),
                *expected,
                "{arguments:?}"
            );
        }
        assert!(filters(&["name=("]).patterns("name").is_err());
        assert!(filters(&["name=(a{1000}){1000}"]).patterns("name").is_err());
    }

    #[test]
    fn labels() {
        let cases: &[(&[&str], bool)] = &[
            (&[], true),
            (&["label=a"], true),
            (&["label=a=1"], true),
            (&["label=a=2"], false),
            (&["label=a=1", "label=b"], false),
            (&["label!=b"], true),
            (&["label!=a=1"], false),
            (&["label!=a=2"], true),
        ];
        for (arguments, expected) in cases {
            let passes = filters(arguments).match_labels(|key| (key == "a").then_some("1"));
            assert_eq!(passes, *expected, "{arguments:?}");
        }
    }

    #[test]
    fn amounts_and_states() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        let until = |arguments: &[&str]| filters(arguments).until(now, &TimeZone::UTC);
        assert_eq!(until(&["until=1h"]).unwrap(), Some("2026-01-31T11:00:00Z".parse().unwrap()));
        assert_eq!(until(&[]).unwrap(), None);
        assert!(until(&["until=x"]).is_err());
        assert!(until(&["until=1h", "until=2h"]).is_err());
        assert_eq!(filters(&["status=exited", "status=dead"]).states().unwrap(), ["exited", "dead"]);
        assert!(filters(&["status=gone"]).states().is_err());
        assert_eq!(filters(&["exited=0", "exited=137"]).exit_codes().unwrap(), [0, 137]);
        assert!(filters(&["exited=x"]).exit_codes().is_err());
        assert_eq!(filters(&["dangling=true", "dangling=1"]).flag("dangling").unwrap(), Some(true));
        assert!(filters(&["dangling=maybe"]).flag("dangling").is_err());
        assert!(filters(&["dangling=1", "dangling=0"]).flag("dangling").is_err());
        assert!(filters(&["name=a"]).is_one_of("name", "a") && !filters(&["name=a"]).is_one_of("name", "b"));
    }

    #[test]
    fn globs() {
        let cases = [
            ("busybox", "busybox", true),
            ("busybox*", "busybox:1.36", true),
            ("*box:*", "busybox:1.36", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("a/?", "a/b", true),
            ("a?b", "a/b", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[a", "a", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("", "", true),
            ("**a", "bba", true),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "a1b2b3", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
        assert!(!glob(&"*a".repeat(200), &"a".repeat(199)));
    }
}
