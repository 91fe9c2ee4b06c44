//! rm.

use anyhow::{Context, Result, anyhow};

use super::{Engine, reap};
use crate::error::ResultExt;

/// Removes a container that does not run.
pub fn remove(engine: &Engine, wanted: &str) -> Result<()> {
    let dir = engine.find(wanted)?;
    let about = || format!("cannot remove {wanted}");
    let _lock = loop {
        match reap::decided(&engine.store, &dir) {
            // Its supervisor (--rm), or another rm, was quicker.
            Err(error) if super::is_not_found(&error) => return Ok(()),
            Err(error) => return Err(error).with_context(about),
            Ok(status) if status.is_alive() => {
                let hint = format!("stop it first, or: dhow rm -f {wanted}");
                return Err(anyhow!("it is {}", status.word())).with_context(about).hint(hint);
            }
            Ok(_) => {}
        }
        match dir.try_lock()? {
            Some(lock) => break lock,
            None => reap::pause(),
        }
    };
    dir.remove(&engine.store).with_context(about)
}
