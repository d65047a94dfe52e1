//! Keeps a server running: started as a program of its own, asked for its health, started again when it ends, replaced when its
//! configuration changes.
//!
//! A fault of the server takes the server down and nothing else: the consoles, the log and, on the appliance, the network stay.

mod host;
mod settings;

pub use host::{NO_IMAGE, PlainHost, arguments};
pub use settings::{CONSOLE_CLOUD_FILE, CONSOLE_FILE, Folder, Kept, Layers, Settings, SettingsError, Store};

use crate::daemon::control::Caller;
use crate::daemon::ring::Ring;
use crate::limits;
use crate::status::{Phase, Question, Reply, Status};
use crate::sys::process::{Pidfd, hand_down};
use crate::sys::time::LocalTime;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Changes a command before it is run.
pub type Prepare = dyn Fn(&mut Command) -> io::Result<()> + Send + Sync;

/// The program and how it is started.
pub struct Program {
    pub path: PathBuf,
    /// What it runs with besides: fewer rights, say.
    pub prepare: Box<Prepare>,
    /// Shown each of its lines.
    pub echo: Arc<dyn Fn(&str) + Send + Sync>,
    pub times: Times,
}

/// How long what is waited for; tests have less patience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    pub health_interval: Duration,
    pub unwell_max: Duration,
    pub end_patience: Duration,
    pub restart_wait: Duration,
    pub restart_wait_max: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            health_interval: limits::HEALTH_INTERVAL,
            unwell_max: limits::UNWELL_MAX,
            end_patience: limits::SERVER_END_PATIENCE,
            restart_wait: limits::RESTART_WAIT,
            restart_wait_max: limits::RESTART_WAIT_MAX,
        }
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Takes back the change that a server was started with, and returns the arguments that served before it; `None` if that cannot be done.
pub struct TakeBack(pub Box<dyn FnOnce() -> Option<Vec<OsString>> + Send>);

impl fmt::Debug for TakeBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TakeBack")
    }
}

/// Clones share one.
#[derive(Debug, Clone)]
pub struct Supervisor(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    program: Program,
    ring: Ring,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The arguments of the server that is wanted; none: no server.
    arguments: Option<Vec<OsString>>,
    /// Raised whenever the server that runs is to be replaced.
    generation: u64,
    running: Option<Arc<Running>>,
    /// Set anew at each start: machines are not to be answered.
    is_silent: bool,
    /// How often it ended by itself with these arguments.
    restarts: u32,
    /// Why it is not there at the moment, or was not.
    why: Option<String>,
    /// The reason that it gave for its end.
    last_words: Option<String>,
    /// Until it serves for the first time with these arguments.
    take_back: Option<TakeBack>,
    /// Why the arguments are not those that were wanted last.
    taken_back: Option<String>,
    is_over: bool,
}

/// A server that was started.
#[derive(Debug)]
struct Running {
    pidfd: Pidfd,
    caller: Mutex<Caller>,
    /// When it answered for its health, or was started.
    well: Mutex<Instant>,
}

/// How the server is, for who cannot ask it itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub is_running: bool,
    pub restarts: u32,
    /// Why it ended last, when that was by itself.
    pub why: Option<String>,
    /// Why the change that was made last was taken back, when it was.
    pub taken_back: Option<String>,
}

impl Supervisor {
    /// Starts looking after a server; there is none before [`Supervisor::run_with`].
    ///
    /// # Errors
    /// No thread is left.
    pub fn start(program: Program, ring: Ring) -> io::Result<Self> {
        let supervisor = Self(Arc::new(Shared { program, ring, state: Mutex::default(), changed: Condvar::new() }));
        for (name, body) in [("supervisor", Self::keep as fn(&Self)), ("health", Self::look_after)] {
            let supervisor = supervisor.clone();
            thread::Builder::new().name(name.to_owned()).spawn(move || body(&supervisor))?;
        }
        Ok(supervisor)
    }

    /// Runs the server with these arguments from now on, in the place of one that runs; without any, none.
    pub fn run_with(&self, arguments: Option<Vec<OsString>>) {
        self.run_or(arguments, None);
    }

    /// As [`Supervisor::run_with`]; should that server end by itself before it serves, the change that it came with is taken back.
    pub fn run_or(&self, arguments: Option<Vec<OsString>>, take_back: Option<TakeBack>) {
        self.replace(|state| {
            (state.arguments, state.take_back) = (arguments, take_back);
            (state.restarts, state.why, state.taken_back) = (0, None, None); // another configuration, another account
        });
    }

    /// Ends the server and starts it again.
    pub fn restart(&self) {
        self.replace(|_| {});
    }

