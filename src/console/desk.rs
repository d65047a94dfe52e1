//! Where dialogs write: pages of lines for the terminal, requests for the host.

use super::dialogs::WrongPasswords;
use super::protocol::{Change, Profile, Request};
use super::text;
use crate::limits;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A line of the screen.
#[derive(Debug)]
struct Row {
    text: String,
    may_be_skipped: bool,
}

/// What dialogs see of the console.
#[derive(Debug)]
pub(super) struct Desk {
    pub profile: Profile,
    pub now: Instant,
    pub out: Vec<u8>,
    /// Said, and waiting for its page.
    lines: VecDeque<Row>,
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
        self.put(text, 2, false);
    }

    /// As [`Self::say`], for lines of a list, whose rest may not be wanted.
    pub(super) fn list(&mut self, text: &str, hang: usize) {
        self.put(text, hang, true);
    }

    fn put(&mut self, text: &str, hang: usize, may_be_skipped: bool) {
        for line in text.split('\n') {
            for text in text::wrap(line.trim_end_matches('\r'), hang) {
                // A list that is cut must not take with it what is said about it.
                let room = if may_be_skipped { 1 } else { 2 };
                if self.lines.len() < room * limits::CONSOLE_ANSWER_LINES_MAX {
                    self.lines.push_back(Row { text, may_be_skipped });
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
            self.out.extend(line.text.as_bytes());
            self.out.extend(b"\r\n");
            self.rows += 1;
        }
    }

    /// Whether more was said than the page holds.
    pub(super) fn has_more(&self) -> bool {
        !self.lines.is_empty()
    }

    /// The rest of a list is not wanted; what was said besides is.
    pub(super) fn skip(&mut self) {
        self.lines.retain(|line| !line.may_be_skipped);
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
