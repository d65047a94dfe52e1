//! The names of a directory's entries as ISO 9660 and as Joliet allow them: made unique, in their order.
//!
//! Linux, GRUB and macOS read the Rock Ridge names, Windows and UEFI shells the Joliet ones; the plain names are for what knows neither.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

const SPACE: u16 = 0x20;
const DOT: u16 = 0x2e;
const SEMICOLON: u16 = 0x3b;
const UNDERSCORE: u16 = 0x5f;

/// Which kind of identifiers a tree has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// ECMA-119 level 3: 31 characters of A-Z, 0-9 and _, one dot.
    Plain,
    /// Joliet: 64 units of UCS-2.
    Joliet,
}

/// ECMA-119 §7.6.3 and §10.2: together with the dot.
const PLAIN_MAX: usize = 31;
/// Joliet specification, "Joliet Filename Lengths": 128 bytes.
const JOLIET_UNITS_MAX: usize = 64;

/// The part before the last dot, and that dot with what follows it, in characters of a [`Naming`].
struct Natural {
    stem: Vec<u16>,
    extension: Vec<u16>,
    naming: Naming,
}

impl Natural {
    fn new(name: &[u8], is_directory: bool, naming: Naming) -> Self {
        let text = String::from_utf8_lossy(name);
        let split = if is_directory { None } else { text.rfind('.').filter(|at| *at > 0) };
        let (stem, extension) = text.split_at(split.unwrap_or(text.len()));
        match naming {
            Naming::Plain => {
                let plain =
                    |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() as u16 } else { UNDERSCORE };
                let dot = (!is_directory).then_some(DOT);
                let extension = dot.into_iter().chain(extension.chars().skip(1).map(plain)).collect();
                Self { stem: stem.chars().map(plain).collect(), extension, naming }
            }
            Naming::Joliet => {
                let joliet = |c: char| match u16::try_from(u32::from(c)) {
                    Ok(unit) if unit >= 0x20 && !matches!(c, '*' | '/' | ':' | ';' | '?' | '\\') => unit,
                    _ => UNDERSCORE,
                };
                let units = |text: &str| text.chars().map(joliet).collect();
                Self { stem: units(stem), extension: units(extension), naming }
            }
        }
    }

    /// The name, cut where it is too long; with a number, if it is not the first of its kind. Cutting takes of the stem first: what a
    /// file is, its extension says.
    fn cut(&self, number: usize) -> Vec<u16> {
        let number: Vec<u16> = if number == 0 { Vec::new() } else { number.to_string().encode_utf16().collect() };
        let units_max = match self.naming {
            Naming::Plain => PLAIN_MAX,
            Naming::Joliet => JOLIET_UNITS_MAX,
        };
        let extension = &self.extension[..self.extension.len().min(units_max / 2)];
        let stem = &self.stem[..self.stem.len().min(units_max - extension.len() - number.len())];
        let mut units = [stem, &number, extension].concat();
        // Windows cannot open a name that ends so, and Linux shows it without (fs/isofs/joliet.c).
        if self.naming == Naming::Joliet {
            let kept = units.iter().rposition(|unit| ![DOT, SPACE].contains(unit)).map_or(0, |last| last + 1);
            units[kept..].fill(UNDERSCORE);
        }
        units
    }
}

/// The identifiers for the names of one directory (and whether each is a directory's), in the order of the names.
pub(super) fn identifiers(names: &[(&[u8], bool)], naming: Naming) -> Vec<Vec<u8>> {
    let mut taken = HashSet::new();
    let mut numbers: HashMap<Vec<u16>, usize> = HashMap::new();
    let mut identifiers = Vec::with_capacity(names.len());
    for (name, is_directory) in names {
        let natural = Natural::new(name, *is_directory, naming);
        let first = natural.cut(0);
        let number = numbers.entry(key(&first, naming)).or_insert(0);
        let mut units = if *number == 0 { first } else { natural.cut(*number) };
        while !taken.insert(key(&units, naming)) {
            *number += 1;
            units = natural.cut(*number);
        }
        *number += 1;
        let version: &[u16] = if *is_directory { &[] } else { &[SEMICOLON, '1' as u16] };
        identifiers.push(encode(units.iter().chain(version), naming));
    }
    identifiers
}

/// Two names with one key may not stand in one directory: Windows does not tell upper from lower case.
fn key(units: &[u16], naming: Naming) -> Vec<u16> {
    match naming {
        // A directory `A` and a file `A.` are one name to DOS.
        Naming::Plain => units.strip_suffix(&[DOT]).unwrap_or(units).to_vec(),
        Naming::Joliet => String::from_utf16_lossy(units).to_lowercase().encode_utf16().collect(),
    }
}

