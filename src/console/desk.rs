//! Where dialogs write: pages of lines for the terminal, requests for the host.

use super::dialogs::WrongPasswords;
use super::protocol::{Change, Profile, Request};
use super::text;
use crate::limits;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What dialogs see of the console.
#[derive(Debug)]
pub(super) struct Desk {
    pub profile: Profile,
    pub now: Instant,
    pub out: Vec<u8>,
    /// Said, and waiting for its page.
    lines: VecDeque<String>,
    /// Lines on the terminal since a key was pressed last.
    rows: usize,
    request: Option<Request>,
    /// Whether a request has not been answered yet.
    is_awaiting: bool,
    /// Whether whatever comes is dropped until the line is quiet.
    pub is_deaf: bool,
    /// Bytes that were no text since this was set to 0.
    pub noise: u64,
    /// Lines in a row that made no sense.
    pub nonsense: u32,
    pub wrong: WrongPasswords,
}

impl Desk {
    pub(super) fn new(profile: Profile, now: Instant) -> Self {
        Self {
            profile,
            now,
            out: Vec::new(),
            lines: VecDeque::new(),
            rows: 0,
            request: None,
            is_awaiting: false,
            is_deaf: false,
            noise: 0,
            nonsense: 0,
            wrong: WrongPasswords::default(),
        }
    }

    /// Says a text of one or more lines; long ones go on further in.
    pub(super) fn say(&mut self, text: &str) {
        self.say_hanging(text, 2);
    }

    pub(super) fn say_hanging(&mut self, text: &str, hang: usize) {
        for line in text.split('\n') {
            for row in text::wrap(line.trim_end_matches('\r'), hang) {
                if self.lines.len() < limits::CONSOLE_ANSWER_LINES_MAX {
                    self.lines.push_back(row);
                }
            }
        }
    }

    /// As [`Self::say`], unless there is nothing to say.
    pub(super) fn say_if_any(&mut self, text: &str) {
        if !text.trim().is_empty() {
            self.say(text.trim_end());
        }
    }

    /// Asks the host; its answer goes to the dialog that is there then.
    pub(super) fn ask(&mut self, request: Request) {
        self.request = Some(request);
        self.is_awaiting = true;
    }

    pub(super) fn check(&mut self, change: &Change) {
        self.ask(Request::Check(change.clone()));
    }

    pub(super) fn poll_request(&mut self) -> Option<Request> {
        self.request.take()
    }

    pub(super) fn answered(&mut self) {
        self.is_awaiting = false;
    }

    pub(super) fn is_awaiting(&self) -> bool {
        self.is_awaiting
    }

    /// A key was pressed: what is on the screen was seen.
    pub(super) fn turn_page(&mut self) {
        self.rows = 0;
    }

    /// Shows what was said, as far as the page goes.
    pub(super) fn show(&mut self) {
        // The last line of the screen is for the prompt.
        while self.rows + 1 < limits::CONSOLE_ROWS
            && let Some(line) = self.lines.pop_front()
        {
            self.out.extend(line.as_bytes());
            self.out.extend(b"\r\n");
            self.rows += 1;
        }
    }

    /// Whether more was said than the page holds.
    pub(super) fn has_more(&self) -> bool {
        !self.lines.is_empty()
    }

    pub(super) fn drop_more(&mut self) {
        self.lines.clear();
    }

    pub(super) fn new_line(&mut self) {
        self.out.extend(b"\r\n");
        self.rows += 1;
    }

    pub(super) fn after(&self, wait: Duration) -> Instant {
        self.now + wait
    }
}
