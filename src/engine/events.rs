//! events: what happened, and what happens, from the journal.

use std::os::fd::BorrowedFd;

use anyhow::Result;
use jiff::Timestamp;

use super::Engine;
use super::watch::{Also, Watch};
use crate::store::journal::{self, Event, Reader};

/// Which events.
#[derive(Debug, Clone, Copy, Default)]
pub struct EventOptions<'a> {
    /// From here on; from now on, if neither this nor `until` is given.
    pub since: Option<Timestamp>,
    /// Up to here; it ends then.
    pub until: Option<Timestamp>,
    /// Only what has happened already.
    pub past_only: bool,
    /// Where they go to: it ends when nobody reads there any more.
    pub reader: Option<BorrowedFd<'a>>,
}

/// Gives each event to `each`, in the order of their being noted; goes on until `until`, or until the reader goes away.
pub fn events(
    engine: &Engine,
    options: EventOptions<'_>,
    each: &mut dyn FnMut(Event) -> Result<()>,
) -> Result<()> {
    let mut reader = Reader::open(&engine.store)?;
    // Before reading, so that nothing falls in between.
    let watch = Watch::new()?;
    watch.add(&journal::dir(&engine.store))?;
    if options.since.is_none() && options.until.is_none() && !options.past_only {
        reader.skip()?;
    }
    let fits = |event: &Event| {
        options.since.is_none_or(|t| event.time >= t) && options.until.is_none_or(|t| event.time <= t)
    };
    loop {
        // Before reading: what is noted up to that moment is read once more.
        let is_over = options.past_only || options.until.is_some_and(|until| Timestamp::now() >= until);
        reader.read(&mut |event| if fits(&event) { each(event) } else { Ok(()) })?;
        if is_over {
            return Ok(());
        }
        let also = Also { reader: options.reader, until: options.until, ..Also::default() };
        if watch.wait(&also)? {
            return Ok(());
        }
    }
}
