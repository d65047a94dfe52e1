//! What the appliance cannot decide alone, and how long it waits for somebody who can.

use crate::limits;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One question at a time.
#[derive(Debug)]
pub struct Questions {
    state: Mutex<State>,
    changed: Condvar,
    patience: Patience,
}

/// How long is waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For anybody to come to a console.
    pub visitor: Duration,
    /// For the answer of somebody who is there.
    pub answer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { visitor: limits::VISITOR_PATIENCE, answer: limits::QUESTION_PATIENCE }
    }
}

#[derive(Debug, Default)]
struct State {
    text: Option<String>,
    answer: Option<bool>,
    /// Somebody has been at a console since the start.
    has_visitor: bool,
}

impl Questions {
    #[must_use]
    pub fn new(patience: Patience) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), patience }
    }

    /// Somebody is at a console.
    pub fn visited(&self) {
        self.state().has_visitor = true;
    }

    /// What is asked at the moment.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        self.state().text.clone()
    }

    /// Answers; false when nothing is asked.
    pub fn answer(&self, yes: bool) -> bool {
        let mut state = self.state();
        if state.text.is_some() {
            state.answer = Some(yes);
            self.changed.notify_all();
        }
        state.text.is_some()
    }

    /// Asks, and waits; `None` when nobody was there or nobody answered.
    pub fn ask(&self, text: String) -> Option<bool> {
        let begun = Instant::now();
        let mut state = self.state();
        (state.text, state.answer) = (Some(text), None);
        while state.answer.is_none() {
            let patience = if state.has_visitor { self.patience.answer } else { self.patience.visitor };
            let left = patience.saturating_sub(begun.elapsed());
            if left.is_zero() {
                break;
            }
            // Whoever comes in the meantime is given the longer time.
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.text = None;
        state.answer.take()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const SHORT: Duration = Duration::from_millis(5);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn nobody_there_is_not_waited_for_long() {
        let questions = Questions::new(Patience { visitor: SHORT, answer: LONG });
        assert_eq!(questions.ask("may I?".to_owned()), None);
        assert_eq!(questions.text(), None);
        assert!(!questions.answer(true), "nothing is asked any more");
        assert_eq!(
            Patience::default(),
            Patience { visitor: limits::VISITOR_PATIENCE, answer: limits::QUESTION_PATIENCE }
        );
    }

    #[test]
    fn somebody_there_is_waited_for_longer_but_not_for_ever() {
        let questions = Questions::new(Patience { visitor: Duration::ZERO, answer: LONG });
        questions.visited();
        thread::scope(|scope| {
            let asked = scope.spawn(|| questions.ask("may I?".to_owned()));
            while !questions.answer(false) {
                thread::yield_now();
            }
            assert_eq!(asked.join().unwrap(), Some(false));
        });
        let questions = Questions::new(Patience { visitor: LONG, answer: SHORT });
        questions.visited();
        assert_eq!(questions.ask("may I?".to_owned()), None);
    }
}
