//! Health checks in the supervisor's loop: when the next one is due, what came of the last, and what follows from that. The
//! check itself is a process of its own (`check`), so that nothing here waits. A container without a check has no part of
//! this, and its supervisor does not wake up.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::process::Signal;

use super::Control;
use super::check::{Check, Outcome};
use super::serve::Supervised;
use super::timers::Timer;
use crate::runtime::sync::Failure;
use crate::store::health::{self, Checked, Health, OnFailure, StartupOutcome};
use crate::store::journal::{self, Event};

/// A check that does not come back for so long after its time has lost its way, and is given up.
const GIVEN_UP: Duration = Duration::from_secs(10);

/// The checks of one run.
#[derive(Debug)]
pub struct Checks {
    command: Vec<String>,
    state: Health,
    /// When the run began.
    began: Instant,
    under_way: Option<UnderWay>,
    /// The startup check goes on; its successes and its failures.
    startup: Option<(u64, u64)>,
    /// Which one it is, for the events.
    n: u64,
}

#[derive(Debug)]
struct UnderWay {
    check: Check,
    start: Timestamp,
    /// The container was paused meanwhile: what comes of it says nothing.
    is_void: bool,
}

impl Supervised {
    /// A run began.
    pub fn begin_checks(&mut self) {
        let Some(wanted) = &self.record.healthcheck else { return };
        let Some(proper) = wanted.command() else { return };
        let startup = wanted.startup.as_ref().and_then(|startup| startup.check.command());
        let state = Health::default();
        health::write(&self.dir, &state);
        self.checks = Some(Checks {
            startup: startup.is_some().then_some((0, 0)),
            command: startup.unwrap_or(proper),
            state,
            began: Instant::now(),
            under_way: None,
            n: 0,
        });
        self.set_next_check();
    }

    /// The run ended, and with it any check: its processes were the container's.
    pub fn end_checks(&mut self) {
        for timer in [Timer::Check, Timer::CheckGivenUp, Timer::Insist] {
            self.timers.clear(timer);
        }
        if let Some(UnderWay { check, .. }) = self.checks.take().and_then(|checks| checks.under_way) {
            check.see_off();
        }
        self.guests.tell_checked(&Control::Failed(Failure::of(&anyhow::anyhow!("the container ended"))));
    }

