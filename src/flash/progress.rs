//! The progress of several sticks for people: one line each, redrawn on a terminal, logged now and then elsewhere.
//!
//! Time and size of the terminal are arguments, text is what comes out; who calls it writes that where it belongs.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::write::Phase;
use crate::limits::{PROGRESS_LOG, PROGRESS_REDRAW};
use crate::units::{ByteSize, clock, per_second};

/// The rate is measured over this long, so that it follows a change without jumping about: sticks take bursts.
const RATE_WINDOW: Duration = Duration::from_secs(5);
/// Between two samples of a rate.
const SAMPLE_SPACING: Duration = Duration::from_millis(250);

/// Where the text goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A terminal: a block of lines that the next one draws over. The cursor is left at its beginning, so that a log line takes the place of
    /// its first line.
    Terminal { columns: usize, rows: usize },
    /// A log: whole lines.
    Lines,
}

/// The progress of all sticks.
#[derive(Debug)]
pub struct Board {
    style: Style,
    sticks: Vec<Stick>,
    shown: Option<Instant>,
}

/// What to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// As it is, without a line end.
    Redraw(String),
    /// Each a log line.
    Lines(Vec<String>),
}

#[derive(Debug)]
struct Stick {
    name: String,
    /// Bytes of each phase.
    total: u64,
    phase: Phase,
    done: u64,
    samples: VecDeque<(Instant, u64)>,
    over: bool,
}

impl Board {
    /// Sticks by name and by the bytes that each is to get.
    #[must_use]
    pub fn new(style: Style, sticks: impl IntoIterator<Item = (String, u64)>) -> Self {
        let stick = |(name, total)| Stick {
            name,
            total,
            phase: Phase::Writing,
            done: 0,
            samples: VecDeque::new(),
            over: false,
        };
        Self { style, sticks: sticks.into_iter().map(stick).collect(), shown: None }
    }

    /// A stick came so far.
    pub fn update(&mut self, now: Instant, stick: usize, phase: Phase, done: u64) {
        if let Some(stick) = self.sticks.get_mut(stick) {
            stick.update(now, phase, done);
        }
    }

    /// A stick is done, well or badly; its end is somebody else's to tell.
    pub fn end(&mut self, stick: usize) {
        if let Some(stick) = self.sticks.get_mut(stick) {
            stick.over = true;
        }
    }

    /// What to write now, if anything.
    pub fn text(&mut self, now: Instant) -> Option<Text> {
        let every = match self.style {
            Style::Terminal { .. } => PROGRESS_REDRAW,
            Style::Lines => PROGRESS_LOG,
        };
        // A log need not hear of what began this moment: the writing is announced by a line of its own.
        let shown = *self.shown.get_or_insert(match self.style {
            Style::Terminal { .. } => now.checked_sub(every).unwrap_or(now),
            Style::Lines => now,
        });
        if now.saturating_duration_since(shown) < every {
            return None;
        }
        self.shown = Some(now);
        let width = self.sticks.iter().map(|stick| stick.name.len()).max().unwrap_or(0);
        let lines = self.sticks.iter().filter(|stick| !stick.over).map(|stick| stick.line(now, width));
        let lines: Vec<String> = lines.collect();
        if lines.is_empty() {
            return None;
        }
        Some(match self.style {
            Style::Lines => Text::Lines(lines),
            Style::Terminal { columns, rows } => Text::Redraw(block(&lines, columns, rows)),
        })
    }

    /// What clears the block of a terminal, before the last log lines.
    #[must_use]
    pub fn clear(&self) -> Option<Text> {
        matches!(self.style, Style::Terminal { .. }).then(|| Text::Redraw(CLEAR_BELOW.to_owned()))
    }
}

/// To the line's start, and clear all that is below.
const CLEAR_BELOW: &str = "\r\x1b[J";

/// Lines over each other, and the cursor back to where they begin. None wraps, and no more than there is room for.
fn block(lines: &[String], columns: usize, rows: usize) -> String {
    // The last column stays free: some terminals wrap when it is written.
    let shown = lines.iter().take(rows.saturating_sub(1).max(1));
    let shown: Vec<String> = shown.map(|line| line.chars().take(columns.saturating_sub(1)).collect()).collect();
    let up = shown.len().saturating_sub(1);
    let up = if up == 0 { String::new() } else { format!("\x1b[{up}A") };
    format!("{CLEAR_BELOW}{}\r{up}", shown.join("\r\n"))
}

