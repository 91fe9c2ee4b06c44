//! docker's daemon.json -> what it says of registries. Pure. Source: dockerd(8), registry-mirrors and insecure-registries.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Result, anyhow, bail};
use serde_json::Value;

use super::registries_conf::{Mirror, PullFrom, Rule};

/// What the file says of registries.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    /// The mirrors of Docker Hub, as one rule.
    pub(super) mirrors: Option<Rule>,
    pub(super) insecure: Vec<Insecure>,
}

/// A registry, or a network in which every registry, needs no TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Insecure {
    /// `host[:port]`.
    Registry(String),
    /// An address and the length of the prefix.
    Network(IpAddr, u32),
}

impl Insecure {
    /// Whether a registry (`host[:port]`) is meant. Names are not resolved: a network covers what is typed as an address.
    pub(super) fn covers(&self, registry: &str) -> bool {
        match self {
            Insecure::Registry(name) => name.eq_ignore_ascii_case(registry),
            Insecure::Network(network, length) => {
                let (host, _) = super::split_port(registry);
                host.parse().is_ok_and(|address: IpAddr| contains(*network, *length, address))
            }
        }
    }
}

fn contains(network: IpAddr, length: u32, address: IpAddr) -> bool {
    let prefix = |bits: u128, width: u32| bits.checked_shr(width - length).unwrap_or(0);
    match (network, address) {
        (IpAddr::V4(n), IpAddr::V4(a)) => prefix(n.to_bits().into(), 32) == prefix(a.to_bits().into(), 32),
        (IpAddr::V6(n), IpAddr::V6(a)) => prefix(n.to_bits(), 128) == prefix(a.to_bits(), 128),
        _ => false,
    }
}

/// Reads the text; keys that are not of registries are passed over.
pub(super) fn parse(text: &str, file: &Path) -> Result<Parsed> {
    if text.trim().is_empty() {
        return Ok(Parsed::default());
    }
    let value: Value = serde_json::from_str(text)?;
    let mirrors = strings(&value, "registry-mirrors")?.into_iter().map(mirror).collect::<Result<Vec<_>>>()?;
    let insecure =
        strings(&value, "insecure-registries")?.into_iter().map(insecure).collect::<Result<_>>()?;
    let rule = || Rule {
        prefix: "docker.io".into(),
        mirrors: mirrors.clone(),
        file: file.into(),
        ..Rule::default()
    };
    Ok(Parsed { mirrors: (!mirrors.is_empty()).then(rule), insecure })
}

fn strings<'a>(value: &'a Value, key: &str) -> Result<Vec<&'a str>> {
    let wrong = || anyhow!("{key} is not a list of strings");
    match value.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(all)) => all.iter().map(|v| v.as_str().ok_or_else(wrong)).collect(),
        Some(_) => Err(wrong()),
    }
}

fn mirror(url: &str) -> Result<Mirror> {
    let (location, insecure) = match url.split_once("://") {
        Some(("https", rest)) => (rest, false),
        Some(("http", rest)) => (rest, true),
        // The URL may carry a password: it is not shown.
        _ => bail!("a mirror of registry-mirrors is no URL with http or https"),
    };
    let location = location.trim_end_matches('/').to_owned();
    if location.is_empty() || location.contains(['@', '?', '#']) || location.contains(char::is_whitespace) {
        bail!("a mirror of registry-mirrors is more, or less, than a host");
    }
    Ok(Mirror { location, insecure, pull_from: PullFrom::All })
}

fn insecure(text: &str) -> Result<Insecure> {
    let name = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).unwrap_or(text);
    let Some((address, length)) = name.split_once('/') else {
        return Ok(Insecure::Registry(name.to_owned()));
    };
    let network = address.parse::<IpAddr>().ok().zip(length.parse::<u32>().ok());
    match network {
        Some((address, length)) if length <= if address.is_ipv4() { 32 } else { 128 } => {
            Ok(Insecure::Network(address, length))
        }
        _ if length.is_empty() => Ok(Insecure::Registry(address.to_owned())),
        _ => bail!("{text:?} of insecure-registries is neither a registry nor a network"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_addresses() {
        let check = |network: &str, registry: &str, expected: bool| {
            assert_eq!(insecure(network).unwrap().covers(registry), expected, "{network} {registry}");
        };
        check("10.0.0.0/8", "10.9.9.9:5000", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        check("0.0.0.0/0", "11.0.0.1", true);
        check("10.0.0.1/32", "10.0.0.1", true);
        check("fd00::/8", "[fd12::1]:5000", true);
        check("::/0", "[fd12::1]", true);
        check("fd00::/8", "10.0.0.1", false);
        check("http://reg:5000", "reg:5000", true);
    }

    #[test]
    fn mistakes_are_named() {
        let check = |text: &str, expected: &str| {
            assert_eq!(parse(text, Path::new("/d")).unwrap_err().to_string(), expected, "{text}");
        };
        check(r#"{"registry-mirrors": "x"}"#, "registry-mirrors is not a list of strings");
        check(r#"{"registry-mirrors": ["x"]}"#, "a mirror of registry-mirrors is no URL with http or https");
        check(
            r#"{"registry-mirrors": ["https://u:secret@x"]}"#,
            "a mirror of registry-mirrors is more, or less, than a host",
        );
        check(
            r#"{"insecure-registries": ["10.0.0.0/99"]}"#,
            "\"10.0.0.0/99\" of insecure-registries is neither a registry nor a network",
        );
        assert!(parse("", Path::new("/d")).is_ok());
        assert!(parse("{", Path::new("/d")).is_err());
    }
}
