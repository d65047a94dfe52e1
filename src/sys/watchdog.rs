//! The watchdog timer (linux/watchdog.h): opened, it must be petted, or the machine is reset.

use std::ffi::c_int;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use super::cvt;

/// A running watchdog timer. Dropped, it goes on running unless [`Timer::stop`] was called.
#[derive(Debug)]
pub struct Timer {
    file: File,
}

/// `struct watchdog_info`.
#[repr(C)]
struct Info {
    options: u32,
    firmware_version: u32,
    identity: [u8; 32],
}

// `_IOR`, `_IOWR` of 'W'; the same on every architecture we build for.
const WDIOC_GETSUPPORT: u32 = 0x8028_5700;
const WDIOC_GETBOOTSTATUS: u32 = 0x8004_5702;
const WDIOC_SETTIMEOUT: u32 = 0xc004_5706;
const WDIOC_GETTIMEOUT: u32 = 0x8004_5707;
const WDIOF_CARDRESET: c_int = 0x20;

impl Timer {
    /// Opens the device, which starts the timer.
    ///
    /// # Errors
    /// What open(2) says: `EBUSY` when somebody else has it.
    pub fn open(path: &Path) -> io::Result<Self> {
        OpenOptions::new().write(true).open(path).map(|file| Self { file })
    }

    /// What the driver calls itself; empty when it does not say.
    #[must_use]
    pub fn identity(&self) -> String {
        let mut info = Info { options: 0, firmware_version: 0, identity: [0; 32] };
        // SAFETY: WDIOC_GETSUPPORT writes one watchdog_info.
        let _ = cvt(unsafe { libc::ioctl(self.file.as_raw_fd(), WDIOC_GETSUPPORT as _, &raw mut info) });
        let end = info.identity.iter().position(|byte| *byte == 0).unwrap_or(info.identity.len());
        String::from_utf8_lossy(&info.identity[..end]).into_owned()
    }

    /// Whether the last restart of the machine was this timer's doing.
    #[must_use]
    pub fn did_reset(&self) -> bool {
        let mut status = 0;
        self.number(WDIOC_GETBOOTSTATUS, &mut status).is_ok() && status & WDIOF_CARDRESET != 0
    }

    /// Asks for `seconds` and returns what the hardware made of them.
    ///
    /// # Errors
    /// `EOPNOTSUPP`/`ENOTTY` when its time is fixed, `EINVAL` when it cannot count that far.
    pub fn set_timeout(&self, seconds: c_int) -> io::Result<c_int> {
        let mut value = seconds;
        self.number(WDIOC_SETTIMEOUT, &mut value)?;
        Ok(value)
    }

    /// The seconds after which it resets the machine.
    ///
    /// # Errors
    /// When the driver does not tell.
    pub fn timeout(&self) -> io::Result<c_int> {
        let mut value = 0;
        self.number(WDIOC_GETTIMEOUT, &mut value)?;
        Ok(value)
    }

    /// Begins the count anew.
    ///
    /// # Errors
    /// What write(2) says.
    pub fn pet(&mut self) -> io::Result<()> {
        self.file.write_all(b"\0")
    }

    /// Stops the timer: the "magic close", an uppercase V before the device is closed. A driver with `nowayout` goes on.
    ///
    /// # Errors
    /// What write(2) says.
    pub fn stop(mut self) -> io::Result<()> {
        self.file.write_all(b"V")
    }

    fn number(&self, request: u32, value: &mut c_int) -> io::Result<()> {
        // SAFETY: the requests that are passed here read or write one int.
        cvt(unsafe { libc::ioctl(self.file.as_raw_fd(), request as _, &raw mut *value) }).map(drop)
    }
}
