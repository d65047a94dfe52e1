//! The machine's own name.

use std::io;

use super::cvt;

/// Sets the name of this machine (sethostname(2)).
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`, `EINVAL` when it is longer than 64 bytes.
pub fn set(name: &str) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `name`.
    cvt(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }).map(drop)
}
