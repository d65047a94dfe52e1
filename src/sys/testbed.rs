//! Namespaces and capabilities of the calling thread, for tests and benchmarks.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::cvt;

/// Enters `/run/netns/<name>`, as `ip netns add` makes it; only this thread moves, and threads it starts afterwards.
///
/// # Errors
/// When there is no such namespace, or `EPERM` without `CAP_SYS_ADMIN`.
pub fn enter_namespace(name: &str) -> io::Result<()> {
    let namespace = File::open(format!("/run/netns/{name}"))?;
    // SAFETY: no pointers are passed.
    cvt(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// Gives up all capabilities of this thread, as if another user had started the program.
///
/// # Errors
/// Never in practice: giving up is always allowed.
pub fn drop_capabilities() -> io::Result<()> {
    /// `struct __user_cap_header_struct`, version 3 (linux/capability.h).
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, pid: 0 };
    let none = [0_u32; 6]; // two of `struct __user_cap_data_struct`
    // SAFETY: version 3 reads one header and two data structures of three u32 each.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives this thread a view of its own of what is mounted: mounts that it makes from now on are seen by nobody else, and go with it.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`.
pub fn own_mounts() -> io::Result<()> {
    use super::mount::{Flags, mount};
    // SAFETY: no pointers are passed.
    cvt(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    mount("none".as_ref(), "/".as_ref(), "", Flags::RECURSIVE.and(Flags::PRIVATE), "")
}
