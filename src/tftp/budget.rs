//! How many error replies may leave: a token bucket.

use std::time::Instant;

use crate::limits::{TFTP_ERRORS_BURST, TFTP_ERRORS_PER_SECOND};

/// Bounds the error replies, since anyone can make the server send one to a forged address.
#[derive(Debug)]
pub struct ErrorBudget {
    left: u32,
    filled_at: Option<Instant>,
}

impl ErrorBudget {
    pub fn new() -> Self {
        Self { left: TFTP_ERRORS_BURST, filled_at: None }
    }

    /// Whether one more may be sent now.
    pub fn take(&mut self, now: Instant) -> bool {
        let filled_at = *self.filled_at.get_or_insert(now);
        let gained = now.saturating_duration_since(filled_at).as_secs_f64() * f64::from(TFTP_ERRORS_PER_SECOND);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // bounded by the burst, never negative
        let gained = gained.min(f64::from(TFTP_ERRORS_BURST)) as u32;
        if gained > 0 {
            self.left = self.left.saturating_add(gained).min(TFTP_ERRORS_BURST);
            self.filled_at = Some(now);
        }
        self.left = match self.left.checked_sub(1) {
            Some(left) => left,
            None => return false,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_then_a_rate() {
        let (mut budget, start) = (ErrorBudget::new(), Instant::now());
        let granted = |budget: &mut ErrorBudget, at: Instant| (0..5000).filter(|_| budget.take(at)).count();
        assert_eq!(granted(&mut budget, start), 1000);
        assert_eq!(granted(&mut budget, start + Duration::from_millis(100)), 50);
        assert_eq!(granted(&mut budget, start + Duration::from_millis(101)), 0, "half a token is none yet");
        assert_eq!(granted(&mut budget, start + Duration::from_millis(102)), 1);
        assert_eq!(granted(&mut budget, start + Duration::from_secs(3600)), 1000);
    }
}
