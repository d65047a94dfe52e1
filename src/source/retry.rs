//! When to try again, and how long to wait before: time is an argument.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::limits;

/// Bounds of trying again.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    pub attempts_max: u32,
    /// The wait after the first fault; doubles with each further one.
    pub wait: Duration,
    pub wait_max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { attempts_max: limits::ATTEMPTS_MAX, wait: limits::RETRY_WAIT, wait_max: limits::RETRY_WAIT_MAX }
    }
}

impl Backoff {
    /// The wait after `faults` faults in a row, or `None` when it is time to give up.
    #[must_use]
    pub fn wait_after(&self, faults: u32, retry_after: Option<Duration>) -> Option<Duration> {
        if faults >= self.attempts_max {
            return None;
        }
        let doubled = self.wait.saturating_mul(2_u32.saturating_pow(faults.saturating_sub(1)));
        Some(doubled.max(retry_after.unwrap_or_default()).min(self.wait_max))
    }
}

/// Statuses that a healthy server sends on a bad day.
#[must_use]
pub fn is_transient_status(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// `Retry-After` in its seconds form (RFC 9110 §10.2.3). The date form needs a right clock and is not used by registries.
#[must_use]
pub fn parse_retry_after(value: &str) -> Option<Duration> {
    value.trim().parse().ok().map(Duration::from_secs)
}

/// Tells several threads to stop, and wakes those that wait.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    pub fn stop(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    #[must_use]
    pub fn is_stopped(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits; returns at once, with `true`, when told to stop.
    #[must_use]
    pub fn wait(&self, duration: Duration) -> bool {
        let deadline = Instant::now() + duration;
        let mut stopped = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !*stopped {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            stopped = self.0.1.wait_timeout(stopped, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_end() {
        let backoff = Backoff { attempts_max: 5, wait: Duration::from_secs(1), wait_max: Duration::from_secs(5) };
        let waits: Vec<_> = (1..=5).map(|faults| backoff.wait_after(faults, None).map(|w| w.as_secs())).collect();
        assert_eq!(waits, [Some(1), Some(2), Some(4), Some(5), None]);
    }

    #[test]
    fn retry_after_is_honoured_within_the_bound() {
        let backoff = Backoff::default();
        assert_eq!(backoff.wait_after(1, parse_retry_after(" 3 ")), Some(Duration::from_secs(3)));
        assert_eq!(backoff.wait_after(1, parse_retry_after("999999")), Some(limits::RETRY_WAIT_MAX));
        assert_eq!(parse_retry_after("Wed, 21 Oct 2026 07:28:00 GMT"), None);
        assert_eq!(parse_retry_after("-1"), None);
        assert_eq!(backoff.wait_after(u32::MAX, None), None);
    }

    #[test]
    fn a_stop_ends_a_wait_at_once() {
        let stop = Stop::default();
        assert!(!stop.wait(Duration::ZERO));
        let waiting = std::thread::spawn({
            let stop = stop.clone();
            move || stop.wait(Duration::from_secs(3600))
        });
        stop.stop();
        assert!(waiting.join().unwrap());
    }
}
