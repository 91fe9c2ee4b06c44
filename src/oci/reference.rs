//! Image references as docker reads them: `[registry/]repository[:tag][@digest]`.
//! Source: distribution/reference grammar; the first component is a registry if it holds a `.` or `:` or is `localhost`.

use std::fmt;
use std::str::FromStr;

use super::Digest;
use super::digest::InvalidDigest;

/// A parsed reference, with docker's defaults filled in except the tag.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Reference {
    /// Host and port: `docker.io`, `localhost:5000`.
    pub registry: String,
    /// Path in the registry: `library/busybox`.
    pub repository: String,
    /// The tag as typed; `None` if there was none.
    pub tag: Option<String>,
    /// The digest as typed.
    pub digest: Option<Digest>,
}

/// Why a text is not a reference.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not an image reference: {why}")]
pub struct InvalidReference {
    text: String,
    why: &'static str,
}

impl Reference {
    /// The tag, `latest` where neither tag nor digest was given.
    pub fn tag_or_latest(&self) -> Option<&str> {
        match (&self.tag, &self.digest) {
            (Some(tag), _) => Some(tag),
            (None, Some(_)) => None,
            (None, None) => Some("latest"),
        }
    }

    /// The same with `latest` written out where neither tag nor digest was given.
    pub fn with_default_tag(mut self) -> Reference {
        self.tag = self.tag_or_latest().map(str::to_owned);
        self
    }

    /// The repository as a person writes it: without `docker.io/` and `library/`, unless what is left would be read as
    /// something else (`library/a/b`, `docker.io/x.y/z`).
    pub fn familiar_repository(&self) -> String {
        let whole = || format!("{}/{}", self.registry, self.repository);
        if self.registry != "docker.io" {
            return whole();
        }
        let short = match self.repository.strip_prefix("library/") {
            Some(name) if !name.contains('/') => name,
            _ => &self.repository,
        };
        let is_misread = short.split_once('/').is_some_and(|(first, _)| is_registry(first)) || is_id(short);
        if is_misread { whole() } else { short.to_owned() }
    }

    /// The whole reference as a person writes it.
    pub fn familiar(&self) -> String {
        self.with_name(self.familiar_repository())
    }

    fn with_name(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_name(format!("{}/{}", self.registry, self.repository)))
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Reference, InvalidReference> {
        let bad = |why| InvalidReference { text: text.to_owned(), why };
        // In docker's order, so that of two mistakes the same one is told.
        if text.is_empty() {
            return Err(bad("it is empty"));
        }
        if is_id(text) {
            return Err(bad("a name of 64 hex digits would be taken for an id"));
        }
        let (registry, rest) = match text.split_once('/') {
            Some((host, rest)) if is_registry(host) => (host, rest),
            _ => ("docker.io", text),
        };
        if rest.split(':').next().is_some_and(|name| name.to_lowercase() != name) {
            return Err(bad("the repository name must be lower case"));
        }
        if !is_host(registry) {
            return Err(bad("the registry is not a host name with an optional port"));
        }
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (rest, None),
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if tag.is_some_and(|t| !is_tag(t)) {
            return Err(bad(
                "a tag is up to 128 letters, digits, '_', '.', '-', and does not start with '.' or '-'",
            ));
        }
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        let is_hub_short = registry == "docker.io" && !path.contains('/');
        let repository = if is_hub_short { format!("library/{path}") } else { path.to_owned() };
        // What is no domain counts as part of the path.
        let n_before = if is_domain(registry) { 0 } else { registry.len() + 1 };
        if n_before + repository.len() > 255 || !repository.split('/').all(is_component) {
            return Err(bad(
                "a repository name is made of lower-case letters, digits and single '.', '_', '-' between them",
            ));
        }
        let digest = digest.map(str::parse).transpose().map_err(|error: InvalidDigest| bad(error.why))?;
        Ok(Reference { registry: registry.to_owned(), repository, tag: tag.map(str::to_owned), digest })
    }
}

/// Whether the first component of a name is a registry, and not the first part of a path on Docker Hub.
fn is_registry(component: &str) -> bool {
    component == "localhost"
        || component.contains(['.', ':'])
        || component.bytes().any(|b| b.is_ascii_uppercase())
}

/// Whether a text is an image's whole id.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether the first component of a name can be a registry. Docker's grammar takes one that is no domain, `a_b.c`, for the
/// first part of a path without a registry, which comes to the same.
fn is_host(host: &str) -> bool {
    is_domain(host) || is_component(host)
}

fn is_domain(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|h| h.split_once(']')) {
        // As docker has it: whether it is an address is found out when it is connected to.
        Some((address, port)) if is_address(address) => ("v6", port),
        Some(_) => return false,
        None => match host.find(':') {
            Some(at) => host.split_at(at),
            None => (host, ""),
        },
    };
    let label = |l: &str| {
        !l.is_empty()
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    let port_ok = port.is_empty()
        || port.strip_prefix(':').is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    name.split('.').all(label) && port_ok
}

