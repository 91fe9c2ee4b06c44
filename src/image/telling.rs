//! Telling how far a layer is: now and then, not at every read.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use crate::event::Pulling;

use super::layers::Wanted;
use super::parallel::Progress;

/// How often something that goes on is told.
const TELL_EVERY: Duration = Duration::from_millis(50);

/// Tells now and then how far a layer is.
pub(super) struct Teller<'a> {
    layer: &'a Wanted,
    progress: &'a Progress,
    told: Option<Instant>,
}

impl<'a> Teller<'a> {
    pub(super) fn new(layer: &'a Wanted, progress: &'a Progress) -> Teller<'a> {
        Teller { layer, progress, told: None }
    }

    pub(super) fn tell(&mut self, state: impl FnOnce(u64) -> Pulling) {
        if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.told = Some(Instant::now());
            // Nobody listens any more only when everything is over.
            let _ = self.progress.send(self.layer.event(state(self.layer.size)));
        }
    }
}

/// Reads, and tells how much of it was unpacked.
pub(super) struct Told<'a, R> {
    input: R,
    done: u64,
    teller: Teller<'a>,
}

impl<'a, R> Told<'a, R> {
    pub(super) fn new(input: R, layer: &'a Wanted, progress: &'a Progress) -> Told<'a, R> {
        Told { input, done: 0, teller: Teller::new(layer, progress) }
    }
}

impl<R: Read> Read for Told<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        self.done += n as u64;
        let done = self.done;
        self.teller.tell(|total| Pulling::Extracting { done, total });
        Ok(n)
    }
}
