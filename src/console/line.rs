//! The line that is typed, edited with nothing but backspaces: a teletype would show it.
//!
//! A line longer than the screen is a window on itself, so nothing depends on how a terminal wraps.

use super::keys::Key;
use super::text::{self, COLUMNS};
use crate::limits::{CONSOLE_HISTORY_LINES_MAX, CONSOLE_LINE_CHARS_MAX, CONSOLE_PASTE_BYTES_MAX};
use std::collections::VecDeque;

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Field {
    /// What stands before the line.
    pub prompt: String,
    pub kind: Kind,
}

/// How a line is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Choice,
    /// Kept in the history.
    Value,
    /// Not shown.
    Secret,
    /// One of many lines, of any length, with tabs.
    Paste,
}

impl Field {
    pub(super) fn new(kind: Kind, prompt: impl Into<String>) -> Self {
        Self { prompt: prompt.into(), kind }
    }
}

/// What a key did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Edit {
    Going,
    Line(String),
    /// Ctrl-C.
    GivenUp,
    /// Ctrl-D, and what stood before it.
    End(String),
    /// The whole prompt is wanted once more.
    Redraw,
}

/// A line and what is seen of it.
#[derive(Debug, Default)]
pub(super) struct LineEditor {
    line: Vec<char>,
    at: usize,
    /// The first character that is seen.
    from: usize,
    /// What the terminal shows after the prompt, and where its cursor stands.
    drawn: Vec<char>,
    drawn_at: usize,
    history: VecDeque<String>,
    /// How far back in the history, and what was typed before going there.
    back: usize,
    typed: Vec<char>,
}

impl LineEditor {
    /// Draws the prompt and what is typed already, at the beginning of a line.
    pub(super) fn begin(&mut self, field: &Field, out: &mut Vec<u8>) {
        out.extend(field.prompt.as_bytes());
        self.drawn.clear();
        self.drawn_at = 0;
        self.draw(field, out);
    }

    /// Forgets what is typed, such as a line that was given up.
    pub(super) fn clear(&mut self) {
        self.line.clear();
        (self.at, self.from, self.back) = (0, 0, 0);
    }

    pub(super) fn forget_history(&mut self) {
        self.history.clear();
    }

    pub(super) fn key(&mut self, key: Key, field: &Field, out: &mut Vec<u8>) -> Edit {
        match key {
            Key::Enter => return Edit::Line(self.take(field, out)),
            Key::Interrupt => {
                self.clear();
                return Edit::GivenUp;
            }
            Key::EndOfInput if self.line.is_empty() || field.kind == Kind::Paste => {
                return Edit::End(self.take(field, out));
            }
            Key::Redraw => return Edit::Redraw,
            Key::Char(c) => self.insert(c, field, out),
            Key::Tab if field.kind == Kind::Paste => self.insert('\t', field, out),
            key => self.edit(key, field),
        }
        self.draw(field, out);
        Edit::Going
    }

    fn edit(&mut self, key: Key, field: &Field) {
        let end = self.line.len();
        match key {
            Key::Backspace if self.at > 0 => self.delete(self.at - 1, self.at),
            Key::Delete | Key::EndOfInput => self.delete(self.at, (self.at + 1).min(end)),
            Key::KillLine => self.delete(0, self.at),
            Key::KillRest => self.delete(self.at, end),
            Key::KillWord => {
                let before = &self.line[..self.at];
                let word_end = before.iter().rposition(|c| !c.is_whitespace()).map_or(0, |at| at + 1);
                let word = before[..word_end].iter().rposition(|c| c.is_whitespace()).map_or(0, |at| at + 1);
                self.delete(word, self.at);
            }
            // What is pasted is appended: within a long line each character would have to move all that follow.
            Key::Left | Key::Right | Key::Home | Key::End if field.kind == Kind::Paste => {}
            Key::Left => self.at = self.at.saturating_sub(1),
            Key::Right => self.at = (self.at + 1).min(end),
            Key::Home => self.at = 0,
            Key::End => self.at = end,
            Key::Up if field.kind == Kind::Value => self.recall(self.back + 1),
            Key::Down if field.kind == Kind::Value && self.back > 0 => self.recall(self.back - 1),
            _ => {}
        }
    }

    fn insert(&mut self, c: char, field: &Field, out: &mut Vec<u8>) {
        let max = if field.kind == Kind::Paste { CONSOLE_PASTE_BYTES_MAX } else { CONSOLE_LINE_CHARS_MAX };
        if self.line.len() < max {
            self.line.insert(self.at, c);
            self.at += 1;
        } else if field.kind != Kind::Paste {
            out.push(0x07);
        }
    }

