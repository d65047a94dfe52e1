//! How much room a file system has, and where one is mounted.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes that an ordinary user may still write to the file system of `path`.
///
/// # Errors
/// The path does not exist, or cannot be reached.
pub fn free(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: all zeroes is a valid value of this struct of numbers.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends in a zero byte, `found` lives, and neither is kept.
    if unsafe { libc::statvfs(path.as_ptr(), &raw mut found) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Whether something was mounted at `path`: a disk, or a directory of elsewhere (`mount --bind`, `docker -v`). Needs Linux 5.8; `false`
/// before it.
///
/// # Errors
/// The path does not exist, or cannot be reached.
pub fn is_mount_root(path: &Path) -> io::Result<bool> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: all zeroes is a valid value of this struct of numbers.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    let flags = libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: the path ends in a zero byte, `found` lives, and neither is kept.
    super::cvt(unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, libc::STATX_BASIC_STATS, &raw mut found) })?;
    Ok(found.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_told_from_directories() {
        assert!(is_mount_root(Path::new("/proc")).unwrap());
        assert!(!is_mount_root(Path::new("/proc/self")).unwrap());
        assert!(is_mount_root(Path::new("/missing")).is_err());
    }

    #[test]
    fn a_disk_has_room_and_a_missing_one_is_an_error() {
        assert!(free(&std::env::temp_dir()).unwrap() > 0);
        assert_eq!(free(Path::new("/proc")).unwrap(), 0);
        assert!(free(Path::new("/missing/directory")).is_err());
    }
}
