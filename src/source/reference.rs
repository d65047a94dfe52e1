//! Names of images: `registry/repository:tag@digest`.
//!
//! The grammar is the one of the Docker and OCI tools, with their defaults: no registry means Docker Hub, no namespace
//! there means `library/`, neither tag nor digest means `latest`.

use std::fmt;
use std::str::FromStr;

use crate::units::{BadDigest, Digest};

const HUB: &str = "docker.io";
const REPOSITORY_BYTES_MAX: usize = 255;
const TAG_BYTES_MAX: usize = 128;

/// The name of an image in a registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// As written, `docker.io` when left out: `quay.io`, `10.0.0.1:5000`, `[::1]:5000`.
    registry: String,
    repository: String,
    /// None only beside a digest.
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not a [`Reference`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadReference {
    #[error("the image name is empty")]
    Empty,
    #[error("{0:?} is not a registry; write host or host:port")]
    Registry(String),
    #[error("{0:?} is not a repository; use lower-case letters, digits, and single . _ - between them")]
    Repository(String),
    #[error("{0:?} is not a tag; use up to 128 letters, digits, _ . -")]
    Tag(String),
    #[error(transparent)]
    Digest(#[from] BadDigest),
}

impl Reference {
    /// The registry as the operator names it; credentials are looked up by this.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Whom to ask: Docker Hub's API does not live at the name that images carry.
    #[must_use]
    pub fn api_host(&self) -> &str {
        if self.is_hub() { "registry-1.docker.io" } else { &self.registry }
    }

    #[must_use]
    pub fn is_hub(&self) -> bool {
        self.registry == HUB
    }

    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// What the manifest is asked for by: the digest if there is one, for the tag beside it is only a note.
    #[must_use]
    pub fn version(&self) -> String {
        self.digest.map_or_else(|| self.tag.clone().unwrap_or_default(), |digest| digest.to_string())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.trim();
        if name.is_empty() {
            return Err(BadReference::Empty);
        }
        let (name, digest) = match name.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse()?)),
            None => (name, None),
        };
        let (registry, rest) = split_registry(name);
        // Only a colon after the last slash starts a tag; one before it is a port.
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (rest, None),
        };
        let registry = match registry {
            None | Some("index.docker.io" | "registry-1.docker.io") => HUB.to_owned(),
            Some(host) => host.to_ascii_lowercase(),
        };
        let repository =
            if registry == HUB && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
        if !is_registry(&registry) {
            return Err(BadReference::Registry(registry));
        }
        if !is_repository(path) || repository.len() > REPOSITORY_BYTES_MAX {
            return Err(BadReference::Repository(path.to_owned()));
        }
        match tag {
            Some(tag) if !is_tag(tag) => Err(BadReference::Tag(tag.to_owned())),
            tag => {
                let tag = tag.or(if digest.is_none() { Some("latest") } else { None }).map(str::to_owned);
                Ok(Self { registry, repository, tag, digest })
            }
        }
    }
}

/// The first component is a registry when it could not be a namespace: a dot, a port, or `localhost`.
fn split_registry(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (Some(host), rest),
        _ => (None, name),
    }
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((v6, port)) if v6.parse::<std::net::Ipv6Addr>().is_ok() => ("v6", port.strip_prefix(':')),
            _ => return false,
        },
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    host.split('.').all(label)
        && port.is_none_or(|port| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|p| p > 0))
}

/// Components of `[a-z0-9]+` joined by `.`, `_`, `__` or any number of `-` (OCI distribution specification 1.1).
fn is_repository(path: &str) -> bool {
    path.split('/').all(|component| {
        let mut separator = "";
        let mut rest = component;
        while !rest.is_empty() {
            let word = rest.bytes().take_while(|b| b.is_ascii_lowercase() || b.is_ascii_digit()).count();
            if word == 0 {
                return false;
            }
            rest = &rest[word..];
            let gap = rest.bytes().take_while(|b| matches!(b, b'.' | b'_' | b'-')).count();
            (separator, rest) = rest.split_at(gap);
            let dashes = separator.bytes().all(|b| b == b'-');
            if !(dashes || matches!(separator, "." | "_" | "__")) {
                return false;
            }
        }
        !component.is_empty() && separator.is_empty()
    })
}

fn is_tag(tag: &str) -> bool {
    (1..=TAG_BYTES_MAX).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Reference, BadReference> {
        text.parse()
    }

    #[test]
    fn defaults_are_those_of_docker() {
        for (text, shown, host) in [
            ("ubuntu", "docker.io/library/ubuntu:latest", "registry-1.docker.io"),
            ("ubuntu:22.04", "docker.io/library/ubuntu:22.04", "registry-1.docker.io"),
            ("kairos/opensuse", "docker.io/kairos/opensuse:latest", "registry-1.docker.io"),
            ("index.docker.io/kairos/a", "docker.io/kairos/a:latest", "registry-1.docker.io"),
            ("quay.io/kairos/core-opensuse:v1.5.0", "quay.io/kairos/core-opensuse:v1.5.0", "quay.io"),
            ("localhost/img", "localhost/img:latest", "localhost"),
            ("localhost:5000/a/b:x", "localhost:5000/a/b:x", "localhost:5000"),
            ("10.0.0.1:5000/img", "10.0.0.1:5000/img:latest", "10.0.0.1:5000"),
            ("[::1]:5000/img:1", "[::1]:5000/img:1", "[::1]:5000"),
        ] {
            let reference = parse(text).unwrap();
            assert_eq!((reference.to_string().as_str(), reference.api_host()), (shown, host), "{text}");
            assert_eq!(parse(shown), Ok(reference), "what is shown can be typed back in");
        }
    }

    #[test]
    fn a_digest_wins_over_the_tag_beside_it() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let reference = parse(&format!("quay.io/a/b:v1@{digest}")).unwrap();
        assert_eq!(reference.version(), digest);
        assert_eq!(reference.to_string(), format!("quay.io/a/b:v1@{digest}"));
        assert_eq!(parse("quay.io/a/b:v1").unwrap().version(), "v1");
    }

    #[test]
    fn what_is_no_reference_says_which_part_is_wrong() {
        assert_eq!(parse("  "), Err(BadReference::Empty));
        for text in ["host:0/a", "host:x/a", "host:99999/a", "-x.io/a", "a..b/c", "[::g]:1/a", "../../etc"] {
            assert!(matches!(parse(text), Err(BadReference::Registry(_))), "{text}: {:?}", parse(text));
        }
        for text in ["quay.io/", "quay.io/A", "quay.io/a//b", "a---_b/c", "a_/b", "quay.io/a___b"] {
            assert!(matches!(parse(text), Err(BadReference::Repository(_))), "{text}: {:?}", parse(text));
        }
        for tag in ["", "-a", ".a", "a b", "ü", &"x".repeat(129)] {
            assert!(matches!(parse(&format!("quay.io/a:{tag}")), Err(BadReference::Tag(_))), "{tag}");
        }
        assert!(matches!(parse("quay.io/a@sha512:00"), Err(BadReference::Digest(_))));
        assert!(matches!(parse(&format!("quay.io/{}", "a".repeat(256))), Err(BadReference::Repository(_))));
    }
}
