//! The clock: setting the kernel's (clock_settime(2)), reading and setting the one with the battery (rtc(4)).

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use super::cvt;

/// `struct rtc_time` of linux/rtc.h: a `tm` without zone.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
struct RtcTime {
    sec: c_int,
    min: c_int,
    hour: c_int,
    mday: c_int,
    mon: c_int,
    year: c_int,
    wday: c_int,
    yday: c_int,
    isdst: c_int,
}

const RTC_RD_TIME: u32 = 0x8024_7009; // _IOR('p', 9, struct rtc_time)
const RTC_SET_TIME: u32 = 0x4024_700a; // _IOW('p', 10, struct rtc_time)

/// Sets the kernel's wall clock to so long after 1970-01-01 UTC.
///
/// # Errors
/// `EPERM` without `CAP_SYS_TIME`.
pub fn set_clock(since_epoch: Duration) -> io::Result<()> {
    let seconds = since_epoch.as_secs().try_into().map_err(io::Error::other)?;
    let time = libc::timespec { tv_sec: seconds, tv_nsec: since_epoch.subsec_nanos().into() };
    // SAFETY: the pointer is to a live timespec.
    cvt(unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const time) }).map(drop)
}

/// Seconds after 1970-01-01 that the battery's clock shows, which is taken to run in UTC.
///
/// # Errors
/// What open(2) says, or `EINVAL` for a clock that never was set or whose battery is empty.
pub fn read(path: &Path) -> io::Result<i64> {
    let file = File::open(path)?;
    let mut time = RtcTime::default();
    // SAFETY: RTC_RD_TIME writes one rtc_time.
    cvt(unsafe { libc::ioctl(file.as_raw_fd(), RTC_RD_TIME as _, &raw mut time) })?;
    // SAFETY: `tm` is plain numbers and a pointer, for which null is a valid value.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    (tm.tm_sec, tm.tm_min, tm.tm_hour) = (time.sec, time.min, time.hour);
    (tm.tm_mday, tm.tm_mon, tm.tm_year) = (time.mday, time.mon, time.year);
    // SAFETY: the pointer is to a live tm.
    Ok(unsafe { libc::timegm(&raw mut tm) })
}

/// Sets the battery's clock to `seconds` after 1970-01-01 UTC.
///
/// # Errors
/// What open(2) and ioctl(2) say.
pub fn write(path: &Path, seconds: i64) -> io::Result<()> {
    let file = File::open(path)?;
    // SAFETY: `tm` is plain numbers and a pointer, for which null is a valid value.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of the right types, and gmtime_r keeps neither.
    if unsafe { libc::gmtime_r(&raw const seconds, &raw mut tm) }.is_null() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let time = RtcTime {
        sec: tm.tm_sec,
        min: tm.tm_min,
        hour: tm.tm_hour,
        mday: tm.tm_mday,
        mon: tm.tm_mon,
        year: tm.tm_year,
        ..RtcTime::default()
    };
    // SAFETY: RTC_SET_TIME reads one rtc_time.
    cvt(unsafe { libc::ioctl(file.as_raw_fd(), RTC_SET_TIME as _, &raw const time) }).map(drop)
}
