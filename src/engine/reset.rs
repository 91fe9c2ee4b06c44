//! reset: nothing is left of the store but its directory.

use anyhow::{Context, Result, bail};

use super::{Engine, reap};
use crate::fs;
use crate::network::{apply, place, plan};
use crate::store::container::{self, ContainerDir};
use crate::store::gc;
use crate::store::network;

/// Removes everything. An error, with nothing removed, while a container runs.
pub fn reset(engine: &Engine) -> Result<()> {
    let store = &engine.store;
    for id in container::ids(store)? {
        let dir = ContainerDir::of(store, &id);
        if reap::decided(store, &dir).is_ok_and(|status| status.is_alive()) {
            bail!("cannot reset the store: container {} is running", &id[..12.min(id.len())]);
        }
    }
    // Whoever is publishing comes to an end first; whoever comes later finds an empty store.
    let _alone = gc::exclusive(store)?;
    // Of a network that was made and never joined, or in a place that is gone, there is nothing to remove.
    if let Ok(Some((place, _hold))) = place::if_any(store) {
        for network in network::list(store)? {
            let _ = apply::remove_network(&place, &plan::bridge(&network));
        }
    }
    // By name: the directory may be one where other things lie, too.
    for name in crate::store::ENTRIES {
        let path = store.data.join(name);
        let is_dir = fs::symlink_metadata(&path)?.is_some_and(|meta| meta.is_dir());
        let removed = if is_dir { fs::remove_tree(&path) } else { fs::remove_file(&path) };
        removed.context("cannot reset the store")?;
    }
    Ok(())
}
