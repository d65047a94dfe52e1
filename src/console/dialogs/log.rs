//! The log: its last page, the pages before it, and what comes.

use super::{Dialog, menu, refused};
use crate::console::desk::Desk;
use crate::console::line::{Field, Kind};
use crate::console::protocol::{Answer, Request};
use crate::console::text;
use crate::limits;
use std::time::Instant;

/// Rows of one page: the screen without the prompt and a line about it.
const PAGE: usize = limits::CONSOLE_ROWS - 2;
/// Lines by which the place is found again in a log that went on.
const KNOWN: usize = 8;

#[derive(Debug)]
pub(in crate::console) enum Log {
    Loading {
        to_follow: bool,
    },
    /// What is before the page that is shown.
    Paging(Vec<String>),
    /// The last lines that were shown, and when to ask for more.
    Following {
        known: Vec<String>,
        next: Instant,
    },
}

impl Log {
    pub(super) fn begin(desk: &mut Desk) -> Dialog {
        desk.ask(Request::Log);
        Dialog::Log(Self::Loading { to_follow: false })
    }

    pub(super) fn field(&self) -> Field {
        match self {
            Self::Paging(earlier) if earlier.is_empty() => Field::new(Kind::Choice, "Log (f: follow; Enter: back): "),
            Self::Paging(_) => Field::new(Kind::Choice, "Log (Enter: earlier; f: follow; q: back): "),
            Self::Loading { .. } | Self::Following { .. } => Field::default(),
        }
    }

    pub(super) fn line(self, desk: &mut Desk, line: &str) -> Dialog {
        match (line.trim(), self) {
            ("f", _) => {
                desk.ask(Request::Log);
                Dialog::Log(Self::Loading { to_follow: true })
            }
            ("", Self::Paging(earlier)) if !earlier.is_empty() => page(desk, earlier),
            _ => menu(),
        }
    }

    pub(super) fn answer(self, desk: &mut Desk, answer: Answer) -> Dialog {
        let lines = match answer {
            Answer::Log(lines) => lines,
            other => return refused(desk, other),
        };
        match self {
            Self::Loading { to_follow: false } if lines.is_empty() => {
                desk.say("Nothing was logged yet.");
                menu()
            }
            Self::Loading { to_follow: false } | Self::Paging(_) => page(desk, lines),
            Self::Loading { to_follow: true } => follow(desk, &lines, &[]),
            Self::Following { known, .. } => follow(desk, &lines, &known),
        }
    }

    pub(super) fn is_following(&self) -> bool {
        matches!(self, Self::Following { .. })
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Following { next, .. } => Some(*next),
            _ => None,
        }
    }

    pub(super) fn handle_timeout(self, desk: &mut Desk) -> Dialog {
        if self.deadline().is_some_and(|next| next <= desk.now) && !desk.is_awaiting() {
            desk.ask(Request::Log);
        }
        Dialog::Log(self)
    }
}

/// Shows the last of these lines.
fn page(desk: &mut Desk, mut lines: Vec<String>) -> Dialog {
    let last = lines.split_off(last_page(&lines));
    last.iter().for_each(|line| desk.list(line, 2));
    Dialog::Log(Log::Paging(lines))
}

/// Shows what came after the lines that are known; the last page of it, when that is more.
fn follow(desk: &mut Desk, lines: &[String], known: &[String]) -> Dialog {
    let news = &lines[after(lines, known)..];
    let left_out = last_page(news);
    desk.turn_page();
    if left_out > 0 && !known.is_empty() {
        desk.say(&format!("... {left_out} lines left out"));
    }
    news[left_out..].iter().for_each(|line| desk.list(line, 2));
    if known.is_empty() {
        desk.say("-- following the log; any key stops --");
    }
    let known = if lines.is_empty() { known.to_vec() } else { lines[lines.len().saturating_sub(KNOWN)..].to_vec() };
    Dialog::Log(Log::Following { known, next: desk.after(limits::CONSOLE_FOLLOW_INTERVAL) })
}

/// Where the last page of these lines begins; a line that fills more than a page is one of its own.
fn last_page(lines: &[String]) -> usize {
    let mut rows = 0;
    let too_many = lines.iter().rposition(|line| {
        rows += text::wrap(line, 2).len();
        rows > PAGE
    });
    too_many.map_or(0, |index| (index + 1).min(lines.len() - 1))
}

/// Where the lines that came after `known` begin; all of them are news when nothing of it is there any more.
fn after(lines: &[String], known: &[String]) -> usize {
    if known.is_empty() {
        return 0;
    }
    lines.windows(known.len()).rposition(|window| window == known).map_or(0, |at| at + known.len())
}
