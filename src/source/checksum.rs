//! The sha256 that is published beside a file, in the shapes that `sha256sum` and its friends give it.

use super::client::{self, Client, Header, Trust};
use super::url::Url;
use crate::limits;
use crate::units::Digest;

/// Why a published checksum is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error("{url} holds no sha256 of {name}")]
    None { url: String, name: String },
}

/// The digest of `name` in a checksum file. Known are `HEX NAME` (elemental, until 2025), `HEX  PATH/NAME` and `HEX *NAME`
/// (sha256sum), a bare `HEX`, and `SHA256 (NAME) = HEX` (BSD). Of several lines the one with the name counts; one that stands alone is
/// believed under any name, for the file may have been renamed since.
#[must_use]
pub fn parse(text: &str, name: &str) -> Option<Digest> {
    let entries: Vec<(Digest, &str)> = text.lines().filter_map(entry).collect();
    match entries.as_slice() {
        [(digest, _)] => Some(*digest),
        several => several.iter().find(|(_, path)| path.rsplit('/').next() == Some(name)).map(|(digest, _)| *digest),
    }
}

fn entry(line: &str) -> Option<(Digest, &str)> {
    let line = line.trim();
    if let Some((path, hex)) = line.strip_prefix("SHA256 (").and_then(|rest| rest.rsplit_once(") = ")) {
        return Some((digest(hex)?, path));
    }
    let (hex, path) = line.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((line, ""));
    let path = path.trim_start();
    Some((digest(hex)?, path.strip_prefix('*').unwrap_or(path)))
}

fn digest(hex: &str) -> Option<Digest> {
    format!("sha256:{hex}").parse().ok()
}

/// Asks for the checksum of `name` at `url`; `None` when there is none. Servers that answer everything with a page have none either.
pub(super) fn ask(
    client: &Client,
    url: &Url,
    headers: &[Header<'_>],
    patience: Option<std::time::Duration>,
    name: &str,
) -> Result<Option<Digest>, Error> {
    let bytes = client.retrying_for(patience, || {
        let response = client.get(url, headers, Trust::Verified)?;
        match response.status() {
            200 if is_page(response.header("content-type")) => Ok(None),
            200 => response.read_to_vec(limits::CHECKSUM_BYTES_MAX).map(Some).map_err(|error| (error, None)),
            400..=499 if !super::retry::is_transient_status(response.status()) => Ok(None),
            status => Err((client::Error::Status { url: url.to_string(), status }, response.retry_after())),
        }
    })?;
    let Some(bytes) = bytes else { return Ok(None) };
    let digest = parse(&String::from_utf8_lossy(&bytes), name);
    digest.map(Some).ok_or_else(|| Error::None { url: url.to_string(), name: name.to_owned() })
}

/// Whether a server sends a page for people, such as that of its login, instead of a file.
pub(super) fn is_page(content_type: Option<&str>) -> bool {
    content_type.is_some_and(|text| text.trim_start().to_ascii_lowercase().starts_with("text/html"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "kairos-opensuse-v1.5.0.iso";

    #[test]
    fn every_shape_that_is_published() {
        let hex = "0f".repeat(32);
        let digest = Digest([0x0f; 32]);
        for text in [
            format!("{hex} {NAME}"),
            format!("{hex}  {NAME}\n"),
            format!("{hex} *{NAME}\r\n"),
            format!("{hex}  artifacts/{NAME}\n"),
            format!("{}\n", hex.to_uppercase()),
            format!("\n  {hex}  \n\n"),
            format!("SHA256 ({NAME}) = {hex}\n"),
            format!("{hex}  renamed.iso\n"),
            format!("{}  other.iso\n{hex}  x/{NAME}\n{}  {NAME}.sig\n", "aa".repeat(32), "bb".repeat(32)),
            format!("{}  b.iso\nSHA256 (x/{NAME}) = {hex}\r\n", "aa".repeat(32)),
            format!("# made by hand\n{hex}  {NAME}\n"),
        ] {
            assert_eq!(parse(&text, NAME), Some(digest), "{text:?}");
        }
    }

    #[test]
    fn what_holds_no_checksum() {
        let hex = "0f".repeat(32);
        for text in [
            String::new(),
            "Not Found".to_owned(),
            format!("{}  {NAME}", &hex[1..]),
            format!("{hex}0  {NAME}"),
            format!("{hex}  a.iso\n{hex}  b.iso\n"),
            format!("abc  {NAME}"),
            format!("SHA256 ({NAME}) = {}", "zz".repeat(32)),
        ] {
            assert_eq!(parse(&text, NAME), None, "{text:?}");
        }
    }

    #[test]
    fn pages_are_no_files() {
        assert!(is_page(Some("text/html; charset=utf-8")) && is_page(Some("TEXT/HTML")));
        assert!(!is_page(Some("text/plain")) && !is_page(None));
    }
}
