//! How wide the terminal is.

use std::os::fd::AsRawFd;

/// Columns of the terminal behind `stream`; `None` when it is no terminal or does not know.
#[must_use]
pub fn columns(stream: &impl AsRawFd) -> Option<usize> {
    // SAFETY: `winsize` is four numbers; all zeroes is a valid value of it.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: TIOCGWINSZ writes one winsize to the pointer, which is to a live one.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_col > 0).then_some(usize::from(size.ws_col))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_file_has_no_columns() {
        assert_eq!(super::columns(&std::fs::File::open("/dev/null").unwrap()), None);
    }
}
