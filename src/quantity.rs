//! Texts that name an amount: bytes (`64m`), a span of time (`1h30m`), a moment (`2026-01-02T15:04`, `10m` ago).
//!
//! Only reading; writing amounts as docker does is `cli::format::human`, since no other room prints.
//!
//! Invariant: pure. The present moment and the zone are given, never looked up.

use anyhow::{Result, anyhow, bail};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// Powers of 1024, as docker reads every size: `1kb` is 1024 bytes and so is `1KiB`.
const SIZE_UNITS: &[(&str, u32)] = &[("", 0), ("k", 1), ("m", 2), ("g", 3), ("t", 4), ("p", 5)];

/// Nanoseconds in each unit of a duration, as Go names them.
const DURATION_UNITS: &[(&str, i128)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000), // Both code points of the micro sign are in use.
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
];

/// Reads a number of bytes: `1024`, `64m`, `1.5g`, `100kb`, `1GiB`. Never negative.
pub fn bytes(text: &str) -> Result<i64> {
    let bad = |why: &str| anyhow!("cannot read size {text:?}: {why}");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    // docker allows one space: `docker info` prints sizes so, and people paste them.
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let Some(power) = size_power(&unit) else {
        return Err(bad("a size is a number and a unit of b, k, m, g, t or p, as in 64m"));
    };
    let (whole, fraction) = match number.split_once('.') {
        Some((_, fraction)) if fraction.contains('.') => return Err(bad("it has two decimal points")),
        Some((whole, fraction)) => (whole, fraction),
        None => (number, ""),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(bad("it has no digits"));
    }
    // By whole numbers, so that 9007199254740993 stays what it is; digits past the ninth are less than a byte each.
    let unit_bytes = 1024_i128.pow(power);
    let whole: i128 =
        if whole.is_empty() { Ok(0) } else { whole.parse() }.map_err(|_| bad("it is too large"))?;
    let part = fraction_of(fraction, unit_bytes);
    let total = whole.checked_mul(unit_bytes).and_then(|n| n.checked_add(part));
    total.and_then(|n| i64::try_from(n).ok()).ok_or_else(|| bad("it is too large"))
}

/// [`bytes`], and `-1` for "no limit", as `--memory-swap` and `--ulimit` take it.
pub fn bytes_or_unlimited(text: &str) -> Result<i64> {
    if text == "-1" { Ok(-1) } else { bytes(text) }
}

fn size_power(unit: &str) -> Option<u32> {
    let stem = match unit.strip_suffix("ib") {
        Some("") => return None,
        Some(stem) => stem,
        None => unit.strip_suffix('b').unwrap_or(unit),
    };
    SIZE_UNITS.iter().find(|(name, _)| *name == stem).map(|(_, power)| *power)
}

/// The part of `unit` that the decimal digits after the point stand for, rounded down.
fn fraction_of(digits: &str, unit: i128) -> i128 {
    let digits = &digits[..digits.len().min(18)];
    let numerator: i128 = digits.parse().unwrap_or(0);
    unit * numerator / 10_i128.pow(digits.len() as u32)
}

/// Reads a span of time as Go does: `1h30m`, `100ms`, `1.5s`, `-10s`, `0`.
pub fn duration(text: &str) -> Result<SignedDuration> {
    let bad = |why: &str| anyhow!("cannot read duration {text:?}: {why}");
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return Err(bad("it is empty"));
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(bad("it is made of numbers with units, as in 1h30m"));
        }
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let Some((_, nanoseconds)) = DURATION_UNITS.iter().find(|(name, _)| *name == unit) else {
            let why = if unit.is_empty() { "a unit is missing" } else { "the unit is unknown" };
            return Err(bad(&format!("{why}: ns, us, ms, s, m or h")));
        };
        let whole: i128 =
            if whole.is_empty() { 0 } else { whole.parse().map_err(|_| bad("it is too large"))? };
        let span = whole.checked_mul(*nanoseconds).map(|n| n + fraction_of(fraction, *nanoseconds));
        total = span.and_then(|n| n.checked_add(total)).ok_or_else(|| bad("it is too large"))?;
        rest = after;
    }
    let total = if negative { -total } else { total };
    // Go's limit, some 292 years, keeps every later sum of a moment and a span away from overflow.
    let nanoseconds = i64::try_from(total).map_err(|_| bad("it is too large"))?;
    Ok(SignedDuration::from_nanos(nanoseconds))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Reads what `--since`, `--until` and the filter `until` take: a date or time (RFC 3339; in `zone` where it names
/// none), seconds since 1970 with or without a fraction, or a duration, which means that long before `now`.
pub fn moment(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return unix_seconds(text);
    }
    if let Ok(span) = duration(text) {
        return now.checked_sub(span).map_err(|_| anyhow!("cannot read time {text:?}: it is too far away"));
    }
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(moment);
    }
    let (local, zone) = match text.strip_suffix(['Z', 'z']) {
        Some(local) => (local, &TimeZone::UTC),
        None => (text, zone),
    };
    // jiff's grammar also takes a week date or a bracketed zone; docker's does not.
    let plain = local.bytes().all(|b| b.is_ascii_digit() || b"-:.T ".contains(&b));
    let civil = if plain { local.parse::<DateTime>().or_else(|_| hour_only(local)).ok() } else { None };
    let Some(civil) = civil else {
        bail!(
            "cannot read time {text:?}: give a date or time (2026-01-31, 2026-01-31T15:04:05Z), seconds since 1970, or a duration (10m)"
        );
    };
    zone.to_timestamp(civil).map_err(|e| anyhow!("cannot read time {text:?}: {e}"))
}

