//! Networks in the kernel: bridges, pairs of links, addresses, the firewall, all through netlink.
//!
//! A [`Plan`] is pure data: what one container's joining comes to, from its wiring, the records of its networks and the
//! addresses that it has claimed. `apply` and `undo` bring it about in a [`Place`], the name space whose bridges join the
//! containers: the machine's own for root, for a user the one that all their containers share. The code beneath is the same
//! for both; a place is nothing but sockets made there.

pub mod etc;
pub mod linked;
pub mod netlink;
pub mod plan;
pub mod resolver;
