//! Bytes of a terminal to keys.
//!
//! Whatever is no key is swallowed: escape sequences that nobody here knows, broken UTF-8, noise. Each byte costs the same.

use crate::limits::CONSOLE_ESCAPE_BYTES_MAX;

/// A key, by what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Tab,
    Enter,
    Backspace,
    Delete,
    Left,
    Right,
    Up,
    Down,
    Home,
    End,
    /// Ctrl-U.
    KillLine,
    /// Ctrl-W.
    KillWord,
    /// Ctrl-K.
    KillRest,
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-D.
    EndOfInput,
    /// Ctrl-L.
    Redraw,
}

/// Where in a sequence of bytes the next one belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Ground,
    /// After ESC.
    Escape,
    /// After ESC `[` (ECMA-48 §5.4): so many bytes, and the number they make.
    Control { length: usize, number: u16 },
    /// After ESC `O`: keys of the VT100's keypad mode.
    Shift3,
    /// A string that ends with BEL or ESC `\` (ECMA-48 §5.6), such as a terminal's answer to a question that nobody here asked.
    String { length: usize },
    /// In a character of several bytes (RFC 3629).
    Utf8 { bytes: [u8; 4], have: usize, want: usize },
}

/// Decodes what is typed.
#[derive(Debug, Default)]
pub(super) struct Keys {
    state: State,
    /// A line feed after it belongs to it.
    was_return: bool,
    noise: u64,
}

impl Keys {
    /// Takes one byte; a key, when one is complete with it.
    pub(super) fn push(&mut self, byte: u8) -> Option<Key> {
        let was_return = std::mem::take(&mut self.was_return);
        match self.state {
            State::Ground => self.ground(byte, was_return),
            State::Utf8 { bytes, have, want } => self.utf8(byte, bytes, have, want),
            // The keys that get out of everything get out of a sequence that was cut off, too.
            _ if matches!(byte, 0x03 | b'\r' | b'\n' | 0x18) => self.ground(byte, false),
            State::Escape => {
                self.state = match byte {
                    b'[' => State::Control { length: 0, number: 0 },
                    b'O' => State::Shift3,
                    b']' | b'P' | b'X' | b'^' | b'_' => State::String { length: 0 },
                    0x1b => State::Escape,
                    _ => State::Ground, // a letter with Alt
                };
                None
            }
            State::Control { length, number } => self.control(byte, length, number),
            State::Shift3 => {
                self.state = State::Ground;
                named(byte)
            }
            State::String { length } => {
                self.state = match byte {
                    0x07 => State::Ground,
                    0x1b => State::Escape,
                    _ if length >= CONSOLE_ESCAPE_BYTES_MAX => State::Ground,
                    _ => State::String { length: length + 1 },
                };
                None
            }
        }
    }

    /// How many bytes were nothing at all since this was asked last.
    pub(super) fn take_noise(&mut self) -> u64 {
        std::mem::take(&mut self.noise)
    }

    fn ground(&mut self, byte: u8, was_return: bool) -> Option<Key> {
        self.state = State::Ground;
        match byte {
            b' '..=b'~' => Some(Key::Char(char::from(byte))),
            b'\r' => {
                self.was_return = true;
                Some(Key::Enter)
            }
            b'\n' if was_return => None,
            b'\n' => Some(Key::Enter),
            b'\t' => Some(Key::Tab),
            0x08 | 0x7f => Some(Key::Backspace),
            0x01 => Some(Key::Home),
            0x02 => Some(Key::Left),
            0x03 => Some(Key::Interrupt),
            0x04 => Some(Key::EndOfInput),
            0x05 => Some(Key::End),
            0x06 => Some(Key::Right),
            0x0b => Some(Key::KillRest),
            0x0c => Some(Key::Redraw),
            0x0e => Some(Key::Down),
            0x10 => Some(Key::Up),
            0x15 => Some(Key::KillLine),
            0x17 => Some(Key::KillWord),
            0x1b => {
                self.state = State::Escape;
                None
            }
            0xc2..=0xf4 => {
                let want = if byte >= 0xf0 { 4 } else { 2 + usize::from(byte >= 0xe0) };
                self.state = State::Utf8 { bytes: [byte, 0, 0, 0], have: 1, want };
                None
            }
            0 if was_return => None, // telnet's carriage return
            _ => {
                self.noise += 1;
                None
            }
        }
    }

