//! What a supervisor that was killed left: found by whoever has taken the container's lock since.

use anyhow::Result;

use super::apply::Place;
use super::{apply, place, plan};
use crate::store::Store;
use crate::store::container::{self, ContainerDir};
use crate::store::network::wired::{self, Wired};
use crate::store::network::{self, claim};

/// Frees addresses, links, ports and rules of a container that is dead, whose lock the caller holds. Nothing to do for most.
pub fn heal(store: &Store, dir: &ContainerDir) -> Result<()> {
    let Some(wired) = wired::read(dir)? else { return Ok(()) };
    if let Ok(Some((place, _hold))) = place::if_any(store) {
        // Whatever cannot be undone here is met again by whoever gets the same port or address.
        let _ = apply::undo(&place, &plan::leftover(&wired));
    }
    free(store, &wired)?;
    wired::forget(dir)
}

/// Makes the bridges and rules of all containers that live whole again, but for the one that is just being joined.
pub fn restore(store: &Store, place: &Place, but: &str) -> Result<()> {
    for id in container::ids(store)?.into_iter().filter(|id| id != but) {
        let dir = ContainerDir::of(store, &id);
        if !wired::is_noted(&dir) || !dir.status().is_ok_and(|status| status.is_alive()) {
            continue;
        }
        let Ok(Some(wired)) = wired::read(&dir) else { continue };
        let networks = wired.ends.iter().map(|end| network::look_up(store, &end.network));
        let networks: Vec<_> = networks.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        if networks.len() == wired.ends.len() {
            let is_trusted = wired.ends.iter().any(|end| end.link.starts_with(plan::TRUSTED));
            // One that cannot be helped is not to keep the others from it.
            let _ = apply::reassert(place, &plan::plan(&wired, &networks, is_trusted));
        }
    }
    Ok(())
}

/// Gives its addresses back.
pub fn free(store: &Store, wired: &Wired) -> Result<()> {
    for end in &wired.ends {
        for address in end.addresses() {
            claim::free(store, &end.network_id, address, &wired.container)?;
        }
    }
    Ok(())
}
