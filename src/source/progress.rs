//! The progress of a download for people: one redrawn line on a terminal, a line now and then elsewhere.
//!
//! Time and width are arguments, text is what comes out; who calls it writes that where it belongs.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::pull::Transferred;
use crate::limits;
use crate::units::{ByteSize, clock, per_second};

/// The rate is measured over this long, so that it follows a change without jumping about.
const RATE_WINDOW: Duration = Duration::from_secs(5);
const SAMPLES_MAX: usize = 32;

/// Where the text goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A terminal of that many columns: the text starts with a return to the line's start and does not end it. The last one is a
    /// whole line, as in a log, for it is to stay.
    Terminal { columns: usize },
    /// A log: whole lines without a line end.
    Lines,
    /// As often as on a terminal, as a log's lines: for who asks what is being done.
    Status,
}

impl Style {
    /// How long what was shown stays.
    #[must_use]
    pub const fn interval(self) -> Duration {
        match self {
            Self::Terminal { .. } | Self::Status => limits::PROGRESS_REDRAW,
            Self::Lines => limits::PROGRESS_LOG,
        }
    }

    /// A line of progress as it is written there.
    #[must_use]
    pub fn dress(self, text: String) -> String {
        match self {
            Self::Lines | Self::Status => text,
            Self::Terminal { columns } => {
                // The last column stays free: some terminals wrap when it is written.
                let text: String = text.chars().take(columns.saturating_sub(1)).collect();
                format!("\r\x1b[K{text}")
            }
        }
    }
}

/// What is being done, in the forms that sentences need.
#[derive(Debug, Clone, Copy)]
pub struct Words {
    doing: &'static str,
    done: &'static str,
    thing: &'static str,
}

/// Over a network.
pub const DOWNLOAD: Words = Words { doing: "Downloading", done: "Downloaded", thing: "Download" };
/// Out of a file, or another program.
pub const READ: Words = Words { doing: "Reading", done: "Read", thing: "Reading" };
/// Of what is here.
pub const CHECK: Words = Words { doing: "Checking", done: "Checked", thing: "Checking" };

/// Turns [`Transferred`] into text.
#[derive(Debug)]
pub struct Progress {
    words: Words,
    style: Style,
    started: Option<Instant>,
    shown: Option<Instant>,
    samples: VecDeque<(Instant, u64)>,
    over: bool,
}

impl Progress {
    #[must_use]
    pub fn new(words: Words, style: Style) -> Self {
        Self { words, style, started: None, shown: None, samples: VecDeque::new(), over: false }
    }

    /// What to write now, if anything.
    pub fn update(&mut self, now: Instant, state: Transferred) -> Option<String> {
        if self.over {
            return None;
        }
        let started = *self.started.get_or_insert(now);
        self.sample(now, state.fetched);
        if state.ended {
            self.over = true;
            return self.summary(now - started, state);
        }
        if self.shown.is_some_and(|shown| now - shown < self.style.interval()) {
            return None;
        }
        self.shown = Some(now);
        Some(self.style.dress(self.line(state)))
    }

    fn sample(&mut self, now: Instant, fetched: u64) {
        let spacing = RATE_WINDOW / 16;
        if self.samples.back().is_none_or(|(at, _)| now - *at >= spacing) {
            self.samples.push_back((now, fetched));
        }
        while self.samples.len() > SAMPLES_MAX
            || self.samples.len() > 2 && self.samples.front().is_some_and(|(at, _)| now - *at > RATE_WINDOW)
        {
            self.samples.pop_front();
        }
    }

    /// Bytes per second lately.
    fn rate(&self) -> Option<u64> {
        let ((from, before), (to, after)) = (self.samples.front()?, self.samples.back()?);
        per_second(after.saturating_sub(*before), *to - *from)
    }

    fn line(&self, state: Transferred) -> String {
        let doing = self.words.doing;
        let mut line = match state.total {
            Some(total) => {
                let percent = state.here.saturating_mul(100).checked_div(total).unwrap_or(100).min(100);
                format!("{doing}: {percent:3} %  {} of {}", ByteSize(state.here), ByteSize(total))
            }
            None => format!("{doing}: {}", ByteSize(state.here)),
        };
        if let Some(rate) = self.rate() {
            line = format!("{line}  {}/s", ByteSize(rate));
            let left = state.total.and_then(|total| total.saturating_sub(state.here).checked_div(rate));
            if let Some(left) = left {
                line = format!("{line}  {} left", clock(left));
            }
        }
        line
    }

