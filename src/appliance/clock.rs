//! The clock before the network can tell the time: certificates are valid only when it is not 1970.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::sys::rtc;

/// What the clock was set to at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The kernel had set it already, to something later than the image was built.
    Kernel,
    /// The clock with the battery.
    Battery,
    /// There is no such clock, or it shows what was before the image was built.
    Build,
}

impl Origin {
    /// For the status, until the network has told the time.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            // From the same clock, by the kernel's own driver.
            Self::Kernel | Self::Battery => "set by the machine's own clock",
            Self::Build => "not known: set to when the image was built",
        }
    }
}

/// Sets the kernel's clock to the latest of its own time, the clock at `rtc` (`/dev/rtc0`) and `build_time` in seconds since 1970.
///
/// # Errors
/// `EPERM` without `CAP_SYS_TIME`.
pub fn start(rtc: &Path, build_time: u64) -> io::Result<Origin> {
    let battery = rtc::read(rtc).ok().and_then(|seconds| u64::try_from(seconds).ok());
    let (origin, seconds) = latest(seconds_now(), battery, build_time);
    if origin != Origin::Kernel {
        rtc::set_clock(Duration::from_secs(seconds))?;
    }
    Ok(origin)
}

/// Has the clock at `rtc` remember the time, once the network has told it; `false` when there is none.
///
/// # Errors
/// What open(2) and ioctl(2) say.
pub fn keep(rtc: &Path) -> io::Result<bool> {
    match rtc::write(rtc, i64::try_from(seconds_now()).map_err(io::Error::other)?) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        result => result.map(|()| true),
    }
}

/// A battery's clock is believed up to [`FUTURE_MAX`] after the build: an empty one may show any year.
fn latest(kernel: u64, battery: Option<u64>, build: u64) -> (Origin, u64) {
    let is_believed = |seconds: u64| seconds >= build && seconds - build <= FUTURE_MAX;
    match battery {
        Some(battery) if is_believed(battery) && battery > kernel => (Origin::Battery, battery),
        _ if is_believed(kernel) => (Origin::Kernel, kernel),
        _ => (Origin::Build, build),
    }
}

/// 30 years: no image is in use for longer.
const FUTURE_MAX: u64 = 30 * 365 * 24 * 3600;

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_time_that_can_be_true() {
        let build = 1_760_000_000;
        for (kernel, battery, expected) in [
            (12, None, (Origin::Build, build)),
            (12, Some(0), (Origin::Build, build)),
            (12, Some(build + 100), (Origin::Battery, build + 100)),
            (build + 90, Some(build + 100), (Origin::Battery, build + 100)),
            (build + 100, Some(build + 100), (Origin::Kernel, build + 100)),
            (build + 100, None, (Origin::Kernel, build + 100)),
            (12, Some(build + FUTURE_MAX + 1), (Origin::Build, build)),
            (build + FUTURE_MAX + 1, None, (Origin::Build, build)),
            (build + 5, Some(u64::MAX), (Origin::Kernel, build + 5)),
        ] {
            assert_eq!(latest(kernel, battery, build), expected, "{kernel} {battery:?}");
        }
    }

    #[test]
    fn a_machine_without_a_battery_keeps_nothing() {
        assert!(!keep(Path::new("/nonexistent/rtc0")).unwrap());
    }
}
