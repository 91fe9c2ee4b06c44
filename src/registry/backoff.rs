//! How long to wait before asking again.

use std::time::Duration;

/// The first delay; each further one is three times as long, up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(100);

/// The longest delay of our own making.
const LONGEST: Duration = Duration::from_secs(20);

/// A registry that asks for more patience than this (Retry-After) is not waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often a request that fails is sent again.
const ATTEMPTS: u32 = 5;

/// The delays between attempts: 0.1 s, 0.3 s, 0.9 s, 2.7 s, 8.1 s, each up to a quarter longer; then no more.
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
        if self.attempt == ATTEMPTS || asked.is_some_and(|asked| asked > PATIENCE) {
            return None;
        }
        let delay = FIRST.saturating_mul(3u32.pow(self.attempt)).min(LONGEST);
        self.attempt += 1;
        // Many clients that were cut off at once are not to come back at once. Without randomness they do.
        let mut byte = [0];
        let _ = rustix::rand::getrandom(&mut byte, rustix::rand::GetRandomFlags::empty());
        let jitter = delay.mul_f64(f64::from(byte[0]) / 1024.0);
        Some(delay.max(asked.unwrap_or_default()) + jitter)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_end() {
        let mut backoff = Backoff::new();
        let delays: Vec<Duration> = std::iter::from_fn(|| backoff.next(None)).collect();
        assert_eq!(delays.len(), ATTEMPTS as usize);
        assert!(delays[0] >= FIRST && delays[0] < FIRST * 2);
        assert!(delays.is_sorted());
        assert!(delays.iter().all(|d| *d <= LONGEST * 2));
        backoff.reset();
        assert!(backoff.next(Some(Duration::from_secs(7))).unwrap() >= Duration::from_secs(7));
        assert_eq!(backoff.next(Some(PATIENCE * 2)), None);
        assert_eq!(backoff.next(Some(Duration::from_secs(u64::MAX))), None);
    }
}
