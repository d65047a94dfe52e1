//! Opens what is below a directory without ever leaving it, whoever may put a link in the way meanwhile.

use std::ffi::{CString, OsStr, c_long};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

/// A directory that files and directories are opened below.
#[derive(Debug)]
pub struct Beneath(File);

// `resolve` of `struct open_how` (openat2(2)).
const RESOLVE_NO_XDEV: u64 = 0x01;
const RESOLVE_NO_SYMLINKS: u64 = 0x04;
const RESOLVE_BENEATH: u64 = 0x08;

impl Beneath {
    /// # Errors
    /// It is no directory, or may not be read.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let flags = libc::O_DIRECTORY | libc::O_CLOEXEC;
        Ok(Self(File::options().read(true).custom_flags(flags).open(directory)?))
    }

    /// Opens a regular file for reading. No part of `path`, which is relative, may be a symbolic link.
    ///
    /// # Errors
    /// The system's; `ELOOP` for a link on the way.
    pub fn file(&self, path: &Path) -> io::Result<File> {
        // Without waiting for whoever writes to a pipe; of a regular file it changes nothing.
        self.opened(path, libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY, 0)
    }

    /// Opens a directory of the same mount. No part of `path`, which is relative, may be a symbolic link.
    ///
    /// # Errors
    /// The system's; `ELOOP` for a link on the way, `EXDEV` for another mount, which kernels before 5.6 do not tell.
    pub fn directory(&self, path: &Path) -> io::Result<Self> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC | libc::O_NOFOLLOW;
        self.opened(path, flags, RESOLVE_NO_XDEV).map(Self)
    }

    /// Of the directory itself.
    ///
    /// # Errors
    /// The system's.
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.0.metadata()
    }

    /// For calls that only know paths: what is called `name` in this directory, wherever the directory is moved to. Good as long as
    /// `self` lives and /proc is mounted. An empty name is the directory itself.
    #[must_use]
    pub fn place_of(&self, name: &OsStr) -> PathBuf {
        Path::new("/proc/self/fd").join(self.0.as_raw_fd().to_string()).join(name)
    }

    fn opened(&self, path: &Path, flags: i32, resolve: u64) -> io::Result<File> {
        match self.openat2(path, flags, resolve) {
            // Kernels before 5.6, and sandboxes that do not know the call.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                self.by_steps(path, flags)
            }
            opened => opened,
        }
    }

    fn openat2(&self, path: &Path, flags: i32, resolve: u64) -> io::Result<File> {
        /// `struct open_how` (openat2(2)).
        #[repr(C)]
        struct How {
            flags: u64,
            mode: u64,
            resolve: u64,
        }
        let path = CString::new(path.as_os_str().as_bytes())?;
        let flags = u64::try_from(flags).unwrap_or_default();
        let how = How { flags, mode: 0, resolve: resolve | RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS };
        // SAFETY: the descriptor is open, the path ends in a zero byte, `how` lives and its size is the one that is named.
        let opened = unsafe {
            libc::syscall(libc::SYS_openat2, self.0.as_raw_fd(), path.as_ptr(), &raw const how, size_of::<How>())
        };
        owned(opened)
    }

    /// One directory after the other.
    fn by_steps(&self, path: &Path, flags: i32) -> io::Result<File> {
        let mut at = self.0.try_clone()?;
        let mut parts = path.components().filter(|part| *part != Component::CurDir).peekable();
        while let Some(part) = parts.next() {
            let Component::Normal(name) = part else { return Err(io::ErrorKind::InvalidInput.into()) };
            let name = CString::new(name.as_bytes())?;
            let directory = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_PATH;
            let flags = if parts.peek().is_some() { directory } else { flags };
            // SAFETY: the descriptor is open, and the name ends in a zero byte.
            at = owned(unsafe { libc::openat(at.as_raw_fd(), name.as_ptr(), flags) }.into())?;
        }
        Ok(at)
    }
}

fn owned(descriptor: c_long) -> io::Result<File> {
    let Ok(descriptor) = i32::try_from(descriptor) else { return Err(io::ErrorKind::InvalidData.into()) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the system has just given it out, and nobody else owns it.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(descriptor) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn no_link_leads_out() {
        let scratch = std::env::temp_dir().join(format!("auroraboot-beneath-{}", std::process::id()));
        fs::create_dir_all(scratch.join("in/dir")).unwrap();
        fs::write(scratch.join("secret"), "secret").unwrap();
        fs::write(scratch.join("in/dir/file"), "file").unwrap();
        symlink("../secret", scratch.join("in/link")).unwrap();
        symlink("..", scratch.join("in/up")).unwrap();
        let beneath = Beneath::open(&scratch.join("in")).unwrap();
        let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NOFOLLOW;
        let by_steps = |path: &str| beneath.by_steps(Path::new(path), flags).and_then(io::read_to_string);
        let at_once = |path: &str| beneath.file(Path::new(path)).and_then(io::read_to_string);
        assert_eq!([at_once("dir/file").unwrap(), by_steps("dir/file").unwrap()], ["file", "file"]);
        for path in ["link", "up/secret", "../secret", "/etc/passwd", "missing", "dir/file/x"] {
            assert!(at_once(path).is_err() && by_steps(path).is_err(), "{path}");
        }
        assert!(Beneath::open(&scratch.join("secret")).is_err());
        for path in ["up", "..", "dir/file", "missing"] {
            assert!(beneath.directory(Path::new(path)).is_err(), "{path}");
        }
        let names = |directory: &Beneath| {
            let found = fs::read_dir(directory.place_of(OsStr::new(""))).unwrap();
            let mut names: Vec<_> = found.map(|found| found.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC | libc::O_NOFOLLOW;
        for path in [".", "dir"] {
            let at_once = beneath.directory(Path::new(path)).unwrap();
            let by_steps = Beneath(beneath.by_steps(Path::new(path), flags).unwrap());
            assert_eq!(names(&at_once), names(&by_steps), "{path}");
        }
        let inner = beneath.directory(Path::new("dir")).unwrap();
        fs::rename(scratch.join("in/dir"), scratch.join("in/moved")).unwrap();
        assert_eq!(fs::read_to_string(inner.place_of(OsStr::new("file"))).unwrap(), "file", "where it is now");
        assert_eq!(names(&inner), ["file"]);
        fs::remove_dir_all(&scratch).unwrap();
    }
}
