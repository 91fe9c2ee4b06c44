//! Bringing one blob into a repository, the cheapest way there is: it is there already, it is taken over from another
//! repository of the registry, or its bytes are sent.

use std::io::{self, Read};

use anyhow::Result;

use crate::event::{Event, Pushing};
use crate::oci::Digest;
use crate::registry::Repository;

use super::parallel::Progress;
use super::section::Section;

/// How many repositories are asked to lend a blob before it is sent: each costs a round trip.
const MOUNTS_LIMIT: usize = 3;
/// How many bytes go between two reports.
const REPORT: u64 = 1 << 20;

/// A blob that a repository should have.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// What reports call it.
    pub what: &'a str,
    /// Its digest.
    pub digest: &'a Digest,
    /// Its size.
    pub size: u64,
    /// Repositories of the same registry that may have it, the likeliest first.
    pub mounts: &'a [String],
}

/// Gives the bytes of a blob from an offset on.
pub type Open<'a> = &'a mut dyn FnMut(u64) -> Result<Box<dyn Read + Send>>;

/// Brings the blob there; says how it came. Reports all but the end.
pub fn upload(
    to: &Repository<'_>,
    wanted: Wanted<'_>,
    open: Open<'_>,
    progress: &Progress,
) -> Result<Pushing> {
    if let Some(how) = without_bytes(to, &wanted)? {
        return Ok(how);
    }
    send(to, wanted, open, progress)
}

/// The part of [`upload`] that moves nothing: `None` if the bytes have to be sent.
pub fn without_bytes(to: &Repository<'_>, wanted: &Wanted<'_>) -> Result<Option<Pushing>> {
    if to.has_blob(wanted.digest)?.is_some() {
        return Ok(Some(Pushing::Exists));
    }
    for from in wanted.mounts.iter().take(MOUNTS_LIMIT) {
        // That it cannot be lent is no reason not to send it.
        if to.mount(wanted.digest, from).unwrap_or(false) {
            return Ok(Some(Pushing::Mounted(from.clone())));
        }
    }
    Ok(None)
}

/// The part of [`upload`] that sends the bytes.
pub fn send(to: &Repository<'_>, wanted: Wanted<'_>, open: Open<'_>, progress: &Progress) -> Result<Pushing> {
    let Wanted { what, digest, size: total, .. } = wanted;
    let mut reported = 0;
    let mut report = |done: u64| {
        if done == 0 || done >= total || done.abs_diff(reported) >= REPORT {
            reported = done;
            let state = Pushing::Uploading { done, total };
            // Nobody listens any more only when everything is over.
            let _ = progress.send(Event::Pushing { what: what.to_owned(), state });
        }
    };
    report(0);
    to.upload(digest, total, open, &mut report)?;
    Ok(Pushing::Pushed)
}

/// The bytes of a section, from an offset on.
pub fn from_section(section: &Section) -> impl FnMut(u64) -> Result<Box<dyn Read + Send>> + use<> {
    let section = section.clone();
    move |from| Ok(Box::new(section.part(from, section.size().saturating_sub(from))))
}

/// Bytes that are in memory, from an offset on.
pub fn from_bytes(bytes: &[u8]) -> impl FnMut(u64) -> Result<Box<dyn Read + Send>> + use<> {
    let bytes: std::sync::Arc<[u8]> = bytes.into();
    move |from| {
        let mut cursor = io::Cursor::new(bytes.clone());
        cursor.set_position(from);
        Ok(Box::new(cursor))
    }
}