    fn utf8(&mut self, byte: u8, mut bytes: [u8; 4], have: usize, want: usize) -> Option<Key> {
        if byte & 0xc0 != 0x80 {
            self.noise += have as u64;
            return self.ground(byte, false);
        }
        bytes[have] = byte;
        if have + 1 < want {
            self.state = State::Utf8 { bytes, have: have + 1, want };
            return None;
        }
        self.state = State::Ground;
        let decoded = std::str::from_utf8(&bytes[..want]).ok().and_then(|text| text.chars().next());
        match decoded {
            Some(c) if !c.is_control() => Some(Key::Char(c)),
            _ => {
                self.noise += want as u64;
                None
            }
        }
    }

    fn control(&mut self, byte: u8, length: usize, number: u16) -> Option<Key> {
        self.state = State::Ground;
        match byte {
            0x1b => {
                self.state = State::Escape;
                None
            }
            b' '..=b'?' if length < CONSOLE_ESCAPE_BYTES_MAX => {
                let digit = u16::from(byte.wrapping_sub(b'0'));
                let number = if digit < 10 { number.saturating_mul(10).saturating_add(digit) } else { number };
                self.state = State::Control { length: length + 1, number };
                None
            }
            b'~' => match number {
                1 | 7 => Some(Key::Home),
                3 => Some(Key::Delete),
                4 | 8 => Some(Key::End),
                _ => None,
            },
            _ => named(byte),
        }
    }
}

/// The last byte of the sequence that a cursor key sends (VT100, xterm, Linux).
fn named(byte: u8) -> Option<Key> {
    match byte {
        b'A' => Some(Key::Up),
        b'B' => Some(Key::Down),
        b'C' => Some(Key::Right),
        b'D' => Some(Key::Left),
        b'F' => Some(Key::End),
        b'H' => Some(Key::Home),
        b'M' => Some(Key::Enter), // of the keypad
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bytes: &[u8]) -> (Vec<Key>, u64) {
        let mut decoder = Keys::default();
        let keys = bytes.iter().filter_map(|byte| decoder.push(*byte)).collect();
        (keys, decoder.take_noise())
    }

    fn typed(bytes: &[u8]) -> String {
        let sign = |key: &Key| match key {
            Key::Char(c) => c.to_string(),
            key => format!("<{key:?}>"),
        };
        keys(bytes).0.iter().map(sign).collect()
    }

    #[test]
    fn line_ends_of_every_kind_are_one_key_each() {
        assert_eq!(
            typed(b"a\rb\nc\r\nd\r\0e\n\rf\r\rg"),
            "a<Enter>b<Enter>c<Enter>d<Enter>e<Enter><Enter>f<Enter><Enter>g"
        );
    }

    #[test]
    fn keys_of_vt100_xterm_and_linux() {
        assert_eq!(
            typed(b"\x1b[A\x1bOB\x1b[1;5C\x1b[3~\x1b[1~\x1b[8~\x1bOH\x1b[F"),
            "<Up><Down><Right><Delete><Home><End><Home><End>"
        );
        assert_eq!(
            typed(b"\x08\x7f\x15\x17\x01\x05\x0b\x0c\x03\x04\t"),
            "<Backspace><Backspace><KillLine><KillWord><Home><End><KillRest><Redraw><Interrupt><EndOfInput><Tab>"
        );
    }

    #[test]
    fn sequences_that_nobody_knows_leave_nothing_behind() {
        assert_eq!(
            typed(b"a\x1b[200~b\x1b[?62;c\x1b[11~c\x1bxd\x1b]0;title\x07e\x1bP1$r\x1b\\f\x1b[<0;1;2Mg"),
            "abcdef<Enter>g"
        );
        assert_eq!(typed(b"\x1b[1\rb"), "<Enter>b", "a sequence that was cut off");
        assert_eq!(typed(b"\x1b]0;\x03s"), "<Interrupt>s");
        let mut endless = b"\x1b]".to_vec();
        endless.extend(vec![b'x'; CONSOLE_ESCAPE_BYTES_MAX + 1]);
        endless.extend(b"yz");
        assert_eq!(typed(&endless), "yz");
        let mut endless = b"\x1b[".to_vec();
        endless.extend(vec![b'9'; CONSOLE_ESCAPE_BYTES_MAX + 1]);
        endless.extend(b"yz");
        assert_eq!(typed(&endless), "yz");
    }

    #[test]
    fn characters_of_several_bytes_and_what_is_none() {
        assert_eq!(keys("é東😀".as_bytes()), (vec![Key::Char('é'), Key::Char('東'), Key::Char('😀')], 0));
        let broken = b"\xff\xc3a\xe6\x9d\xf0\x9f\x98\xc0\x80\xed\xa0\x80\xc2\x9bb";
        assert_eq!(keys(broken), (vec![Key::Char('a'), Key::Char('b')], 14));
        assert_eq!(keys(&[0, 0xff, 0x13, 0x11]).1, 4);
    }
}
