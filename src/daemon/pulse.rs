//! Whether a loop still turns, asked from another thread.

use mio::Waker;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Shared by a loop, which calls [`Pulse::beat`] once a turn, and whoever wants to know how it is.
#[derive(Clone)]
pub struct Pulse {
    waker: Arc<Waker>,
    /// Whether somebody waits: a look at it is all that a turn costs.
    is_asked: Arc<AtomicBool>,
    asking: Arc<Mutex<Vec<SyncSender<()>>>>,
}

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pulse").field("is_asked", &self.is_asked).finish_non_exhaustive()
    }
}

impl Pulse {
    /// For the loop that `waker` wakes.
    #[must_use]
    pub fn new(waker: Arc<Waker>) -> Self {
        Self { waker, is_asked: Arc::default(), asking: Arc::default() }
    }

    /// Tells those who asked that the loop turns.
    pub fn beat(&self) {
        if !self.is_asked.swap(false, Ordering::AcqRel) {
            return;
        }
        for asker in self.asking.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = asker.try_send(()); // gone, when its patience has ended
        }
    }

    /// Whether the loop makes a turn within `patience`.
    #[must_use]
    pub fn beats_within(&self, patience: Duration) -> bool {
        let (asker, answer) = sync_channel(1);
        self.asking.lock().unwrap_or_else(PoisonError::into_inner).push(asker);
        self.is_asked.store(true, Ordering::Release);
        self.waker.wake().is_ok() && answer.recv_timeout(patience).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;
    use mio::{Events, Poll, Token};
    use std::thread;

    #[test]
    fn a_loop_that_turns_is_told_from_one_that_hangs() {
        let mut poll = Poll::new().unwrap();
        let pulse = Pulse::new(Arc::new(Waker::new(poll.registry(), Token(0)).unwrap()));
        assert!(!pulse.beats_within(Duration::from_millis(1)), "nobody turns it");
        let looping = pulse.clone();
        let (stop, stopped) = sync_channel::<()>(0);
        let turns = thread::spawn(move || {
            let mut events = Events::with_capacity(8);
            while stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
                poll.poll(&mut events, None).unwrap();
                looping.beat();
            }
        });
        for _ in 0..100 {
            assert!(pulse.beats_within(limits::HEALTH_PATIENCE));
        }
        drop(stop);
        pulse.waker.wake().unwrap();
        turns.join().unwrap();
    }
}
