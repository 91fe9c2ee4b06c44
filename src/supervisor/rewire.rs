//! Changing how a container that runs is joined: `network connect`, `disconnect` and `reload`.
//!
//! The record says what is wanted, and this makes it so, whatever it is now: so what went wrong half way is taken back by the
//! same call, once the record says again what it said before.

use anyhow::{Context, Result};

use super::network::{Joined, claim_end};
use super::serve::Supervised;
use crate::network::netlink::Socket;
use crate::network::plan::Plan;
use crate::network::{apply, create, heal};
use crate::store::Store;
use crate::store::container::{ContainerDir, Record};
use crate::store::network::Network;
use crate::store::network::wired::{self, End, Wired};

impl Supervised {
    /// Makes it so that the container is in the networks that its record names.
    pub fn rewire(&mut self) -> Result<()> {
        self.record = self.dir.record()?;
        let Supervised { store, dir, record, joined, running, .. } = self;
        let Some(joined) = joined else { return Ok(()) };
        let pid = running.as_ref().map(|running| running.init.pid);
        let changed = joined.rewire(store, dir, record, pid);
        // What came of it is told also where not all did.
        if let Some(names) = running.as_mut().and_then(|running| running.names.as_mut()) {
            names.rejoin(store, dir, record, joined.wired())?;
        }
        changed
    }
}

impl Joined {
    /// The same; `pid` is that of its init, where it runs.
    fn rewire(&mut self, store: &Store, dir: &ContainerDir, record: &Record, pid: Option<i32>) -> Result<()> {
        let before = self.plan();
        let wanted: Vec<&str> = record.wiring.endpoints.iter().map(|end| end.network.as_str()).collect();
        let added = self.claim_added(store, record)?;
        let added_names: Vec<String> = added.iter().map(|(end, _)| end.network.clone()).collect();
        let all = std::mem::take(&mut self.wired.ends).into_iter().zip(std::mem::take(&mut self.networks));
        let (kept, gone): (Vec<_>, Vec<_>) = all.partition(|(end, _)| wanted.contains(&end.network.as_str()));
        let mut ends: Vec<(End, Network)> = kept.into_iter().chain(added).collect();
        ends.sort_by_key(|(end, _)| wanted.iter().position(|name| *name == end.network));
        (self.wired.ends, self.networks) = ends.into_iter().unzip();
        wired::write(store, dir, &self.wired)?;
        let gone = Wired { ends: gone.into_iter().map(|(end, _)| end).collect(), ..self.wired.clone() };
        let brought = match pid {
            Some(pid) => self.bring_about(&before, &gone, &added_names, pid),
            None => Ok(()),
        };
        heal::free(store, &gone)?;
        brought
    }

    /// Addresses for the networks that are new; all of them or none.
    fn claim_added(&mut self, store: &Store, record: &Record) -> Result<Vec<(End, Network)>> {
        let mut added: Vec<(End, Network)> = Vec::new();
        for endpoint in &record.wiring.endpoints {
            if self.wired.ends.iter().any(|end| end.network == endpoint.network) {
                continue;
            }
            let so_far =
                Wired { ends: added.iter().map(|(end, _)| end.clone()).collect(), ..self.wired.clone() };
            let names = self.wired.ends.iter().chain(&so_far.ends).map(|end| end.interface.as_str());
            let name = free_name(&names.collect::<Vec<_>>());
            let claimed = create::ensure(store, &endpoint.network).and_then(|network| {
                let end = claim_end(store, record, endpoint, &network, name, &so_far)?;
                Ok((end, network))
            });
            match claimed {
                Ok(one) => added.push(one),
                Err(error) => {
                    let _ = heal::free(store, &so_far);
                    return Err(error);
                }
            }
        }
        Ok(added)
    }

    /// Links, routes, rules and ports, from what they were to what is wanted now.
    fn bring_about(&mut self, before: &Plan, gone: &Wired, added: &[String], pid: i32) -> Result<()> {
        let after = self.plan();
        let inside = self.inside.as_ref().context("the container has no network name space of its own")?;
        let route = Socket::from(inside.route.try_clone().context("cannot copy a socket")?);
        let links = |wired: &Wired| wired.ends.iter().map(|end| end.link.clone()).collect::<Vec<_>>();
        let only = |plan: &Plan, links: &[String]| Plan {
            joins: plan.joins.iter().filter(|join| links.contains(&join.link)).cloned().collect(),
            devices: plan.devices.iter().filter(|on| links.contains(&on.join.link)).cloned().collect(),
            ports: Vec::new(),
        };
        let leaving = only(before, &links(gone));
        if !leaving.joins.is_empty() {
            apply::undo(&self.place, &leaving)?;
        }
        apply::remove_inside(&leaving, &route)?;
        let new: Vec<String> = self
            .wired
            .ends
            .iter()
            .filter(|end| added.contains(&end.network))
            .map(|end| end.link.clone())
            .collect();
        let coming = only(&after, &new);
        if coming != Plan::default() {
            apply::apply(&self.place, &coming, pid, &route)
                .context("cannot join the container to its networks")?;
        }
        let staying: Vec<String> =
            links(&self.wired).into_iter().filter(|link| !new.contains(link)).collect();
        apply::rejoin(&self.place, &only(&after, &staying), pid, &route)?;
        if before.ports != after.ports {
            apply::unpublish(&self.place, before)?;
        }
        apply::reassert(&self.place, &after)?;
        self.lead(&after)
    }
}

/// The first of `eth0`, `eth1`... that no interface has.
pub(super) fn free_name(taken: &[&str]) -> String {
    (0..).map(|n| format!("eth{n}")).find(|name| !taken.contains(&name.as_str())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_was_given_back_is_given_again() {
        assert_eq!(free_name(&[]), "eth0");
        assert_eq!(free_name(&["eth0", "eth2"]), "eth1");
        assert_eq!(free_name(&["lan"]), "eth0");
    }
}