fn encode<'a>(units: impl Iterator<Item = &'a u16>, naming: Naming) -> Vec<u8> {
    match naming {
        Naming::Plain => units.map(|unit| unit.to_le_bytes()[0]).collect(),
        Naming::Joliet => units.flat_map(|unit| unit.to_be_bytes()).collect(),
    }
}

/// The order of records in a directory (ECMA-119 §9.3): by name, then by extension, each as if filled up with spaces. Joliet names
/// are ordered by their bytes, as xorriso has it.
pub(super) fn order(a: &[u8], b: &[u8]) -> Ordering {
    fn plain(identifier: &[u8]) -> (&[u8], &[u8]) {
        let version = identifier.iter().rposition(|byte| *byte == b';').unwrap_or(identifier.len());
        let dot = identifier[..version].iter().rposition(|byte| *byte == b'.').unwrap_or(version);
        (&identifier[..dot], &identifier[dot..version])
    }
    plain(a).cmp(&plain(b)).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(names: &[&str]) -> Vec<String> {
        let names: Vec<(&[u8], bool)> = names.iter().map(|name| named(name)).collect();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        identifiers(&names, Naming::Plain).into_iter().map(text).collect()
    }

    fn joliet(names: &[&str]) -> Vec<String> {
        let names: Vec<(&[u8], bool)> = names.iter().map(|name| named(name)).collect();
        let text = |bytes: Vec<u8>| {
            let units: Vec<u16> = bytes.chunks(2).map(|unit| u16::from_be_bytes([unit[0], unit[1]])).collect();
            String::from_utf16(&units).unwrap()
        };
        identifiers(&names, Naming::Joliet).into_iter().map(text).collect()
    }

    /// `x/` is a directory.
    fn named(name: &str) -> (&[u8], bool) {
        name.strip_suffix('/').map_or((name.as_bytes(), false), |directory| (directory.as_bytes(), true))
    }

    #[test]
    fn plain_names() {
        let names = plain(&["rootfs.squashfs", "kernel", "boot/", "grub.d/", "a.b.tar.gz", ".hidden", "grün"]);
        let expected = ["ROOTFS.SQUASHFS;1", "KERNEL.;1", "BOOT", "GRUB_D", "A_B_TAR.GZ;1", "_HIDDEN.;1", "GR_N.;1"];
        assert_eq!(names, expected);
    }

    #[test]
    fn joliet_names_keep_what_windows_allows() {
        let names = joliet(&["Grün & Blau.tar.gz", "a:b?c", "boot/", "😀.txt", ".hidden"]);
        assert_eq!(names, ["Grün & Blau.tar.gz;1", "a_b_c;1", "boot", "_.txt;1", ".hidden;1"]);
    }

    #[test]
    fn joliet_names_end_in_what_every_reader_shows() {
        assert_eq!(
            joliet(&["end.", "end", "dots..", "space ", "...", "v1./"]),
            ["end_;1", "end;1", "dots__;1", "space_;1", "___;1", "v1_"]
        );
        let cut = format!("{}.{}/", "d".repeat(63), "d".repeat(9));
        assert_eq!(joliet(&[&cut]), [format!("{}_", "d".repeat(63))]);
    }

    #[test]
    fn long_names_keep_their_extension_and_become_unique() {
        let (a, b) = (format!("{}a.yaml", "x".repeat(80)), format!("{}b.yaml", "x".repeat(80)));
        let names = plain(&[&a, &b]);
        assert_eq!(names[0], format!("{}.YAML;1", "X".repeat(26)));
        assert_eq!(names[1], format!("{}1.YAML;1", "X".repeat(25)));
        let names = joliet(&[&a, &b]);
        assert_eq!(names[0], format!("{}.yaml;1", "x".repeat(59)));
        assert_eq!(names[1], format!("{}1.yaml;1", "x".repeat(58)));
    }

    #[test]
    fn names_that_differ_in_nothing_that_counts_are_numbered() {
        assert_eq!(plain(&["a+b", "a-b", "a_b", "a_b1"]), ["A_B.;1", "A_B1.;1", "A_B2.;1", "A_B11.;1"]);
        assert_eq!(joliet(&["README", "Readme", "readme"]), ["README;1", "Readme1;1", "readme2;1"]);
        let many: Vec<String> = (0..3000).map(|i| format!("{}{i}", "y".repeat(100))).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let unique: HashSet<String> = plain(&many).into_iter().collect();
        assert_eq!(unique.len(), 3000);
    }

    #[test]
    fn the_order_is_by_name_then_by_extension() {
        let mut identifiers: Vec<&[u8]> = vec![b"A.B1;1", b"A0.A;1", b"A.B;1", b"A", b"AB.;1", b"A.;1"];
        identifiers.sort_by(|a, b| order(a, b));
        assert_eq!(identifiers, [&b"A"[..], b"A.;1", b"A.B;1", b"A.B1;1", b"A0.A;1", b"AB.;1"]);
    }
}
