//! Waiting for a condition with a deadline.

use std::time::{Duration, Instant};

/// How long anything that should happen soon may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(120);

/// Asks `condition` until it gives a value; panics with `what` when the deadline passes.
#[track_caller]
pub fn until<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    within(SOON, condition).unwrap_or_else(|| panic!("waited {SOON:?} in vain for {what}"))
}

/// Asks `condition` until it gives a value or `limit` has passed.
pub fn within<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        // The one pause of the tests: short enough not to matter, long enough to leave the processor to others.
        std::thread::sleep(Duration::from_millis(5));
    }
}
