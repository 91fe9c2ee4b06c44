//! Networks in the kernel: bridges, pairs of links, addresses, the firewall, all through netlink.
//!
//! A [`plan::Plan`] is pure data: what one container's joining comes to, from its wiring, the records of its networks and
//! the addresses that it has claimed. [`apply`] brings it about, and undoes it, in a [`apply::Place`], the name space whose
//! bridges join the containers: the machine's own for root, for a user the one that all their containers share. The code
//! beneath is the same for both: a place is nothing but sockets made there.
//!
//! What a start costs: look for the bridge, make the pair, look at its number inside, addresses and routes inside, look
//! whether the firewall is whole, add to it: six calls, whatever runs beside it.

pub mod apply;
pub mod create;
pub mod etc;
pub mod firewall;
pub mod forward;
pub mod heal;
pub mod link;
pub mod linked;
pub mod netlink;
pub mod place;
pub mod plan;
pub mod pool;
pub mod resolver;
