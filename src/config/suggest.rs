//! "Did you mean …?": how far two names are apart.

/// The candidate nearest to `typed`, when it is near enough that a typing mistake is likely.
#[must_use]
pub fn closest<'a>(typed: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let typed_length = typed.chars().count();
    candidates
        .map(|candidate| (slips(typed, candidate), candidate))
        .filter(|(slips, candidate)| *slips <= allowed(typed_length.min(candidate.chars().count())))
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| candidate)
}

/// The candidate that is one slip of the finger away: one character wrong, missing, doubled or swapped with its
/// neighbour, or another spelling of the same name (case, `-` for `_`).
///
/// Below six characters one slip turns one good name into another (`mode`, `model`), so there only the spelling counts.
#[must_use]
pub fn one_slip_away<'a>(typed: &str, mut candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates.find(|candidate| {
        spelling(typed) == spelling(candidate) || (candidate.len() >= 6 && slips(typed, candidate) <= 1)
    })
}

/// How many slips still look like a mistake and not like another name.
const fn allowed(length: usize) -> usize {
    match length {
        0..=3 => 0,
        4..=7 => 1,
        8..=11 => 2,
        _ => 3,
    }
}

fn spelling(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}

/// The optimal string alignment distance (insertions, deletions, replacements, swaps of neighbours), ignoring case and
/// dash against underscore. Names longer than any of ours are as far away as they are long.
fn slips(a: &str, b: &str) -> usize {
    const LONGEST: usize = 64; // the work is quadratic, and --set takes keys of any length
    let a: Vec<char> = spelling(a).chars().take(LONGEST + 1).collect();
    let b: Vec<char> = spelling(b).chars().take(LONGEST + 1).collect();
    if a.len() > LONGEST || b.len() > LONGEST {
        return LONGEST;
    }
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let mut cost = (last[j] + usize::from(from != to)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *from == b[j - 1] && a[i - 1] == *to {
                cost = cost.min(before_last[j - 1] + 1);
            }
            row.push(cost);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 4] = ["container_image", "cloud_config", "model", "flavor"];

    #[test]
    fn one_slip_is_recognised_and_two_are_not() {
        let slip = |typed| one_slip_away(typed, NAMES.into_iter());
        for typed in ["contaner_image", "container_imagee", "contianer_image", "container_imgge", "Container-Image"] {
            assert_eq!(slip(typed), Some("container_image"), "{typed}");
        }
        assert_eq!(slip("flavour"), Some("flavor"));
        for typed in ["contaner_imag", "mode", "kairos.password", "", "image"] {
            assert_eq!(slip(typed), None, "{typed}");
        }
    }

    #[test]
    fn the_nearest_name_is_suggested_and_a_stranger_is_not() {
        assert_eq!(closest("contaner_imag", NAMES.into_iter()), Some("container_image"));
        assert_eq!(closest("cloud-cofig", NAMES.into_iter()), Some("cloud_config"));
        assert_eq!(closest("users", NAMES.into_iter()), None);
        assert_eq!(closest(&"x".repeat(100_000), NAMES.into_iter()), None);
    }
}