    /// Ends the server for good; returns when it has gone.
    pub fn end(&self) {
        self.replace(|state| state.is_over = true);
    }

    /// Asks the server; `None` when there is none, or it does not answer.
    #[must_use]
    pub fn ask(&self, question: Question) -> Option<Reply> {
        let running = self.state().running.clone()?;
        if let Question::Netboot(is_on) = question {
            self.state().is_silent = !is_on;
        }
        let mut caller = running.caller.lock().unwrap_or_else(PoisonError::into_inner);
        caller.ask(question).ok()
    }

    #[must_use]
    pub fn status(&self) -> Option<Status> {
        match self.ask(Question::Status)? {
            Reply::Status(status) => Some(status),
            _ => None,
        }
    }

    #[must_use]
    pub fn report(&self) -> Report {
        let state = self.state();
        Report {
            is_running: state.running.is_some(),
            restarts: state.restarts,
            why: state.why.clone(),
            taken_back: state.taken_back.clone(),
        }
    }

    /// Whether nothing hangs: the server answers for its health, or has ended and is about to be started again.
    #[must_use]
    pub fn is_well(&self) -> bool {
        let Some(running) = self.state().running.clone() else { return true };
        let well = *running.well.lock().unwrap_or_else(PoisonError::into_inner);
        well.elapsed() < self.0.program.times.unwell_max
    }

    /// A line of our own among the server's.
    pub fn tell(&self, what: &str) {
        let line = format!("{} {what}", LocalTime::now());
        self.0.ring.push(&line);
        (self.0.program.echo)(&line);
    }

    fn replace(&self, change: impl FnOnce(&mut State)) {
        let running = {
            let mut state = self.state();
            change(&mut state);
            state.generation += 1;
            self.0.changed.notify_all();
            state.running.clone()
        };
        let Some(running) = running else { return };
        running.pidfd.terminate();
        if !running.pidfd.has_ended_within(self.0.program.times.end_patience) {
            self.tell("The server does not end when it is asked to; it is killed");
            running.pidfd.kill();
            let _ = running.pidfd.has_ended_within(self.0.program.times.end_patience);
        }
    }

    /// The `supervisor` thread.
    fn keep(&self) {
        let times = self.0.program.times;
        let (mut wait, mut last) = (times.restart_wait, 0);
        while let Some((arguments, generation)) = self.wanted() {
            if generation != std::mem::replace(&mut last, generation) {
                wait = times.restart_wait;
            }
            let started = Instant::now();
            let end = self.run_once(&arguments, generation);
            if started.elapsed() >= times.restart_wait_max {
                wait = times.restart_wait;
            }
            let mut state = self.state();
            state.running = None;
            if state.generation != generation {
                continue; // it was asked to
            }
            let why = state.last_words.take().unwrap_or_else(|| end.clone());
            if let Some(take_back) = state.take_back.take() {
                drop(state);
                self.take_back(take_back, why, generation);
                continue;
            }
            state.restarts = state.restarts.saturating_add(1);
            state.why = Some(why);
            drop(state);
            self.tell(&format!("The server ended: {end}; it is started again in {wait:?}"));
            let state = self.state();
            let asleep = self.0.changed.wait_timeout_while(state, wait, |state| state.generation == generation);
            drop(asleep);
            wait = (2 * wait).min(times.restart_wait_max);
        }
        self.0.changed.notify_all();
    }

    /// Has the server run again as it did before the change that it does not run with.
    fn take_back(&self, take_back: TakeBack, why: String, generation: u64) {
        self.tell(&format!("The server does not run with what was changed last, which is taken back: {why}"));
        let Some(arguments) = take_back.0() else { return };
        let mut state = self.state();
        if state.generation == generation {
            state.arguments = Some(arguments);
            state.taken_back = Some(why);
        }
    }

