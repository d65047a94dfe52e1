//! File names as clients send them, made safe to look up and to print.

/// Why a name is not looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadName {
    /// Steps out of the served tree.
    Climbs,
    /// Empty, not UTF-8 or with control characters.
    Unreadable,
}

/// Windows loaders separate by backslash, many clients begin with a slash or double one: all that is evened out.
pub fn clean(name: &[u8]) -> Result<String, BadName> {
    let name = std::str::from_utf8(name).map_err(|_| BadName::Unreadable)?;
    if name.chars().any(char::is_control) {
        return Err(BadName::Unreadable);
    }
    let parts = name.split(['/', '\\']).filter(|part| !matches!(*part, "" | "."));
    let parts: Vec<&str> = parts.collect();
    if parts.contains(&"..") {
        return Err(BadName::Climbs);
    }
    if parts.is_empty() {
        return Err(BadName::Unreadable);
    }
    Ok(parts.join("/"))
}

/// For log lines: a hostile name cannot forge one, nor fill the disk.
pub fn printable(name: &[u8]) -> String {
    const SHOWN: usize = 128;
    let shown = name.get(..SHOWN).unwrap_or(name);
    let text: String = String::from_utf8_lossy(shown).chars().flat_map(char::escape_debug).collect();
    if name.len() > SHOWN { text + "…" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_evened_out() {
        let cases: [(&[u8], Result<&str, BadName>); 14] = [
            (b"snponly.efi", Ok("snponly.efi")),
            (b"/grub/x86_64-efi/command.lst", Ok("grub/x86_64-efi/command.lst")),
            (b"\\boot\\x64\\wdsnbp.com", Ok("boot/x64/wdsnbp.com")),
            (b"//a///./b/", Ok("a/b")),
            ("k\u{e4}se".as_bytes(), Ok("k\u{e4}se")),
            (b"..", Err(BadName::Climbs)),
            (b"a/../../etc/passwd", Err(BadName::Climbs)),
            (b"..\\..\\etc\\passwd", Err(BadName::Climbs)),
            (b"a..b/...", Ok("a..b/...")),
            (b"", Err(BadName::Unreadable)),
            (b"/", Err(BadName::Unreadable)),
            (b"a\nb", Err(BadName::Unreadable)),
            (b"a\x7f", Err(BadName::Unreadable)),
            (b"\xff\xfe", Err(BadName::Unreadable)),
        ];
        for (sent, expected) in cases {
            assert_eq!(clean(sent), expected.map(str::to_owned), "{}", printable(sent));
        }
    }

    #[test]
    fn a_printed_name_is_one_short_line() {
        assert_eq!(printable(b"a\nb\x1b[2J\xff"), "a\\nb\\u{1b}[2J\u{fffd}");
        assert!(printable(&[b'a'; 60_000]).len() < 200);
    }
}
