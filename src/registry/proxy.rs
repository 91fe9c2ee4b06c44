//! HTTP_PROXY, HTTPS_PROXY and NO_PROXY, upper or lower case, as docker (Go's httpproxy) reads them.
//!
//! Invariant: a proxy's address may hold a password, so it is never shown.

use std::fmt;
use std::net::IpAddr;

use super::url::Url;
use super::url::split_authority;

/// More rules than this are not looked at.
const MAX_RULES: usize = 1000;

/// Which proxy serves which address.
#[derive(Clone, Default)]
pub struct Proxies {
    http: Option<String>,
    https: Option<String>,
    direct: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    Everything,
    Network(IpAddr, u8),
    /// A domain, whether it is meant itself, and a port.
    Domain(String, bool, Option<u16>),
    Address(IpAddr, Option<u16>),
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxies {{ http: {}, https: {} }}", self.http.is_some(), self.https.is_some())
    }
}

impl Proxies {
    /// Reads the variables; `env` gives what is set and not empty.
    pub fn read(env: impl Fn(&str) -> Option<String>) -> Proxies {
        let either = |upper: &str| env(upper).or_else(|| env(&upper.to_ascii_lowercase()));
        let proxy = |name| {
            either(name).map(|p| p.trim().to_owned()).filter(|p| !p.is_empty()).map(|p| {
                match p.contains("://") {
                    true => p,
                    false => format!("http://{p}"),
                }
            })
        };
        let direct = either("NO_PROXY").unwrap_or_default();
        let direct = direct.split(',').filter_map(|word| rule(word.trim())).take(MAX_RULES).collect();
        Proxies { http: proxy("HTTP_PROXY"), https: proxy("HTTPS_PROXY"), direct }
    }

    /// The proxy for an address, `None` where it is reached directly. This machine itself always is.
    pub fn of(&self, url: &Url) -> Option<&str> {
        let proxy = if url.is_tls { &self.https } else { &self.http }.as_deref()?;
        let host = url.host();
        let address: Option<IpAddr> = host.parse().ok();
        if host == "localhost" || address.is_some_and(|a| a.is_loopback()) {
            return None;
        }
        let is_direct = self.direct.iter().any(|rule| match rule {
            Rule::Everything => true,
            Rule::Network(network, bits) => address.is_some_and(|a| is_in(a, *network, *bits)),
            Rule::Address(a, port) => address == Some(*a) && port.is_none_or(|p| p == url.port()),
            Rule::Domain(domain, itself, port) => {
                let beneath = host.strip_suffix(domain.as_str());
                let fits = beneath.is_some_and(|b| if b.is_empty() { *itself } else { b.ends_with('.') });
                fits && port.is_none_or(|p| p == url.port())
            }
        });
        (!is_direct).then_some(proxy)
    }
}

fn rule(word: &str) -> Option<Rule> {
    if word == "*" {
        return Some(Rule::Everything);
    }
    if let Some((network, bits)) = word.split_once('/') {
        let network: IpAddr = network.parse().ok()?;
        let most = if network.is_ipv4() { 32 } else { 128 };
        return bits.parse().ok().filter(|b| *b <= most).map(|bits| Rule::Network(network, bits));
    }
    if let Ok(address) = word.parse() {
        return Some(Rule::Address(address, None));
    }
    let word = word.to_ascii_lowercase();
    let domain = word.trim_start_matches('*');
    let (domain, itself) = match domain.strip_prefix('.') {
        Some(domain) => (domain, false),
        None => (domain, true),
    };
    let (domain, port) = split_authority(domain)?;
    match domain.parse() {
        Ok(address) => Some(Rule::Address(address, port)),
        Err(_) => Some(Rule::Domain(domain.to_owned(), itself, port)),
    }
}

fn is_in(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let same = |a: u128, b: u128, width: u8| {
        let rest = u32::from(width - bits);
        a.checked_shr(rest).unwrap_or(0) == b.checked_shr(rest).unwrap_or(0)
    };
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(u32::from(a).into(), u32::from(b).into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.into(), b.into(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(vars: &[(&str, &str)], url: &str, want: Option<&str>) {
        let env = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        assert_eq!(Proxies::read(env).of(&Url::parse(url).unwrap()), want, "{vars:?} {url}");
    }

    #[test]
    fn each_scheme_has_its_proxy() {
        let both = [("HTTP_PROXY", "p:1"), ("https_proxy", "https://u:p@q:2"), ("HTTPS_PROXY", "")];
        check(&both[..2], "http://a/", Some("http://p:1"));
        check(&both[..2], "https://a/", Some("https://u:p@q:2"));
        check(&both, "https://a/", None);
        check(&both[..1], "https://a/", None);
        check(&both, "http://localhost:5000/", None);
        check(&both, "http://127.9.9.9/", None);
        check(&both, "http://[::1]:5/", None);
    }

    #[test]
    fn no_proxy_reads_as_docker_reads_it() {
        let check = |rules: &str, url: &str, direct: bool| {
            let vars = [("HTTP_PROXY", "http://p"), ("no_proxy", rules)];
            check(&vars, url, (!direct).then_some("http://p"));
        };
        check("*", "http://a/", true);
        check("b.c, a.b", "http://a.b:5/", true);
        check("A.B", "http://x.a.b/", true);
        check("a.b", "http://xa.b/", false);
        check(".a.b", "http://a.b/", false);
        check(".a.b", "http://x.a.b/", true);
        check("*.a.b", "http://x.a.b/", true);
        check("a.b:80", "http://a.b/", true);
        check("a.b:81", "http://a.b/", false);
        check("10.0.0.0/8", "http://10.2.3.4:5000/", true);
        check("10.0.0.0/8", "http://11.2.3.4/", false);
        check("0.0.0.0/0", "http://11.2.3.4/", true);
        check("::/0", "http://[fe80::2]/", true);
        check("10.0.0.0/33,10.2.3.4", "http://10.2.3.4/", true);
        check("[fe80::2]:80", "http://[fe80::2]/", true);
        check("", "http://a/", false);
    }

    #[test]
    fn a_password_is_not_shown() {
        let proxies = Proxies::read(|_| Some("http://u:secret@p".to_owned()));
        assert!(!format!("{proxies:?}").contains("secret"));
    }
}
