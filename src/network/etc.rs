//! /etc/hosts and /etc/resolv.conf of a container, as text. Pure.

use std::net::IpAddr;

/// What /etc/hosts says.
#[derive(Debug, Clone, Default)]
pub struct Hosts<'a> {
    /// The machine's own file, where the container is on the machine's network: its names hold there.
    pub of_machine: Option<&'a str>,
    /// The container's host name.
    pub hostname: &'a str,
    /// Its domain.
    pub domainname: Option<&'a str>,
    /// Its addresses; without any, the name stands for the loopback device.
    pub addresses: Vec<IpAddr>,
    /// Those it is linked to: an address and the names for it.
    pub links: Vec<(IpAddr, Vec<String>)>,
    /// --add-host: the name, and an address or [`HOST_GATEWAY`].
    pub added: &'a [(String, String)],
    /// The machine as the container reaches it.
    pub gateways: Vec<IpAddr>,
}

/// The address of `--add-host` that stands for the machine's, as the container reaches it.
pub const HOST_GATEWAY: &str = "host-gateway";

const LOCAL: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
                     ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

impl Hosts<'_> {
    /// The file. A name that has several addresses has several lines.
    pub fn text(&self) -> String {
        let mut text = self.of_machine.unwrap_or(LOCAL).to_owned();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        if self.of_machine.is_none() {
            let own = match self.domainname {
                Some(domain) => format!("{0}.{domain} {0}", self.hostname),
                None => self.hostname.to_owned(),
            };
            for address in &self.addresses {
                text.push_str(&format!("{address}\t{own}\n"));
            }
            if self.addresses.is_empty() {
                text.push_str(&format!("127.0.1.1\t{own}\n"));
            }
        }
        for (address, names) in &self.links {
            text.push_str(&format!("{address}\t{}\n", names.join(" ")));
        }
        for (name, address) in self.added {
            if address == HOST_GATEWAY {
                self.gateways.iter().for_each(|gateway| text.push_str(&format!("{gateway}\t{name}\n")));
            } else {
                text.push_str(&format!("{address}\t{name}\n"));
            }
        }
        text
    }
}

/// What /etc/resolv.conf says.
#[derive(Debug, Clone, Default)]
pub struct ResolvConf<'a> {
    /// The machine's own.
    pub of_machine: &'a str,
    /// The name servers, in place of the machine's; those where there are none.
    pub servers: &'a [String],
    /// --dns-search: in place of the machine's; `.` alone is none at all.
    pub search: &'a [String],
    /// --dns-option: in place of the machine's.
    pub options: &'a [String],
    /// Short names are to be asked as they are first: our resolver knows them, and no search list is to get in between.
    pub has_own_resolver: bool,
}

impl ResolvConf<'_> {
    /// The file.
    pub fn text(&self) -> String {
        let is_kept = |line: &&str| match line.split_whitespace().next().unwrap_or_default() {
            "nameserver" => self.servers.is_empty(),
            "search" | "domain" => self.search.is_empty(),
            "options" => self.options.is_empty(),
            // What the machine's file says of itself does not hold for this one.
            word => !self.has_own_resolver && !word.is_empty(),
        };
        let mut lines: Vec<String> = self.of_machine.lines().filter(is_kept).map(str::to_owned).collect();
        lines.extend(self.servers.iter().map(|server| format!("nameserver {server}")));
        if !self.search.is_empty() && self.search != ["."] {
            lines.push(format!("search {}", self.search.join(" ")));
        }
        if !self.options.is_empty() {
            lines.push(format!("options {}", self.options.join(" ")));
        }
        let is_ndots = |line: &String| line.starts_with("options") && line.contains("ndots:");
        if self.has_own_resolver && !lines.iter().any(is_ndots) {
            lines.push("options ndots:0".to_owned());
        }
        lines.iter().fold(String::new(), |text, line| text + line + "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn hosts() {
        let added =
            [("db".to_owned(), "10.0.0.9".to_owned()), ("machine".to_owned(), HOST_GATEWAY.to_owned())];
        let base = Hosts { hostname: "web", added: &added, ..Hosts::default() };
        let check = |hosts: Hosts<'_>, want: &str| {
            let text = hosts.text();
            let rest = text.strip_prefix(LOCAL).unwrap_or(&text);
            assert_eq!(rest.replace('\t', " "), want);
        };
        check(base.clone(), "127.0.1.1 web\n10.0.0.9 db\n");
        let addresses = vec!["10.1.0.2".parse().unwrap(), "fd01::2".parse().unwrap()];
        let gateways: Vec<IpAddr> = vec!["10.1.0.1".parse().unwrap(), "fd01::1".parse().unwrap()];
        let links = vec![("10.1.0.3".parse().unwrap(), words(&["ldap", "0123456789ab", "ldap.cont"]))];
        check(
            Hosts { addresses, gateways, links, domainname: Some("example"), ..base.clone() },
            "10.1.0.2 web.example web\nfd01::2 web.example web\n10.1.0.3 ldap 0123456789ab ldap.cont\n\
             10.0.0.9 db\n10.1.0.1 machine\nfd01::1 machine\n",
        );
        check(Hosts { of_machine: Some("1.2.3.4 m"), ..base }, "1.2.3.4 m\n10.0.0.9 db\n");
    }

    #[test]
    fn resolv_conf() {
        let machine =
            "# made by x\nnameserver 127.0.0.53\noptions edns0 trust-ad\nsearch a.example b.example\n";
        let own = words(&["127.0.0.11"]);
        let check = |conf: ResolvConf<'_>, want: &str| assert_eq!(conf.text(), want);
        let plain = ResolvConf { of_machine: machine, ..ResolvConf::default() };
        check(plain.clone(), machine);
        let ours = ResolvConf { servers: &own, has_own_resolver: true, ..plain.clone() };
        check(
            ours.clone(),
            "options edns0 trust-ad\nsearch a.example b.example\nnameserver 127.0.0.11\noptions ndots:0\n",
        );
        let (search, options) = (words(&["c", "d"]), words(&["ndots:3", "timeout:1"]));
        check(
            ResolvConf { search: &search, options: &options, ..ours.clone() },
            "nameserver 127.0.0.11\nsearch c d\noptions ndots:3 timeout:1\n",
        );
        check(
            ResolvConf { search: &words(&["."]), ..ours },
            "options edns0 trust-ad\nnameserver 127.0.0.11\noptions ndots:0\n",
        );
        check(
            ResolvConf { servers: &words(&["10.0.0.1"]), ..plain },
            "# made by x\noptions edns0 trust-ad\nsearch a.example b.example\nnameserver 10.0.0.1\n",
        );
    }
}
