//! A container that stands still while it is read, and goes on however the reader ends.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::process::{WaitId, WaitIdOptions};

use super::{Engine, pause, reap};
use crate::store::container::{ContainerDir, Status};
use crate::sys::process::{Forked, exit_now, fork};

/// Keeps a container paused; dropped, it goes on.
#[derive(Debug)]
pub struct Still {
    /// Whoever lets it go on waits for the end of this, which comes with ours, by -9 too.
    end: Option<OwnedFd>,
    watcher: OwnedFd,
}

/// Pauses a container that runs; `None` if there is nothing to pause. The caller has no threads yet, and is who it was when
/// it was started: its user name space is still that of its supervisor's parent.
pub fn hold(engine: &Engine, dir: &ContainerDir) -> Result<Option<Still>> {
    if !matches!(reap::decided(&engine.store, dir)?, Status::Running(_)) {
        return Ok(None);
    }
    let id = dir.id();
    let (wait, end) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("cannot make a pipe")?;
    // First the one that ends the pause, so that none is ever without its end.
    match fork(0, None).context("cannot watch over the pause")? {
        Forked::Child => {
            drop(end);
            // A person's Ctrl-C is for the command.
            let _ = rustix::process::setsid();
            let _ = rustix::io::retry_on_intr(|| rustix::io::read(&wait, &mut [0]));
            // It may have ended, or somebody else has let it go on.
            let _ = pause::unpause(engine, &id);
            exit_now(0);
        }
        Forked::Parent { pidfd, .. } => {
            let still = Still { end: Some(end), watcher: pidfd };
            match pause::pause(engine, &id) {
                Ok(()) => Ok(Some(still)),
                // It has ended, or is paused already: it stands still.
                Err(_) if !matches!(reap::settled(&engine.store, dir)?, Status::Running(_)) => Ok(None),
                Err(error) => Err(error),
            }
        }
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        drop(self.end.take());
        let id = WaitId::PidFd(self.watcher.as_fd());
        let _ = rustix::io::retry_on_intr(|| rustix::process::waitid(id.clone(), WaitIdOptions::EXITED));
    }
}
