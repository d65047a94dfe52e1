//! What is said on stderr: log lines as `2023/02/08 14:27:30 DHCP: …`, and progress.
//!
//! Whoever reads stderr may stop reading: a pager, a paused terminal, a log collector that hangs. A write to it would then wait forever, and
//! with it the work or the end of the program. So a line waits for [`limits::LOG_PATIENCE`] at most; from then on lines are dropped at once,
//! and counted, until there is room again.

use crate::daemon::ring::Ring;
use crate::limits;
use crate::sys::terminal;
use crate::sys::time::LocalTime;
use std::fs::File;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Starts logging; `debug` adds what only a developer or a puzzled operator wants to see.
pub fn init(debug: bool) {
    let level = if debug { log::LevelFilter::Debug } else { log::LevelFilter::Info };
    start(level, Box::new(Lines));
}

/// Starts logging where nobody looks on: the lines wait for who comes. They go to the kernel's log as well, which shows them at once on
/// the console of a kernel that was not told to be `quiet`.
pub fn into_ring(ring: Ring) {
    let kernel = File::options().write(true).open("/dev/kmsg").ok();
    start(log::LevelFilter::Info, Box::new(IntoRing { ring, kernel }));
}

fn start(level: log::LevelFilter, target: Box<dyn Write + Send>) {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(log::LevelFilter::Warn);
    builder.filter_module("auroraboot", level);
    builder.format(|out, record| {
        let label = match record.level() {
            log::Level::Error => "Error: ",
            log::Level::Warn => "Warning: ",
            log::Level::Info => "",
            log::Level::Debug | log::Level::Trace => "debug: ",
        };
        writeln!(out, "{} {label}{}", LocalTime::now(), harmless(&record.args().to_string(), char::is_control))
    });
    builder.target(env_logger::Target::Pipe(target));
    // A second call, as tests make, keeps the first logger.
    let _ = builder.try_init();
}

/// Says why the program ends, on one line.
pub fn last_words(text: &str) {
    // It may be a list.
    let text = harmless(text, |c| c.is_control() && c != '\n');
    with_console(|console| console.line(&mut io::stderr(), format!("auroraboot: {text}\n").as_bytes()));
}

/// Text in which nothing drives a terminal, whoever named the file that it is about.
fn harmless(text: &str, is_harmful: impl Fn(char) -> bool) -> String {
    text.chars().map(|c| if is_harmful(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Redraws the line of progress of a terminal; `text` brings its own control characters. Log lines take its place until it is drawn again.
pub fn redraw(text: &str) {
    with_console(|console| console.redraw(&mut io::stderr(), text));
}

fn with_console(work: impl FnOnce(&mut Console)) {
    static CONSOLE: Mutex<Console> = Mutex::new(Console { progress_is_up: false, lost: 0 });
    work(&mut CONSOLE.lock().unwrap_or_else(PoisonError::into_inner));
}

/// Takes whole log lines.
struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        with_console(|console| console.line(&mut io::stderr(), line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// As [`Lines`], of a [`Ring`].
struct IntoRing {
    ring: Ring,
    kernel: Option<File>,
}

impl Write for IntoRing {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        self.ring.push(text);
        if let Some(kernel) = &mut self.kernel {
            let _ = kernel.write_all(format!("<6>auroraboot: {text}\n").as_bytes());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where text goes, and whether it would be taken without waiting.
trait Sink: Write {
    fn is_ready_within(&self, patience: Duration) -> bool;
}

impl Sink for io::Stderr {
    fn is_ready_within(&self, patience: Duration) -> bool {
        terminal::is_writable_within(self, patience)
    }
}

#[derive(Debug)]
struct Console {
    /// The cursor stands behind a line of progress.
    progress_is_up: bool,
    /// Lines that nobody took.
    lost: u64,
}

/// What a pipe or terminal that is ready takes at once (`PIPE_BUF`).
const ATOMIC_BYTES: usize = 4096;

/// Back to the start of the line, and clear it.
const CLEAR_LINE: &[u8] = b"\r\x1b[K";

impl Console {
    fn line(&mut self, sink: &mut impl Sink, line: &[u8]) {
        let mut text = Vec::new();
        if self.progress_is_up {
            text.extend_from_slice(CLEAR_LINE);
        }
        if self.lost > 0 {
            let now = LocalTime::now();
            let _ = writeln!(text, "{now} Warning: {} lines are missing here: nobody read them in time", self.lost);
        }
        text.extend_from_slice(line);
        let patience = if self.lost > 0 { Duration::ZERO } else { limits::LOG_PATIENCE };
        if put(sink, &text, patience) {
            (self.progress_is_up, self.lost) = (false, 0);
        } else {
            self.lost = self.lost.saturating_add(1);
        }
    }

    fn redraw(&mut self, sink: &mut impl Sink, text: &str) {
        if put(sink, text.as_bytes(), Duration::ZERO) {
            self.progress_is_up = !text.ends_with('\n');
        }
    }
}

/// Whether the text was taken; a closed sink takes everything, since there is nobody to tell.
fn put(sink: &mut impl Sink, text: &[u8], patience: Duration) -> bool {
    for piece in text.chunks(ATOMIC_BYTES) {
        if !sink.is_ready_within(patience) {
            return false;
        }
        let _ = sink.write_all(piece);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many writes.
    struct Room(usize, Vec<u8>);

    impl Write for Room {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 -= 1;
            self.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Sink for Room {
        fn is_ready_within(&self, patience: Duration) -> bool {
            assert!(patience <= limits::LOG_PATIENCE);
            self.0 > 0
        }
    }

    fn taken(room: &mut Room) -> String {
        String::from_utf8(std::mem::take(&mut room.1)).unwrap()
    }

    #[test]
    fn lines_that_nobody_takes_are_counted() {
        let (mut console, mut room) = (Console { progress_is_up: false, lost: 0 }, Room(1, Vec::new()));
        for line in ["a\n", "b\n", "c\n"] {
            console.line(&mut room, line.as_bytes());
        }
        assert_eq!(taken(&mut room), "a\n");
        room.0 = 9;
        console.line(&mut room, b"d\n");
        console.line(&mut room, b"e\n");
        let text = taken(&mut room);
        assert!(text.ends_with(" Warning: 2 lines are missing here: nobody read them in time\nd\ne\n"), "{text}");
    }

    #[test]
    fn a_log_line_takes_the_place_of_the_progress() {
        let (mut console, mut room) = (Console { progress_is_up: false, lost: 0 }, Room(9, Vec::new()));
        console.redraw(&mut room, "\r\x1b[K1 %");
        console.line(&mut room, b"a\n");
        console.line(&mut room, b"b\n");
        console.redraw(&mut room, "\r\x1b[K100 %\n");
        console.line(&mut room, b"c\n");
        assert_eq!(taken(&mut room), "\r\x1b[K1 %\r\x1b[Ka\nb\n\r\x1b[K100 %\nc\n");
    }
}