    /// What to wait for.
    pub fn check_interest(&self) -> Option<BorrowedFd<'_>> {
        Some(self.checks.as_ref()?.under_way.as_ref()?.check.as_fd())
    }

    fn set_next_check(&mut self) {
        let (Some(checks), Some(wanted)) = (&self.checks, &self.record.healthcheck) else { return };
        if let Some(startup) = wanted.startup.as_ref().filter(|_| checks.startup.is_some()) {
            return self.timers.set(Timer::Check, startup.check.interval(false));
        }
        let starting = checks.state.status == "starting" && checks.began.elapsed() < wanted.start_period();
        self.timers.set(Timer::Check, wanted.interval(starting));
    }

    /// It is time for a check.
    pub fn check_is_due(&mut self) {
        if self.life.paused {
            return self.set_next_check();
        }
        if let Err(error) = self.start_check() {
            let output = crate::error::chain(&error);
            self.checked(Timestamp::now(), Outcome { code: None, output });
        }
    }

    fn start_check(&mut self) -> anyhow::Result<()> {
        let (Some(checks), Some(wanted)) = (&mut self.checks, &self.record.healthcheck) else {
            return Ok(());
        };
        let Some(running) = &self.running else { return Ok(()) };
        if checks.under_way.is_some() {
            return Ok(());
        }
        let startup = wanted.startup.as_ref().filter(|_| checks.startup.is_some());
        let limit = startup.map_or(wanted, |startup| &startup.check).timeout();
        let check = Check::start(&self.dir, &running.init.pidfd, checks.command.clone(), limit)?;
        checks.under_way = Some(UnderWay { check, start: Timestamp::now(), is_void: false });
        self.timers.clear(Timer::Check);
        self.timers.set(Timer::CheckGivenUp, limit.saturating_add(GIVEN_UP));
        Ok(())
    }

    /// A guest wants a check now, and hears what came of it.
    pub fn check_now(&mut self, n: usize) -> anyhow::Result<()> {
        if self.checks.is_none() {
            anyhow::bail!("it has no health check");
        }
        if self.life.paused {
            anyhow::bail!("it is paused: unpause it first");
        }
        self.start_check()?;
        self.guests.await_check(n);
        Ok(())
    }

    /// The check that is under way ended.
    pub fn check_ended(&mut self) {
        let Some(under_way) = self.checks.as_mut().and_then(|checks| checks.under_way.take()) else { return };
        let UnderWay { check, start, is_void } = under_way;
        let outcome = check.finish();
        self.after_check(start, is_void, outcome);
    }

    /// The check that is under way does not come back.
    pub fn give_check_up(&mut self) {
        let Some(under_way) = self.checks.as_mut().and_then(|checks| checks.under_way.take()) else { return };
        let UnderWay { check, start, is_void } = under_way;
        check.abandon();
        self.after_check(
            start,
            is_void,
            Outcome { code: None, output: "the check did not come back".into() },
        );
    }

    fn after_check(&mut self, start: Timestamp, is_void: bool, outcome: Outcome) {
        self.timers.clear(Timer::CheckGivenUp);
        if is_void || self.life.paused {
            let told = anyhow::anyhow!("it was paused meanwhile");
            self.guests.tell_checked(&Control::Failed(Failure::of(&told)));
            return self.set_next_check();
        }
        self.checked(start, outcome);
    }

    /// The container is being paused: what comes of a check now says nothing of its health.
    pub fn void_check(&mut self) {
        if let Some(under_way) = self.checks.as_mut().and_then(|checks| checks.under_way.as_mut()) {
            under_way.is_void = true;
        }
    }

    fn checked(&mut self, start: Timestamp, outcome: Outcome) {
        let (Some(checks), Some(wanted)) = (&mut self.checks, &self.record.healthcheck) else { return };
        let exit_code = outcome.code.unwrap_or(-1);
        let checked = Checked { start, end: Timestamp::now(), exit_code, output: outcome.output };
        let line = checks.command.join(" ");
        let (changed, startup) = match (&mut checks.startup, &wanted.startup) {
            (Some((n_successes, n_failures)), Some(startup)) => {
                *if exit_code == 0 { &mut *n_successes } else { &mut *n_failures } += 1;
                let outcome = startup.outcome(*n_successes, *n_failures);
                checks.state.note(checked);
                (false, Some(outcome))
            }
            _ => {
                let forgiven = checks.began.elapsed() < wanted.start_period();
                (checks.state.add(checked, wanted.retries(), forgiven), None)
            }
        };
        if startup == Some(StartupOutcome::Started) {
            checks.startup = None;
            checks.command = wanted.command().unwrap_or_default();
        }
        health::write(&self.dir, &checks.state);
        checks.n += 1;
        let status = checks.state.status.clone();
        // Told all at once: one write, and it is over in a moment anyhow.
        let exec_id = format!("check-{}-{}", checks.n, start.as_millisecond());
        let event =
            |action: String| Event::of_container(&self.record, action).with("execID", exec_id.as_str());
        let mut events = vec![
            Event { time: start, ..event(format!("exec_create: {line}")) },
            Event { time: start, ..event(format!("exec_start: {line}")) },
            event("exec_die".into()).with("exitCode", exit_code.to_string()),
        ];
        if changed {
            events.push(Event::of_container(&self.record, format!("health_status: {status}")));
        }
        let on_failure = wanted.on_failure;
        journal::note_all(&self.store, &events);
        self.guests.tell_checked(&Control::Checked { is_healthy: exit_code == 0, status: status.clone() });
        match startup {
            // The check proper is not made to wait for its interval.
            Some(StartupOutcome::Started) => self.timers.set(Timer::Check, Duration::ZERO),
            Some(StartupOutcome::Hopeless) => self.is_unhealthy(OnFailure::Restart),
            _ => self.set_next_check(),
        }
        if changed && status == "unhealthy" {
            self.is_unhealthy(on_failure);
        }
    }

    fn is_unhealthy(&mut self, then: OnFailure) {
        match then {
            OnFailure::None => {}
            OnFailure::Kill => self.signal(Signal::KILL.as_raw()),
            OnFailure::Restart => {
                self.life.runs_again = true;
                self.stop_gently();
            }
            OnFailure::Stop => {
                self.life.stays_down = true;
                self.stop_gently();
            }
        }
    }

    /// Asks it to end, and insists after its time.
    fn stop_gently(&mut self) {
        self.signal(self.record.stop_signal);
        self.timers.set(Timer::Insist, Duration::from_secs(self.record.stop_timeout));
    }
}
