//! /etc/localtime of a container that was given a time zone.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};

use crate::runtime::rootfs::Root;
use crate::store::container::{Record, Source};

/// Lets /etc/localtime lead to the zone's place, for programs that do not read TZ. As a link and not as a mount: what an
/// image has there is itself a link, mostly to UTC, and a mount would land on that zone. Best effort: TZ says the same.
pub(super) fn link(root: &Root, record: &Record) {
    let Some(zone) = record.options.get("time_zone").and_then(|z| z.as_str()) else { return };
    // The user's own directory is left as it is.
    if matches!(record.source, Source::Dir { throw_away: false, .. }) {
        return;
    }
    let Ok(etc) = root.open(Path::new("/etc"), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) else {
        return;
    };
    let target = Path::new("/usr/share/zoneinfo").join(zone);
    let there = rustix::fs::readlinkat(&etc, "localtime", Vec::new());
    if there.is_ok_and(|there| there.to_bytes() == target.as_os_str().as_bytes()) {
        return;
    }
    let _ = rustix::fs::unlinkat(&etc, "localtime", AtFlags::empty());
    let _ = rustix::fs::symlinkat(&target, &etc, "localtime");
}
