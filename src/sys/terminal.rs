//! How wide the terminal is, and whether it takes anything.

use std::os::fd::AsRawFd;
use std::time::Duration;

/// Columns of the terminal behind `stream`; `None` when it is no terminal or does not know.
#[must_use]
pub fn columns(stream: &impl AsRawFd) -> Option<usize> {
    size(stream).map(|(columns, _)| columns)
}

/// Columns and rows of the terminal behind `stream`; `None` when it is no terminal or does not know.
#[must_use]
pub fn size(stream: &impl AsRawFd) -> Option<(usize, usize)> {
    // SAFETY: `winsize` is four numbers; all zeroes is a valid value of it.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: TIOCGWINSZ writes one winsize to the pointer, which is to a live one.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_col > 0).then_some((usize::from(size.ws_col), usize::from(size.ws_row)))
}

/// Waits until a write of up to `PIPE_BUF` bytes would not block, and tells whether that came within `patience`. A stream whose reader has
/// gone counts as ready: the write then fails at once.
#[must_use]
pub fn is_writable_within(stream: &impl AsRawFd, patience: Duration) -> bool {
    let mut poll = libc::pollfd { fd: stream.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    let millis = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the pointer is to one live pollfd.
    unsafe { libc::poll(&raw mut poll, 1, millis) != 0 }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::time::Duration;

    #[test]
    fn a_file_has_no_columns() {
        assert_eq!(super::columns(&std::fs::File::open("/dev/null").unwrap()), None);
    }

    #[test]
    fn a_full_pipe_takes_nothing_until_it_is_read() {
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        while super::is_writable_within(&writer, Duration::ZERO) {
            writer.write_all(&[0; 4096]).unwrap();
        }
        reader.read_exact(&mut [0; 4096]).unwrap();
        assert!(super::is_writable_within(&writer, Duration::from_secs(20)));
        drop(reader);
        assert!(super::is_writable_within(&writer, Duration::ZERO), "the write fails, it does not wait");
    }
}
