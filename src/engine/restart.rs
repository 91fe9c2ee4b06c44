//! restart: a container that runs ends and runs again, under the same supervisor; one that does not is started.

use anyhow::{Context, Result, anyhow};

use super::stop::{self, StopOptions};
use super::{Engine, reap};
use crate::store::container::{ContainerDir, Status};
use crate::store::journal::{self, Event};
use crate::supervisor::{self, Answer, Control};

/// Restarts a container that runs. False if it does not: then it is to be started.
///
/// By its supervisor, which begins the next run as soon as this one has ended: so a container that is to be removed when
/// it ends is not, and one in the foreground stays there.
pub fn restart(engine: &Engine, wanted: &str, options: StopOptions) -> Result<bool> {
    let dir = engine.find(wanted)?;
    let about = || format!("cannot restart {wanted}");
    let record = dir.record().with_context(about)?;
    loop {
        let status = reap::decided(&engine.store, &dir).with_context(about)?;
        let what = match &status {
            Status::Running(_) | Status::Paused(_) => Control::RunAgain,
            Status::Restarting(..) => Control::Hurry,
            Status::Starting(_) => {
                return Err(anyhow!("it does not get through its start")).with_context(about);
            }
            _ => return Ok(false),
        };
        match supervisor::ask_now(&dir, &what).with_context(about)? {
            Answer::Done => stop::end_run(engine, &dir, &status, options, &record).with_context(about)?,
            Answer::NotNow => continue,
            Answer::Gone => return Ok(false),
        }
        await_next(engine, &dir, &status).with_context(about)?;
        // Once it answers, all that it had to tell of the beginning is told.
        let _ = supervisor::ask_now(&dir, &Control::ReadAgain);
        journal::note(&engine.store, &Event::of_container(&record, "restart"));
        return Ok(true);
    }
}

/// Returns when the run after this one has begun, even if it is over by then.
fn await_next(engine: &Engine, dir: &ContainerDir, before: &Status) -> Result<()> {
    let before = before.run().map(|run| run.init);
    loop {
        match reap::decided(&engine.store, dir)? {
            Status::Restarting(..) => {}
            Status::Running(state) | Status::Paused(state) if Some(state.init) == before => {}
            Status::Exited(exit) if !exit.error.is_empty() => return Err(anyhow!("{}", exit.error)),
            _ => return Ok(()),
        }
        reap::pause();
    }
}
