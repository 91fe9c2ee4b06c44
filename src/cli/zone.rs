//! The caller's time zone: times that name none are read in it, and times are shown in it, as docker does. What names it is
//! tzset(3)'s: the variable TZ, else /etc/localtime. The zones are this machine's files; there are none in the program.

use std::path::Path;

use jiff::tz::TimeZone;

use crate::fs;
use crate::host::Host;

/// Where zones lie (tzfile(5)).
const ZONES: &str = "/usr/share/zoneinfo";
/// No zone is nearly as large.
const MAX_SIZE: u64 = 1 << 20;

/// The zone; UTC where nothing that can be read names one, as for libc.
pub(in crate::cli) fn local(host: &Host) -> TimeZone {
    let named = host.env("TZ").map(|text| text.to_string_lossy().into_owned());
    let zone = match &named {
        None => of_file(Path::new("/etc/localtime")),
        Some(text) => named_zone(text.strip_prefix(':').unwrap_or(text)),
    };
    zone.unwrap_or(TimeZone::UTC)
}

/// `Europe/Berlin`, the path of a file, or a rule such as `CET-1CEST,M3.5.0,M10.5.0/3`.
fn named_zone(text: &str) -> Option<TimeZone> {
    of_file(&Path::new(ZONES).join(text)).or_else(|| TimeZone::posix(text).ok())
}

fn of_file(path: &Path) -> Option<TimeZone> {
    let meta = fs::metadata(path).ok().flatten()?;
    if !meta.is_file() || meta.len() > MAX_SIZE {
        return None;
    }
    let name = path.strip_prefix(ZONES).unwrap_or(path).to_string_lossy().into_owned();
    TimeZone::tzif(&name, &fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_zones() {
        let check = |text: &str, want: Option<i32>| {
            let moment: jiff::Timestamp = "2026-07-01T00:00:00Z".parse().unwrap();
            assert_eq!(named_zone(text).map(|zone| zone.to_offset(moment).seconds()), want, "{text}");
        };
        check("XXX-2", Some(7200));
        check("CET-1CEST,M3.5.0,M10.5.0/3", Some(7200));
        check("/etc/passwd", None);
        check("/nonexistent", None);
        check("../../../etc", None);
        check("", None);
    }
}
