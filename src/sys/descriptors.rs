//! How many descriptors this process may have.

use super::cvt;
use std::io;

/// Raises the limit to what the administrator allows. Most shells start programs with 1,024, for the sake of select(2); each connection
/// and each TFTP transfer takes one.
///
/// # Errors
/// Never on a Linux that lets a process read its own limits.
pub fn raise_limit() -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live rlimit.
    cvt(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above; the kernel only reads it.
    cvt(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }).map(drop)
}
