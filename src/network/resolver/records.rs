//! Who is known on which network, and whom a name or an address means. Pure.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::subnet::Subnet;

/// All that a container can look up.
#[derive(Debug, Clone, Default)]
pub struct Records {
    /// Its networks, in its own order: the first one that knows a name decides.
    pub networks: Vec<Known>,
    /// Names that only this container has for others: the name, and what it stands for.
    pub links: Vec<(String, String)>,
}

/// Who is known on one network.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The network's name.
    pub network: String,
    /// Its addresses.
    pub subnets: Vec<Subnet>,
    /// It leads nowhere outside.
    pub is_internal: bool,
    entries: Vec<Entry>,
    by_name: HashMap<Box<[u8]>, Vec<u32>>,
}

/// A container on a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// The container's id.
    pub id: String,
    /// Its name: what its addresses are called.
    pub name: String,
    /// What else it is called there.
    pub aliases: Vec<String>,
    /// Its addresses there.
    pub addresses: Vec<IpAddr>,
}

/// Of an id, so much is a name.
const SHORT_ID: usize = 12;

/// How deep a link may lead to another.
const MAX_HOPS: usize = 4;

impl Known {
    /// A network of this name with these containers.
    pub fn new(network: &str, entries: Vec<Entry>) -> Known {
        let mut known = Known { network: network.to_owned(), ..Known::default() };
        known.replace(entries);
        known
    }

    /// Other containers are there now.
    pub fn replace(&mut self, entries: impl IntoIterator<Item = Entry>) {
        self.entries = entries.into_iter().collect();
        self.by_name.clear();
        for (at, entry) in (0..).zip(&self.entries) {
            let short = entry.id.get(..SHORT_ID);
            let names =
                entry.aliases.iter().map(String::as_str).chain([&*entry.name, &*entry.id]).chain(short);
            for name in names.filter(|name| !name.is_empty()) {
                let of_name = self.by_name.entry(key(name).into()).or_default();
                if of_name.last() != Some(&at) {
                    of_name.push(at);
                }
            }
        }
    }

    /// Who is there.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn called(&self, name: &[u8]) -> impl Iterator<Item = &Entry> {
        self.by_name.get(name).into_iter().flatten().filter_map(|at| self.entries.get(*at as usize))
    }

    fn has(&self, address: IpAddr) -> bool {
        self.subnets.iter().any(|subnet| subnet.contains(address))
    }
}

/// How a name is compared: without regard to case, and to a dot at its end.
pub fn key(name: &str) -> Vec<u8> {
    name.trim_end_matches('.').to_ascii_lowercase().into_bytes()
}

impl Records {
    /// Whether others may be asked what we do not know: a network of the container leads outside.
    pub fn may_forward(&self) -> bool {
        self.networks.iter().any(|known| !known.is_internal)
    }

    /// Whether an address is on one of the networks.
    pub fn is_inside(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|known| known.has(address))
    }

    /// Whom a name means, which is as [`key`] makes it: the living ones on the first network that has one. `NAME.NETWORK` is
    /// a name too.
    pub fn find(&self, name: &[u8], is_alive: &mut dyn FnMut(&Entry) -> bool) -> Vec<&Entry> {
        let mut name = name.to_vec();
        for _ in 0..MAX_HOPS {
            let linked = self.links.iter().find(|(alias, target)| key(alias) == name && key(target) != name);
            let Some((_, target)) = linked else { break };
            name = key(target);
        }
        let as_it_is = self.networks.iter().map(|known| (known, Some(&name[..])));
        let with_network = self.networks.iter().map(|known| {
            let rest = name.strip_suffix(&*key(&known.network)).and_then(|rest| rest.strip_suffix(b"."));
            (known, rest)
        });
        for (known, name) in as_it_is.chain(with_network) {
            let Some(name) = name else { continue };
            let found: Vec<&Entry> = known.called(name).filter(|entry| is_alive(entry)).collect();
            if !found.is_empty() {
                return found;
            }
        }
        Vec::new()
    }

    /// The name of an address; an empty one where the address is one of our networks', and nobody's.
    pub fn name_of(&self, address: IpAddr, is_alive: &mut dyn FnMut(&Entry) -> bool) -> Option<String> {
        let of = |known: &Known, entry: &Entry| format!("{}.{}", entry.name, known.network);
        for known in &self.networks {
            let owner = known.entries.iter().find(|e| e.addresses.contains(&address) && is_alive(e));
            if let Some(entry) = owner {
                return Some(of(known, entry));
            }
        }
        self.is_inside(address).then(String::new)
    }
}

/// The address that a name of the reverse tree stands for (RFC 1035, 3.5; RFC 3596, 2.5).
pub fn reversed(name: &[u8]) -> Option<IpAddr> {
    let name = std::str::from_utf8(name).ok()?;
    if let Some(digits) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0; 4];
        let mut words = digits.split('.');
        for octet in octets.iter_mut().rev() {
            *octet = words.next()?.parse().ok()?;
        }
        return words.next().is_none().then(|| IpAddr::V4(Ipv4Addr::from(octets)));
    }
    let mut nibbles = name.strip_suffix(".ip6.arpa")?.split('.');
    let mut value = 0u128;
    for at in 0..32 {
        let nibble = nibbles.next().filter(|word| word.len() == 1)?;
        value |= u128::from(nibble.chars().next()?.to_digit(16)?) << (4 * at);
    }
    nibbles.next().is_none().then(|| IpAddr::V6(Ipv6Addr::from(value)))
}
