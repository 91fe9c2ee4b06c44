//! What a supervisor has to do at a time: deadlines by name, as the timeout of its poll(2). On the monotonic clock, so that
//! a clock that is set, by hand or by NTP, moves none of them. With none set, nothing wakes up.

use std::time::{Duration, Instant};

use rustix::event::Timespec;

/// What is due at a time. Each is set at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// The container runs again.
    Restart,
    /// The run has taken as long as it may (`--timeout`).
    Limit,
    /// The health is to be checked.
    Check,
    /// A check that is under way does not come back.
    CheckGivenUp,
    /// A query for a name is under way, and goes on.
    Names,
    /// It was asked to end because it is unhealthy, and is to be killed.
    Insist,
}

/// The deadlines.
#[derive(Debug, Default)]
pub struct Timers(Vec<(Timer, Instant)>);

impl Timers {
    /// Sets (or moves) a timer. One that lies further away than the clock can say never comes.
    pub fn set(&mut self, timer: Timer, after: Duration) {
        self.set_at(timer, Instant::now(), after);
    }

    fn set_at(&mut self, timer: Timer, now: Instant, after: Duration) {
        self.clear(timer);
        self.0.extend(now.checked_add(after).map(|at| (timer, at)));
    }

    /// Takes a timer back.
    pub fn clear(&mut self, timer: Timer) {
        self.0.retain(|(other, _)| *other != timer);
    }

    /// Takes one that is due, the earliest first.
    pub fn next_due(&mut self) -> Option<Timer> {
        self.next_due_at(Instant::now())
    }

    fn next_due_at(&mut self, now: Instant) -> Option<Timer> {
        let (timer, at) = *self.0.iter().min_by_key(|(_, at)| *at)?;
        if at > now {
            return None;
        }
        self.clear(timer);
        Some(timer)
    }

    /// How long poll(2) may sleep; `None` for ever.
    pub fn timeout(&self) -> Option<Timespec> {
        self.timeout_at(Instant::now())
    }

    fn timeout_at(&self, now: Instant) -> Option<Timespec> {
        let at = self.0.iter().map(|(_, at)| *at).min()?;
        let left = at.saturating_duration_since(now);
        // More seconds than fit are as good as all that do.
        let tv_sec = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
        Some(Timespec { tv_sec, tv_nsec: left.subsec_nanos().into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_comes_in_its_order_and_once() {
        let start = Instant::now();
        let later = |n| start + Duration::from_millis(n);
        let mut timers = Timers::default();
        assert!(timers.timeout_at(start).is_none(), "nothing wakes an idle supervisor");
        timers.set_at(Timer::Restart, start, Duration::from_millis(200));
        timers.set_at(Timer::Limit, start, Duration::from_millis(100));
        let timeout = timers.timeout_at(later(40)).unwrap();
        assert_eq!((timeout.tv_sec, timeout.tv_nsec), (0, 60_000_000));
        assert_eq!(timers.next_due_at(later(99)), None);
        assert_eq!(timers.next_due_at(later(300)), Some(Timer::Limit));
        assert_eq!(timers.next_due_at(later(300)), Some(Timer::Restart));
        assert_eq!(timers.next_due_at(later(300)), None);
        timers.set_at(Timer::Limit, start, Duration::from_millis(1));
        timers.set_at(Timer::Limit, start, Duration::from_secs(1));
        assert_eq!(timers.next_due_at(later(500)), None, "the later setting holds");
        timers.clear(Timer::Limit);
        assert!(timers.timeout_at(start).is_none());
    }

    #[test]
    fn what_is_late_is_due_at_once_and_what_never_comes_does_no_harm() {
        let start = Instant::now();
        let mut timers = Timers::default();
        timers.set_at(Timer::Limit, start, Duration::MAX);
        assert!(timers.timeout_at(start).is_none());
        timers.set_at(Timer::Restart, start, Duration::ZERO);
        let timeout = timers.timeout_at(start + Duration::from_secs(9)).unwrap();
        assert_eq!((timeout.tv_sec, timeout.tv_nsec), (0, 0));
    }
}
