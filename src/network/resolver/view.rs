//! What the networks of a container know, as their supervisors wrote it: looked at (one stat(2) a network) with each query,
//! and read again when it changed.

use super::records::{Entry, Known, Records};
use crate::endpoint::Link;
use crate::store::Store;
use crate::store::network::member::{self, Stamp};
use crate::store::network::wired::{End, Wired};
use crate::subnet::Subnet;

/// The networks of one container.
#[derive(Debug, Default)]
pub struct View {
    ends: Vec<End>,
    stamps: Vec<Option<Stamp>>,
    records: Records,
}

impl View {
    /// Of a container that is joined so, and has these names of its own for others.
    pub fn new(wired: &Wired, links: &[Link]) -> View {
        let networks = wired.ends.iter().map(|end| {
            let v4 = end.ipv4.map(|(address, prefix)| Subnet::of(address.into(), prefix));
            let v6 = end.ipv6.map(|(address, prefix)| Subnet::of(address.into(), prefix));
            let mut known = Known::new(&end.network, Vec::new());
            (known.subnets, known.is_internal) = (v4.into_iter().chain(v6).collect(), end.internal);
            known
        });
        let links = links.iter().map(|link| (link.alias.clone(), link.target.clone()));
        View {
            records: Records { networks: networks.collect(), links: links.collect() },
            stamps: vec![None; wired.ends.len()],
            ends: wired.ends.clone(),
        }
    }

    /// What they know now. Of a network that cannot be read, what was known before.
    pub fn now(&mut self, store: &Store) -> &Records {
        let networks = self.ends.iter().zip(&mut self.stamps).zip(&mut self.records.networks);
        for ((end, stamp), known) in networks.filter(|((end, _), _)| end.dns) {
            let Some(now) = member::stamp(store, &end.network_id) else { continue };
            if stamp.is_some_and(|then| then.holds(now)) {
                continue;
            }
            let Ok(members) = member::members(store, &end.network_id) else { continue };
            *stamp = Some(now);
            known.replace(members.into_iter().map(|member| {
                let addresses = member.end.addresses().collect();
                Entry { id: member.id, name: member.name, aliases: member.end.aliases, addresses }
            }));
        }
        &self.records
    }
}
