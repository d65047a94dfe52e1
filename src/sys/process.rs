//! Programs that this one has started: what they inherit, and how they are ended without a race (pidfd_open(2)).

use super::cvt;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::Duration;

/// Has `command` inherit `fd` under the given number.
pub fn hand_down(command: &mut Command, fd: OwnedFd, number: RawFd) {
    let inherit = move || {
        if fd.as_raw_fd() == number {
            // SAFETY: plain numbers; the descriptor is open, for this closure owns it.
            return cvt(unsafe { libc::fcntl(number, libc::F_SETFD, 0) }).map(drop);
        }
        // SAFETY: as above; what was open under `number` in the new process is closed.
        cvt(unsafe { libc::dup2(fd.as_raw_fd(), number) }).map(drop)
    };
    // SAFETY: between fork and exec it makes one system call, which is async-signal-safe, and allocates nothing.
    unsafe { command.pre_exec(inherit) };
}

/// A running program, whatever becomes of its number.
#[derive(Debug)]
pub struct Pidfd(OwnedFd);

impl Pidfd {
    /// Of a child that has not been waited for.
    ///
    /// # Errors
    /// No descriptor is left, or the kernel is older than 5.3.
    pub fn of(child: &Child) -> io::Result<Self> {
        // SAFETY: plain numbers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
        let fd = cvt(i32::try_from(fd).unwrap_or(-1))?;
        // SAFETY: the descriptor is new, so nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        self.signal(libc::SIGTERM);
    }

    /// Ends it (SIGKILL).
    pub fn kill(&self) {
        self.signal(libc::SIGKILL);
    }

    fn signal(&self, signal: i32) {
        // SAFETY: no pointer but a null one, which means a plain signal. A program that has ended already is no error.
        unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
    }

    /// Waits for its end, and tells whether that came within `patience`.
    #[must_use]
    pub fn has_ended_within(&self, patience: Duration) -> bool {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let millis = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the pointer is to one live pollfd.
        unsafe { libc::poll(&raw mut poll, 1, millis) > 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_child_inherits_what_is_handed_down_and_ends_when_told() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo up >&3; read word <&3; echo $word >&3; exec sleep 1000"]);
        hand_down(&mut command, theirs.into(), 3);
        let mut child = command.spawn().unwrap();
        drop(command);
        let mut said = [0; 3];
        ours.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"up\n");
        ours.write_all(b"word\n").unwrap();
        let mut said = [0; 5];
        ours.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"word\n");
        let pidfd = Pidfd::of(&child).unwrap();
        assert!(!pidfd.has_ended_within(Duration::ZERO));
        pidfd.terminate();
        assert!(pidfd.has_ended_within(Duration::from_secs(20)));
        child.wait().unwrap();
        pidfd.kill(); // it has gone, and nobody else is hit
    }
}
