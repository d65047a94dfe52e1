//! Dates in UTC, as HTTP, HTML, ISO 9660 and people write them.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// A date and time of the Gregorian calendar, in UTC. Prints as `2026-11-22 21:48 UTC`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Civil {
    pub year: u64,
    /// From 1.
    pub month: u8,
    /// Of the month, from 1.
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
    /// 0 is Thursday, the first day of 1970.
    weekday: u8,
}

impl From<SystemTime> for Civil {
    /// Times before 1970 count as its first second, which is what a machine without a clock shows.
    fn from(time: SystemTime) -> Self {
        Self::at(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
    }
}

impl Civil {
    /// `seconds` after 1970.
    #[must_use]
    pub const fn at(seconds: u64) -> Self {
        let days = seconds / 86_400;
        // Days of 400, 100, 4 and 1 years, counted from a March so that the leap day is the last (Hinnant, "chrono-Compatible Low-Level
        // Date Algorithms").
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        Self {
            year: era * 400 + year_of_era + (month <= 2) as u64,
            month: month as u8,
            day: (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u8,
            hour: (seconds / 3_600 % 24) as u8,
            minute: (seconds / 60 % 60) as u8,
            second: (seconds % 60) as u8,
            weekday: (days % 7) as u8,
        }
    }

    /// As in `Last-Modified` (RFC 9110 §5.6.7).
    #[must_use]
    pub fn http_date(self) -> String {
        let Self { year, month, day, hour, minute, second, weekday } = self;
        let (weekday, month) = (WEEKDAYS[usize::from(weekday)], MONTHS[usize::from(month) - 1]);
        format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
    }

    /// As in RFC 3339: `2026-11-22T21:48:03Z`.
    #[must_use]
    pub fn iso_8601(self) -> String {
        let Self { year, month, day, hour, minute, second, .. } = self;
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

impl fmt::Display for Civil {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, hour, minute, .. } = self;
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
    }
}

const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// What `date -u -d @N` prints.
    #[test]
    fn dates_that_calendars_trip_over() {
        for (seconds, date) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (1_709_251_199, "Thu, 29 Feb 2024 23:59:59 GMT"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
            (1_795_384_083, "Sun, 22 Nov 2026 21:48:03 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        ] {
            assert_eq!(Civil::at(seconds).http_date(), date);
            assert_eq!(Civil::from(UNIX_EPOCH + Duration::from_secs(seconds)), Civil::at(seconds));
        }
    }

    #[test]
    fn other_spellings_and_the_edges() {
        let civil = Civil::at(1_795_384_083);
        assert_eq!(
            (civil.to_string(), civil.iso_8601()),
            ("2026-11-22 21:48 UTC".into(), "2026-11-22T21:48:03Z".into())
        );
        assert_eq!(Civil::from(UNIX_EPOCH - Duration::from_secs(5)), Civil::at(0));
        assert!(Civil::at(i64::MAX.unsigned_abs()).http_date().ends_with("GMT"));
    }
}
