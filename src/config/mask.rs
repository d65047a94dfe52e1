//! What must not be printed: passwords in URLs, template data that smells of a secret.

/// What stands in the place of a secret.
pub const MASK: &str = "***";

/// The same text with the user information and the query of each URL in it masked; a query may carry a token.
#[must_use]
pub fn mask_urls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>')).unwrap_or(after.len());
        // A message ends a URL with punctuation, which tells nothing.
        let end = after[..end].trim_end_matches([':', ',', ';', '.', ')']).len();
        let (url, tail) = after.split_at(end);
        mask_url(url, &mut out);
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// One line without credentials, and without what could drive the operator's terminal.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in mask_urls(text).chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// Appends what follows `://`.
fn mask_url(url: &str, out: &mut String) {
    let authority_end = url.find(['/', '?', '#']).unwrap_or(url.len());
    let (authority, path) = url.split_at(authority_end);
    match authority.rfind('@') {
        Some(at) => {
            out.push_str(MASK);
            out.push_str(&authority[at..]);
        }
        None => out.push_str(authority),
    }
    match path.find('?') {
        Some(at) => {
            out.push_str(&path[..=at]);
            out.push_str(MASK);
        }
        None => out.push_str(path),
    }
}

/// Whether a key of template data names a secret, as far as a name can tell.
#[must_use]
pub fn is_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    ["pass", "pwd", "token", "secret", "key", "credential", "auth"].iter().any(|word| key.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lose_credentials_and_query_and_nothing_else() {
        for (text, masked) in [
            ("https://me:p@ss@host:1/a?b=c", "https://***@host:1/a?***"),
            ("docker://quay.io/kairos/core:v1@sha256:00", "docker://quay.io/kairos/core:v1@sha256:00"),
            ("a http://u:p@h/x b \"http://u@h\" c", "a http://***@h/x b \"http://***@h\" c"),
            ("get http://h/x?y: refused", "get http://h/x?***: refused"),
            ("https://...", "https://..."),
            ("://", "://"),
            ("no url at all", "no url at all"),
        ] {
            assert_eq!(mask_urls(text), masked);
        }
    }

    #[test]
    fn printable_text_is_one_line() {
        assert_eq!(printable("a\n\u{1b}[31m é http://u:p@h"), "a\\n\\u{1b}[31m é http://***@h");
    }

    #[test]
    fn names_of_secrets() {
        for key in ["kairos.password", "passwd", "P2P.TOKEN", "ssh_key", "clientSecret"] {
            assert!(is_secret(key), "{key}");
        }
        for key in ["github.user", "hostname"] {
            assert!(!is_secret(key), "{key}");
        }
    }
}
