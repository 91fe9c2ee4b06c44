//! What guests ask for, and what comes of it.

use std::os::fd::AsFd;

use anyhow::{Result, anyhow, bail};

use super::guests::Heard;
use super::serve::Supervised;
use super::{Attach, Control, shared, start};
use crate::error::ResultExt;
use crate::oci::runtime::LinuxResources;
use crate::runtime::cgroup;
use crate::runtime::sync::Failure;
use crate::store::journal;

impl Supervised {
    /// Hears a guest, and answers it.
    pub fn guest_step(&mut self, n: usize) {
        let answer = match self.guests.hear(n) {
            Heard::Nothing => return,
            Heard::Typed(bytes) => return self.typed(n, &bytes),
            Heard::Asked(Control::Resize(rows, columns)) => return self.resized(n, (rows, columns)),
            Heard::Asked(Control::Attach(attach)) => self.attach(n, attach),
            Heard::Asked(Control::StayDown) => {
                self.life.stays_down = true;
                self.life.runs_again = false;
                Ok(())
            }
            Heard::Asked(Control::RunAgain) if self.running.is_some() => {
                self.life.runs_again = true;
                Ok(())
            }
            Heard::Asked(Control::Hurry) if self.running.is_none() && !self.life.stays_down => {
                self.life.runs_again = true;
                Ok(())
            }
            Heard::Asked(Control::Stay) if self.can_be_kept() => {
                self.guests.keep(n);
                Ok(())
            }
            Heard::Asked(Control::Share(name)) => match shared::clone_of(&self.store, &self.dir, &name) {
                Ok(Some(tree)) => return self.guests.hand(n, &Control::Done, tree.as_fd()),
                Ok(None) => return self.guests.answer(n, &Control::NotNow),
                Err(error) => Err(error),
            },
            Heard::Asked(Control::RunAgain | Control::Hurry | Control::Stay) => {
                return self.guests.answer(n, &Control::NotNow);
            }
            Heard::Asked(Control::Limit(resources)) => self.limit(&resources),
            Heard::Asked(Control::ReadAgain) => self.read_again(),
            Heard::Asked(Control::Rewire) => self.rewire(),
            Heard::Asked(Control::Pause) => self.pause(),
            Heard::Asked(Control::Resume) => self.resume(),
            Heard::Asked(Control::Detach) => return self.detached(n),
            Heard::Asked(Control::AwaitEnd) => return self.guests.await_end(n),
            Heard::Asked(Control::Check) => match self.check_now(n) {
                // Its answer comes when the check ended.
                Ok(()) => return,
                Err(error) => Err(error),
            },
            Heard::Asked(other) => Err(anyhow!("its supervisor does not know what {other:?} is")),
        };
        let answer = answer.map_or_else(|error| Control::Failed(Failure::of(&error)), |()| Control::Done);
        self.guests.answer(n, &answer);
    }

    fn attach(&mut self, n: usize, attach: Attach) -> Result<()> {
        let Some(running) = &self.running else { bail!("it is restarting: wait until it runs") };
        if running.is_unheard && (attach.stdout || attach.stderr) {
            return Err(anyhow!("its output goes straight to the command that runs it"))
                .hint("run it with --log-driver json-file, -t or -d, and others can attach to it");
        }
        if self.life.paused {
            bail!("it is paused: unpause it first");
        }
        self.guests.attach(n, attach);
        if attach.stdin {
            self.fit_terminal(attach.size);
        }
        journal::note(&self.store, &self.event("attach"));
        Ok(())
    }

    fn limit(&mut self, resources: &LinuxResources) -> Result<()> {
        let spec = start::read_spec(&self.dir)?;
        let path = start::cgroup_path(&spec);
        // Between two runs there is nothing to change: the next one reads its bundle.
        let Some(running) = &mut self.running else { return Ok(()) };
        let Some(cgroup) = &mut running.cgroup else {
            return Err(anyhow!("it has no cgroup, and limits need one"))
                .hint("dhow info says what this machine allows");
        };
        let changed = cgroup.update(&cgroup::probe()?, path, resources);
        // Where its processes are is noted in any case: `exec` goes there too.
        if let Ok(Some(mut state)) = self.dir.last_state() {
            state.cgroup = serde_json::to_value(&*cgroup).ok();
            self.dir.write_state(&state)?;
        }
        changed
    }

    /// One that goes away by the keys, and not with the container.
    fn detached(&mut self, n: usize) {
        self.guests.dismiss(n);
        journal::note(&self.store, &self.event("detach"));
    }

    fn typed(&mut self, n: usize, bytes: &[u8]) {
        // The terminal fits whoever types.
        let size = self.guests.attached(n).map(|attached| attached.size);
        size.into_iter().for_each(|size| self.fit_terminal(size));
        if let Some(input) = self.running.as_mut().and_then(|running| running.input.as_mut()) {
            input.type_in(bytes);
        }
    }

    fn resized(&mut self, n: usize, size: (u16, u16)) {
        let Some(attached) = self.guests.attached(n) else { return };
        attached.size = size;
        if attached.stdin {
            self.fit_terminal(size);
        }
    }

    fn fit_terminal(&self, (rows, columns): (u16, u16)) {
        if (rows, columns) != (0, 0) {
            self.resize(rows, columns);
        }
    }
}
