//! Which name space the bridges of a store are in.

use anyhow::Result;

use super::apply::Place;
use super::forward::hold::{self, Given, Hold};
use crate::host::Ids;
use crate::store::Store;

/// The place of this store's containers, and for a user's what keeps it there.
pub fn of(store: &Store) -> Result<(Place, Option<Hold>)> {
    match store.ids {
        Ids::Root => Ok((Place::ours()?, None)),
        _ => hold::find(&store.data).map(|(hold, given)| (shared(given), Some(hold))),
    }
}

/// The place of this store's containers, if there is one.
pub fn if_any(store: &Store) -> Result<Option<(Place, Option<Hold>)>> {
    match store.ids {
        Ids::Root => Ok(Some((Place::ours()?, None))),
        _ => Ok(hold::look(&store.data)?.map(|(hold, given)| (shared(given), Some(hold)))),
    }
}

/// The one that a user's containers share.
fn shared(given: Given) -> Place {
    Place { route: given.route.into(), filter: given.netfilter.into(), outside: Some(hold::OUTSIDE) }
}
