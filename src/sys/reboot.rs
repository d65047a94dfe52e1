//! What only process 1 does: reap, end all others, restart the machine or switch it off (reboot(2)).

use std::io;

use libc::c_int;

use super::cvt;

/// How the machine is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Restart,
    PowerOff,
}

/// Restarts the machine or switches it off at once, whatever is not on disk yet. Returns only when it cannot.
///
/// # Errors
/// `EPERM` without `CAP_SYS_BOOT`.
pub fn reboot(action: Action) -> io::Result<()> {
    let command = match action {
        Action::Restart => libc::RB_AUTOBOOT,
        Action::PowerOff => libc::RB_POWER_OFF,
    };
    // SAFETY: no pointers are passed.
    cvt(unsafe { libc::reboot(command) }).map(drop)
}

/// Makes Ctrl-Alt-Del a SIGINT for process 1, where the kernel would restart the machine at once.
///
/// # Errors
/// `EPERM` without `CAP_SYS_BOOT`.
pub fn catch_ctrl_alt_del() -> io::Result<()> {
    // SAFETY: no pointers are passed.
    cvt(unsafe { libc::reboot(libc::RB_DISABLE_CAD) }).map(drop)
}

/// Writes everything that the page cache holds to its media.
pub fn sync() {
    // SAFETY: sync has no arguments and cannot fail.
    unsafe { libc::sync() }
}

/// Sends a signal to a process, or to all but this one and process 1 with `pid` -1.
///
/// # Errors
/// `ESRCH` when there is none.
pub fn kill(pid: i32, signal: c_int) -> io::Result<()> {
    // SAFETY: no pointers are passed.
    cvt(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Takes the exit status of the child `pid` if it has ended; `false` when it runs or is no child.
#[must_use]
pub fn reap(pid: i32) -> bool {
    let mut status = 0;
    // SAFETY: the pointer is to a live int.
    unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) == pid }
}
