//! The headers that mean something to us, read from text. Pure.

use std::time::Duration;

use jiff::Timestamp;

/// Retry-After (RFC 9110 10.2.3): seconds, or a date.
pub fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    Some(Duration::try_from(date.duration_since(now)).unwrap_or(Duration::ZERO))
}

/// Where a list goes on: the target with `rel="next"` of a Link header (RFC 8288).
pub fn next_link(value: &str) -> Option<&str> {
    let mut rest = value;
    // A target may hold commas, so the header is walked by its angle brackets.
    while let Some((target, after)) = rest.split_once('<').and_then(|(_, r)| r.split_once('>')) {
        let parameters = after.split('<').next().unwrap_or(after);
        let is_next = parameters.split([';', ',']).any(|p| {
            let (name, value) = p.split_once('=').unwrap_or((p, ""));
            name.trim().eq_ignore_ascii_case("rel")
                && value.trim().trim_matches('"').split(' ').any(|r| r.eq_ignore_ascii_case("next"))
        });
        if is_next {
            return Some(target);
        }
        rest = after;
    }
    None
}

/// Content-Range of a part: where it starts, and how large the whole is, where that is said.
pub fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.trim().strip_prefix("bytes")?.trim().split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let (start, end): (u64, u64) = (start.parse().ok()?, end.parse().ok()?);
    let total = total.parse().ok();
    (start <= end && total.is_none_or(|t| end < t)).then_some((start, total))
}

/// How many bytes of an upload have arrived, from its Range (distribution-spec "Pushing a blob in chunks"): the last one is
/// named. `0-0` is what registries say of an empty upload.
pub fn uploaded(value: &str) -> Option<u64> {
    let value = value.trim();
    let value = value.strip_prefix("bytes").map_or(value, |v| v.trim_start_matches(['=', ' ']));
    let (start, end) = value.split_once('-')?;
    let end: u64 = end.parse().ok()?;
    (start == "0").then_some(if end == 0 { 0 } else { end.checked_add(1)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let check = |value: &str, want: Option<u64>| {
            assert_eq!(retry_after(value, now), want.map(Duration::from_secs), "{value}");
        };
        check("3", Some(3));
        check(" 18446744073709551615 ", Some(u64::MAX));
        check("Sat, 21 Nov 2026 10:00:20 GMT", Some(20));
        check("Sat, 21 Nov 2026 09:00:00 GMT", Some(0));
        check("-1", None);
        check("soon", None);
    }

    #[test]
    fn links_lead_on() {
        let check = |value: &str, want: Option<&str>| assert_eq!(next_link(value), want, "{value}");
        check(r#"</v2/a/tags/list?last=b&n=1>; rel="next""#, Some("/v2/a/tags/list?last=b&n=1"));
        check(r#"<x>; rel=prev, <a,b>; title="c"; rel="last next""#, Some("a,b"));
        check("<x>; rel=prev", None);
        check("x; rel=next", None);
        check("<x", None);
        check("", None);
    }

    #[test]
    fn ranges_are_whole_or_nothing() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for bad in ["", "bytes */10", "bytes 9-5/10", "bytes 5-10/10", "5-9/10", "bytes 5-/10", "bytes -5/10"]
        {
            assert_eq!(content_range(bad), None, "{bad}");
        }
        assert_eq!(uploaded("0-9"), Some(10));
        assert_eq!(uploaded("bytes=0-9"), Some(10));
        assert_eq!(uploaded("0-0"), Some(0));
        for bad in ["", "1-9", "0-", "0-18446744073709551615", "9"] {
            assert_eq!(uploaded(bad), None, "{bad}");
        }
    }
}
