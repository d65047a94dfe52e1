//! The little of RFC 3986 that a registry client needs: split, join, show without secrets.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::secret::Secret;

/// `http` or `https`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

/// An absolute `http` or `https` URL. Its user and password are kept apart and never shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    pub scheme: Scheme,
    /// `host` or `host:port`, IPv6 in brackets.
    pub authority: String,
    /// Path and query; starts with `/`.
    pub path: String,
    /// `user:password`, percent-decoded.
    pub userinfo: Option<Secret>,
}

/// Why a text is not a [`Url`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an http:// or https:// address")]
pub struct BadUrl(pub String);

impl Url {
    /// The host without port and brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        host_of(&self.authority)
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        let written = self.authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        written.unwrap_or(match self.scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        })
    }

    /// Same host and port and no step down to plain text: the only case in which a header that is a secret may follow.
    #[must_use]
    pub fn may_share_secrets_with(&self, next: &Self) -> bool {
        self.host().eq_ignore_ascii_case(next.host())
            && (self.scheme == next.scheme && self.port() == next.port()
                || self.scheme == Scheme::Http && next.scheme == Scheme::Https)
    }

    /// Resolves a `Location` against this address (RFC 3986 §5.2, without dot segments).
    ///
    /// # Errors
    /// [`BadUrl`] when the result is not http or https.
    pub fn join(&self, location: &str) -> Result<Self, BadUrl> {
        let location = location.split('#').next().unwrap_or_default();
        if let Some(rest) = location.strip_prefix("//") {
            return format!("{}://{rest}", self.scheme).parse();
        }
        if location.starts_with('/') {
            return Ok(Self { path: location.to_owned(), ..self.clone() });
        }
        if location.contains("://") {
            return location.parse();
        }
        let path = self.path.split('?').next().unwrap_or_default();
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        Ok(Self { path: format!("{folder}/{location}"), ..self.clone() })
    }

    /// The address that the request is made to.
    #[must_use]
    pub fn target(&self) -> String {
        format!("{}://{}{}", self.scheme, self.authority, self.path)
    }
}

/// Whether a host is this machine itself: `localhost`, 127.0.0.0/8, `::1`.
#[must_use]
pub fn is_loopback(authority: &str) -> bool {
    let host = host_of(authority);
    host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|address: IpAddr| match address {
            IpAddr::V4(v4) => Ipv4Addr::is_loopback(&v4),
            IpAddr::V6(v6) => Ipv6Addr::is_loopback(&v6),
        })
}

fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

impl fmt::Display for Url {
    /// Without user and query: pre-signed addresses of object stores carry their secret in the query.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.path.split('?').next().unwrap_or_default())
    }
}

impl FromStr for Url {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shown =
            || BadUrl(text.split('?').next().unwrap_or_default().rsplit('@').next().unwrap_or_default().to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(shown)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(shown()),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (userinfo, authority) = match authority.rsplit_once('@') {
            Some((userinfo, authority)) => (Some(Secret::new(percent_decode(userinfo))), authority),
            None => (None, authority),
        };
        let clean = |part: &str| part.bytes().all(|b| b.is_ascii_graphic());
        if host_of(authority).is_empty() || !clean(authority) || !clean(path) {
            return Err(shown());
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { scheme, authority: authority.to_owned(), path, userinfo })
    }
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match hex.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Percent-encodes all but RFC 3986's unreserved characters, for one value of a query or form.
#[must_use]
pub fn percent_encode(text: &str) -> String {
    use fmt::Write;
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn splits_and_hides_what_is_secret() {
        let url = url("https://us%40er:pa%3ass@Example.com:8443/a/b?sig=SECRET#frag");
        assert_eq!((url.host(), url.port(), url.path.as_str()), ("Example.com", 8443, "/a/b?sig=SECRET"));
        assert_eq!(url.userinfo.as_ref().map(Secret::expose), Some("us@er:pa:ss"));
        assert_eq!(url.to_string(), "https://Example.com:8443/a/b");
        assert!(!format!("{url:?}").contains("pa:ss"));
        assert_eq!(url.target(), "https://Example.com:8443/a/b?sig=SECRET");
    }

    #[test]
    fn refuses_what_is_no_address_without_repeating_its_password() {
        for text in ["ftp://a/b", "a/b", "http://", "http:///x", "https://u:p@/x", "http://a b/", "http://a/\r\nX: y"] {
            assert!(text.parse::<Url>().is_err(), "{text}");
        }
        assert!(!"ftp://u:secret@h/".parse::<Url>().unwrap_err().to_string().contains("secret"));
    }

    #[test]
    fn joins_a_location_as_rfc_3986_says() {
        let base = url("https://r.io/v2/a/blobs/x?y=1");
        for (location, joined) in [
            ("http://cdn.io/z?q", "http://cdn.io/z?q"),
            ("//cdn.io/z", "https://cdn.io/z"),
            ("/z?q", "https://r.io/z?q"),
            ("z", "https://r.io/v2/a/blobs/z"),
        ] {
            assert_eq!(base.join(location).unwrap().target(), joined, "{location}");
        }
        assert!(base.join("ftp://x/").is_err());
    }

    #[test]
    fn secrets_stay_with_their_host() {
        let base = url("https://r.io/a");
        for (next, may) in [
            ("https://r.io:443/b", true),
            ("https://R.IO/b", true),
            ("http://r.io/b", false),
            ("https://r.io:8443/b", false),
            ("https://cdn.r.io/b", false),
        ] {
            assert_eq!(base.may_share_secrets_with(&url(next)), may, "{next}");
        }
        assert!(url("http://r.io/a").may_share_secrets_with(&url("https://r.io/a")));
    }

    #[test]
    fn loopback_is_known_by_name_and_number() {
        for host in ["localhost", "LOCALHOST:5000", "127.0.0.1", "127.9.9.9:1", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example.com", "10.0.0.1", "128.0.0.1", "[::2]:1", ""] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn form_values_are_encoded() {
        assert_eq!(percent_encode("repository:a/b:pull é~"), "repository%3Aa%2Fb%3Apull%20%C3%A9~");
    }
}
