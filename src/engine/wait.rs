//! wait.

use anyhow::Result;

use super::{Engine, reap};
use crate::store::container::Status;

/// Returns when the container does not run, with its exit code. 0 if it was removed meanwhile and nobody can tell.
pub fn wait(engine: &Engine, wanted: &str) -> Result<i32> {
    let dir = engine.find(wanted)?;
    if let Status::Created = dir.status()? {
        return Ok(0);
    }
    // Opened before waiting: after a removal there is nothing to open.
    dir.wait_unlocked()?;
    match reap::settled(&engine.store, &dir) {
        Ok(Status::Exited(exit)) => Ok(exit.code),
        Ok(_) => Ok(0),
        Err(_) if dir.record().is_err() => Ok(0),
        Err(error) => Err(error),
    }
}
