//! What devices say of themselves, made harmless for a terminal.

use crate::limits::DEVICE_TEXT_CHARS_MAX;

/// A model, serial number or label as it may be shown: letters, digits, ASCII signs and single spaces, of bounded length. Whoever made the
/// stick chose these bytes.
#[must_use]
pub fn clean(text: &str) -> String {
    let shown = text.chars().map(|c| if c.is_alphanumeric() || c.is_ascii_graphic() { c } else { ' ' });
    let shown: String = shown.collect();
    let words: Vec<&str> = shown.split_whitespace().collect();
    words.join(" ").chars().take(DEVICE_TEXT_CHARS_MAX).collect()
}

/// As [`clean`], for bytes of a disk.
#[must_use]
pub fn clean_bytes(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    clean(&String::from_utf8_lossy(&bytes[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_text_is_short_and_cannot_steer_a_terminal() {
        assert_eq!(clean("  Ultra \x1b[2J  USB 3.0\n"), "Ultra [2J USB 3.0");
        assert_eq!(clean("a\u{202e}b\u{9b}c"), "a b c");
        assert_eq!(clean_bytes(b"M\xc3\xbcller  \0junk"), "Müller");
        assert_eq!(clean(&"x".repeat(1000)).len(), DEVICE_TEXT_CHARS_MAX);
    }
}
