//! Amounts as docker writes them for people: `2 hours`, `7.8MB`, `1.5GiB`. Reading them is `quantity`.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::number;

const DECIMAL_UNITS: &[&str] = &["B", "kB", "MB", "GB", "TB", "PB", "EB"];
const BINARY_UNITS: &[&str] = &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A span of time in one rounded unit: `Less than a second`, `About a minute`, `2 hours`, `3 weeks`.
pub fn duration(span: SignedDuration) -> String {
    let seconds = span.as_secs().max(0);
    let minutes = seconds / 60;
    // docker rounds hours to the nearest and cuts everything else.
    let hours = (seconds + 1800) / 3600;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// How long ago a moment was: `2 hours ago`.
pub fn ago(moment: Timestamp, now: Timestamp) -> String {
    format!("{} ago", duration(now.duration_since(moment)))
}

/// The column CREATED AT: `2026-01-31 15:04:05 +0100 CET`.
pub fn created_at(moment: Timestamp, zone: &TimeZone) -> String {
    moment.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
}

/// Bytes with three digits, in powers of 1000, as in lists of images and containers: `7.8MB`.
pub fn size(bytes: u64) -> String {
    scaled(bytes, 1000.0, 3, DECIMAL_UNITS)
}

/// The same with four digits, as in `system df` and progress: `7.801MB`.
pub fn size_exact(bytes: u64) -> String {
    scaled(bytes, 1000.0, 4, DECIMAL_UNITS)
}

/// Bytes with four digits, in powers of 1024, as for memory: `1.5GiB`.
pub fn size_binary(bytes: u64) -> String {
    scaled(bytes, 1024.0, 4, BINARY_UNITS)
}

fn scaled(bytes: u64, base: f64, digits: usize, units: &[&str]) -> String {
    let mut value = bytes as f64;
    let mut unit = 0;
    // docker compares before it rounds, and so writes 999.9 kB with three digits as "1e+03kB". That is no example.
    let rounds_up = |value: f64| base == 1000.0 && value >= 1000.0 - 0.5 * 10_f64.powi(3 - digits as i32);
    while (value >= base || rounds_up(value)) && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    format!("{}{}", number::general(value, digits), units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        const MINUTE: i64 = 60;
        const HOUR: i64 = 60 * MINUTE;
        const DAY: i64 = 24 * HOUR;
        let cases: &[(i64, &str)] = &[
            (-5, "Less than a second"),
            (0, "Less than a second"),
            (1, "1 second"),
            (45, "45 seconds"),
            (59, "59 seconds"),
            (MINUTE, "About a minute"),
            (119, "About a minute"),
            (2 * MINUTE, "2 minutes"),
            (59 * MINUTE + 59, "59 minutes"),
            (HOUR, "About an hour"),
            (HOUR + 29 * MINUTE, "About an hour"),
            (HOUR + 30 * MINUTE, "2 hours"),
            (47 * HOUR, "47 hours"),
            (2 * DAY, "2 days"),
            (13 * DAY, "13 days"),
            (14 * DAY, "2 weeks"),
            (59 * DAY, "8 weeks"),
            (60 * DAY, "2 months"),
            (729 * DAY, "24 months"),
            (730 * DAY, "2 years"),
            (i64::MAX, "292471208677 years"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(duration(SignedDuration::from_secs((*seconds).min(i64::MAX - 1800))), *expected);
        }
        let now: Timestamp = "2026-01-31T15:04:05Z".parse().unwrap();
        assert_eq!(ago("2026-01-31T15:01:00Z".parse().unwrap(), now), "3 minutes ago");
    }

    #[test]
    fn sizes() {
        let cases: &[(u64, &str, &str, &str)] = &[
            (0, "0B", "0B", "0B"),
            (999, "999B", "999B", "999B"),
            (1000, "1kB", "1kB", "1000B"),
            (1023, "1.02kB", "1.023kB", "1023B"),
            (1024, "1.02kB", "1.024kB", "1KiB"),
            (7_801_000, "7.8MB", "7.801MB", "7.44MiB"),
            (123_456_789, "123MB", "123.5MB", "117.7MiB"),
            (999_949, "1MB", "999.9kB", "976.5KiB"),
            (999_960, "1MB", "1MB", "976.5KiB"),
            (3 << 29, "1.61GB", "1.611GB", "1.5GiB"),
            (u64::MAX, "18.4EB", "18.45EB", "16EiB"),
        ];
        for (bytes, short, exact, binary) in cases {
            assert_eq!(
                (size(*bytes), size_exact(*bytes), size_binary(*bytes)),
                ((*short).into(), (*exact).into(), (*binary).into())
            );
        }
    }

    #[test]
    fn created_at_names_the_zone() {
        let moment: Timestamp = "2026-01-31T15:04:05Z".parse().unwrap();
        assert_eq!(created_at(moment, &TimeZone::UTC), "2026-01-31 15:04:05 +0000 UTC");
        assert_eq!(
            created_at(moment, &TimeZone::fixed(jiff::tz::offset(2))),
            "2026-01-31 17:04:05 +0200 +02"
        );
    }
}
