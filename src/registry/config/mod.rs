//! Where a reference is really fetched from: mirrors, other locations, what is blocked, what needs no TLS.
//!
//! Read, in this order, a later table of the same prefix replacing an earlier one:
//! - docker's daemon.json: mirrors of Docker Hub and insecure registries ([`daemon_json`]);
//! - registries.conf of containers-registries.conf(5) ([`registries_conf`]): the file that CONTAINERS_REGISTRIES_CONF names,
//!   else the user's, else /etc/containers/registries.conf; then the files of registries.conf.d;
//! - dhow/registries.conf and dhow/registries.conf.d, in the same two places.
//!
//! Not followed: short names. `busybox` is docker.io/library/busybox here, as docker has it, whatever a machine's aliases say.

mod daemon_json;
mod files;
mod registries_conf;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::fs;
use crate::host::Host;
use crate::oci::Reference;

pub use registries_conf::{Mirror, PullFrom, Rule};

/// What the machine and the user say of registries.
#[derive(Debug, Clone, Default)]
pub struct Config {
    rules: Vec<Rule>,
    insecure: Vec<daemon_json::Insecure>,
}

/// One place that a repository can be had from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `host[:port]/repository`: the whole name there.
    pub location: String,
    /// Plain HTTP and certificates of nobody are allowed.
    pub insecure: bool,
}

/// Reads the configuration of this machine and user. A file that cannot be understood is an error: it may be the one that
/// blocks a registry.
pub fn load(host: &Host) -> Result<Config> {
    let mut config = Config::default();
    for path in files::daemon_json(host) {
        // Docker's own file, and often its administrator's alone.
        if let Some(text) = fs::read_to_string_if_exists(&path).ok().flatten() {
            config.add_daemon_json(&text, &path)?;
        }
    }
    let found = files::registries_conf(host)?;
    for path in found.required {
        config.add_registries_conf(&fs::read_to_string(&path)?, &path)?;
    }
    for path in found.optional {
        if let Some(text) = fs::read_to_string_if_exists(&path)? {
            config.add_registries_conf(&text, &path)?;
        }
    }
    Ok(config)
}

impl Config {
    fn add_daemon_json(&mut self, text: &str, path: &Path) -> Result<()> {
        let parsed =
            daemon_json::parse(text, path).with_context(|| format!("cannot read {}", path.display()))?;
        parsed.mirrors.into_iter().for_each(|rule| self.add(rule));
        self.insecure.extend(parsed.insecure);
        Ok(())
    }

    fn add_registries_conf(&mut self, text: &str, path: &Path) -> Result<()> {
        let rules =
            registries_conf::parse(text, path).with_context(|| format!("cannot read {}", path.display()))?;
        rules.into_iter().for_each(|rule| self.add(rule));
        Ok(())
    }

    fn add(&mut self, rule: Rule) {
        self.rules.retain(|r| r.prefix != rule.prefix);
        self.rules.push(rule);
    }

    /// Where to read it from: mirrors first, in their order, the origin last. A blocked one is an error that says where.
    pub fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>> {
        let name = format!("{}/{}", reference.registry, reference.repository);
        let Some((rule, matched)) = self.rule(reference)? else {
            return Ok(vec![self.endpoint(name, false)]);
        };
        let rest = name.get(matched..).unwrap_or_default();
        let by_digest = reference.digest.is_some();
        let mut endpoints = Vec::new();
        for mirror in rule.mirrors.iter().filter(|m| m.pull_from.serves(by_digest)) {
            endpoints.push(self.endpoint(format!("{}{rest}", mirror.location), mirror.insecure));
        }
        let origin = rule.location.as_ref().map_or(name.clone(), |location| format!("{location}{rest}"));
        endpoints.push(self.endpoint(origin, rule.insecure));
        Ok(endpoints)
    }

    /// Where to write it to: what the name says. Mirrors and other locations are for reading
    /// (containers-registries.conf(5)); what is blocked is blocked here too.
    pub fn origin(&self, reference: &Reference) -> Result<Endpoint> {
        let insecure = self.rule(reference)?.is_some_and(|(rule, _)| rule.insecure);
        Ok(self.endpoint(format!("{}/{}", reference.registry, reference.repository), insecure))
    }

