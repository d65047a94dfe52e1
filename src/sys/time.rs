//! The wall clock in the host's time zone, for log lines.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// A local date and time; prints as `2023/02/08 14:27:30`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalTime {
    year: i32,
    month: i32,
    day: i32,
    hour: i32,
    minute: i32,
    second: i32,
}

impl LocalTime {
    /// Now, in the zone that `TZ` or `/etc/localtime` names; UTC where there is neither.
    #[must_use]
    pub fn now() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::at(i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX))
    }

    /// `seconds` after 1970-01-01 UTC, in the host's zone.
    #[must_use]
    pub fn at(seconds: i64) -> Self {
        // SAFETY: `tm` is plain numbers and a pointer that localtime_r sets; all zeroes is a valid value of it.
        let mut tm: libc::tm = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are to live values of the right types, and localtime_r keeps neither.
        let converted = unsafe { libc::localtime_r(&seconds, &mut tm) };
        if converted.is_null() {
            tm.tm_mday = 1; // the year does not fit 32 bits: show the epoch
        }
        Self {
            year: tm.tm_year + 1900,
            month: tm.tm_mon + 1,
            day: tm.tm_mday,
            hour: tm.tm_hour,
            minute: tm.tm_min,
            second: tm.tm_sec,
        }
    }
}

impl LocalTime {
    /// Year, month and day.
    #[must_use]
    pub fn date(self) -> (u16, u8, u8) {
        (u16::try_from(self.year).unwrap_or(1970), self.month.to_le_bytes()[0], self.day.to_le_bytes()[0])
    }
}

impl fmt::Display for LocalTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, hour, minute, second } = self;
        write!(f, "{year:04}/{month:02}/{day:02} {hour:02}:{minute:02}:{second:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_the_logs_of_the_field_do() {
        let time = LocalTime { year: 2023, month: 2, day: 8, hour: 4, minute: 27, second: 3 };
        assert_eq!(time.to_string(), "2023/02/08 04:27:03");
        assert_eq!(time.date(), (2023, 2, 8));
    }

    #[test]
    fn a_second_later_differs_and_the_far_future_does_not_panic() {
        assert_ne!(LocalTime::at(1_675_866_450), LocalTime::at(1_675_866_451));
        let _ = LocalTime::at(i64::MAX);
    }
}
