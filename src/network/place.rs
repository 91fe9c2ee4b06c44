//! Which name space the bridges of a store are in.

use anyhow::{Result, anyhow};

use super::apply::Place;
use crate::error::ResultExt;
use crate::host::Ids;
use crate::store::Store;

/// The place of this store's containers.
pub fn of(store: &Store) -> Result<Place> {
    match store.ids {
        Ids::Root => Place::ours(),
        _ => Err(anyhow!("cannot join a user's container to networks")).hint("use --network host, or none"),
    }
}
