//! What a supervisor that was killed left: found by whoever has taken the container's lock since.

use anyhow::Result;

use super::{apply, place, plan};
use crate::store::Store;
use crate::store::container::ContainerDir;
use crate::store::network::claim;
use crate::store::network::wired::{self, Wired};

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

/// Gives its addresses back.
pub fn free(store: &Store, wired: &Wired) -> Result<()> {
    for end in &wired.ends {
        for address in end.addresses() {
            claim::free(store, &end.network_id, address, &wired.container)?;
        }
    }
    Ok(())
}
