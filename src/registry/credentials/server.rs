//! What `login` and `logout` are told: which registry, or which part of one.

use std::fmt;

use anyhow::{Result, anyhow};

use super::{HUB, document};
use crate::error::ResultExt;
use crate::oci::Reference;

/// A registry, or the repositories under a name in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `host[:port]`.
    pub registry: String,
    /// What it is kept under: the registry, or `registry/namespace[/repository]`.
    pub key: String,
}

impl Server {
    /// Reads what was typed: `host[:port]`, a URL (of which only the host counts, as docker has it), or, as podman has it,
    /// `host[:port]/namespace` for credentials that are good for that alone. Nothing is Docker Hub.
    pub fn parse(text: Option<&str>) -> Result<Server> {
        let key = document::normalize(text.unwrap_or(HUB).trim());
        let shown = text.unwrap_or_default();
        // The grammar of references is that of registries and namespaces; a bare registry lacks a repository.
        let name = if key.contains('/') { key.clone() } else { format!("{key}/x") };
        let parsed = name.parse::<Reference>().ok().filter(|r| r.tag.is_none() && r.digest.is_none());
        let (host, _) = name.split_once('/').unwrap_or((&name, ""));
        match parsed {
            Some(reference) if reference.registry == host => Ok(Server { registry: reference.registry, key }),
            Some(_) => Err(anyhow!("{shown:?} is not a registry: it has neither a dot nor a port"))
                .hint("type HOST.DOMAIN or HOST:PORT; for Docker Hub leave it out"),
            None => Err(anyhow!("{shown:?} is not a registry")).hint("type HOST.DOMAIN or HOST:PORT"),
        }
    }

    /// Whether this is a part of a registry.
    pub fn is_part(&self) -> bool {
        self.key != self.registry
    }

    /// What is behind the registry in the key: the namespace, or nothing.
    pub fn repository(&self) -> &str {
        self.key.strip_prefix(&self.registry).and_then(|rest| rest.strip_prefix('/')).unwrap_or_default()
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(document::spelling(&self.key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_they_are_typed() {
        let check = |text: &str, registry: &str, key: &str| {
            let expected = Server { registry: registry.into(), key: key.into() };
            assert_eq!(Server::parse(Some(text)).unwrap(), expected, "{text}");
        };
        check("docker.io", "docker.io", "docker.io");
        check("https://index.docker.io/v1/", "docker.io", "docker.io");
        check("localhost:5000", "localhost:5000", "localhost:5000");
        check("localhost", "localhost", "localhost");
        check("https://reg.example/v2/", "reg.example", "reg.example");
        check("reg.example/ns/repo", "reg.example", "reg.example/ns/repo");
        check("[::1]:5000", "[::1]:5000", "[::1]:5000");
        check(" reg.example ", "reg.example", "reg.example");
        assert_eq!(Server::parse(None).unwrap().to_string(), "https://index.docker.io/v1/");
        assert_eq!(Server::parse(Some("r.io/a/b")).unwrap().repository(), "a/b");
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "",
            "al",
            "al/repo",
            "a b",
            "r.io/x:tag",
            "r.io/A",
            "../x",
            "-x.io",
            "u:p@r.io",
            "r.io/x@sha256:1",
        ] {
            assert!(Server::parse(Some(text)).is_err(), "{text}");
        }
    }
}
