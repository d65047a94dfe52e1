//! Ctrl-C and SIGTERM, brought to whatever is running when they come.

use crate::limits;
use crate::sys::signal::TerminationSignals;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};

/// The wish to end, and who has to be told of it. Clones share both.
#[derive(Clone, Default)]
pub struct Stop {
    asked: Arc<AtomicBool>,
    told: Arc<Mutex<Vec<Hook>>>,
}

type Hook = Box<dyn Fn() + Send>;

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stop").field("asked", &self.is_asked()).finish_non_exhaustive()
    }
}

impl Stop {
    /// Starts listening for the signals. Call it before any other thread is started: they inherit the blocked signals.
    ///
    /// # Errors
    /// No descriptor or thread is left.
    pub fn on_signals() -> io::Result<Self> {
        let signals = TerminationSignals::block()?;
        let stop = Self::default();
        let asker = stop.clone();
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let Ok(first) = signals.wait() else { return };
            log::info!("Ending; once more ends at once");
            asker.ask();
            // Whatever is cut off here, the next start finds as after a loss of power: nothing half-written is ever used.
            let second = signals.wait_for(limits::STOP_PATIENCE);
            signals.die_of(second.ok().flatten().unwrap_or(first));
        })?;
        Ok(stop)
    }

    /// Asks everything to end.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
        for tell in self.told.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            tell();
        }
    }

    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// The flag itself, for work that looks at it now and then.
    #[must_use]
    pub fn flag(&self) -> &AtomicBool {
        &self.asked
    }

    /// Returns when the end is asked for.
    pub fn wait(&self) {
        let (end, ended) = channel();
        self.tell(move || {
            let _ = end.send(());
        });
        let _ = ended.recv(); // an error means the same: nobody is left who could ask for it
    }

    /// Calls `tell` when the end is asked for; at once when it already was.
    pub fn tell(&self, tell: impl Fn() + Send + 'static) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_asked() {
            tell();
        }
        told.push(Box::new(tell));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn everybody_is_told_whether_early_or_late() {
        let stop = Stop::default();
        let (sender, told) = mpsc::channel();
        let late = sender.clone();
        stop.tell(move || sender.send("early").unwrap());
        assert!(!stop.is_asked());
        stop.ask();
        stop.tell(move || late.send("late").unwrap());
        assert!(stop.is_asked());
        assert_eq!(told.try_iter().collect::<Vec<_>>(), ["early", "late"]);
    }
}