impl Stick {
    fn update(&mut self, now: Instant, phase: Phase, done: u64) {
        if self.phase != phase {
            self.phase = phase;
            self.samples.clear();
        }
        self.done = done;
        if self.samples.back().is_none_or(|(at, _)| now.saturating_duration_since(*at) >= SAMPLE_SPACING) {
            self.samples.push_back((now, done));
        }
        while self.samples.len() > 2
            && self.samples.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > RATE_WINDOW)
        {
            self.samples.pop_front();
        }
    }

    /// Bytes per second lately, a stall up to now included.
    fn rate(&self, now: Instant) -> Option<u64> {
        let (from, before) = self.samples.front()?;
        per_second(self.done.saturating_sub(*before), now.saturating_duration_since(*from))
    }

    fn line(&self, now: Instant, width: usize) -> String {
        let doing = match self.phase {
            Phase::Writing => "writing",
            Phase::Verifying => "verifying",
        };
        let percent = self.done.saturating_mul(100).checked_div(self.total).unwrap_or(100).min(100);
        let (name, done, total) = (&self.name, ByteSize(self.done), ByteSize(self.total));
        let mut line = format!("{name:width$}  {doing:9} {percent:3} %  {done} of {total}");
        if let Some(rate) = self.rate(now).filter(|rate| *rate > 0) {
            let left = self.total.saturating_sub(self.done) / rate;
            line = format!("{line}  {}/s  {} left", ByteSize(rate), clock(left));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    fn board(style: Style) -> Board {
        Board::new(style, [("/dev/sdb".to_owned(), 400 * MB), ("/dev/mmcblk0".to_owned(), 400 * MB)])
    }

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_terminal_gets_a_line_for_each_stick_over_those_before() {
        let (start, mut board) = (Instant::now(), board(Style::Terminal { columns: 80, rows: 24 }));
        board.update(start, 0, Phase::Writing, 0);
        board.update(start, 1, Phase::Writing, 0);
        board.update(after(start, 2), 0, Phase::Writing, 100 * MB);
        board.update(after(start, 2), 1, Phase::Writing, 20 * MB);
        let first = "/dev/sdb      writing    25 %  100.0 MB of 400.0 MB  50.0 MB/s  0:06 left";
        let second = "/dev/mmcblk0  writing     5 %  20.0 MB of 400.0 MB  10.0 MB/s  0:38 left";
        let wanted = format!("\r\x1b[J{first}\r\n{second}\r\x1b[1A");
        assert_eq!(board.text(after(start, 2)), Some(Text::Redraw(wanted)));
        assert_eq!(board.text(after(start, 2)), None, "not more often than an eye can follow");
        board.update(after(start, 3), 0, Phase::Verifying, MB);
        board.end(1);
        let wanted = "\r\x1b[J/dev/sdb      verifying   0 %  1.0 MB of 400.0 MB\r";
        assert_eq!(board.text(after(start, 3)), Some(Text::Redraw(wanted.to_owned())), "its rate begins anew");
        board.end(0);
        assert_eq!(board.text(after(start, 9)), None);
        assert_eq!(board.clear(), Some(Text::Redraw("\r\x1b[J".to_owned())));
    }

    #[test]
    fn a_small_terminal_is_neither_wrapped_nor_scrolled() {
        for (columns, rows) in [(0, 0), (1, 1), (20, 2)] {
            let mut board = board(Style::Terminal { columns, rows });
            let Some(Text::Redraw(text)) = board.text(Instant::now()) else { panic!() };
            let text = text.trim_start_matches("\r\x1b[J").trim_end_matches('\r');
            assert!(text.chars().count() <= columns.saturating_sub(1) && !text.contains('\n'), "{text:?}");
        }
    }

    #[test]
    fn a_log_gets_lines_now_and_then() {
        let (start, mut board) = (Instant::now(), board(Style::Lines));
        assert_eq!(board.text(start), None);
        for second in 0..=10 {
            board.update(after(start, second), 0, Phase::Writing, second * 10 * MB);
        }
        board.end(1);
        assert_eq!(board.text(after(start, 9)), None);
        let wanted = "/dev/sdb      writing    25 %  100.0 MB of 400.0 MB  10.0 MB/s  0:30 left";
        assert_eq!(board.text(after(start, 10)), Some(Text::Lines(vec![wanted.to_owned()])));
        assert_eq!(board.clear(), None);
    }

    #[test]
    fn a_stall_is_seen_in_the_rate() {
        let (start, mut board) = (Instant::now(), board(Style::Lines));
        board.update(start, 0, Phase::Writing, 0);
        board.update(after(start, 1), 0, Phase::Writing, 100 * MB);
        let stick = &board.sticks[0];
        assert_eq!(stick.rate(after(start, 1)), Some(100 * MB));
        assert_eq!(stick.rate(after(start, 100)), Some(MB));
    }
}