    /// Waits until a server is wanted; `None` when none will be any more.
    fn wanted(&self) -> Option<(Vec<OsString>, u64)> {
        let mut state = self.state();
        loop {
            if state.is_over {
                return None;
            }
            if let Some(arguments) = &state.arguments {
                return Some((arguments.clone(), state.generation));
            }
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Starts the server and waits for its end; how it ended, in words.
    fn run_once(&self, arguments: &[OsString], generation: u64) -> String {
        let (mut child, running) = match self.spawn(arguments) {
            Ok(spawned) => spawned,
            Err(error) => return format!("it cannot be started: {error}"),
        };
        let lines = [child.stdout.take().map(|pipe| self.read(pipe)), child.stderr.take().map(|pipe| self.read(pipe))];
        let running = Arc::new(running);
        let mut state = self.state();
        if state.generation != generation {
            running.pidfd.kill(); // another one is wanted already
        }
        let is_silent = state.is_silent;
        state.running = Some(Arc::clone(&running));
        drop(state);
        if is_silent {
            let _ = self.ask(Question::Netboot(false));
        }
        let end = child.wait();
        lines.into_iter().flatten().flatten().for_each(|reader| drop(reader.join()));
        end.map_or_else(|error| error.to_string(), in_words)
    }

    fn spawn(&self, arguments: &[OsString]) -> io::Result<(Child, Running)> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(&self.0.program.path);
        command.args(arguments).args(["--control", &CONTROL_FD.to_string()]);
        // A Ctrl-C of the terminal is for this program, which then ends the server in its own time.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        hand_down(&mut command, theirs.into(), CONTROL_FD);
        (self.0.program.prepare)(&mut command)?;
        let child = command.spawn()?;
        let pidfd = Pidfd::of(&child)?;
        let caller = Mutex::new(Caller::new(ours, limits::CONTROL_PATIENCE)?);
        Ok((child, Running { pidfd, caller, well: Mutex::new(Instant::now()) }))
    }

    fn read(&self, pipe: impl io::Read + Send + 'static) -> Option<thread::JoinHandle<()>> {
        let supervisor = self.clone();
        let read_line = move |line: &str| {
            if let Some(reason) = line.strip_prefix("auroraboot: ") {
                supervisor.state().last_words = Some(reason.to_owned());
            }
            (supervisor.0.program.echo)(line);
        };
        let ring = self.0.ring.clone();
        let body = move || ring.take_from(BufReader::new(pipe), read_line);
        thread::Builder::new().name("server log".to_owned()).spawn(body).ok()
    }

    /// The `health` thread.
    fn look_after(&self) {
        let mut state = self.state();
        loop {
            let waited =
                self.0.changed.wait_timeout_while(state, self.0.program.times.health_interval, |state| !state.is_over);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if state.is_over {
                return;
            }
            let Some(running) = state.running.clone() else { continue };
            drop(state);
            if self.ask(Question::Health) == Some(Reply::Done) {
                *running.well.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                self.keep_what_serves(&running);
            } else if running.well.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
                >= self.0.program.times.unwell_max / 2
            {
                self.tell("The server does not answer for its health; it is killed");
                running.pidfd.kill();
            }
            state = self.state();
        }
    }

    /// Once a server serves, what it was changed to is no longer in doubt.
    fn keep_what_serves(&self, running: &Arc<Running>) {
        if self.state().take_back.is_none() || self.status().is_none_or(|status| status.phase != Phase::Serving) {
            return;
        }
        let mut state = self.state();
        if state.running.as_ref().is_some_and(|now| Arc::ptr_eq(now, running)) {
            state.take_back = None;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Standard input, output and error come before it.
const CONTROL_FD: i32 = 3;

fn in_words(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, channel};

    const ANSWERS: &str = r#"while read question <&3; do echo '"done"' >&3; done"#;

    /// Shells in the place of servers, and the lines that they and the supervisor say.
    fn supervisor(times: Times) -> (Supervisor, Receiver<String>) {
        let (said, lines) = channel();
        let echo = Arc::new(move |line: &str| said.send(line.to_owned()).unwrap_or(()));
        let program = Program { path: "/bin/sh".into(), prepare: Box::new(|_| Ok(())), echo, times };
        (Supervisor::start(program, Ring::default()).unwrap(), lines)
    }

    fn shell(script: &str) -> Option<Vec<OsString>> {
        Some(vec!["-c".into(), script.into()])
    }

    fn short() -> Times {
        let milli = Duration::from_millis(1);
        Times { restart_wait: 100 * milli, restart_wait_max: 250 * milli, end_patience: 50 * milli, ..Times::default() }
    }

    fn next(lines: &Receiver<String>) -> String {
        lines.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    #[test]
    fn a_server_that_ends_is_started_again_counted_and_its_reason_told() {
        let (supervisor, lines) = supervisor(short());
        assert_eq!(supervisor.report(), Report::default());
        supervisor.run_with(shell("echo up; echo auroraboot: no disk >&2; exit 1"));
        let ups = std::iter::from_fn(|| Some(next(&lines))).filter(|line| line == "up").take(4).count();
        assert_eq!(ups, 4);
        let report = supervisor.report();
        assert!(report.restarts >= 3 && report.why.as_deref() == Some("no disk"), "{report:?}");
        let log = supervisor.0.ring.lines().join("\n");
        assert!(log.contains("The server ended: exit status 1; it is started again in 100ms"), "{log}");
        assert!(log.contains("in 200ms") && log.contains("in 250ms"), "{log}");
        supervisor.run_with(shell(&format!("echo mended; {ANSWERS}")));
        assert!(std::iter::from_fn(|| Some(next(&lines))).any(|line| line == "mended"));
        assert_eq!((supervisor.report().restarts, supervisor.report().why), (0, None));
        supervisor.end();
    }

    #[test]
    fn another_configuration_takes_the_servers_place_and_the_silence_stays() {
        let (supervisor, lines) = supervisor(Times::default());
        supervisor.run_with(shell(&format!("echo first; {ANSWERS}")));
        assert_eq!(next(&lines), "first");
        while supervisor.ask(Question::Netboot(false)) != Some(Reply::Done) {}
        let told = r#"echo second; read question <&3; echo "$question"; echo '"done"' >&3; "#;
        supervisor.run_with(shell(&format!("{told}{ANSWERS}")));
        assert_eq!((next(&lines), next(&lines)), ("second".to_owned(), r#"{"netboot":false}"#.to_owned()));
        assert_eq!(supervisor.report().restarts, 0);
        supervisor.run_with(None);
        assert_eq!(supervisor.ask(Question::Health), None);
        supervisor.end();
    }

    #[test]
    fn a_change_that_a_server_does_not_run_with_is_taken_back() {
        let (supervisor, lines) = supervisor(short());
        let good = format!("echo good; {ANSWERS}");
        let back = good.clone();
        let take_back = TakeBack(Box::new(move || shell(&back)));
        supervisor.run_or(shell("echo auroraboot: no such interface >&2; exit 1"), Some(take_back));
        let told: Vec<String> = std::iter::from_fn(|| Some(next(&lines))).take_while(|line| line != "good").collect();
        assert!(told.iter().any(|line| line.ends_with("which is taken back: no such interface")), "{told:?}");
        let report = supervisor.report();
        assert_eq!((report.restarts, report.taken_back.as_deref()), (0, Some("no such interface")));
        supervisor.run_with(shell(&good));
        assert_eq!(next(&lines), "good");
        assert_eq!(supervisor.report().taken_back, None, "another change, another account");
        supervisor.end();
    }

    #[test]
    fn a_change_with_which_a_server_served_stays_whatever_comes_then() {
        let times = Times { health_interval: Duration::from_millis(1), ..short() };
        let (supervisor, lines) = supervisor(times);
        let serving = serde_json::to_string(&Reply::Status(Status { phase: Phase::Serving, ..Status::default() }));
        let serving = serving.unwrap();
        let answers = format!(
            r#"while read question <&3; do case "$question" in *status*) echo '{serving}' >&3;; *) echo '"done"' >&3;; esac; done"#
        );
        let take_back = TakeBack(Box::new(|| unreachable!("it served")));
        supervisor.run_or(shell(&format!("echo up; {answers}")), Some(take_back));
        assert_eq!(next(&lines), "up");
        while supervisor.state().take_back.is_some() {
            thread::yield_now();
        }
        supervisor.state().running.as_ref().unwrap().pidfd.kill();
        assert!(next(&lines).contains("The server ended: signal 9"));
        assert_eq!(next(&lines), "up");
        supervisor.end();
    }

    #[test]
    fn a_server_that_hangs_is_killed_and_one_that_does_not_end_too() {
        let times =
            Times { health_interval: Duration::from_millis(1), unwell_max: Duration::from_millis(40), ..short() };
        let (supervisor, lines) = supervisor(times);
        // It takes the question and gives no answer that is one.
        supervisor.run_with(shell("trap '' TERM; echo up; while read question <&3; do echo nonsense >&3; done"));
        assert_eq!(next(&lines), "up");
        assert!(next(&lines).ends_with("The server does not answer for its health; it is killed"));
        let again = std::iter::from_fn(|| Some(next(&lines))).find(|line| line == "up");
        assert!(again.is_some());
        supervisor.end();
        let (supervisor, lines) =
            self::supervisor(Times { end_patience: Duration::from_millis(20), ..Times::default() });
        supervisor.run_with(shell("trap '' TERM; echo up; while :; do read question <&3; done"));
        assert_eq!(next(&lines), "up");
        supervisor.end();
        assert!(supervisor.0.ring.lines().iter().any(|line| line.contains("does not end when it is asked to")));
        assert!(supervisor.is_well());
    }

    #[test]
    fn the_product_waits_as_its_limits_say() {
        let times = Times::default();
        assert_eq!((times.restart_wait, times.restart_wait_max), (limits::RESTART_WAIT, limits::RESTART_WAIT_MAX));
        assert!(times.health_interval < times.unwell_max / 2, "one answer that is missed is no reason to kill it");
    }
}
