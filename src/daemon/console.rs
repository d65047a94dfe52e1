//! Consoles on serial lines: a thread each, which brings what is typed to [`Console`] and its requests to the host.

use crate::console::{Console, Host, Profile};
use crate::daemon::stop::Stop;
use crate::limits;
use crate::sys::tty::{Line, Tty, wait_readable};
use std::io::{self, ErrorKind, PipeReader, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Starts the thread of one console. A device that is not there, or goes away, is waited for.
///
/// # Errors
/// No descriptor or thread is left.
pub fn start(
    line: Line,
    profile: Profile,
    host: Arc<dyn Host + Send + Sync>,
    stop: &Stop,
) -> io::Result<JoinHandle<()>> {
    let (wake, waker) = io::pipe()?;
    stop.tell(move || drop((&waker).write_all(b"!")));
    let stop = stop.clone();
    thread::Builder::new().name("console".to_owned()).spawn(move || run(&line, &profile, &*host, &stop, &wake))
}

/// Opens the device, again and again, and serves whoever is there.
fn run(line: &Line, profile: &Profile, host: &dyn Host, stop: &Stop, wake: &PipeReader) {
    let mut was_told = false;
    while !stop.is_asked() {
        let ended = Tty::open(line).and_then(|tty| {
            let mut session = Session::new(&tty, Console::new(profile.clone(), Instant::now()), host);
            let ended = session.run(stop, wake);
            was_told &= !session.was_used;
            ended
        });
        if let Err(error) = ended
            && !std::mem::replace(&mut was_told, true)
        {
            log::warn!("Console {line}: {error}; waiting for it to come back");
        }
        if !stop.is_asked() {
            wait_readable(wake.as_fd(), limits::CONSOLE_REOPEN_WAIT);
        }
    }
}

/// A console on a terminal that is open.
#[derive(Debug)]
pub struct Session<'a> {
    tty: &'a Tty,
    console: Console,
    host: HostRef<'a>,
    /// What the line has not taken yet.
    out: Vec<u8>,
    /// When it took something last, or had nothing to take.
    moved: Instant,
    /// Whether anything ever came.
    was_used: bool,
}

/// For `Debug`.
struct HostRef<'a>(&'a dyn Host);

impl std::fmt::Debug for HostRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Host")
    }
}

impl<'a> Session<'a> {
    #[must_use]
    pub fn new(tty: &'a Tty, console: Console, host: &'a dyn Host) -> Self {
        Self { tty, console, host: HostRef(host), out: Vec::new(), moved: Instant::now(), was_used: false }
    }

    /// Serves the terminal until `stop` is asked for, which `wake` tells.
    ///
    /// # Errors
    /// The terminal has gone.
    pub fn run(&mut self, stop: &Stop, wake: &PipeReader) -> io::Result<()> {
        let ended = self.serve(stop, wake);
        self.console.hang_up(Instant::now());
        self.drain();
        ended
    }

    fn serve(&mut self, stop: &Stop, wake: &PipeReader) -> io::Result<()> {
        let mut buffer = [0; 1024];
        while !stop.is_asked() {
            self.drain();
            let wants_read = self.console.wants_input();
            let ready = self.tty.wait(wants_read, !self.out.is_empty(), wake.as_fd(), self.patience())?;
            if ready.read && wants_read {
                match self.tty.read(&mut buffer) {
                    Ok(length) => {
                        self.was_used = true;
                        self.console.handle_input(Instant::now(), &buffer[..length]);
                    }
                    Err(error) => ignore_would_block(error)?,
                }
            }
            if !self.out.is_empty() {
                self.write(ready.write)?;
            }
            let now = Instant::now();
            if self.console.next_deadline().is_some_and(|deadline| deadline <= now) {
                self.console.handle_timeout(now);
            }
        }
        Ok(())
    }

    /// Takes what the console has to show, and has the host answer what it asks. What is shown goes out before the host is asked, as far
    /// as the line takes it: an answer may take a while.
    fn drain(&mut self) {
        loop {
            if self.out.len() < limits::CONSOLE_OUTPUT_BYTES_MAX
                && let Some(bytes) = self.console.poll_output()
            {
                if self.out.is_empty() {
                    self.moved = Instant::now();
                }
                self.out.extend(bytes);
                continue;
            }
            let Some(request) = self.console.poll_request() else { return };
            let _ = self.write(true); // an error comes again when the line is read
            let answer = self.host.0.handle(request);
            self.console.handle_answer(Instant::now(), answer);
        }
    }

    /// Writes what the line takes, and ends the session of one that takes nothing for too long.
    fn write(&mut self, is_ready: bool) -> io::Result<()> {
        if is_ready && !self.out.is_empty() {
            match self.tty.write(&self.out) {
                Ok(length) => {
                    self.out.drain(..length);
                    self.moved = Instant::now();
                }
                Err(error) => ignore_would_block(error)?,
            }
        }
        if !self.out.is_empty() && self.moved.elapsed() >= limits::CONSOLE_STUCK_MAX {
            log::warn!("A console's line takes nothing: its session ends");
            self.tty.discard_output();
            self.out.clear();
            self.console.hang_up(Instant::now());
        }
        Ok(())
    }

    fn patience(&self) -> Option<Duration> {
        let stuck = (!self.out.is_empty()).then(|| self.moved + limits::CONSOLE_STUCK_MAX);
        let deadline = [stuck, self.console.next_deadline()].into_iter().flatten().min();
        deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

fn ignore_would_block(error: io::Error) -> io::Result<()> {
    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) { Ok(()) } else { Err(error) }
}
