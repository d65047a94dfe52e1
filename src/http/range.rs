//! Byte ranges (RFC 9110 §14): which part of a file a request is for.

use std::ops::Range;

/// The answer to a `Range` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// 200 with everything: no range was asked, or one that a server may ignore.
    Whole,
    /// 206 with these bytes; never empty.
    Part(Range<u64>),
    /// 416: there is nothing at that place.
    Unsatisfiable,
}

/// Decides which of `size` bytes to send.
///
/// Several ranges at once, other units and nonsense are answered with the whole file, as RFC 9110 §14.2 allows; so is a range of
/// an older state of the file, when `If-Range` says which one the client has (only a strong `etag` counts, §13.1.5).
#[must_use]
pub fn select(range: Option<&str>, if_range: Option<&str>, etag: Option<&str>, size: u64) -> Selection {
    if if_range.is_some() && if_range != etag {
        return Selection::Whole;
    }
    let Some(spec) = range.and_then(bytes_unit) else {
        return Selection::Whole;
    };
    let Some((first, last)) = spec.split_once('-').map(|(first, last)| (first.trim(), last.trim())) else {
        return Selection::Whole;
    };
    match (number(first), number(last)) {
        (Some(first), _) if first >= size && (last.is_empty() || number(last) >= Some(first)) => {
            Selection::Unsatisfiable
        }
        (Some(first), Some(last)) if first <= last => Selection::Part(first..last.saturating_add(1).min(size)),
        (Some(first), None) if last.is_empty() => Selection::Part(first..size),
        (None, Some(suffix)) if first.is_empty() => match size.min(suffix) {
            0 => Selection::Unsatisfiable,
            bytes => Selection::Part(size - bytes..size),
        },
        _ => Selection::Whole,
    }
}

fn bytes_unit(range: &str) -> Option<&str> {
    let (unit, spec) = range.split_once('=')?;
    unit.trim().eq_ignore_ascii_case("bytes").then_some(spec.trim())
}

/// Digits only; a number too great for 64 bits lies behind the end of every file.
fn number(digits: &str) -> Option<u64> {
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::Selection::*;
    use super::*;

    fn of_1000(range: &str) -> Selection {
        select(Some(range), None, None, 1000)
    }

    #[test]
    fn single_ranges() {
        for (range, selection) in [
            ("bytes=0-0", Part(0..1)),
            ("bytes=0-", Part(0..1000)),
            ("Bytes = 500-999", Part(500..1000)),
            ("bytes=900-5000", Part(900..1000)),
            ("bytes=-1", Part(999..1000)),
            ("bytes=-5000", Part(0..1000)),
            ("bytes=999-", Part(999..1000)),
            ("bytes=5-99999999999999999999999", Part(5..1000)),
        ] {
            assert_eq!(of_1000(range), selection, "{range}");
        }
    }

    #[test]
    fn behind_the_end_is_unsatisfiable() {
        for range in ["bytes=1000-", "bytes=1000-1000", "bytes=-0", "bytes=99999999999999999999999-"] {
            assert_eq!(of_1000(range), Unsatisfiable, "{range}");
        }
        for range in ["bytes=0-", "bytes=-5", "bytes=0-0"] {
            assert_eq!(select(Some(range), None, None, 0), Unsatisfiable, "{range} of nothing");
        }
    }

    #[test]
    fn what_a_server_may_ignore_is_ignored() {
        let ranges =
            ["", "bytes", "bytes=", "bytes=-", "bytes=5-2", "bytes=5000-2", "bytes=a-b", "bytes=1-x", "bytes=+1-2"];
        for range in ranges.into_iter().chain(["bytes=0-1,5-6", "items=0-5", "bytes 0-5"]) {
            assert_eq!(of_1000(range), Whole, "{range}");
        }
        assert_eq!(select(None, None, None, 1000), Whole);
    }

    #[test]
    fn a_resumed_download_needs_the_same_file() {
        let with = |if_range| select(Some("bytes=5-"), Some(if_range), Some("\"now\""), 10);
        assert_eq!(with("\"now\""), Part(5..10));
        assert_eq!(with("\"then\""), Whole);
        assert_eq!(with("W/\"now\""), Whole);
        assert_eq!(with("Sun, 22 Nov 2026 18:00:00 GMT"), Whole);
        assert_eq!(select(Some("bytes=5-"), Some("\"x\""), None, 10), Whole);
    }

    #[test]
    fn no_input_breaks_the_bounds() {
        let parts = ["", "0", "1", "9", "10", "11", "18446744073709551615", "x", "-"];
        for first in parts {
            for last in parts {
                for size in [0, 1, 10, u64::MAX] {
                    if let Part(range) = select(Some(&format!("bytes={first}-{last}")), None, None, size) {
                        assert!(range.start < range.end && range.end <= size, "{first}-{last} of {size}: {range:?}");
                    }
                }
            }
        }
    }
}
