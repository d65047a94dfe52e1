//! Descriptors that whoever started this program handed down.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;

/// The stream socket under this number, as a descriptor of our own. The number itself stays open, and is inherited by nobody from now on.
///
/// # Errors
/// There is none under this number, or it is something else.
pub fn unix_stream(fd: RawFd) -> io::Result<UnixStream> {
    // SAFETY: asks only; a number that stands for nothing is an error.
    super::cvt(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: it is open, as the call above has shown, and nobody in this program closes what it did not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let stream = UnixStream::from(borrowed.try_clone_to_owned()?);
    stream.peer_addr()?; // an error for anything that is no connected socket
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;

    #[test]
    fn a_socket_is_taken_and_nothing_else() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let mut taken = unix_stream(theirs.as_raw_fd()).unwrap();
        ours.write_all(b"a").unwrap();
        taken.read_exact(&mut [0]).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(unix_stream(file.as_raw_fd()).unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
        assert_eq!(unix_stream(9999).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
}
