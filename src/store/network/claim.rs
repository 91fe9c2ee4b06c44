//! Claims of addresses: `networks/claims/ID/ADDRESS` is a symlink to the id of the container that has it.
//!
//! The lowest address that is free is given, so that the first container of a network has the first. Nobody waits for
//! anybody: symlink(2) decides, and who loses takes the next.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};

use super::{Network, Pool};
use crate::error::ResultExt;
use crate::fs;
use crate::store::Store;
use crate::store::container::ContainerDir;
use crate::sys::lock::{self, Kind};

/// Where the claims of a network lie.
pub(super) fn dir(store: &Store, network: &Network) -> PathBuf {
    dir_of(store, &network.id)
}

pub(super) fn dir_of(store: &Store, network_id: &str) -> PathBuf {
    store.data.join("networks/claims").join(network_id)
}

/// Claims an address of `pool` for the container `id`: `wanted` if one was asked for, the lowest free one otherwise.
pub fn take(
    store: &Store,
    network: &Network,
    pool: &Pool,
    wanted: Option<IpAddr>,
    id: &str,
) -> Result<IpAddr> {
    let dir = dir(store, network);
    fs::create_dir_all(&dir, 0o700)?;
    match wanted {
        Some(address) => take_this(store, network, pool, address, id).map(|()| address),
        None => take_any(store, network, pool, id),
    }
}

/// Whether no container may have it.
fn is_reserved(pool: &Pool, address: IpAddr) -> bool {
    let is_edge = !pool.subnet.is_v6()
        && pool.subnet.prefix() < 31
        && (address == pool.subnet.address() || address == pool.subnet.broadcast());
    is_edge || pool.gateway == Some(address) || pool.reserved.values().any(|reserved| *reserved == address)
        // The subnet-router anycast address (RFC 4291, 2.6.1).
        || (pool.subnet.is_v6() && address == pool.subnet.address())
}

fn take_this(store: &Store, network: &Network, pool: &Pool, address: IpAddr, id: &str) -> Result<()> {
    let about = || format!("cannot use the address {address} in network {}", network.name);
    if !pool.subnet.contains(address) {
        return Err(anyhow!("its subnet is {}", pool.subnet)).with_context(about);
    }
    if is_reserved(pool, address) {
        return Err(anyhow!("it is the gateway's, or reserved")).with_context(about);
    }
    loop {
        if claim(store, network, address, id)? {
            return Ok(());
        }
        let Some(owner) = owner(store, &network.id, address)? else { continue };
        if owner == id {
            return Ok(());
        }
        if is_alive(store, &owner)? {
            let name = ContainerDir::of(store, &owner).record().map_or(owner, |record| record.name);
            return Err(anyhow!("container {name} has it")).with_context(about);
        }
        free_if_dead(store, &network.id, address)?;
    }
}

fn take_any(store: &Store, network: &Network, pool: &Pool, id: &str) -> Result<IpAddr> {
    let range = pool.range.unwrap_or(pool.subnet);
    for is_second_look in [false, true] {
        let taken = taken(store, network)?;
        // No more than those that are taken, reserved, or lost to others meanwhile are looked at in vain.
        let mut n = 0;
        while let Some(address) = range.nth(n) {
            n += 1;
            if !taken.contains(&address) && !is_reserved(pool, address) && claim(store, network, address, id)?
            {
                return Ok(address);
            }
        }
        if !is_second_look {
            free_dead(store, network)?;
        }
    }
    Err(anyhow!("cannot join network {}: all addresses of {range} are taken", network.name))
        .hint("remove containers that are not needed, or make a network with a larger --subnet")
}

fn taken(store: &Store, network: &Network) -> Result<BTreeSet<IpAddr>> {
    let names = fs::read_dir(&dir(store, network))?;
    Ok(names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect())
}

fn claim(store: &Store, network: &Network, address: IpAddr, id: &str) -> Result<bool> {
    let path = dir(store, network).join(address.to_string());
    match fs::symlink(id.as_ref(), &path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot claim {}", path.display())),
    }
}

/// Who has the address.
fn owner(store: &Store, network_id: &str, address: IpAddr) -> Result<Option<String>> {
    let path = dir_of(store, network_id).join(address.to_string());
    Ok(fs::read_link(&path)?.map(|target| target.to_string_lossy().into_owned()))
}

pub(super) fn is_alive(store: &Store, id: &str) -> Result<bool> {
    let dir = ContainerDir::of(store, id);
    if fs::metadata(&dir.file("lock"))?.is_none() {
        return Ok(false);
    }
    lock::is_held(&dir.open_lock()?).context("cannot look at a container's lock")
}

/// Gives an address back, if it is `id`'s, whose lock the caller holds.
pub fn free(store: &Store, network_id: &str, address: IpAddr, id: &str) -> Result<()> {
    if owner(store, network_id, address)?.as_deref() != Some(id) {
        return Ok(());
    }
    fs::remove_file(&dir_of(store, network_id).join(address.to_string()))
}

/// Gives back what containers that are dead have claimed.
pub fn free_dead(store: &Store, network: &Network) -> Result<()> {
    taken(store, network)?.into_iter().try_for_each(|address| free_if_dead(store, &network.id, address))
}

/// One at a time: of two who found the same dead owner, the slower must not take the claim of the faster.
fn free_if_dead(store: &Store, network_id: &str, address: IpAddr) -> Result<()> {
    let path = store.data.join("networks/claims.lock");
    let file = fs::open_or_create(&path, 0o600)?;
    lock::acquire(&file, Kind::Exclusive).with_context(|| format!("cannot lock {}", path.display()))?;
    match owner(store, network_id, address)? {
        Some(owner) if !is_alive(store, &owner)? => free(store, network_id, address, &owner),
        _ => Ok(()),
    }
}

/// Who is in a network now: address and container id. What is returned may be dying: [`super::wired`] says more.
pub fn members(store: &Store, network: &Network) -> Result<Vec<(IpAddr, String)>> {
    let mut members = Vec::new();
    for address in taken(store, network)? {
        if let Some(owner) = owner(store, &network.id, address)? {
            members.push((address, owner));
        }
    }
    Ok(members)
}
