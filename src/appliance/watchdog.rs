//! The watchdog: a timer in the hardware that resets the machine unless it is petted.

use std::ffi::c_int;
use std::io;
use std::path::Path;

use crate::limits::WATCHDOG_TIMEOUT;
use crate::sys::watchdog::Timer;

/// A running watchdog, or why there is none.
#[derive(Debug)]
pub struct Watchdog {
    timer: Option<Timer>,
    words: String,
    did_reset: bool,
}

impl Watchdog {
    /// Starts the watchdog at `path` (`/dev/watchdog0`). One that is missing or in use is no error: the words say so.
    #[must_use]
    pub fn start(path: &Path) -> Self {
        match Timer::open(path) {
            Ok(timer) => Self::of(timer),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::none("this machine has no watchdog"),
            Err(error) => Self::none(&format!("no watchdog: cannot open {}: {error}", path.display())),
        }
    }

    /// For a machine that is told to run without (`watchdog=no`).
    #[must_use]
    pub fn disabled() -> Self {
        Self::none("switched off by watchdog=no")
    }

    fn none(words: &str) -> Self {
        Self { timer: None, words: words.to_owned(), did_reset: false }
    }

    fn of(timer: Timer) -> Self {
        let wanted = c_int::try_from(WATCHDOG_TIMEOUT.as_secs()).unwrap_or(c_int::MAX);
        // A timer that cannot count that far keeps its own time: the Raspberry Pi's ends at 15 s.
        let seconds = timer.set_timeout(wanted).or_else(|_| timer.timeout());
        let identity = match timer.identity() {
            name if name.is_empty() => "watchdog".to_owned(),
            name => name,
        };
        let words = match seconds {
            Ok(seconds) => format!("{identity}, resets after {seconds} s"),
            Err(_) => format!("{identity}, its time is not known"),
        };
        let did_reset = timer.did_reset();
        Self { timer: Some(timer), words, did_reset }
    }

    /// Begins the count anew. Call it much more often than every [`WATCHDOG_TIMEOUT`], while all is well.
    ///
    /// # Errors
    /// What write(2) says.
    pub fn pet(&mut self) -> io::Result<()> {
        self.timer.as_mut().map_or(Ok(()), Timer::pet)
    }

    /// Stops the timer, for an orderly end.
    ///
    /// # Errors
    /// What write(2) says.
    pub fn stop(&mut self) -> io::Result<()> {
        self.timer.take().map_or(Ok(()), Timer::stop)
    }

    /// Whether something is there that has to be petted.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        self.timer.is_some()
    }

    /// Whether the last restart was a watchdog's doing: worth a notice.
    #[must_use]
    pub const fn did_reset(&self) -> bool {
        self.did_reset
    }

    /// For the status: what it is, or why there is none.
    #[must_use]
    pub fn words(&self) -> &str {
        &self.words
    }
}
