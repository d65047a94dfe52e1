//! Sending a file's bytes to a socket without copying them through the process.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Sends up to `length` bytes of `file` from `offset` to `socket`; returns how many the kernel took, 0 at the end of the file.
///
/// # Errors
/// What `sendfile(2)` returns; [`io::ErrorKind::WouldBlock`] when the socket's buffer is full.
pub fn sendfile(socket: &impl AsFd, file: &impl AsFd, offset: u64, length: u64) -> io::Result<usize> {
    let mut offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    let length = usize::try_from(length).unwrap_or(usize::MAX).min(SENDFILE_BYTES_MAX);
    // SAFETY: both descriptors are borrowed from open objects for the call, and `offset` points to a live off_t of ours.
    let sent = unsafe { libc::sendfile(socket.as_fd().as_raw_fd(), file.as_fd().as_raw_fd(), &raw mut offset, length) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Sends `bytes` and tells the kernel that more follows at once, so that a response head shares a packet with its body.
///
/// # Errors
/// What `send(2)` returns; [`io::ErrorKind::WouldBlock`] when the socket's buffer is full.
pub fn send_before_more(socket: &impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length describe `bytes`, which outlives the call.
    let sent = unsafe {
        libc::send(
            socket.as_fd().as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            libc::MSG_MORE | libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// The most that Linux sends in one call, whatever is asked.
const SENDFILE_BYTES_MAX: usize = 0x7fff_f000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_part_of_a_file_arrives_and_the_end_is_zero() {
        let path = std::env::temp_dir().join(format!("auroraboot-sendfile-{}", std::process::id()));
        std::fs::File::create(&path).unwrap().write_all(b"0123456789").unwrap();
        let file = std::fs::File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        assert_eq!(send_before_more(&ours, b"head ").unwrap(), 5);
        assert_eq!(sendfile(&ours, &file, 3, 4).unwrap(), 4);
        assert_eq!(sendfile(&ours, &file, 10, 4).unwrap(), 0);
        assert!(sendfile(&ours, &file, u64::MAX, 4).is_err());
        drop(ours);
        let mut text = String::new();
        theirs.read_to_string(&mut text).unwrap();
        assert_eq!(text, "head 3456");
    }

    #[test]
    fn a_full_socket_and_one_that_is_gone_are_errors() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut offset = 0;
        let error = loop {
            match sendfile(&ours, &file, offset, 1 << 16) {
                Ok(sent) => offset += sent as u64,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(theirs);
        let error = send_before_more(&ours, b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
