//! A bound on how many threads do something at once.

use std::sync::{Condvar, Mutex, PoisonError};

/// So many may do something at once.
pub(super) struct Places {
    free: Mutex<usize>,
    changed: Condvar,
}

/// Given back when dropped.
pub(super) struct Place<'a>(&'a Places);

impl Places {
    pub(super) fn new(n: usize) -> Places {
        Places { free: Mutex::new(n), changed: Condvar::new() }
    }

    /// Waits for a place.
    pub(super) fn take(&self) -> Place<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let free = self.changed.wait_while(free, |free| *free == 0);
        *free.unwrap_or_else(PoisonError::into_inner) -= 1;
        Place(self)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.changed.notify_one();
    }
}
