//! Moves the calling thread into a named network namespace, for tests and benchmarks.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::cvt;

/// Enters `/run/netns/<name>`, as `ip netns add` makes it; only this thread moves, and threads it starts afterwards.
///
/// # Errors
/// When there is no such namespace, or `EPERM` without `CAP_SYS_ADMIN`.
pub fn enter(name: &str) -> io::Result<()> {
    let namespace = File::open(format!("/run/netns/{name}"))?;
    // SAFETY: no pointers are passed.
    cvt(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}
