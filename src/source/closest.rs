//! Which of many names are nearest to one that does not exist.

use crate::limits;
use crate::rootfs::shown;

/// `a, b and 7 more`: the names nearest to `wanted` first.
pub(super) fn list(mut names: Vec<String>, wanted: &str) -> String {
    names.sort_by_cached_key(|name| {
        (std::cmp::Reverse(shared_parts(name, wanted)), std::cmp::Reverse(prefix(name, wanted)), name.clone())
    });
    names.dedup();
    let more = names.len().saturating_sub(limits::NAMES_LISTED_MAX);
    let listed: Vec<String> = names.iter().take(limits::NAMES_LISTED_MAX).map(|name| shown(name)).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", listed.join(", "))
}

/// Names are made of parts (`kairos`, a flavor, `amd64`), and whoever has one wrong has the others right.
fn shared_parts(name: &str, wanted: &str) -> usize {
    let mut wanted: Vec<&str> = parts(wanted).collect();
    parts(name)
        .filter(|part| {
            let found = wanted.iter().position(|other| other == part);
            found.map(|index| wanted.swap_remove(index)).is_some()
        })
        .count()
}

fn parts(name: &str) -> impl Iterator<Item = &str> {
    name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty())
}

fn prefix(name: &str, wanted: &str) -> usize {
    name.bytes().zip(wanted.bytes()).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_come_first_and_not_too_many() {
        let names =
            ["kairos-debian-v1.5.0.iso", "core-opensuse-v1.5.0.iso", "kairos-opensuse-leap-v1.5.0.iso", "x.iso"];
        let listed = list(names.map(str::to_owned).to_vec(), "kairos-opensuse-v1.5.0.iso");
        assert_eq!(
            listed,
            "kairos-opensuse-leap-v1.5.0.iso, kairos-debian-v1.5.0.iso, core-opensuse-v1.5.0.iso, x.iso"
        );
        let tags = ["v2.5.0", "v1.5.2", "v1.5.0", "v1.15.0"].map(str::to_owned).to_vec();
        assert_eq!(list(tags, "v1.5.1"), "v1.5.0, v1.5.2, v1.15.0, v2.5.0");
        let many: Vec<String> = (0..1000).map(|n| format!("v{n}")).collect();
        let listed = list(many, "v7");
        assert!(listed.starts_with("v7, v70") && listed.ends_with(" and 990 more"), "{listed}");
        assert!(!list(vec!["\x1b[2J".to_owned()], "x").contains('\x1b'));
    }
}
