//! Mounting and unmounting (mount(2)), syncing one file system (syncfs(2)), and growing an ext4 that is mounted.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libc::c_ulong;

use super::cvt;

/// What a mount allows (`MS_…` of mount(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags(c_ulong);

impl Flags {
    pub const NONE: Self = Self(0);
    pub const READ_ONLY: Self = Self(libc::MS_RDONLY);
    pub const NO_SUID: Self = Self(libc::MS_NOSUID);
    pub const NO_DEV: Self = Self(libc::MS_NODEV);
    pub const NO_EXEC: Self = Self(libc::MS_NOEXEC);
    pub const NO_ATIME: Self = Self(libc::MS_NOATIME);
    pub const REMOUNT: Self = Self(libc::MS_REMOUNT);
    /// With [`Self::REMOUNT`]: alters the mount only, not the file system below it.
    pub const BIND: Self = Self(libc::MS_BIND);
    pub const RECURSIVE: Self = Self(libc::MS_REC);
    pub const PRIVATE: Self = Self(libc::MS_PRIVATE);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Mounts `source` at `target`, or alters the mount that is there.
///
/// # Errors
/// What mount(2) says.
pub fn mount(source: &Path, target: &Path, kind: &str, flags: Flags, options: &str) -> io::Result<()> {
    let (source, target) = (c_path(source)?, c_path(target)?);
    let (kind, options) = (c_text(kind)?, c_text(options)?);
    // SAFETY: all four are strings that live until the call returns; every file system of ours takes its options as one.
    let result =
        unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags.0, options.as_ptr().cast()) };
    cvt(result).map(drop)
}

/// Unmounts what is at `target`; `lazily` also when it is in use, which then goes on until nobody uses it.
///
/// # Errors
/// What umount2(2) says: `EBUSY`, `EINVAL` where nothing is mounted.
pub fn unmount(target: &Path, lazily: bool) -> io::Result<()> {
    let target = c_path(target)?;
    let flags = libc::UMOUNT_NOFOLLOW | if lazily { libc::MNT_DETACH } else { 0 };
    // SAFETY: the path lives until the call returns.
    cvt(unsafe { libc::umount2(target.as_ptr(), flags) }).map(drop)
}

/// Waits until everything written to the file system that `file` is on is on its medium.
///
/// # Errors
/// What syncfs(2) says, which is where a write that failed late is told (Linux 5.8).
pub fn sync_file_system(file: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: no pointers are passed.
    cvt(unsafe { libc::syncfs(file.as_raw_fd()) }).map(drop)
}

/// Grows the mounted ext4 that `file` is on to `blocks` of its blocks.
///
/// # Errors
/// What the kernel says: `EOPNOTSUPP`, `EINVAL` when the device is smaller, `ENOSPC`; `ENOTTY` for another file system.
pub fn resize_ext4(file: &impl AsRawFd, blocks: u64) -> io::Result<()> {
    // SAFETY: EXT4_IOC_RESIZE_FS reads one u64.
    cvt(unsafe { libc::ioctl(file.as_raw_fd(), EXT4_IOC_RESIZE_FS as _, &raw const blocks) }).map(drop)
}

/// Gives the mounted ext4 that `file` is on another UUID (Linux 6.0).
///
/// # Errors
/// `EOPNOTSUPP` for a file system whose checksums hang on its UUID, `ENOTTY` for other kernels and file systems.
pub fn set_ext4_uuid(file: &impl AsRawFd, uuid: [u8; 16]) -> io::Result<()> {
    /// `struct fsuuid` with its array.
    #[repr(C)]
    struct Argument {
        length: u32,
        flags: u32,
        uuid: [u8; 16],
    }
    let argument = Argument { length: 16, flags: 0, uuid };
    // SAFETY: EXT4_IOC_SETFSUUID reads an fsuuid and as many bytes behind it as its length says.
    cvt(unsafe { libc::ioctl(file.as_raw_fd(), EXT4_IOC_SETFSUUID as _, &raw const argument) }).map(drop)
}

/// Bytes per block and number of blocks of the mounted file system that holds `path`, and how many of them are free.
///
/// # Errors
/// What statfs(2) says.
pub fn space(path: &Path) -> io::Result<Space> {
    let path = c_path(path)?;
    // SAFETY: all-zero bytes are a valid statfs.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path lives until the call returns, and the other pointer is to a live statfs.
    cvt(unsafe { libc::statfs(path.as_ptr(), &raw mut found) })?;
    #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss)] // signed on some targets
    Ok(Space { block_bytes: found.f_bsize as u64, blocks: found.f_blocks as u64, free: found.f_bavail as u64 })
}

/// The size of a mounted file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    pub block_bytes: u64,
    /// What files and directories can use.
    pub blocks: u64,
    pub free: u64,
}

/// `_IOW('f', 16, __u64)` of the kernel's fs/ext4/ext4.h.
const EXT4_IOC_RESIZE_FS: u32 = 0x4008_6610;

/// `_IOW('f', 44, struct fsuuid)`.
const EXT4_IOC_SETFSUUID: u32 = 0x4008_662c;

pub(super) fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn c_text(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// The running kernel's release, such as `6.12.107+deb13-amd64` (uname(2)).
#[must_use]
pub fn kernel_release() -> String {
    // SAFETY: all-zero bytes are a valid utsname.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live utsname, of which the kernel ends every field with a NUL.
    unsafe {
        libc::uname(&raw mut name);
        CStr::from_ptr(name.release.as_ptr()).to_string_lossy().into_owned()
    }
}
