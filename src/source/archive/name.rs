//! How an archive is named: its path, and behind it which of its images is meant.

use std::fmt;
use std::path::{Path, PathBuf};

/// An image in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveRef {
    pub kind: ArchiveKind,
    pub path: PathBuf,
    /// What stands behind the path: a tag, `repository:tag`, `@sha256:…` or `@number`.
    pub name: Option<String>,
}

/// What the operator calls the archive. Which of the two it is, is told by its content; this says what is looked at first where
/// it is both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ArchiveKind {
    /// `oci:DIR`
    OciLayout,
    /// `oci-archive:FILE`
    OciArchive,
    /// `docker-archive:FILE`
    DockerArchive,
    /// `file:PATH`, `ocifile:PATH`
    Any,
}

/// Why a text names no archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadArchive {
    #[error("{0} lacks the path of an archive behind it")]
    NoPath(&'static str),
    #[error("{0:?} ends with a colon; the name of an image goes behind it")]
    NoName(String),
    #[error("{0:?} is no digest; it has the form @sha256:<64 hexadecimal digits>")]
    Digest(String),
}

impl ArchiveKind {
    /// What stands in front of the path.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::OciLayout => "oci:",
            Self::OciArchive => "oci-archive:",
            Self::DockerArchive => "docker-archive:",
            Self::Any => "file:",
        }
    }
}

impl ArchiveRef {
    /// Splits what stands behind the prefix into path and name. Both may contain colons: the longest beginning that exists is the
    /// path; where nothing exists, it ends at the first colon, as skopeo has it.
    ///
    /// # Errors
    /// When one of the two is missing.
    pub fn parse(kind: ArchiveKind, text: &str) -> Result<Self, BadArchive> {
        Self::split(kind, text, |path| path.exists())
    }

    fn split(kind: ArchiveKind, text: &str, exists: impl Fn(&Path) -> bool) -> Result<Self, BadArchive> {
        let text = text.strip_prefix("//").unwrap_or(text);
        let bare = |path: &str| Self { kind, path: path.into(), name: None };
        if text.is_empty() {
            return Err(BadArchive::NoPath(kind.prefix()));
        }
        if exists(Path::new(text)) {
            return Ok(bare(text));
        }
        let is_mark = |at: usize| at > 0 && (text[at..].starts_with(':') || text[at..].starts_with("@sha256:"));
        let marks: Vec<usize> = text.match_indices([':', '@']).map(|(at, _)| at).filter(|at| is_mark(*at)).collect();
        let existing = marks.iter().rev().find(|at| exists(Path::new(&text[..**at])));
        let Some(&end) = existing.or_else(|| marks.first()) else { return Ok(bare(text)) };
        let name = &text[end..];
        // `:@sha256:…` is how skopeo spells a number or digest.
        let name = name.strip_prefix(':').unwrap_or(name);
        if name.is_empty() {
            return Err(BadArchive::NoName(text.to_owned()));
        }
        if let Some(id) = name.strip_prefix('@')
            && id.parse::<usize>().is_err()
            && id.parse::<crate::units::Digest>().is_err()
        {
            return Err(BadArchive::Digest(name.to_owned()));
        }
        Ok(Self { name: Some(name.to_owned()), ..bare(&text[..end]) })
    }
}

/// As it is written.
impl fmt::Display for ArchiveRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.kind.prefix(), self.path.display())?;
        match &self.name {
            Some(name) if name.starts_with('@') => f.write_str(name),
            Some(name) => write!(f, ":{name}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str, there: &[&str]) -> Result<(String, Option<String>), BadArchive> {
        let exists = |path: &Path| there.iter().any(|there| Path::new(there) == path);
        let found = ArchiveRef::split(ArchiveKind::OciArchive, text, exists)?;
        Ok((found.path.display().to_string(), found.name))
    }

    #[test]
    fn path_and_name() {
        let digest = format!("@sha256:{}", "0a".repeat(32));
        let rows = [
            ("/a.tar", &["/a.tar"][..], "/a.tar", None),
            ("///a.tar", &["/a.tar"], "/a.tar", None),
            ("/a.tar:v1", &["/a.tar"], "/a.tar", Some("v1")),
            ("/a.tar:v1", &["/a.tar:v1", "/a.tar"], "/a.tar:v1", None),
            ("/a.tar:v1:v2", &["/a.tar:v1", "/a.tar"], "/a.tar:v1", Some("v2")),
            ("/a.tar:localhost:5000/b/c:v1", &["/a.tar"], "/a.tar", Some("localhost:5000/b/c:v1")),
            ("/a.tar:b/c:v1", &[], "/a.tar", Some("b/c:v1")),
            ("/me@home/a.tar", &[], "/me@home/a.tar", None),
            ("/me@home/a.tar:v1", &["/me@home/a.tar"], "/me@home/a.tar", Some("v1")),
            ("a.tar", &[], "a.tar", None),
            ("/a.tar:@3", &["/a.tar"], "/a.tar", Some("@3")),
        ];
        for (text, there, path, name) in rows {
            assert_eq!(split(text, there), Ok((path.to_owned(), name.map(str::to_owned))), "{text}");
        }
        for text in [format!("/a.tar{digest}"), format!("/a.tar:{digest}")] {
            assert_eq!(split(&text, &["/a.tar"]), Ok(("/a.tar".to_owned(), Some(digest.clone()))));
            assert_eq!(split(&text, &[]), Ok(("/a.tar".to_owned(), Some(digest.clone()))));
        }
    }

    #[test]
    fn what_lacks_something() {
        assert_eq!(split("", &[]), Err(BadArchive::NoPath("oci-archive:")));
        assert_eq!(split("//", &[]), Err(BadArchive::NoPath("oci-archive:")));
        assert_eq!(split("/a:", &["/a"]), Err(BadArchive::NoName("/a:".to_owned())));
        assert!(matches!(split("/a@sha256:12", &["/a"]), Err(BadArchive::Digest(_))));
    }

    #[test]
    fn it_is_shown_as_it_is_written() {
        for text in ["/a.tar", "/a.tar:v1"] {
            let shown = ArchiveRef::parse(ArchiveKind::DockerArchive, text).unwrap().to_string();
            assert_eq!(shown, format!("docker-archive:{text}"));
        }
    }
}
