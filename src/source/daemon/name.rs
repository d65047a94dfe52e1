//! What an image is called in a container daemon.

use std::fmt;
use std::str::FromStr;

use crate::limits;
use crate::rootfs::shown;
use crate::source::url::percent_encode;

/// The name of an image in a daemon, as the operator writes it: with or without registry, tag and digest, or an image's ID or the
/// beginning of it. The daemon has the last word on what it means; here it is only made sure that it is one part of a URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name(String);

/// Why a text is not a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    #[error("the name of the daemon's image is empty; write docker://IMAGE")]
    Empty,
    #[error("{0:?} is no image name: it is longer than {max} bytes", max = limits::DAEMON_NAME_BYTES_MAX)]
    Long(String),
    #[error("{0:?} is no image name: {1:?} cannot be in one")]
    Character(String, char),
    #[error("{0:?} is no image name: a part between two / is missing, or is . or ..")]
    Part(String),
}

impl Name {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name for the path of a URL. Both Docker and podman take the rest of the path up to their own last word, `/` included.
    pub(super) fn path(&self) -> String {
        self.0.split('/').map(percent_encode).collect::<Vec<_>>().join("/")
    }

    /// Whether the name may have been taken for the beginning of an ID.
    pub(super) fn is_hexadecimal(&self) -> bool {
        self.0.bytes().all(|byte| byte.is_ascii_hexdigit())
    }
}

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let named = || shown(text);
        if text.is_empty() {
            return Err(BadName::Empty);
        }
        if text.len() > limits::DAEMON_NAME_BYTES_MAX {
            return Err(BadName::Long(named()));
        }
        // Letters and digits, what a reference is made of (distribution's grammar), the brackets of an IPv6 registry.
        let fits =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '/' | ':' | '@' | '[' | ']');
        if let Some(c) = text.chars().find(|c| !fits(*c)) {
            return Err(BadName::Character(named(), c));
        }
        // `..` would climb out of the path of the request.
        if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(BadName::Part(named()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_kind() {
        for text in [
            "debian",
            "sample/it:v1",
            "localhost/built:latest",
            "10.0.0.1:5000/a/b_c:x-1",
            "[::1]:5000/a",
            "a@sha256:0a29b7a18c588cab862f4deaf37e066fc925680cad8aec0ffaf96282756b7aed",
            "sha256:0a29b7a18c588cab862f4deaf37e066fc925680cad8aec0ffaf96282756b7aed",
            "0a29b7a18c58",
        ] {
            assert_eq!(text.parse::<Name>().unwrap().as_str(), text);
        }
        let path = "10.0.0.1:5000/a/b:x@sha256:00".parse::<Name>().unwrap().path();
        assert_eq!(path, "10.0.0.1%3A5000/a/b%3Ax%40sha256%3A00");
    }

    #[test]
    fn a_name_cannot_steer_the_request() {
        for text in
            ["", "/a", "a/", "a//b", "..", "a/../../info", "./a", "a?x=1", "a#b", "a b", "a%2fb", "a\r\nX: y", "é"]
        {
            let error = text.parse::<Name>().expect_err(text);
            assert!(!error.to_string().contains(['\r', '\n']), "{error}");
        }
        let exact = "a".repeat(limits::DAEMON_NAME_BYTES_MAX);
        assert!(exact.parse::<Name>().is_ok());
        assert!(matches!((exact + "a").parse::<Name>(), Err(BadName::Long(_))));
    }
}
