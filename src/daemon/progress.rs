//! Progress on stderr: one line redrawn on a terminal, a log line now and then elsewhere.

use crate::daemon::log::redraw;
use crate::media;
use crate::source::Transferred;
use crate::source::progress::{CHECK, DOWNLOAD, Progress, READ, Style, Words};
use crate::sys::terminal;
use crate::units::ByteSize;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Shows a download under the name `what`; `Pull`, say.
pub fn of_download(what: &'static str) -> impl FnMut(Instant, Transferred) + Send {
    of(what, DOWNLOAD)
}

/// Shows how far an archive is read.
pub fn of_reading(what: &'static str) -> impl FnMut(Instant, Transferred) + Send {
    of(what, READ)
}

/// Shows how far what is here is checked.
pub fn of_checking(what: &'static str) -> impl FnMut(Instant, Transferred) + Send {
    of(what, CHECK)
}

fn of(what: &'static str, words: Words) -> impl FnMut(Instant, Transferred) + Send {
    let style = on_stderr();
    let mut progress = Progress::new(words, style);
    let mut status = Progress::new(words, Style::Status);
    move |now, transferred| {
        if let Some(text) = status.update(now, transferred) {
            set_current((!transferred.ended).then_some(text));
        }
        let Some(text) = progress.update(now, transferred) else { return };
        match style {
            Style::Terminal { .. } if !transferred.ended => redraw(&text),
            // The end stays: a log line, in the place of the line of progress.
            _ => log::info!("{what}: {text}"),
        }
    }
}

fn on_stderr() -> Style {
    terminal::columns(&io::stderr()).map_or(Style::Lines, |columns| Style::Terminal { columns })
}

/// What is being done, for who asks: as the line of progress of a terminal.
#[must_use]
pub fn current() -> Option<String> {
    CURRENT.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Nothing is being done any more.
pub fn end() {
    set_current(None);
}

fn set_current(text: Option<String>) {
    *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = text;
}

/// One for the process, as stderr is.
static CURRENT: Mutex<Option<String>> = Mutex::new(None);

/// Told while a build goes on after its download; with it goes what it told.
#[derive(Debug)]
pub struct BuildProgress {
    style: Style,
    shown: Option<Instant>,
    status: Option<Box<BuildProgress>>,
}

impl BuildProgress {
    #[must_use]
    pub fn on_stderr() -> Self {
        let status = Some(Box::new(Self::new(Style::Status)));
        Self { status, ..Self::new(on_stderr()) }
    }

    const fn new(style: Style) -> Self {
        Self { style, shown: None, status: None }
    }

    pub fn update(&mut self, now: Instant, progress: media::Progress) {
        match (self.text(now, progress), self.style) {
            (Some(text), Style::Terminal { .. }) => redraw(&text),
            (Some(text), Style::Lines) => log::info!("{text}"),
            (Some(text), Style::Status) => set_current(Some(text)),
            (None, _) => {}
        }
        if let Some(status) = &mut self.status {
            status.update(now, progress);
        }
    }

    /// What to show now, if anything.
    fn text(&mut self, now: Instant, progress: media::Progress) -> Option<String> {
        // The end of the download has just been told.
        if now - *self.shown.get_or_insert(now) < self.style.interval() {
            return None;
        }
        self.shown = Some(now);
        let layer = (progress.layers_done + 1).min(progress.layers);
        let text = format!("Build: layer {layer} of {}, {} unpacked", progress.layers, ByteSize(progress.bytes));
        Some(self.style.dress(text))
    }
}

impl Drop for BuildProgress {
    fn drop(&mut self) {
        if self.status.is_some() {
            end(); // a build beside the servers has nobody who would clear the line after it
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    #[test]
    fn a_long_build_is_told_now_and_then() {
        let progress = media::Progress { layers_done: 1, layers: 3, bytes: 2_000_000 };
        let start = Instant::now();
        let mut log = BuildProgress::new(Style::Lines);
        assert_eq!(log.text(start, progress), None);
        assert_eq!(log.text(start + limits::PROGRESS_LOG / 2, progress), None);
        let text = log.text(start + limits::PROGRESS_LOG, progress).unwrap();
        assert_eq!(text, format!("Build: layer 2 of 3, {} unpacked", ByteSize(2_000_000)));
        assert_eq!(log.text(start + limits::PROGRESS_LOG, progress), None);
        let mut terminal = BuildProgress::new(Style::Terminal { columns: 13 });
        assert_eq!(terminal.text(start, progress), None);
        assert_eq!(terminal.text(start + limits::PROGRESS_REDRAW, progress).unwrap(), "\r\x1b[KBuild: layer");
    }

    #[test]
    fn a_build_that_is_over_is_no_longer_shown_to_who_asks() {
        let progress = media::Progress { layers_done: 0, layers: 1, bytes: 1_000 };
        let start = Instant::now();
        let mut build = BuildProgress::on_stderr();
        build.update(start, progress);
        build.update(start + limits::PROGRESS_REDRAW, progress);
        assert!(current().is_some_and(|shown| shown.starts_with("Build: layer 1 of 1")));
        drop(build);
        assert_eq!(current(), None);
    }
}
