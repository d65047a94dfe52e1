//! What this run tells of itself: kept up to date by those who do the work, read by consoles.

use crate::daemon::progress;
use crate::daemon::pulse::Pulse;
use crate::limits;
use crate::netboot::event::Event;
use crate::netboot::watch::Watch;
use crate::status::{Phase, Question, Reply, Status};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Clones share one.
#[derive(Debug, Clone)]
pub struct Monitor(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    start: Instant,
    /// Machines are answered.
    netboot: Arc<AtomicBool>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    image: Option<String>,
    serving: Option<String>,
    watch: Watch,
    pulses: Vec<Pulse>,
}

impl Default for Monitor {
    fn default() -> Self {
        let (phase, watch) = (Phase::Starting, Watch::new(false));
        let state = State { phase, image: None, serving: None, watch, pulses: Vec::new() };
        let netboot = Arc::new(AtomicBool::new(true));
        Self(Arc::new(Shared { start: Instant::now(), netboot, state: Mutex::new(state) }))
    }
}

impl Monitor {
    /// The server works on an image, named in a few words and without secrets.
    pub fn prepares(&self, image: &str) {
        let mut state = self.state();
        (state.phase, state.image) = (Phase::Preparing, Some(image.to_owned()));
    }

    /// The servers run, and have these loops; `serving` says on which interfaces machines are served.
    pub fn serves(&self, serving: Option<String>, with_cloud_config: bool, pulses: Vec<Pulse>) {
        let mut state = self.state();
        (state.phase, state.serving, state.pulses) = (Phase::Serving, serving, pulses);
        state.watch = Watch::new(with_cloud_config);
    }

    pub fn stops(&self) {
        let mut state = self.state();
        state.phase = Phase::Stopping;
        state.pulses.clear();
    }

    pub fn handle_input(&self, event: &Event) {
        let now = self.0.start.elapsed();
        let mut state = self.state();
        if let Event::Serving { on } = event {
            state.serving = Some(on.clone());
        }
        state.watch.handle_input(now, event);
    }

    /// Whether machines are answered; set by [`Question::Netboot`].
    #[must_use]
    pub fn netboot(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0.netboot)
    }

    #[must_use]
    pub fn answer(&self, question: Question) -> Reply {
        let now = self.0.start.elapsed();
        match question {
            Question::Status => {
                let mut state = self.state();
                let is_on = state.phase == Phase::Serving && state.serving.is_some();
                Reply::Status(Status {
                    phase: state.phase,
                    image: state.image.clone(),
                    progress: progress::current(),
                    serving: state.serving.clone(),
                    netboot: is_on && self.0.netboot.load(Ordering::Relaxed),
                    machines: state.watch.machines(now),
                })
            }
            Question::Machine(mac) => Reply::Machine(self.state().watch.steps(now, mac)),
            Question::Netboot(wanted) => self.switch(wanted),
            Question::Health => self.health(),
        }
    }

    fn switch(&self, wanted: bool) -> Reply {
        let state = self.state();
        if state.phase == Phase::Serving && state.serving.is_none() {
            return Reply::Refused("disable_netboot is set: machines are not served at all".to_owned());
        }
        if self.0.netboot.swap(wanted, Ordering::Relaxed) != wanted {
            let answered = if wanted { "again" } else { "no more" };
            log::info!("Machines that boot from the network are answered {answered}");
        }
        Reply::Done
    }

    /// While an image is prepared there is no loop to ask, and this thread's own answer is the health.
    fn health(&self) -> Reply {
        let pulses = self.state().pulses.clone(); // not under the lock: it may take a while
        if pulses.iter().all(|pulse| pulse.beats_within(limits::HEALTH_PATIENCE)) {
            Reply::Done
        } else {
            Reply::Refused("a loop of the server does not turn".to_owned())
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
