//! Names and other text of an image, made fit for a message.

use crate::limits::SHOWN_CHARS_MAX;

/// Text from an image for a line of a message: the middle of a long one is cut, and what would steer the operator's terminal or reorder
/// the line (controls; the bidirectional controls of Unicode) is replaced.
#[must_use]
pub fn shown(text: &str) -> String {
    let clean = |c: char| if c.is_control() || is_invisible_control(c) { char::REPLACEMENT_CHARACTER } else { c };
    let count = text.chars().count();
    if count <= SHOWN_CHARS_MAX {
        return text.chars().map(clean).collect();
    }
    let half = SHOWN_CHARS_MAX / 2;
    let (head, tail) = (text.chars().take(half), text.chars().skip(count + 1 + half - SHOWN_CHARS_MAX));
    head.chain(std::iter::once('…')).chain(tail).map(clean).collect()
}

/// Marks that change the order of what stands around them (UAX #9), line and paragraph separators, the byte order mark.
const fn is_invisible_control(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_an_image_is_short_and_harmless() {
        assert_eq!(shown("Kairos 24.04 … ü"), "Kairos 24.04 … ü");
        assert_eq!(
            shown("a\x1b]0;x\x07b\r\n\u{9b}\u{202e}c"),
            "a\u{fffd}]0;x\u{fffd}b\u{fffd}\u{fffd}\u{fffd}\u{fffd}c"
        );
        let exact = "x".repeat(SHOWN_CHARS_MAX);
        assert_eq!(shown(&exact), exact);
        let long = shown(&format!("/start{}end", "/é".repeat(5000)));
        assert_eq!(long.chars().count(), SHOWN_CHARS_MAX);
        assert!(long.starts_with("/start/é") && long.ends_with("/éend") && long.contains('…'), "{long}");
    }
}
