//! One run after another: whether the container runs again, after how long, and starting it.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::serve::{Supervised, Turn, failed};
use super::start::{self, Running, Starting};
use super::timers::Timer;
use crate::store::container::Exit;
use crate::store::journal::{self, Event};

/// What a supervisor remembers from run to run.
#[derive(Debug, Default)]
pub struct Life {
    /// A person ended it: no further run.
    pub stays_down: bool,
    /// The cgroup of the last run could not be removed.
    pub is_cgroup_left: bool,
    /// A person wants the next run as soon as this one ended.
    pub runs_again: bool,
    /// All processes are stopped.
    pub paused: bool,
    /// By a signal, and not by the freezer.
    pub is_stopped_by_signal: bool,
    /// The journal knows of the end of the last run.
    pub is_end_told: bool,
    /// How often it was started again.
    restarts: u32,
    backoff: Backoff,
    /// When the run began.
    began: Option<Instant>,
}

/// How long to wait before the next run: docker's figures.
#[derive(Debug, Default)]
struct Backoff(Duration);

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(60);
    /// A run that took so long did well: all begins anew.
    const WELL: Duration = Duration::from_secs(10);

    /// The wait after a run that took so long.
    fn after(&mut self, run: Duration) -> Duration {
        self.0 = if run >= Backoff::WELL || self.0.is_zero() { Backoff::FIRST } else { self.0 * 2 };
        self.0 = self.0.min(Backoff::LONGEST);
        self.0
    }
}

impl Supervised {
    /// Takes a run over that has just begun, and tells the journal.
    pub fn begin_run(&mut self, running: Running) {
        self.running = Some(running);
        self.life.began = Some(Instant::now());
        self.life.paused = false;
        self.life.is_stopped_by_signal = false;
        self.begin_checks();
        if let Some(seconds) = self.record.timeout {
            self.timers.set(Timer::Limit, Duration::from_secs(seconds));
        }
        let mut events = Vec::with_capacity(2);
        if self.begin.foreground && self.life.restarts == 0 {
            events.push(self.event("attach"));
        }
        if self.life.restarts == 0 {
            events.extend(Event::of_volumes(&self.record, "mount"));
            let joined = self.joined.iter();
            events.extend(joined.flat_map(|joined| joined.events(&self.record, "connect")));
        }
        events.push(self.event("start"));
        journal::note_all(&self.store, &events);
    }

    /// Something that happens to the container now.
    pub fn event(&self, action: &str) -> Event {
        Event::of_container(&self.record, action)
    }

    /// What is to be told of a run that ended like this.
    pub fn events_of_end(&self, exit: &Exit) -> Vec<Event> {
        let took = self.life.began.map_or(0, |began| began.elapsed().as_secs());
        let die = self.event("die").with("exitCode", exit.code.to_string());
        let mut events = Vec::with_capacity(3);
        if exit.oom_killed {
            events.push(self.event("oom"));
        }
        events.push(die.with("execDuration", took.to_string()));
        events
    }

    /// After a run that ended like this: starts the next one when it is time. If there is none, how the last one ended.
    pub fn again(&mut self, mut exit: Exit) -> Result<Option<Exit>> {
        while self.is_wanted_again(&exit) {
            self.note_restarting(&exit);
            self.rest(true);
            journal::note_all(&self.store, &self.events_of_end(&exit));
            self.guests.tell_end(exit.code);
            if !self.back_off()? {
                // What is told of its end was told.
                self.life.is_end_told = true;
                break;
            }
            if !self.is_wanted_again(&exit) {
                // The policy was changed meanwhile.
                self.life.is_end_told = true;
                break;
            }
            if std::mem::take(&mut self.life.runs_again) {
                self.life.stays_down = false;
                self.life.restarts = 0;
                self.life.backoff = Backoff::default();
                let _ = self.dir.forget_stopped();
            } else {
                self.life.restarts += 1;
            }
            match self.start_again() {
                Ok(()) => return Ok(None),
                // What kept it from starting may pass: a full disk, a limit.
                Err(error) => exit = failed(&error),
            }
        }
        Ok(Some(exit))
    }

    fn is_wanted_again(&self, exit: &Exit) -> bool {
        let by_policy = || {
            self.record.restart.wants(exit.code, self.life.restarts)
                && !self.life.stays_down
                && !self.dir.is_marked_stopped()
        };
        self.life.runs_again || by_policy()
    }

    /// Best effort: who cannot read it sees a container that runs, and will.
    fn note_restarting(&self, exit: &Exit) {
        if let Ok(Some(mut state)) = self.dir.last_state() {
            state.paused = false;
            state.restarting = Some(exit.clone());
            let _ = self.dir.write_state(&state);
        }
    }

    /// Waits; false if a person ended it meanwhile.
    fn back_off(&mut self) -> Result<bool> {
        let run = self.life.began.take().map_or(Duration::ZERO, |began| began.elapsed());
        let wait = self.life.backoff.after(run);
        self.timers.set(Timer::Restart, wait);
        loop {
            if self.life.runs_again {
                self.timers.clear(Timer::Restart);
                return Ok(true);
            }
            let turn = self.turn()?;
            if self.life.stays_down && !self.life.runs_again {
                self.timers.clear(Timer::Restart);
                return Ok(false);
            }
            if let Turn::Due(Timer::Restart) = turn {
                return Ok(true);
            }
        }
    }

    /// Everything anew but the changes to the root, and the log, which goes on.
    fn start_again(&mut self) -> Result<()> {
        self.rest(false);
        let starting = Starting {
            store: &self.store,
            dir: &self.dir,
            record: &self.record,
            begin: &self.begin,
            data: self.data.as_ref(),
            restarts: self.life.restarts,
            preserved: None,
        };
        // What it warns of was told the first time.
        let running = start::start(starting, self.joined.as_mut(), &mut |_| {})?;
        self.begin_run(running);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_a_minute_and_begins_anew_after_a_good_run() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..12).map(|_| backoff.after(Duration::ZERO).as_millis()).collect();
        assert_eq!(waits[..4], [100, 200, 400, 800]);
        assert_eq!(waits[9..], [51_200, 60_000, 60_000]);
        assert_eq!(backoff.after(Duration::from_millis(9_999)).as_millis(), 60_000);
        assert_eq!(backoff.after(Duration::from_secs(10)).as_millis(), 100);
        assert_eq!(backoff.after(Duration::from_secs(1)).as_millis(), 200);
    }
}
