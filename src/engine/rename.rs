//! rename.

use anyhow::{Context, Result, anyhow};

use super::{Engine, reap};
use crate::error::ResultExt;
use crate::store::container::{self, Status};
use crate::store::journal::{self, Event};
use crate::supervisor::{self, Control};

/// Gives a container another name.
pub fn rename(engine: &Engine, wanted: &str, name: &str) -> Result<()> {
    let about = || format!("cannot rename {wanted}");
    let name = name.strip_prefix('/').unwrap_or(name);
    if !container::is_name(name) {
        return Err(anyhow!("cannot use {name:?} as a name"))
            .hint("a name is made of a-z A-Z 0-9 _ . - and begins with a letter or digit");
    }
    let dir = engine.find(wanted)?;
    if dir.record().is_ok_and(|record| record.name == name) {
        return Err(anyhow!("it is called {name} already")).with_context(about);
    }
    reap::settle_name(&engine.store, name)?;
    let old = dir.rename(&engine.store, name).with_context(about)?;
    let mut record = dir.record().with_context(about)?;
    // What it tells of its end is told by the new name.
    if matches!(dir.status(), Ok(Status::Running(_) | Status::Paused(_) | Status::Restarting(..))) {
        let _ = supervisor::ask(&dir, &Control::ReadAgain);
    }
    record.name = name.to_owned();
    journal::note(&engine.store, &Event::of_container(&record, "rename").with("oldName", format!("/{old}")));
    Ok(())
}
