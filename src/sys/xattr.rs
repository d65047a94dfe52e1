//! Extended attributes of files.

use std::ffi::{CStr, CString, c_char};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

/// Name and value of each attribute of what is at `path`, a symbolic link itself included. A file system without attributes has none.
///
/// # Errors
/// The system's; `E2BIG` if they take more than `bytes_max` together.
pub fn list(path: &Path, bytes_max: usize) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let names = match names(&path) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => return Ok(Vec::new()),
        names => names?,
    };
    let mut attributes = Vec::new();
    let mut bytes = 0;
    for name in names.split_inclusive(|byte| *byte == 0).filter_map(|name| CStr::from_bytes_with_nul(name).ok()) {
        match value(&path, name) {
            Ok(value) => {
                bytes += name.count_bytes() + value.len();
                if bytes > bytes_max {
                    return Err(io::Error::from_raw_os_error(libc::E2BIG));
                }
                attributes.push((name.to_bytes().to_vec(), value));
            }
            // Taken away meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENODATA) => {}
            Err(error) => return Err(error),
        }
    }
    attributes.sort();
    Ok(attributes)
}

fn names(path: &CStr) -> io::Result<Vec<u8>> {
    // SAFETY: the path ends in a zero byte; the buffer is as long as is said, or null with length 0.
    grown(|buffer, length| unsafe { libc::llistxattr(path.as_ptr(), buffer.cast::<c_char>(), length) })
}

fn value(path: &CStr, name: &CStr) -> io::Result<Vec<u8>> {
    // SAFETY: path and name end in a zero byte; the buffer is as long as is said, or null with length 0.
    grown(|buffer, length| unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), buffer.cast(), length) })
}

/// Asks how long the answer is, then for the answer; again when it has grown in between.
fn grown(call: impl Fn(*mut u8, usize) -> isize) -> io::Result<Vec<u8>> {
    loop {
        let Ok(length) = usize::try_from(call(ptr::null_mut(), 0)) else { return Err(io::Error::last_os_error()) };
        if length == 0 {
            return Ok(Vec::new());
        }
        let mut buffer = vec![0; length];
        match usize::try_from(call(buffer.as_mut_ptr(), length)) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.raw_os_error() != Some(libc::ERANGE) {
                    return Err(error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_listed() {
        assert_eq!(list(Path::new("/proc/self/status"), 0).unwrap(), [], "a file without any");
        assert_eq!(list(Path::new("/missing/file"), 0).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
