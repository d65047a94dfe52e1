//! Where a container image is, by what stands in front of its name.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::archive::{ArchiveKind, ArchiveRef, BadArchive};
use super::daemon;
use super::reference::{BadReference, Reference};

/// Where an image is taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// Without a prefix: from this host's container daemon when it has it, else from the registry.
    Named { name: daemon::Name, reference: Reference },
    /// `docker://`, `docker:`: from this host's container daemon and from nowhere else.
    Daemon(daemon::Name),
    /// `registry://`, and `oci://` as the original has it.
    Registry(Reference),
    /// `oci:DIR`, `oci-archive:`, `docker-archive:`, `file:`, `ocifile:`
    Archive(ArchiveRef),
    /// `dir:`: a root file system of this host.
    Directory(PathBuf),
}

/// Why a text names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLocation {
    #[error(transparent)]
    Reference(#[from] BadReference),
    #[error(transparent)]
    Daemon(#[from] daemon::BadName),
    #[error(transparent)]
    Archive(#[from] BadArchive),
    #[error("dir: lacks the path of a directory behind it")]
    NoDirectory,
    #[error("{0} is a file of this host; write {1}{0}")]
    File(String, &'static str),
    #[error(
        "{0:?} begins with no prefix that is known: docker://, registry://, oci:, oci-archive:, docker-archive:, file:, dir: and iso: are"
    )]
    Prefix(String),
}

impl Location {
    /// What has to be on this host.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Archive(archive) => Some(&archive.path),
            Self::Directory(path) => Some(path),
            Self::Named { .. } | Self::Daemon(_) | Self::Registry(_) => None,
        }
    }
}

impl FromStr for Location {
    type Err = BadLocation;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let Some((prefix, rest)) = split_prefix(text) else { return named(text, Path::is_file) };
        let archive = |kind| Ok(Self::Archive(ArchiveRef::parse(kind, rest)?));
        match prefix {
            // The last one is skopeo's.
            "docker://" | "docker:" | "docker-daemon:" => Ok(Self::Daemon(rest.parse()?)),
            "registry://" | "oci://" => Ok(Self::Registry(rest.parse()?)),
            // The original takes what follows for a name in a registry, other tools for a directory.
            "oci:" if is_path(rest) => archive(ArchiveKind::OciLayout),
            "oci:" => Ok(Self::Registry(rest.parse()?)),
            "dir:" if rest.is_empty() => Err(BadLocation::NoDirectory),
            "dir:" => Ok(Self::Directory(rest.strip_prefix("//").unwrap_or(rest).into())),
            "oci-archive:" => archive(ArchiveKind::OciArchive),
            "docker-archive:" => archive(ArchiveKind::DockerArchive),
            _ => archive(ArchiveKind::Any),
        }
    }
}

/// Longer ones before those that they begin with.
const PREFIXES: [&str; 11] = [
    "docker://",
    "docker:",
    "docker-daemon:",
    "registry://",
    "oci://",
    "oci:",
    "oci-archive:",
    "docker-archive:",
    "file:",
    "ocifile:",
    "dir:",
];

fn split_prefix(text: &str) -> Option<(&'static str, &str)> {
    PREFIXES.into_iter().find_map(|prefix| Some((prefix, text.strip_prefix(prefix)?)))
}

/// Whether it is spelt as a path, or there is a directory or an archive whose path it begins with.
fn is_path(text: &str) -> bool {
    let is_archive = |path: &str| FILES.iter().any(|(end, _)| path.ends_with(end)) && Path::new(path).is_file();
    let begins = |mark: usize| Path::new(&text[..mark]).is_dir() || is_archive(&text[..mark]);
    text.starts_with(['/', '.']) || begins(text.len()) || text.match_indices([':', '@']).any(|(at, _)| begins(at))
}