    fn delete(&mut self, from: usize, to: usize) {
        self.line.drain(from..to);
        self.at = from;
    }

    /// Shows what was typed so many lines ago; 0 is the line that is being typed.
    fn recall(&mut self, back: usize) {
        if back > self.history.len() {
            return;
        }
        if self.back == 0 {
            self.typed.clone_from(&self.line);
        }
        self.back = back;
        self.line = match back {
            0 => std::mem::take(&mut self.typed),
            back => self.history[self.history.len() - back].chars().collect(),
        };
        self.at = self.line.len();
    }

    /// Ends the line.
    fn take(&mut self, field: &Field, out: &mut Vec<u8>) -> String {
        self.at = self.line.len();
        self.draw(field, out);
        let line = String::from_iter(&self.line);
        self.clear();
        if field.kind == Kind::Value && !line.trim().is_empty() && self.history.back() != Some(&line) {
            if self.history.len() >= CONSOLE_HISTORY_LINES_MAX {
                self.history.pop_front();
            }
            self.history.push_back(line.clone());
        }
        line
    }

    /// Makes the terminal show the line as it is now: from the first character that differs.
    fn draw(&mut self, field: &Field, out: &mut Vec<u8>) {
        if field.kind == Kind::Secret {
            return;
        }
        let room = COLUMNS.saturating_sub(text::columns(&field.prompt)).max(8);
        self.scroll(room);
        let mut used = 0;
        let seen = self.line[self.from..].iter().map(|c| text::shown(*c)).take_while(|c| {
            used += text::width(*c);
            used <= room
        });
        let seen: Vec<char> = seen.collect();
        let at = self.at - self.from;
        if seen != self.drawn {
            let same = seen.iter().zip(&self.drawn).take_while(|(a, b)| a == b).count();
            self.move_to(same, out);
            extend(out, &seen[same..]);
            let excess = columns(&self.drawn).saturating_sub(columns(&seen));
            out.extend(std::iter::repeat_n(b' ', excess));
            out.extend(std::iter::repeat_n(0x08, excess));
            self.drawn_at = seen.len();
            self.drawn = seen;
        }
        self.move_to(at, out);
    }

    /// Moves the window so that the cursor is in it; by half its width, so that a long paste is not drawn anew for each character.
    fn scroll(&mut self, room: usize) {
        let half = |at: usize| at.saturating_sub(room / 4); // each may take two columns
        if self.at <= self.from {
            self.from = half(self.at);
        }
        let near = self.at - self.from < room;
        if !near || columns(&self.line[self.from..self.at]) >= room {
            self.from = half(self.at);
        }
    }

    fn move_to(&mut self, to: usize, out: &mut Vec<u8>) {
        if to < self.drawn_at {
            out.extend(std::iter::repeat_n(0x08, columns(&self.drawn[to..self.drawn_at])));
        } else {
            extend(out, &self.drawn[self.drawn_at..to]);
        }
        self.drawn_at = to;
    }
}

fn columns(text: &[char]) -> usize {
    text.iter().map(|c| text::width(text::shown(*c))).sum()
}

