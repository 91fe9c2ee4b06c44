//! Which name space the bridges of a store are in: our own network name space if we may change that, else one that all of a
//! user's containers share.

use anyhow::Result;

use super::apply::Place;
use super::forward::hold::{self, Given, Hold};
use crate::host::{Host, Ids};
use crate::store::Store;
use crate::sys::net;

/// Whether the containers of this caller, who has not entered a user name space yet, are in one that they share. Root of a
/// user's container is root of that container's network, and needs none.
pub fn is_shared(host: &Host) -> bool {
    host.is_rootless() || (host.ids != Ids::Root && !net::owns_network())
}

/// The place of this store's containers, and for a user's what keeps it there.
pub fn of(store: &Store) -> Result<(Place, Option<Hold>)> {
    if is_ours(store) {
        return Ok((Place::ours()?, None));
    }
    hold::find(&store.data).map(|(hold, given)| (shared(given), Some(hold)))
}

/// The place of this store's containers, if there is one.
pub fn if_any(store: &Store) -> Result<Option<(Place, Option<Hold>)>> {
    if is_ours(store) {
        return Ok(Some((Place::ours()?, None)));
    }
    Ok(hold::look(&store.data)?.map(|(hold, given)| (shared(given), Some(hold))))
}

/// The same as `!is_shared`, for those who are root of a user name space by now: a user's own has nothing of the network
/// that the user is in. A user who has not entered one is shown the machine's network as its own, but is not root.
fn is_ours(store: &Store) -> bool {
    store.ids == Ids::Root || (rustix::process::geteuid().is_root() && net::owns_network())
}

/// The one that a user's containers share.
fn shared(given: Given) -> Place {
    Place { route: given.route.into(), filter: given.netfilter.into(), outside: Some(hold::OUTSIDE) }
}
