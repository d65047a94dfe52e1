//! What the files of a medium are called.

use std::fmt;
use std::str::FromStr;

use crate::limits::MEDIUM_NAME_BYTES_MAX;

/// The name of an ISO without its ending, and the date that is put behind it when it is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    stem: String,
    date: Option<Date>,
}

/// A day, as the host's clock and zone have it; prints as `20261122`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    pub year: u16,
    pub month: u8,
    pub day: u8,
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day } = self;
        write!(f, "{year:04}{month:02}{day:02}")
    }
}

/// Why a text cannot be the name of an ISO.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    #[error("the name of the ISO is empty")]
    Empty,
    #[error("the name of the ISO, {0:?}, begins with a dot: it would be hidden, or not a file")]
    Dot(String),
    #[error("the name of the ISO, {name:?}, contains {character:?}; it is the name of a file, not a path")]
    Character { name: String, character: char },
    #[error("the name of the ISO has {bytes} bytes; {MEDIUM_NAME_BYTES_MAX} at most leave room for its endings")]
    TooLong { bytes: usize },
}

/// Behind the name of the ISO that carries the operator's files.
const CUSTOM: &str = ".custom.iso";
/// Behind the name of an ISO: its checksum.
const CHECKSUM: &str = ".sha256";

impl FromStr for Name {
    type Err = BadName;

    /// With or without `.iso`.
    fn from_str(text: &str) -> Result<Self, BadName> {
        let stem = text.strip_suffix(".iso").unwrap_or(text);
        let name = || stem.to_owned();
        if stem.is_empty() {
            return Err(BadName::Empty);
        }
        if stem.starts_with('.') {
            return Err(BadName::Dot(name()));
        }
        if stem.len() > MEDIUM_NAME_BYTES_MAX {
            return Err(BadName::TooLong { bytes: stem.len() });
        }
        // sha256sum escapes backslashes and line ends in its files, and other programs do not.
        if let Some(character) = stem.chars().find(|c| c.is_control() || matches!(c, '/' | '\\')) {
            return Err(BadName::Character { name: name(), character });
        }
        Ok(Self { stem: name(), date: None })
    }
}

impl Name {
    /// The same with a date.
    #[must_use]
    pub fn dated(self, date: Date) -> Self {
        Self { date: Some(date), ..self }
    }

    /// `kairos.iso`, `kairos.20261122.iso`.
    #[must_use]
    pub fn iso(&self) -> String {
        match self.date {
            Some(date) => format!("{}.{date}.iso", self.stem),
            None => format!("{}.iso", self.stem),
        }
    }

    /// Whether a file's name is this one, of today or of another day: an ISO that is used again keeps the date of its making.
    #[must_use]
    pub fn is_iso(&self, file: &str) -> bool {
        let Some(rest) = file.strip_prefix(&self.stem).and_then(|rest| rest.strip_suffix(".iso")) else { return false };
        match self.date {
            None => rest.is_empty(),
            Some(_) => rest.strip_prefix('.').is_some_and(is_date),
        }
    }
}

fn is_date(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `kairos.iso.custom.iso` of `kairos.iso`.
#[must_use]
pub fn custom(iso: &str) -> String {
    format!("{iso}{CUSTOM}")
}

/// `kairos.iso.sha256` of `kairos.iso`.
#[must_use]
pub fn checksum(iso: &str) -> String {
    format!("{iso}{CHECKSUM}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Date = Date { year: 2026, month: 1, day: 2 };

    #[test]
    fn one_name_makes_all_of_them() {
        let name: Name = "kairos".parse().unwrap();
        assert_eq!(name.iso(), "kairos.iso");
        assert_eq!(custom(&name.iso()), "kairos.iso.custom.iso");
        assert_eq!(checksum(&custom(&name.iso())), "kairos.iso.custom.iso.sha256");
        assert_eq!("my.v1.iso".parse::<Name>().unwrap().dated(DAY).iso(), "my.v1.20260102.iso");
    }

    #[test]
    fn an_iso_keeps_the_date_of_its_making() {
        let plain: Name = "kairos".parse().unwrap();
        let dated = plain.clone().dated(DAY);
        for (file, of_plain, of_dated) in [
            ("kairos.iso", true, false),
            ("kairos.20251231.iso", false, true),
            ("kairos.2025123.iso", false, false),
            ("kairos.v1.20251231.iso", false, false),
            ("kairos20251231.iso", false, false),
            ("kairos.2025123x.iso", false, false),
            ("other.iso", false, false),
        ] {
            assert_eq!((plain.is_iso(file), dated.is_iso(file)), (of_plain, of_dated), "{file}");
        }
    }

    #[test]
    fn a_name_cannot_leave_its_directory() {
        let refused = |text: &str| text.parse::<Name>().unwrap_err();
        assert_eq!(refused(""), BadName::Empty);
        assert_eq!(refused(".iso"), BadName::Empty);
        for text in [".", "..", "../x", ".hidden", ".iso.iso"] {
            assert!(matches!(refused(text), BadName::Dot(_)), "{text}");
        }
        for (text, character) in [("a/b", '/'), ("/etc/passwd", '/'), ("a\\b", '\\'), ("a\nb", '\n'), ("a\0", '\0')] {
            assert_eq!(refused(text), BadName::Character { name: text.to_owned(), character });
        }
        let most = "x".repeat(MEDIUM_NAME_BYTES_MAX);
        assert!(most.parse::<Name>().is_ok());
        assert_eq!(refused(&format!("{most}x")), BadName::TooLong { bytes: MEDIUM_NAME_BYTES_MAX + 1 });
        let longest = checksum(&custom(&most.parse::<Name>().unwrap().dated(DAY).iso())) + ".part";
        assert!(longest.len() <= 255, "NAME_MAX");
    }
}
