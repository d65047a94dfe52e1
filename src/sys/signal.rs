//! SIGINT, SIGTERM and SIGHUP as something to wait for, instead of something that interrupts.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use libc::c_int;

use super::{cvt, cvt_len};

/// The signals that ask the program to end: Ctrl-C, a service manager, the end of an ssh session.
const TERMINATION: [c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// Delivers the signals that ask the program to end (signalfd(2)).
#[derive(Debug)]
pub struct TerminationSignals {
    fd: OwnedFd,
}

impl TerminationSignals {
    /// Blocks these signals in this thread and all it starts from now on: call it before any thread is started.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn block() -> io::Result<Self> {
        // SAFETY: an all-zero sigset_t is a valid value, and sigemptyset then gives it its meaning.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: `set` is a live sigset_t throughout; no old mask is asked for.
        let fd = unsafe {
            libc::sigemptyset(&raw mut set);
            for signal in TERMINATION.into_iter().filter(|signal| !is_ignored(*signal)) {
                libc::sigaddset(&raw mut set, signal);
            }
            let errno = libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            if errno != 0 {
                return Err(io::Error::from_raw_os_error(errno));
            }
            cvt(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC))?
        };
        // SAFETY: the descriptor is new, so nobody else owns it.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Waits for one of them and returns its number.
    ///
    /// # Errors
    /// Only what read(2) says about a broken descriptor.
    pub fn wait(&self) -> io::Result<c_int> {
        loop {
            // SAFETY: all-zero bytes are a valid signalfd_siginfo.
            let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
            let length = size_of_val(&info);
            // SAFETY: the pointer and the length describe `info`.
            let read = unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut info).cast(), length) };
            match cvt_len(read) {
                Ok(_) => return Ok(c_int::try_from(info.ssi_signo).unwrap_or(libc::SIGTERM)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl TerminationSignals {
    /// As [`Self::wait`], for at most `patience`.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn wait_for(&self, patience: Duration) -> io::Result<Option<c_int>> {
        let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let millis = c_int::try_from(patience.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the pointer is to one live pollfd.
        match cvt(unsafe { libc::poll(&raw mut poll, 1, millis) })? {
            0 => Ok(None),
            _ => self.wait().map(Some),
        }
    }

    /// Ends the process as `signal` does where nobody waits for it.
    pub fn die_of(&self, signal: c_int) -> ! {
        // SAFETY: an all-zero sigset_t is a valid value; all pointers are to live values.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, signal);
            libc::signal(signal, libc::SIG_DFL);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
            libc::raise(signal);
            // In a container we may be process 1, which no signal of its own ends.
            libc::_exit(SHELLS_OFFSET + signal);
        }
    }
}

/// What shells add to the number of the signal that ended a program.
const SHELLS_OFFSET: c_int = 128;

/// Whether whoever started us wants this signal to do nothing, as `nohup` does with SIGHUP. A signalfd would deliver it all the same.
fn is_ignored(signal: c_int) -> bool {
    // SAFETY: all-zero bytes are a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: nothing is set, and the pointer to fill is to a live sigaction.
    let result = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
    result == 0 && action.sa_sigaction == libc::SIG_IGN
}

impl AsRawFd for TerminationSignals {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