    /// Nothing when nothing came: why that is follows as an error.
    fn summary(&self, took: Duration, state: Transferred) -> Option<String> {
        let Words { done, thing, .. } = self.words;
        let Some(total) = state.total.filter(|total| state.here >= *total) else {
            let of = state.total.map(|total| format!(" of {}", ByteSize(total))).unwrap_or_default();
            return (state.fetched > 0).then(|| format!("{thing} ended at {}{of}", ByteSize(state.here)));
        };
        if state.fetched == 0 {
            return Some(format!("{done} earlier: {} in the cache", ByteSize(total)));
        }
        let rate = per_second(state.fetched, took).map(|rate| format!(", {}/s", ByteSize(rate))).unwrap_or_default();
        let cached = total.saturating_sub(state.fetched);
        let rest = if cached == 0 { String::new() } else { format!(" ({} were in the cache)", ByteSize(cached)) };
        Some(format!("{done} {} in {}{rate}{rest}", ByteSize(state.fetched), clock(took.as_secs())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(here: u64, fetched: u64) -> Transferred {
        Transferred { here, fetched, total: Some(1_000_000_000), ended: false }
    }

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn a_terminal_gets_one_line_that_is_redrawn() {
        let start = Instant::now();
        let mut progress = Progress::new(DOWNLOAD, Style::Terminal { columns: 80 });
        let first = progress.update(start, at(0, 0)).unwrap();
        assert_eq!(first, "\r\x1b[KDownloading:   0 %  0 B of 1.0 GB");
        assert_eq!(progress.update(after(start, 50), at(1, 1)), None, "not more often than an eye can follow");
        let line = progress.update(after(start, 1000), at(100_000_000, 100_000_000)).unwrap();
        assert_eq!(line, "\r\x1b[KDownloading:  10 %  100.0 MB of 1.0 GB  100.0 MB/s  0:09 left");
        let ended = Transferred { ended: true, ..at(1_000_000_000, 1_000_000_000) };
        let last = progress.update(after(start, 10_000), ended).unwrap();
        assert_eq!(last, "Downloaded 1.0 GB in 0:10, 100.0 MB/s", "it stays, as a log line");
        assert_eq!(progress.update(after(start, 20_000), ended), None, "it ends once");
    }

    #[test]
    fn a_narrow_terminal_is_never_wrapped() {
        for columns in [0, 1, 20] {
            let mut progress = Progress::new(DOWNLOAD, Style::Terminal { columns });
            let line = progress.update(Instant::now(), at(5, 5)).unwrap();
            assert!(line.trim_start_matches("\r\x1b[K").chars().count() <= columns.saturating_sub(1), "{line:?}");
        }
    }

    #[test]
    fn a_log_gets_a_line_at_the_start_now_and_then_and_at_the_end() {
        let start = Instant::now();
        let mut progress = Progress::new(DOWNLOAD, Style::Lines);
        let shown: Vec<String> = (0..=250)
            .filter_map(|tenth| progress.update(after(start, tenth * 100), at(tenth * 1_000_000, tenth * 1_000_000)))
            .collect();
        assert_eq!(shown.len(), 3, "{shown:?}");
        assert_eq!(shown[2], "Downloading:  20 %  200.0 MB of 1.0 GB  10.0 MB/s  1:20 left");
    }

    #[test]
    fn the_rate_follows_a_stall_and_counts_no_cached_bytes() {
        let start = Instant::now();
        let mut progress = Progress::new(DOWNLOAD, Style::Terminal { columns: 200 });
        for second in 0..=20 {
            progress.update(after(start, second * 1000), at(500_000_000 + 1_000_000, 1_000_000));
        }
        let line = progress.update(after(start, 30_000), at(501_000_000, 1_000_000)).unwrap();
        assert!(line.ends_with("0 B/s"), "no time left is guessed: {line:?}");
    }

    #[test]
    fn what_nobody_knows_is_not_guessed() {
        let start = Instant::now();
        let unknown = |here| Transferred { total: None, ..at(here, here) };
        let mut progress = Progress::new(DOWNLOAD, Style::Lines);
        assert_eq!(progress.update(start, unknown(0)).unwrap(), "Downloading: 0 B");
        let line = progress.update(start + limits::PROGRESS_LOG, unknown(500_000_000)).unwrap();
        assert_eq!(line, "Downloading: 500.0 MB  50.0 MB/s");
        let failed =
            |here| Progress::new(DOWNLOAD, Style::Lines).update(start, Transferred { ended: true, ..unknown(here) });
        assert_eq!(failed(5_000_000).unwrap(), "Download ended at 5.0 MB");
        assert_eq!(failed(0), None, "the error says it all");
    }

    #[test]
    fn the_end_says_what_was_cached_and_what_is_missing() {
        let end = |here, fetched| {
            let state = Transferred { ended: true, ..at(here, fetched) };
            Progress::new(DOWNLOAD, Style::Lines).update(Instant::now(), state).unwrap()
        };
        assert_eq!(end(1_000_000_000, 0), "Downloaded earlier: 1.0 GB in the cache");
        assert_eq!(end(1_000_000_000, 400_000_000), "Downloaded 400.0 MB in 0:00 (600.0 MB were in the cache)");
        assert_eq!(end(900_000_000, 900_000_000), "Download ended at 900.0 MB of 1.0 GB");
    }
}