/// `2026-01-31T15`, which docker takes and jiff does not.
fn hour_only(text: &str) -> Result<DateTime, jiff::Error> {
    format!("{text}:00").parse()
}

fn unix_seconds(text: &str) -> Result<Timestamp> {
    let bad = || anyhow!("cannot read time {text:?}: it is not a number of seconds since 1970");
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.contains('.') {
        return Err(bad());
    }
    let nanoseconds = fraction_of(fraction, 1_000_000_000);
    Timestamp::new(seconds.parse().map_err(|_| bad())?, nanoseconds as i32).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let cases: &[(&str, Option<i64>)] = &[
            ("0", Some(0)),
            ("1024", Some(1024)),
            ("32b", Some(32)),
            ("64m", Some(64 << 20)),
            ("64M", Some(64 << 20)),
            ("64mb", Some(64 << 20)),
            ("64MiB", Some(64 << 20)),
            ("64 MiB", Some(64 << 20)),
            ("1g", Some(1 << 30)),
            ("1.5g", Some(3 << 29)),
            (".5k", Some(512)),
            ("5.k", Some(5120)),
            ("100kb", Some(100 << 10)),
            ("2t", Some(2 << 40)),
            ("1p", Some(1 << 50)),
            ("0.0000000001b", Some(0)),
            ("9007199254740993", Some(9007199254740993)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("99999999999999999999999999999999999999999999999", None),
            ("8192p", None),
            ("", None),
            (".", None),
            ("m", None),
            ("-1", None),
            ("1.2.3k", None),
            ("1x", None),
            ("1bb", None),
            ("1ib", None),
            ("1  m", None),
            ("1m ", None),
            ("1e3", None),
            ("10 µ", None),
        ];
        for (text, expected) in cases {
            assert_eq!(bytes(text).ok(), *expected, "{text}");
        }
        assert_eq!(bytes_or_unlimited("-1").unwrap(), -1);
        assert!(bytes_or_unlimited("-2").is_err());
        assert!(bytes("64mm").unwrap_err().to_string().starts_with("cannot read size \"64mm\": a size is"));
    }

    #[test]
    fn durations() {
        let cases: &[(&str, Option<i64>)] = &[
            ("0", Some(0)),
            ("-0", Some(0)),
            ("5s", Some(5_000_000_000)),
            ("+5s", Some(5_000_000_000)),
            ("-5s", Some(-5_000_000_000)),
            ("1h30m", Some(5_400_000_000_000)),
            ("1h15m30.918273645s", Some(4_530_918_273_645)),
            ("100ms", Some(100_000_000)),
            ("1.5s", Some(1_500_000_000)),
            (".5s", Some(500_000_000)),
            ("1.s", Some(1_000_000_000)),
            ("10us", Some(10_000)),
            ("10µs", Some(10_000)),
            ("10ns", Some(10)),
            ("0.3333333333333333333h", Some(1_199_999_999_999)),
            ("", None),
            ("-", None),
            ("3", None),
            ("s", None),
            (".s", None),
            ("1d", None),
            ("1h 30m", None),
            ("3000000h", None),
            ("99999999999999999999999999999999999999999h", None),
        ];
        for (text, expected) in cases {
            let nanoseconds = duration(text).ok().map(|d| d.as_nanos() as i64);
            assert_eq!(nanoseconds, *expected, "{text}");
        }
    }

    #[test]
    fn moments() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let east = TimeZone::fixed(jiff::tz::offset(2));
        let cases: &[(&str, Option<&str>)] = &[
            ("10m", Some("2026-03-01T11:50:00Z")),
            ("1h30m", Some("2026-03-01T10:30:00Z")),
            ("-1h", Some("2026-03-01T13:00:00Z")),
            ("0", Some("1970-01-01T00:00:00Z")),
            ("1136073845", Some("2006-01-01T00:04:05Z")),
            ("1136073845.000000001", Some("2006-01-01T00:04:05.000000001Z")),
            ("1136073845.5", Some("2006-01-01T00:04:05.5Z")),
            ("2006-01-02T15:04:05Z", Some("2006-01-02T15:04:05Z")),
            ("2006-01-02T15:04:05.999999999Z", Some("2006-01-02T15:04:05.999999999Z")),
            ("2006-01-02T15:04:05+07:00", Some("2006-01-02T08:04:05Z")),
            ("2006-01-02T15:04:05", Some("2006-01-02T13:04:05Z")),
            ("2006-01-02T15:04", Some("2006-01-02T13:04:00Z")),
            ("2006-01-02T15", Some("2006-01-02T13:00:00Z")),
            ("2006-01-02", Some("2006-01-01T22:00:00Z")),
            ("2006-01-02Z", Some("2006-01-02T00:00:00Z")),
            ("2006-01-02T15:04Z", Some("2006-01-02T15:04:00Z")),
            ("", None),
            (".", None),
            ("1.2.3", None),
            ("yesterday", None),
            ("2006-13-02", None),
            ("2006-01-02[Europe/Paris]", None),
            ("99999999999999999999", None),
            ("999999999999999", None),
        ];
        for (text, expected) in cases {
            let expected: Option<Timestamp> = expected.map(|e| e.parse().unwrap());
            assert_eq!(moment(text, now, &east).ok(), expected, "{text}");
        }
    }

    #[test]
    fn every_prefix_returns() {
        for text in
            ["1h15m30.918273645s", "1.5 GiB", "2006-01-02T15:04:05.999999999+07:00", "10µs", "1136073845.5"]
        {
            for (end, _) in text.char_indices() {
                let _ = (bytes(&text[..end]), duration(&text[..end]));
                let _ = moment(&text[..end], Timestamp::UNIX_EPOCH, &TimeZone::UTC);
            }
        }
    }
}
