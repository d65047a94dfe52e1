//! Versions as Go's `golang.org/x/mod/semver` reads them: releases of Kairos are named by that reading.
//!
//! It differs from semver.org's in three ways: the leading `v` is required, `v1` and `v1.2` are short for `v1.0.0` and `v1.2.0`,
//! and a text that is no version comes before all versions.

use std::cmp::Ordering;

/// A version without its build metadata, which takes no part in the order (semver.org §10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version<'a> {
    /// Major, minor and patch, without leading zeros; of any length, as in Go.
    numbers: [&'a str; 3],
    /// Without its dash; empty in a release.
    pre_release: &'a str,
}

/// The order of two versions.
#[must_use]
pub fn compare(a: &str, b: &str) -> Ordering {
    match (parse(a), parse(b)) {
        (Some(a), Some(b)) => {
            let numbers = a.numbers.iter().zip(b.numbers).map(|(a, b)| compare_numbers(a, b));
            let numbers = numbers.fold(Ordering::Equal, Ordering::then);
            numbers.then_with(|| compare_pre_releases(a.pre_release, b.pre_release))
        }
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}

fn parse(text: &str) -> Option<Version<'_>> {
    let text = text.strip_prefix('v')?;
    let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
    let (core, pre_release) = text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
    let mut numbers = ["0"; 3];
    let mut count = 0;
    for number in core.split('.') {
        *numbers.get_mut(count)? = Some(number).filter(|number| is_number(number) && !has_leading_zero(number))?;
        count += 1;
    }
    // The short forms stand alone.
    if count < 3 && (pre_release.is_some() || build.is_some()) {
        return None;
    }
    let pre_is_good =
        pre_release.is_none_or(|pre| identifiers(pre).all(|id| is_identifier(id) && !has_leading_zero(id)));
    let build_is_good = build.is_none_or(|build| identifiers(build).all(is_identifier));
    (pre_is_good && build_is_good).then_some(Version { numbers, pre_release: pre_release.unwrap_or_default() })
}

fn identifiers(text: &str) -> impl Iterator<Item = &str> {
    text.split('.')
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn has_leading_zero(text: &str) -> bool {
    text.len() > 1 && text.starts_with('0') && is_number(text)
}

fn compare_numbers(a: &str, b: &str) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// semver.org §11: a pre-release comes before its release, numbers before words, fewer identifiers before more.
fn compare_pre_releases(a: &str, b: &str) -> Ordering {
    if a.is_empty() || b.is_empty() {
        return a.is_empty().cmp(&b.is_empty());
    }
    let compare_one = |(a, b): (&str, &str)| match (is_number(a), is_number(b)) {
        (true, true) => compare_numbers(a, b),
        (false, false) => a.cmp(b),
        (a_is_number, _) => {
            if a_is_number {
                Ordering::Less
            } else {
                Ordering::Greater
            }
        }
    };
    let first_difference = identifiers(a).zip(identifiers(b)).map(compare_one).find(|order| order.is_ne());
    first_difference.unwrap_or_else(|| identifiers(a).count().cmp(&identifiers(b).count()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_in_order() {
        // semver.org §11, and what Go adds: no version at all is least.
        let order = [
            "2.4.2",
            "v0.9.0",
            "v1",
            "v1.0.1-alpha",
            "v1.0.1-alpha.1",
            "v1.0.1-alpha.beta",
            "v1.0.1-beta",
            "v1.0.1-beta.2",
            "v1.0.1-beta.11",
            "v1.0.1-rc.1",
            "v1.0.1",
            "v1.2",
            "v1.10.0",
            "v2.4.2-rc1",
            "v2.4.2",
            "v99999999999999999999.0.0",
        ];
        for pair in order.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(compare("v2.4.2-k3sv1.26.1+k3s1", "v2.4.2-k3sv1.26.1+k3s2"), Ordering::Equal, "builds are equal");
        assert_eq!((compare("v1", "v1.0.0"), compare("latest", "2.4.2")), (Ordering::Equal, Ordering::Equal));
    }

    #[test]
    fn what_is_no_version() {
        for text in [
            "",
            "v",
            "1.2.3",
            "V1.2.3",
            "v01.2.3",
            "v1.02.3",
            "v1.2.3.4",
            "v1.2-rc1",
            "v1+x",
            "v1.2.3-",
            "v1.2.3-01",
            "v1.2.3-a..b",
            "v1.2.3+",
            "v1.2.3-a_b",
            "v1..2",
            "v1.2.3 ",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        for text in ["v0.0.0", "v1.2.3-0", "v1.2.3-0a", "v1.2.3--", "v1.2.3+01.x", "v1.2.3-k3sv1.26.1+k3s1"] {
            assert!(parse(text).is_some(), "{text}");
        }
    }
}