fn extend(out: &mut Vec<u8>, text: &[char]) {
    out.extend(String::from_iter(text).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::keys::Keys;

    /// A screen of one line that knows backspaces, as a teletype does.
    fn screen(bytes: &[u8]) -> (String, usize) {
        let (mut cells, mut at): (Vec<char>, usize) = (Vec::new(), 0);
        for c in String::from_utf8(bytes.to_vec()).unwrap().chars() {
            match c {
                '\u{8}' => at = at.checked_sub(1).expect("not beyond the left margin"),
                '\u{7}' => {}
                c => {
                    assert!(!c.is_control());
                    for cell in [c].into_iter().chain((text::width(c) == 2).then_some('\u{0}')) {
                        cells.resize(cells.len().max(at + 1), ' ');
                        cells[at] = cell;
                        at += 1;
                    }
                }
            }
        }
        assert!(cells.len() <= 80);
        let text: String = cells.iter().filter(|c| **c != '\u{0}').collect();
        (text.trim_end().to_owned(), at)
    }

    struct Trace {
        editor: LineEditor,
        keys: Keys,
        field: Field,
        out: Vec<u8>,
    }

    impl Trace {
        fn new(kind: Kind) -> Self {
            let mut trace = Self {
                editor: LineEditor::default(),
                keys: Keys::default(),
                field: Field::new(kind, "> "),
                out: Vec::new(),
            };
            trace.editor.begin(&trace.field, &mut trace.out);
            trace
        }

        fn send(&mut self, bytes: &[u8]) -> Option<String> {
            for byte in bytes {
                let Some(key) = self.keys.push(*byte) else { continue };
                match self.editor.key(key, &self.field, &mut self.out) {
                    Edit::Line(line) => {
                        self.out.clear();
                        self.editor.begin(&self.field, &mut self.out);
                        return Some(line);
                    }
                    Edit::Going => {}
                    other => panic!("{other:?}"),
                }
            }
            None
        }

        /// What is seen with the cursor as `|`.
        fn seen(&self) -> String {
            let (text, at) = screen(&self.out);
            let mut cells: Vec<char> = text.chars().collect();
            cells.resize(cells.len().max(at), ' ');
            cells.insert(at, '|');
            cells.into_iter().collect()
        }
    }

    #[test]
    fn a_line_is_edited_and_the_screen_follows() {
        let mut line = Trace::new(Kind::Value);
        for (typed, seen) in [
            (&b"container"[..], "> container|"),
            (b"\x7f\x08", "> contain|"),
            (b" a bc ", "> contain a bc |"),
            (b"\x17", "> contain a |"),
            (b"\x1b[D\x1b[D\x1b[D", "> contain| a"),
            (b"er", "> container| a"),
            (b"\x01\x1b[C\x15", "> |ontainer a"),
            (b"c\x05!", "> container a !|"),
            (b"\x1b[D\x1b[D\x0b", "> container a|"),
            (b"\x1b[H\x1b[3~\x04", "> |ntainer a"),
        ] {
            line.send(typed);
            assert_eq!(line.seen(), seen);
        }
        assert_eq!(line.send(b"\r").unwrap(), "ntainer a");
    }

    #[test]
    fn what_was_typed_comes_back_and_secrets_do_not() {
        let mut line = Trace::new(Kind::Value);
        line.send(b"one\r");
        line.send(b"two\r");
        line.send(b"two\r");
        line.field.kind = Kind::Secret;
        assert_eq!(line.send(b"secr\x7fret\r").unwrap(), "secret");
        line.send(b"secret");
        assert_eq!(line.seen(), "> |");
        line.editor.clear();
        line.field.kind = Kind::Value;
        line.send(b"now\x1b[A");
        assert_eq!(line.seen(), "> two|");
        line.send(b"\x1b[A\x1b[A");
        assert_eq!(line.seen(), "> one|");
        line.send(b"\x1b[B\x1b[B\x1b[B");
        assert_eq!(line.seen(), "> now|");
        for n in 0..2 * CONSOLE_HISTORY_LINES_MAX {
            line.send(format!("{n}\r").as_bytes());
        }
        assert_eq!(line.editor.history.len(), CONSOLE_HISTORY_LINES_MAX);
    }

    #[test]
    fn long_lines_are_a_window_on_themselves_and_bounded() {
        let mut line = Trace::new(Kind::Value);
        let long: String = (0..CONSOLE_LINE_CHARS_MAX).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
        line.send(long.as_bytes());
        line.send(b"too much");
        assert_eq!(line.out.iter().filter(|byte| **byte == 7).count(), 8);
        assert!(line.out.len() < 8 * CONSOLE_LINE_CHARS_MAX, "{}", line.out.len());
        let (text, at) = screen(&line.out);
        assert!(text.len() <= COLUMNS && at == text.len() && long.ends_with(&text[2..]), "{text}");
        line.send(b"\x01");
        assert!(line.seen().starts_with("> |abcdef"));
        line.send(b"\x1b[C".repeat(200).as_slice());
        let seen = line.seen();
        let (before, after) = seen[2..].split_once('|').unwrap();
        assert!(long[..200].ends_with(before) && long[200..].starts_with(after), "{seen}");
        assert_eq!(line.send(b"\r").unwrap(), long);
    }

    #[test]
    fn wide_characters_and_hidden_ones_keep_the_cursor_where_it_belongs() {
        let mut line = Trace::new(Kind::Value);
        line.send("東京x\x1b[D\x1b[D\x7fö\u{202e}".as_bytes());
        assert_eq!(screen(&line.out), ("> ö?京x".to_owned(), 4));
        assert_eq!(line.send(b"\r").unwrap(), "ö\u{202e}京x");
        line.send("東".repeat(100).as_bytes());
        let (text, at) = screen(&line.out);
        assert!(at <= COLUMNS && text.starts_with("> 東"));
    }
}