fn named(text: &str, is_file: impl Fn(&Path) -> bool) -> Result<Location, BadLocation> {
    if text.starts_with(PODMANS_OWN) {
        return Err(BadLocation::Prefix(PODMANS_OWN.to_owned()));
    }
    if text.contains("://") {
        let prefix = text.split("://").next().unwrap_or_default();
        return Err(BadLocation::Prefix(format!("{}://", crate::rootfs::shown(prefix))));
    }
    let file = FILES.into_iter().find(|(end, _)| text.ends_with(end)).map(|(_, prefix)| prefix);
    let path = Path::new(text);
    let prefix = match file {
        _ if text.starts_with(['/', '.']) && path.is_dir() => Some("dir:"),
        _ if text.starts_with(['/', '.']) => Some(file.unwrap_or("file:")),
        // Else the registry would be asked for a repository of that name, which there may well be.
        file => file.filter(|_| is_file(path)),
    };
    if let Some(prefix) = prefix {
        return Err(BadLocation::File(crate::rootfs::shown(text), prefix));
    }
    let reference: Reference = text.parse()?;
    Ok(Location::Named { name: text.parse()?, reference })
}

/// podman's and skopeo's prefix for podman's store, which only podman's service opens to others.
const PODMANS_OWN: &str = "containers-storage:";
/// How names of archives and ISOs end, and what stands in front of them.
const FILES: [(&str, &str); 6] = [
    (".tar", "file:"),
    (".tgz", "file:"),
    (".tar.gz", "file:"),
    (".tar.zst", "file:"),
    (".oci", "file:"),
    (".iso", "iso:"),
];

/// As it is written.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named { reference, .. } | Self::Registry(reference) => reference.fmt(f),
            Self::Daemon(name) => write!(f, "docker://{name}"),
            Self::Archive(archive) => archive.fmt(f),
            Self::Directory(path) => write!(f, "dir:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Location, BadLocation> {
        text.parse()
    }

    #[test]
    fn prefixes_say_where_to_look() {
        for (text, kind, shown) in [
            ("ubuntu", "Named", "docker.io/library/ubuntu:latest"),
            (" quay.io/a/b:1 ", "Named", "quay.io/a/b:1"),
            ("registry://localhost:5000/a", "Registry", "localhost:5000/a:latest"),
            ("oci:ghcr.io/a/b:1", "Registry", "ghcr.io/a/b:1"),
            ("oci://ghcr.io/a/b:1", "Registry", "ghcr.io/a/b:1"),
            ("docker://my-os:dev", "Daemon", "docker://my-os:dev"),
            ("docker:cafe0123", "Daemon", "docker://cafe0123"),
            ("docker-daemon:my-os:dev", "Daemon", "docker://my-os:dev"),
            ("oci:/srv/layout:v1", "Archive", "oci:/srv/layout:v1"),
            ("oci:./layout", "Archive", "oci:./layout"),
            ("oci:/tmp:v1", "Archive", "oci:/tmp:v1"),
            ("oci-archive:a.tar:v1", "Archive", "oci-archive:a.tar:v1"),
            ("docker-archive:///a.tar", "Archive", "docker-archive:/a.tar"),
            ("file:a.tar", "Archive", "file:a.tar"),
            ("dir:rootfs", "Directory", "dir:rootfs"),
            ("dir:///srv/rootfs", "Directory", "dir:/srv/rootfs"),
            ("ocifile:a.tar", "Archive", "file:a.tar"),
        ] {
            let location = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert!(format!("{location:?}").starts_with(kind), "{text}: {location:?}");
            assert_eq!(location.to_string(), shown, "{text}");
        }
    }

    #[test]
    fn a_file_that_is_there_is_no_repository() {
        for (text, prefix) in [("a.tar", "file:"), ("x/a.tar.zst", "file:"), ("a.iso", "iso:")] {
            let error = named(text, |_| true).unwrap_err();
            assert_eq!(error, BadLocation::File(text.to_owned(), prefix));
            assert!(named(text, |_| false).is_ok(), "a repository may be called {text}");
        }
        assert!(named("ubuntu", |_| true).is_ok(), "and a file may have any name");
    }

    #[test]
    fn what_is_none_says_what_to_write() {
        for (text, words) in [
            ("", "empty"),
            ("docker://", "empty"),
            ("oci:", "empty"),
            ("oci-archive:", "lacks the path"),
            ("dir:", "lacks the path"),
            ("https://quay.io/a/b", "docker://, registry://"),
            ("containers-storage:my-os", "docker://, registry://"),
            ("/srv/a.tar", "/srv/a.tar is a file of this host; write file:/srv/a.tar"),
            ("/tmp", "write dir:/tmp"),
            ("Ubuntu", "not a repository"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
