//! The addresses of the protocol: `http://` and `https://`, a host, a path with its query. Pure.
//!
//! Invariant: no user, no password, no fragment, nothing that could break out of a request's first line.

use std::fmt;

use anyhow::{Result, bail};

/// Longer ones are refused; signed addresses of storage services have up to two thousand characters.
const LIMIT: usize = 16 << 10;

/// An absolute address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Url {
    /// Whether it is `https://`.
    pub is_tls: bool,
    /// `host` or `host:port`, as it was given, in lower case.
    pub authority: String,
    /// Path and query; begins with `/`.
    pub path: String,
}

impl Url {
    /// Reads an absolute address.
    pub fn parse(text: &str) -> Result<Url> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let is_tls = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => bail!("{} is not an http or https address", shown(text)),
        };
        let rest = rest.split('#').next().unwrap_or(rest);
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        Url::new(is_tls, authority, path)
    }

    /// Puts one together; `path` may lack its `/`.
    pub fn new(is_tls: bool, authority: &str, path: &str) -> Result<Url> {
        let authority = authority.to_ascii_lowercase();
        if split_authority(&authority).is_none() {
            bail!("{} is not a host with an optional port", shown(&authority));
        }
        if path.len() > LIMIT || path.chars().any(char::is_control) {
            bail!("the address on {authority} is longer than {LIMIT} bytes or has control characters");
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Url { is_tls, authority, path: format!("{slash}{}", escaped(path)) })
    }

    /// Where `location`, absolute or relative (RFC 3986 section 5.2, without dot segments), leads from here. A change from
    /// https to http on the very same host is a proxy's mistake about itself, and undone; to another one it is an error.
    pub fn join(&self, location: &str) -> Result<Url> {
        let location = location.trim();
        let is_absolute = location
            .split_once("://")
            .is_some_and(|(scheme, _)| scheme.bytes().all(|b| b.is_ascii_alphanumeric()));
        if is_absolute {
            let mut url = Url::parse(location)?;
            if self.is_tls && !url.is_tls {
                if url.host() != self.host() {
                    bail!("it leads from https to plain http, to {}", url.authority);
                }
                url = Url { is_tls: true, authority: self.authority.clone(), ..url };
            }
            return Ok(url);
        }
        if let Some(rest) = location.strip_prefix("//") {
            let scheme = if self.is_tls { "https" } else { "http" };
            return Url::parse(&format!("{scheme}://{rest}"));
        }
        let own_path = self.path.split('?').next().unwrap_or("/");
        let location = location.split('#').next().unwrap_or(location);
        let path = match location.as_bytes().first() {
            Some(b'/') => location.to_owned(),
            Some(b'?') => format!("{own_path}{location}"),
            None => self.path.clone(),
            Some(_) => format!("{}/{location}", own_path.rsplit_once('/').map_or("", |(dir, _)| dir)),
        };
        Url::new(self.is_tls, &self.authority, &path)
    }

    /// The same with one more parameter in the query.
    pub fn with(&self, name: &str, value: &str) -> Url {
        let separator = if self.path.contains('?') { '&' } else { '?' };
        Url { path: format!("{}{separator}{name}={}", self.path, query_escaped(value)), ..self.clone() }
    }

    /// The host, without brackets.
    pub fn host(&self) -> &str {
        split_authority(&self.authority).map_or(&self.authority, |(host, _)| host)
    }

    /// The port, the scheme's own where none was given.
    pub fn port(&self) -> u16 {
        let default = if self.is_tls { 443 } else { 80 };
        split_authority(&self.authority).and_then(|(_, port)| port).unwrap_or(default)
    }

    /// Whether credentials for the one are credentials for the other: the same scheme, host and port.
    pub fn is_same_place(&self, other: &Url) -> bool {
        self.is_tls == other.is_tls && self.host() == other.host() && self.port() == other.port()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

/// Host (without brackets) and port of `host`, `host:port`, `[v6]`, `[v6]:port`; `None` for anything else.
pub fn split_authority(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, port)
        }
        None => {
            let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
            if host.is_empty() || host.len() > 253 || !host.bytes().all(is_name) {
                return None;
            }
            (host, port)
        }
    };
    match port.strip_prefix(':') {
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => Some((host, Some(port.parse().ok()?))),
        None if port.is_empty() => Some((host, None)),
        _ => None,
    }
}

/// What a text from outside looks like in an error: not all of it.
fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(80).collect::<String>())
}

/// Escapes what may not stand in a request's first line, and leaves what is escaped already.
fn escaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for b in path.bytes() {
        let is_bad = b <= b' ' || b >= 0x7f || br#""<>\^`{|}"#.contains(&b);
        if is_bad { out.push_str(&format!("%{b:02X}")) } else { out.push(char::from(b)) }
    }
    out
}

/// Escapes a value of a query (RFC 3986 "unreserved", and what repositories and digests have).
pub fn query_escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for b in value.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~/:*,".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_addresses_parse() {
        let check = |text: &str, want: &str| assert_eq!(Url::parse(text).unwrap().to_string(), want);
        check("https://Reg.example:5000/v2/?a=b#c", "https://reg.example:5000/v2/?a=b");
        check("http://[::1]:80", "http://[::1]:80/");
        check("https://a?x=1 2|3", "https://a/?x=1%202%7C3");
        for bad in [
            "",
            "a/b",
            "ftp://a/",
            "https://",
            "https:///x",
            "https://u:p@a/",
            "https://a:x/",
            "https://a:99999/",
            "https://[::1/",
            "https://[x]/",
            "https://a\r\nb/",
            "https://a/\r\nHost: b",
            "https://a b/",
        ] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn locations_are_relative_or_absolute() {
        let base = Url::parse("https://reg:5000/v2/a/blobs/uploads/?x=1").unwrap();
        let check = |location: &str, want: &str| {
            assert_eq!(base.join(location).unwrap().to_string(), want, "{location}");
        };
        check("/v2/u?s=1", "https://reg:5000/v2/u?s=1");
        check("u", "https://reg:5000/v2/a/blobs/uploads/u");
        check("?y", "https://reg:5000/v2/a/blobs/uploads/?y");
        check("", "https://reg:5000/v2/a/blobs/uploads/?x=1");
        check("//other/u", "https://other/u");
        check("https://other/u?to=http://x", "https://other/u?to=http://x");
        check("/u?to=http://x", "https://reg:5000/u?to=http://x");
        check("http://reg/u", "https://reg:5000/u");
        check("http://reg:5000/u", "https://reg:5000/u");
        assert!(base.join("http://other/u").unwrap_err().to_string().contains("plain http"));
        assert!(base.join("file:///etc/passwd").is_err());
        assert_eq!(base.with("digest", "sha256:0f&").path, "/v2/a/blobs/uploads/?x=1&digest=sha256:0f%26");
    }

    #[test]
    fn places_are_scheme_host_and_port() {
        let same = |a: &str, b: &str| Url::parse(a).unwrap().is_same_place(&Url::parse(b).unwrap());
        assert!(same("https://a/x", "https://A:443/y"));
        assert!(!same("https://a/", "http://a/"));
        assert!(!same("http://a:1/", "http://a:2/"));
        assert!(!same("https://a/", "https://a.b/"));
    }
}
