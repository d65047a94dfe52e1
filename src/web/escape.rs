//! Texts of others in HTML and in shell commands.

use std::fmt::{self, Write};

/// Text inside an element or a quoted attribute.
#[derive(Debug, Clone, Copy)]
pub struct Html<'a>(pub &'a str);

impl fmt::Display for Html<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // What turns the direction of text around makes one name look like another (CVE-2021-42574).
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => {
                    f.write_char('\u{fffd}')?
                }
                c if c.is_control() => f.write_char('\u{fffd}')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Control characters, and what turns the direction of text around: it makes one name look like another (CVE-2021-42574).
#[must_use]
pub fn is_deceptive(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// One word of a POSIX shell command, quoted when it has to be.
#[must_use]
pub fn shell_word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:%".contains(&byte);
    if !text.is_empty() && !text.starts_with('-') && text.bytes().all(plain) {
        return text.to_owned();
    }
    let quoted = text.replace('\'', r"'\''");
    // A name that begins with a dash would be taken for an option.
    if text.starts_with('-') { format!("'./{quoted}'") } else { format!("'{quoted}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_leaves_its_element() {
        assert_eq!(
            Html("<b a=\"x\" b='y'>&\u{202e}\n").to_string(),
            "&lt;b a=&quot;x&quot; b=&#39;y&#39;&gt;&amp;\u{fffd}\u{fffd}"
        );
        assert_eq!(Html("Käse.iso").to_string(), "Käse.iso");
    }

    #[test]
    fn a_word_stays_one_word() {
        for (text, word) in [
            ("kairos.iso", "kairos.iso"),
            ("http://10.0.0.1:8080/a%20b.iso", "http://10.0.0.1:8080/a%20b.iso"),
            ("http://[::1]:8080/a.iso", "'http://[::1]:8080/a.iso'"), // zsh would look for files of that name
            ("a b.iso", "'a b.iso'"),
            ("it's.iso", r"'it'\''s.iso'"),
            ("$(reboot).iso", "'$(reboot).iso'"),
            ("-rf.iso", "'./-rf.iso'"),
            ("", "''"),
        ] {
            assert_eq!(shell_word(text), word);
        }
    }
}