    /// Whether a registry (`host[:port]`) as a whole may be spoken to without TLS: for `login` and `search`. A blocked one
    /// is an error.
    pub fn registry_is_insecure(&self, registry: &str) -> Result<bool> {
        let rule = self.longest(registry);
        let insecure = refuse_blocked(rule)?.is_some_and(|(rule, _)| rule.insecure);
        Ok(self.endpoint(registry.to_owned(), insecure).insecure)
    }

    fn endpoint(&self, location: String, insecure: bool) -> Endpoint {
        let registry = location.split('/').next().unwrap_or_default();
        let insecure = insecure || self.insecure.iter().any(|i| i.covers(registry));
        Endpoint { location, insecure }
    }

    fn rule(&self, reference: &Reference) -> Result<Option<(&Rule, usize)>> {
        refuse_blocked(self.longest(&reference.to_string()))
    }

    /// The rule of the longest prefix, and how much of the name it matches.
    fn longest(&self, name: &str) -> Option<(&Rule, usize)> {
        let matching = self.rules.iter().filter_map(|rule| Some((rule, rule.matches(name)?)));
        matching.max_by_key(|(rule, _)| rule.prefix.len())
    }
}

fn refuse_blocked(found: Option<(&Rule, usize)>) -> Result<Option<(&Rule, usize)>> {
    match found {
        Some((rule, _)) if rule.blocked => bail!("{} is blocked in {}", rule.prefix, rule.file.display()),
        found => Ok(found),
    }
}

/// Whether a registry (`host[:port]`) is this machine. Docker's rule: what cannot leave it needs no TLS.
pub fn is_local(registry: &str) -> bool {
    let (name, _) = split_port(registry);
    match name.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_loopback(),
        Ok(IpAddr::V6(address)) => {
            address == Ipv6Addr::LOCALHOST
                || address.to_ipv4_mapped().is_some_and(|v4: Ipv4Addr| v4.is_loopback())
        }
        Err(_) => name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost"),
    }
}

