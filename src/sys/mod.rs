//! System calls that the standard library lacks: the only unsafe code.
//!
//! No policy here: each file wraps one kernel interface, owns its descriptor and returns [`std::io::Error`].
#![allow(unsafe_code)]

pub mod beneath;
pub mod block;
pub mod descriptors;
pub mod discard;
pub mod disk;
pub mod holes;
pub mod hostname;
pub mod inherited;
pub mod memory;
pub mod module;
pub mod mount;
pub mod netlink;
pub mod packet_socket;
pub mod partition;
pub mod pktinfo;
pub mod port_holder;
pub mod process;
pub mod raw_ip;
pub mod reboot;
pub mod rights;
pub mod rtc;
pub mod sendfile;
pub mod signal;
pub mod tcp;
pub mod terminal;
pub mod testbed;
pub mod time;
pub mod tty;
pub mod udp;
pub mod user;
pub mod watchdog;
pub mod xattr;

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Turns the C convention of -1 and `errno` into a [`io::Result`].
fn cvt(result: c_int) -> io::Result<c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// As [`cvt`], for calls that return a length.
fn cvt_len(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// A non-blocking socket that programs started later do not inherit.
fn socket(domain: c_int, kind: c_int, protocol: c_int) -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd = cvt(unsafe { libc::socket(domain, kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: the descriptor is new, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets a socket option to any plain value.
fn set_option<T: Copy>(fd: &impl AsRawFd, level: c_int, name: c_int, value: T) -> io::Result<()> {
    let length = socklen::<T>();
    // SAFETY: the pointer and the length describe `value`, which lives until the call returns.
    cvt(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), length) }).map(drop)
}

/// Binds to, or names as destination, a socket address of any family.
fn bind<T>(fd: &impl AsRawFd, address: &T) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `address`.
    cvt(unsafe { libc::bind(fd.as_raw_fd(), (&raw const *address).cast(), socklen::<T>()) }).map(drop)
}

#[allow(clippy::cast_possible_truncation)] // sizes of C structures
const fn socklen<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

/// A `sockaddr_in`.
fn sockaddr_in(address: std::net::SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
        sin_zero: [0; 8],
    }
}

fn from_sockaddr_in(address: &libc::sockaddr_in) -> std::net::SocketAddrV4 {
    std::net::SocketAddrV4::new(u32::from_be(address.sin_addr.s_addr).into(), u16::from_be(address.sin_port))
}