/// What the grammar takes for an IPv6 address.
fn is_address(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b':')
}

/// One path component: alphanumeric runs joined by `.`, `_`, `__` or any number of `-`.
fn is_component(component: &str) -> bool {
    let is_alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    if !bytes.first().is_some_and(|b| is_alnum(*b)) || !bytes.last().is_some_and(|b| is_alnum(*b)) {
        return false;
    }
    component
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= 128
        && word(bytes[0])
        && bytes.iter().all(|b| word(*b) || *b == b'.' || *b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_read_as_docker_reads_them() {
        let check = |text: &str, full: &str, familiar: &str| {
            let r: Reference = text.parse().unwrap();
            assert_eq!((r.to_string().as_str(), r.familiar().as_str()), (full, familiar), "{text}");
            assert_eq!(r.familiar().parse::<Reference>().unwrap(), r);
        };
        check("busybox", "docker.io/library/busybox", "busybox");
        check("a/b:1", "docker.io/a/b:1", "a/b:1");
        check("localhost/b", "localhost/b", "localhost/b");
        check("reg:5000/b/c:v1.0-x_y", "reg:5000/b/c:v1.0-x_y", "reg:5000/b/c:v1.0-x_y");
        check("index.docker.io/library/a", "docker.io/library/a", "a");
        check("127.0.0.1:5000/a__b--c.d", "127.0.0.1:5000/a__b--c.d", "127.0.0.1:5000/a__b--c.d");
        check("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a");
        // No address, as whoever connects to it finds out.
        check("[1:2]/a", "[1:2]/a", "[1:2]/a");
        check("[A]:0/a:1", "[A]:0/a:1", "[A]:0/a:1");
        check("a_b.c/d", "a_b.c/d", "a_b.c/d");
        check("A/b:C", "A/b:C", "A/b:C");
        check("localhost:99999999/a", "localhost:99999999/a", "localhost:99999999/a");
        check("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000");
        for (algorithm, n) in [("sha256", 32), ("sha384", 48), ("sha512", 64)] {
            let digest = format!("{algorithm}:{}", "0a".repeat(n));
            check(&format!("a@{digest}"), &format!("docker.io/library/a@{digest}"), &format!("a@{digest}"));
            let full = format!("localhost:1/a/b:c@{digest}");
            check(&full, &full, &full);
        }
        // What is shown is read as the same again.
        check("library/a/b", "docker.io/library/a/b", "library/a/b");
        check("docker.io/x.y/z", "docker.io/x.y/z", "docker.io/x.y/z");
        check("docker.io/localhost/a:1", "docker.io/localhost/a:1", "docker.io/localhost/a:1");
        // Only 64 hex digits alone are an id.
        let hex = "0a".repeat(32);
        check(
            &format!("{hex}:1"),
            &format!("docker.io/library/{hex}:1"),
            &format!("docker.io/library/{hex}:1"),
        );
        check(&format!("localhost/{hex}"), &format!("localhost/{hex}"), &format!("localhost/{hex}"));
    }

    #[test]
    fn bad_references_say_why() {
        let check = |text: &str, why: &str| {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        };
        check("", "empty");
        check("Busybox", "lower case");
        check("a/B:1", "lower case");
        check("a:", "a tag is");
        check("a:-x", "a tag is");
        check("a@sha256:12", "a digest is");
        check("a//b", "repository name is");
        check("a..b", "repository name is");
        check("-a", "repository name is");
        check("../etc", "registry");
        check(&"a".repeat(64), "id");
        check("a\0b", "repository name is");
        for host in
            ["[1:2", "[]:1", "[1:g]", "[1.2:3]", "[::1]x", "[::1]:", "a_b:1", "-a.b", "a..b", "a.b:", "a:b"]
        {
            check(&format!("{host}/a"), "the registry is not");
        }
        check("[a]/b", "repository name is");
        check("[]/b", "repository name is");
        let hex = "0a".repeat(64);
        check(&format!("a@md5:{}", &hex[..32]), "unsupported digest algorithm");
        check(&format!("a@sha512-256:{}", &hex[..64]), "a digest is sha256:");
        check(&format!("a@sha512:{}", &hex[..64]), "a digest is sha512:");
        check(&format!("a@sha256:{hex}"), "a digest is sha256:");
        check(&format!("a@sha256:{}", hex[..64].to_uppercase()), "a digest is sha256:");
        check(&format!("a@SHA256:{}", &hex[..64]), "lower case");
        check(&format!("a@sha256:{0}@sha256:{0}", &hex[..64]), "a digest is sha256:");
        check("a/B:-c@d", "lower case");
        check("a:1\n", "a tag is");
        check(&format!("a_b.c/{}", "a/".repeat(125) + "a"), "repository name is");
        assert!(format!("a-b.c/{}", "a/".repeat(127) + "a").parse::<Reference>().is_ok());
    }
}
