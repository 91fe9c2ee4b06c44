//! rm.

use anyhow::{Context, Result, anyhow};

use super::{Engine, reap};
use crate::error::ResultExt;
use crate::store::grave;
use crate::store::journal::{self, Event};

/// Removes a container that does not run, and with `volumes` the anonymous volumes that no other container uses.
pub fn remove(engine: &Engine, wanted: &str, volumes: bool) -> Result<()> {
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
    let record = dir.record().ok();
    dir.remove(&engine.store).with_context(about)?;
    let Some(record) = record else { return Ok(()) };
    journal::note(&engine.store, &Event::of_container(&record, "destroy"));
    if volumes { grave::remove_volumes(&engine.store, &record).with_context(about) } else { Ok(()) }
}
