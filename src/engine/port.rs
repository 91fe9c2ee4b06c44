//! port: which ports of a container are published where, as its supervisor found them.

use super::Engine;
pub use crate::endpoint::Published;
use crate::store::network::wired;
use anyhow::Result;

/// What is published of a container, in order. Nothing of one that does not run.
pub fn port(engine: &Engine, wanted: &str) -> Result<Vec<Published>> {
    let dir = engine.find(wanted)?;
    // A container that is not there is told of before one that does not run.
    dir.record()?;
    if super::reap::settled(&engine.store, &dir)?.run().is_none() {
        return Ok(Vec::new());
    }
    let mut all = wired::read(&dir)?.unwrap_or_default().ports;
    all.sort();
    Ok(all)
}
