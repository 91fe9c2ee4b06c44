//! Host names to addresses: /etc/hosts, then the name servers of /etc/resolv.conf.
//!
//! Our own, because a static glibc's getaddrinfo(3) wants to load the machine's NSS modules. nsswitch.conf is not read.

mod query;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use ureq::unversioned::resolver::ResolvedSocketAddrs;
use ureq::unversioned::transport::NextTimeout;

use crate::dns;
use crate::dns::Configuration;

use super::url::split_authority;
use query::Answer;

/// A name is given up after this long, however many servers and domains there are.
const LIMIT: Duration = Duration::from_secs(30);

/// What ureq keeps of the addresses of a host.
const MAX_ADDRESSES: usize = 16;

/// The resolver of one run: the files are read at the first name, and what was found is kept.
/// Clones share both.
#[derive(Clone, Default)]
pub struct Resolver {
    files: Arc<OnceLock<Files>>,
    found: Arc<Mutex<HashMap<String, Vec<IpAddr>>>>,
}

/// What the two files say: hosts, and whom to ask for others.
type Files = (HashMap<String, Vec<IpAddr>>, Configuration);

/// Why a host has no address.
#[derive(Debug, thiserror::Error)]
#[error("cannot resolve {host}: {why}")]
pub struct Unresolved {
    /// The name.
    pub host: String,
    /// The reason.
    pub why: String,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl ureq::unversioned::resolver::Resolver for Resolver {
    fn resolve(
        &self,
        uri: &ureq::http::Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let authority = uri.authority().map_or("", |a| a.as_str());
        // A proxy's address may carry its password in front.
        let authority = authority.rsplit('@').next().unwrap_or(authority);
        let (host, port) = split_authority(authority).ok_or(ureq::Error::HostNotFound)?;
        let default = match uri.scheme_str() {
            Some("https") => 443,
            Some(s) if s.starts_with("socks") => 1080,
            _ => 80,
        };
        let addresses = self.addresses(host).map_err(|e| ureq::Error::Other(Box::new(e)))?;
        let mut resolved = self.empty();
        for address in addresses.into_iter().take(MAX_ADDRESSES) {
            resolved.push(SocketAddr::new(address, port.unwrap_or(default)));
        }
        Ok(resolved)
    }
}

impl Resolver {
    /// The addresses of a host, at least one, the ones to try first in front.
    pub fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Unresolved> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let host = host.to_ascii_lowercase();
        let found = || self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(addresses) = found().get(&host) {
            return Ok(addresses.clone());
        }
        let unresolved = |why: String| Unresolved { host: host.clone(), why };
        let (hosts, configuration) = self.files();
        let addresses = match hosts.get(host.trim_end_matches('.')) {
            Some(addresses) => addresses.clone(),
            None if is_localhost(&host) => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            None => sorted(ask_all(configuration, &host).map_err(unresolved)?),
        };
        found().insert(host, addresses.clone());
        Ok(addresses)
    }

    fn files(&self) -> &Files {
        self.files.get_or_init(|| (dns::hosts_of_machine(), dns::configuration_of_machine("")))
    }
}

/// `localhost` and everything beneath it is this machine (RFC 6761 section 6.3).
fn is_localhost(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    host == "localhost" || host.ends_with(".localhost")
}

/// Goes through names, rounds and servers; the error says why nothing was found.
fn ask_all(configuration: &Configuration, host: &str) -> Result<Vec<IpAddr>, String> {
    let deadline = Instant::now() + LIMIT;
    let mut why = None;
    for name in configuration.candidates(host) {
        match ask_servers(configuration, &name, deadline) {
            Ok(addresses) if !addresses.is_empty() => return Ok(addresses),
            Ok(_) => {}
            // No server: the next name would fare no better.
            Err(e) => {
                why = Some(e);
                break;
            }
        }
    }
    Err(why.unwrap_or_else(|| "there is no such host".to_owned()))
}

/// The addresses of one absolute name; none where the servers say that there are none.
fn ask_servers(configuration: &Configuration, name: &str, deadline: Instant) -> Result<Vec<IpAddr>, String> {
    let mut why = String::new();
    for _ in 0..configuration.attempts {
        for server in &configuration.servers {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("no answer within {} seconds: {why}", LIMIT.as_secs()));
            }
            match query::ask(*server, name, configuration.timeout.min(left)) {
                Ok(Answer::Addresses(addresses)) => return Ok(addresses),
                Ok(Answer::NoSuchName) => return Ok(Vec::new()),
                Ok(Answer::Failed | Answer::Truncated) => why = format!("name server {} failed", server.ip()),
                Err(e) => why = format!("name server {} does not answer: {e}", server.ip()),
            }
        }
    }
    Err(why)
}

/// IPv6 first only where there is a way there; connecting a datagram socket asks the kernel and sends nothing.
fn sorted(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let v6 = addresses.iter().find(|a| a.is_ipv6());
    let has_way = v6.is_some_and(|address| {
        UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).and_then(|s| s.connect((*address, 9))).is_ok()
    });
    addresses.sort_by_key(|address| address.is_ipv6() != has_way);
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_localhost_need_nobody() {
        let resolver = Resolver::default();
        resolver.files.set((dns::hosts("10.0.0.9 reg.test\n"), dns::configuration("", |_| None))).unwrap();
        let check = |host: &str, want: &[&str]| {
            let got: Vec<String> =
                resolver.addresses(host).unwrap().iter().map(ToString::to_string).collect();
            assert_eq!(got, want, "{host}");
        };
        check("127.0.0.1", &["127.0.0.1"]);
        check("::1", &["::1"]);
        check("localhost", &["127.0.0.1", "::1"]);
        check("x.localhost.", &["127.0.0.1", "::1"]);
        check("Reg.Test", &["10.0.0.9"]);
        check("reg.test.", &["10.0.0.9"]);
    }
}
