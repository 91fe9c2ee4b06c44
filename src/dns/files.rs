//! /etc/hosts and /etc/resolv.conf. Pure.

use std::collections::HashMap;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::SocketAddrV6;
use std::time::Duration;

/// glibc's MAXNS; more are not asked.
const MAX_SERVERS: usize = 3;

/// More domains than this are not tried: each is a question to each server.
const MAX_SEARCH: usize = 8;

/// resolv.conf(5), as far as it matters to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// Whom to ask, in order.
    pub servers: Vec<SocketAddr>,
    /// Domains that short names are tried in.
    pub search: Vec<String>,
    /// A name with so many dots is tried as it is first.
    pub ndots: usize,
    /// How long a server is waited for.
    pub timeout: Duration,
    /// How often the list is gone through.
    pub attempts: u32,
}

/// Reads resolv.conf; `scope` tells the index of a network interface. Lines that make no sense are passed over, as glibc
/// does; with no server the one on this machine is asked.
pub fn configuration(text: &str, scope: impl Fn(&str) -> Option<u32>) -> Configuration {
    let mut c = Configuration {
        servers: Vec::new(),
        search: Vec::new(),
        ndots: 1,
        timeout: Duration::from_secs(5),
        attempts: 2,
    };
    for line in text.lines() {
        let mut words = line.split_whitespace().take_while(|w| !w.starts_with(['#', ';']));
        match words.next() {
            Some("nameserver") => {
                c.servers.extend(
                    words.next().and_then(|w| server(w, &scope)).filter(|_| c.servers.len() < MAX_SERVERS),
                );
            }
            Some("domain") => c.search = words.take(1).map(domain).collect(),
            Some("search") => c.search = words.take(MAX_SEARCH).map(domain).collect(),
            Some("options") => words.for_each(|w| c.option(w)),
            _ => {}
        }
    }
    c.search.retain(|d| !d.is_empty());
    if c.servers.is_empty() {
        c.servers.push(SocketAddr::from((Ipv4Addr::LOCALHOST, 53)));
    }
    c
}

impl Configuration {
    fn option(&mut self, word: &str) {
        let (name, value) = word.split_once(':').unwrap_or((word, ""));
        let Ok(value) = value.parse::<u32>() else { return };
        match name {
            "ndots" => self.ndots = value.min(15) as usize,
            "timeout" => self.timeout = Duration::from_secs(u64::from(value.clamp(1, 30))),
            "attempts" => self.attempts = value.clamp(1, 5),
            _ => {}
        }
    }

    /// The absolute names that `name` may stand for, the likeliest first.
    pub fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let mut names: Vec<String> = self.search.iter().map(|domain| format!("{name}.{domain}")).collect();
        let as_it_is = if name.matches('.').count() >= self.ndots { 0 } else { names.len() };
        names.insert(as_it_is, name.to_owned());
        names
    }
}

fn domain(word: &str) -> String {
    word.trim_matches('.').to_ascii_lowercase()
}

fn server(word: &str, scope: impl Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    if let Ok(address) = word.parse::<IpAddr>() {
        return Some(SocketAddr::new(address, 53));
    }
    let (address, interface) = word.split_once('%')?;
    let address: Ipv6Addr = address.parse().ok()?;
    Some(SocketAddrV6::new(address, 53, 0, scope(interface)?).into())
}

/// Reads hosts(5): the addresses of each name, in the order of the file.
pub fn hosts(text: &str) -> HashMap<String, Vec<IpAddr>> {
    let mut hosts: HashMap<String, Vec<IpAddr>> = HashMap::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or("").split_whitespace();
        let Some(address) = words.next().and_then(|w| w.parse().ok()) else { continue };
        for name in words {
            let addresses = hosts.entry(name.trim_end_matches('.').to_ascii_lowercase()).or_default();
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_reads_as_glibc_reads_it() {
        let text = "# c\nnameserver 10.0.0.1 # x\n nameserver ::1\nnameserver bad\nnameserver fe80::1%eth0\n\
                    nameserver 10.0.0.4\nsearch A.example. b\noptions ndots:2 timeout:99 attempts:0 edns0\n";
        let c = configuration(text, |name| (name == "eth0").then_some(7));
        let servers: Vec<String> = c.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.1:53", "[::1]:53", "[fe80::1%7]:53"]);
        assert_eq!((c.ndots, c.timeout.as_secs(), c.attempts), (2, 30, 1));
        assert_eq!(c.candidates("x.y"), ["x.y.a.example", "x.y.b", "x.y"]);
        assert_eq!(c.candidates("x.y.z"), ["x.y.z", "x.y.z.a.example", "x.y.z.b"]);
        assert_eq!(c.candidates("x."), ["x"]);
        let none = configuration("", |_| None);
        assert_eq!(none.servers, ["127.0.0.1:53".parse().unwrap()]);
        assert_eq!(none.candidates("x"), ["x"]);
    }

    #[test]
    fn hosts_may_have_several_addresses() {
        let found = hosts(
            "127.0.0.1 localhost Reg.Test. # reg2\n::1 localhost\n127.0.0.1 localhost\nbad x\n\n1.2.3.4\n",
        );
        assert_eq!(found["localhost"], ["127.0.0.1".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
        assert_eq!(found["reg.test"].len(), 1);
        assert_eq!(found.len(), 2);
    }
}
