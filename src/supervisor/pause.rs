//! Stopping all processes of a container, and letting them go on: by the freezer of its cgroup, or, where there is none, by
//! SIGSTOP and SIGCONT. Their parents can see those, and what the container itself had stopped goes on with the rest.

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::serve::Supervised;
use crate::runtime::{chroot, kin};
use crate::store::journal;
use crate::sys;

impl Supervised {
    /// Stops all processes.
    pub fn pause(&mut self) -> Result<()> {
        if self.running.is_none() {
            bail!("it is restarting: wait until it runs");
        }
        if self.life.paused {
            bail!("it is paused already");
        }
        self.freeze(true)?;
        // In this order: with no note of it, nobody would let them go on.
        if let Err(error) = self.note_paused(true) {
            let _ = self.freeze(false);
            return Err(error);
        }
        self.life.paused = true;
        journal::note(&self.store, &self.event("pause"));
        Ok(())
    }

    /// Lets them go on. Nothing to do is fine.
    pub fn resume(&mut self) -> Result<()> {
        if self.running.is_none() || !self.life.paused {
            return Ok(());
        }
        self.freeze(false)?;
        self.life.paused = false;
        journal::note(&self.store, &self.event("unpause"));
        self.note_paused(false)
    }

    fn note_paused(&self, paused: bool) -> Result<()> {
        let mut state = self.dir.last_state()?.context("nothing is noted of its run")?;
        state.paused = paused;
        self.dir.write_state(&state)
    }

    fn freeze(&mut self, frozen: bool) -> Result<()> {
        let Some(running) = &self.running else { return Ok(()) };
        if !self.life.is_stopped_by_signal
            && let Some(cgroup) = &running.cgroup
            && (cgroup.freeze(frozen).is_ok() || !frozen)
        {
            return Ok(());
        }
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        match &running.chroot {
            None if running.shares_pids => kin::signal_all(&self.record.id, signal)?,
            Some(root) => chroot::signal_all(root, &self.dir.path, signal)?,
            None => sys::process::signal_name_space(signal.as_raw())
                .context("cannot reach the container's processes")?,
        }
        self.life.is_stopped_by_signal = frozen;
        Ok(())
    }
}
