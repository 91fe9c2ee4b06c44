//! Durations as Dockerfiles and compose files write them: `1m30s`, `1.5h`, `500ms`. Source: Go's `time.ParseDuration`.

use std::time::Duration;

/// Reads a duration. A bare `0` is allowed, any other number needs its unit; negative ones are refused.
pub fn parse(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a duration such as 1m30s");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return Err(bad());
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, tail) = rest.split_at(number_len);
        let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let nanoseconds = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(bad()),
        };
        let part = scaled(number, nanoseconds).ok_or_else(bad)?;
        total = total.checked_add(part).ok_or_else(bad)?;
        rest = tail;
    }
    // The specifications keep nanoseconds in an i64.
    if i64::try_from(total.as_nanos()).is_err() { Err(bad()) } else { Ok(total) }
}

/// A decimal number of units, in integers: a float would make 0.1s uneven.
fn scaled(number: &str, nanoseconds: u64) -> Option<Duration> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || fraction.len() > 18 {
        return None;
    }
    let digits = |d: &str| if d.is_empty() { Some(0) } else { d.parse::<u64>().ok() };
    let whole = digits(whole)?.checked_mul(nanoseconds)?;
    let part = u128::from(digits(fraction)?) * u128::from(nanoseconds) / 10u128.pow(fraction.len() as u32);
    Some(Duration::from_nanos(whole.checked_add(u64::try_from(part).ok()?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_reads_them() {
        let check = |text: &str, want: Option<u64>| {
            assert_eq!(parse(text).ok(), want.map(Duration::from_nanos), "{text}");
        };
        check("0", Some(0));
        check("30s", Some(30_000_000_000));
        check("1m30s", Some(90_000_000_000));
        check("1.5h", Some(5_400_000_000_000));
        check("0.1s", Some(100_000_000));
        check(".5s", Some(500_000_000));
        check("1.s", Some(1_000_000_000));
        check("+5ms", Some(5_000_000));
        check("2us3ns", Some(2_003));
        for bad in ["", "+", "-1s", "1", "s", "1x", "1..s", ".s", "99999999999h", "1s2", "1e3s"] {
            check(bad, None);
        }
    }
}
