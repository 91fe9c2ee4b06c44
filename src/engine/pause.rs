//! pause and unpause.

use anyhow::{Context, Result, anyhow, bail};

use super::Engine;
use crate::error::ResultExt;
use crate::store::container::Status;
use crate::supervisor::{self, Control};

/// Stops all processes of a container that runs.
pub fn pause(engine: &Engine, wanted: &str) -> Result<()> {
    let about = || format!("cannot pause {wanted}");
    match engine.alive(wanted).with_context(about)? {
        (dir, Status::Running(_)) => ask(&dir, &Control::Pause).with_context(about),
        _ => Err(anyhow!("it is paused already")).with_context(about),
    }
}

/// Lets them go on.
pub fn unpause(engine: &Engine, wanted: &str) -> Result<()> {
    let about = || format!("cannot unpause {wanted}");
    match engine.alive(wanted).with_context(about)? {
        (dir, Status::Paused(_)) => ask(&dir, &Control::Resume).with_context(about),
        _ => Err(anyhow!("it is not paused")).with_context(about).hint("dhow ps shows what is"),
    }
}

fn ask(dir: &crate::store::container::ContainerDir, what: &Control) -> Result<()> {
    if !supervisor::ask(dir, what)? {
        bail!("it has just ended");
    }
    Ok(())
}