/// `host:port`, `[v6]:port` or either without a port, taken apart.
fn split_port(registry: &str) -> (&str, Option<&str>) {
    if let Some((address, rest)) = registry.strip_prefix('[').and_then(|r| r.split_once(']')) {
        return (address, rest.strip_prefix(':'));
    }
    match registry.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') => (name, Some(port)),
        _ => (registry, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = r#"
        unqualified-search-registries = ["example.com"]
        short-name-mode = "enforcing"
        [aliases]
        busybox = "quay.io/other/busybox"

        [[registry]]
        prefix = "example.com/foo"
        location = "internal.example.net/bar"
        [[registry.mirror]]
        location = "mirror-0.local/mirror-for-foo"
        [[registry.mirror]]
        location = "mirror-1.local/mirrors/foo"
        insecure = true

        [[registry]]
        location = "registry.com"
        [[registry.mirror]]
        location = "mirror.registry.com"
        pull-from-mirror = "digest-only"
        [[registry.mirror]]
        location = "tags.registry.com:5000/"
        pull-from-mirror = "tag-only"

        [[registry]]
        prefix = "*.example.org"
        insecure = true
        [[registry]]
        prefix = "bad.example.org"
        blocked = true
        [[registry]]
        location = "docker.io/library/evil"
        blocked = true
        [[registry]]
        prefix = "digests.io"
        location = "digests.io"
        mirror-by-digest-only = true
        mirror = [{ location = "m.io" }]
        [[registry]]
        prefix = "one.io/a:v1"
        location = "two.io/b"
    "#;

    fn config(text: &str) -> Config {
        let mut config = Config::default();
        config.add_registries_conf(text, Path::new("/r.conf")).unwrap();
        config
    }

    fn said(config: &Config, reference: &str) -> String {
        match config.endpoints(&reference.parse().unwrap()) {
            Ok(all) => {
                let one = |e: &Endpoint| format!("{}{}", e.location, if e.insecure { "!" } else { "" });
                all.iter().map(one).collect::<Vec<_>>().join(" ")
            }
            Err(e) => format!("{e:#}"),
        }
    }

    #[test]
    fn references_are_mapped_as_podman_maps_them() {
        let config = config(EXAMPLE);
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let check =
            |reference: &str, expected: &str| assert_eq!(said(&config, reference), expected, "{reference}");
        check("busybox", "docker.io/library/busybox");
        check(
            "example.com/foo/image:latest",
            "mirror-0.local/mirror-for-foo/image mirror-1.local/mirrors/foo/image! internal.example.net/bar/image",
        );
        check("example.com/foobar", "example.com/foobar");
        check("registry.com/image", "tags.registry.com:5000/image registry.com/image");
        check(&format!("registry.com/image@{digest}"), "mirror.registry.com/image registry.com/image");
        check("a.b.example.org/x", "a.b.example.org/x!");
        check("example.org/x", "example.org/x");
        check("bad.example.org/x", "bad.example.org is blocked in /r.conf");
        check("evil:1", "docker.io/library/evil is blocked in /r.conf");
        check("evil2:1", "docker.io/library/evil2");
        check("digests.io/x", "digests.io/x");
        check(&format!("digests.io/x@{digest}"), "m.io/x digests.io/x");
        check("one.io/a:v1", "two.io/b");
        check("one.io/a:v2", "one.io/a");
    }

    #[test]
    fn writing_goes_to_the_name() {
        let config = config(EXAMPLE);
        let origin = |r: &str| config.origin(&r.parse().unwrap());
        assert_eq!(origin("example.com/foo/image").unwrap().location, "example.com/foo/image");
        assert!(origin("a.example.org/image").unwrap().insecure);
        assert!(origin("evil").is_err());
        assert!(config.registry_is_insecure("c.example.org").unwrap());
        assert!(!config.registry_is_insecure("registry.com").unwrap());
        assert!(config.registry_is_insecure("bad.example.org").is_err());
    }

    #[test]
    fn a_later_file_replaces_the_table_of_the_same_prefix() {
        let mut config = config("[[registry]]\nlocation = 'a.io'\nblocked = true");
        config
            .add_registries_conf("[[registry]]\nlocation = 'a.io'\ninsecure = true", Path::new("/2"))
            .unwrap();
        assert_eq!(said(&config, "a.io/x"), "a.io/x!");
    }

    #[test]
    fn daemon_json_counts_least() {
        let mut config = Config::default();
        let text = r#"{"registry-mirrors": ["https://m.io", "http://n:5000/"], "insecure-registries": ["10.0.0.0/8", "reg:80"]}"#;
        config.add_daemon_json(text, Path::new("/d")).unwrap();
        assert_eq!(said(&config, "a"), "m.io/library/a n:5000/library/a! docker.io/library/a");
        assert_eq!(said(&config, "10.1.2.3:5000/a"), "10.1.2.3:5000/a!");
        assert_eq!(said(&config, "reg:80/a"), "reg:80/a!");
        assert_eq!(said(&config, "reg:81/a"), "reg:81/a");
        config.add_registries_conf("[[registry]]\nlocation = 'docker.io'", Path::new("/2")).unwrap();
        assert_eq!(said(&config, "a"), "docker.io/library/a");
    }

    #[test]
    fn this_machine_needs_no_tls() {
        for local in
            ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000", "a.localhost"]
        {
            assert!(is_local(local), "{local}");
        }
        for other in ["localhost.example", "128.0.0.1", "[::2]:1", "127.0.0.1.example:5000", "docker.io"] {
            assert!(!is_local(other), "{other}");
        }
    }

    #[test]
    fn every_prefix_of_a_file_returns() {
        for end in (0..EXAMPLE.len()).filter(|n| EXAMPLE.is_char_boundary(*n)) {
            let _ = Config::default().add_registries_conf(&EXAMPLE[..end], Path::new("/r"));
        }
    }
}
