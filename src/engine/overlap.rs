//! What becomes of a run while another of the same name goes on.

use anyhow::{Result, anyhow};

use super::{Engine, reap, stop};
use crate::error::ResultExt;
use crate::store::container;
use crate::store::turn::Turn;

/// What to do if a container of this name runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfRunning {
    /// That is an error.
    Fail,
    /// Nothing.
    Skip,
    /// Wait until it has ended.
    Wait,
    /// End it.
    Replace,
}

/// Decides whether a container called `name` is to be made now; returns the turn, which is to be held until it is there,
/// or `None` if it is to be skipped. One that has ended is no obstacle: [`take_over`] removes it.
///
/// To be called before a user name space is entered: from inside, the containers that run cannot be reached.
pub fn settle(engine: &Engine, name: &str, policy: IfRunning) -> Result<Option<Turn>> {
    loop {
        let turn = match policy {
            IfRunning::Wait | IfRunning::Replace => Some(Turn::take(&engine.store, name)?),
            // Whoever has the turn is about to run it.
            IfRunning::Skip | IfRunning::Fail => Turn::try_take(&engine.store, name)?,
        };
        reap::let_die(&engine.store, name)?;
        let dir = container::named(&engine.store, name)?;
        let runs = match dir.as_ref().map(container::ContainerDir::status).transpose() {
            Ok(status) => status.is_some_and(|status| status.is_alive()),
            // Removed between the two looks.
            Err(error) if super::is_not_found(&error) => false,
            Err(error) => return Err(error),
        };
        match (policy, turn, dir) {
            (_, Some(turn), _) if !runs => return Ok(Some(turn)),
            (IfRunning::Skip, ..) => return Ok(None),
            (IfRunning::Fail, ..) => {
                return Err(anyhow!("cannot run {name}: a container of this name is running"))
                    .hint("--if-running skip, wait or replace say what to do then");
            }
            (IfRunning::Wait, turn, Some(dir)) => {
                // Others may have something else in mind.
                drop(turn);
                dir.wait_unlocked()?;
            }
            (IfRunning::Replace, Some(turn), Some(dir)) => {
                match stop::stop(engine, &dir.id(), stop::StopOptions::default()) {
                    Err(error) if dir.status().is_ok_and(|status| status.is_alive()) => {
                        return Err(error);
                    }
                    _ => return Ok(Some(turn)),
                }
            }
            (IfRunning::Wait | IfRunning::Replace, ..) => {}
        }
    }
}

/// Removes the container of this name, which has ended, so that the next one gets the name.
pub(super) fn take_over(engine: &Engine, name: &str) -> Result<()> {
    let Some(dir) = container::named(&engine.store, name)? else { return Ok(()) };
    // Its anonymous volumes too: a job that runs each minute would pile them up.
    match super::remove::remove(engine, &dir.id(), true) {
        Err(error) if super::is_not_found(&error) => Ok(()),
        other => other,
    }
}
