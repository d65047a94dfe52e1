//! Telling the kernel that there is a partition more, or that one has another length, while its neighbours are mounted (`BLKPG`, linux/blkpg.h).

use std::ffi::{c_char, c_int, c_void};
use std::io;
use std::os::fd::AsRawFd;

use super::cvt;

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
struct Argument {
    op: c_int,
    flags: c_int,
    datalen: c_int,
    data: *mut c_void,
}

/// `struct blkpg_partition`.
#[repr(C)]
struct Partition {
    start: i64,
    length: i64,
    pno: c_int,
    devname: [c_char; 64],
    volname: [c_char; 64],
}

/// Adds partition `number` of the whole `disk`; its node appears by itself (devtmpfs). In bytes.
///
/// # Errors
/// What ioctl(2) says: `EBUSY` where there is a partition of that number, or at that place.
pub fn add(disk: &impl AsRawFd, number: u32, start: u64, length: u64) -> io::Result<()> {
    const BLKPG_ADD_PARTITION: c_int = 1;
    order(disk, BLKPG_ADD_PARTITION, number, start, length)
}

/// Gives partition `number` of the whole `disk` its new `length`; `start` is where it has always begun. In bytes.
///
/// # Errors
/// What ioctl(2) says: `EINVAL` for another start, `EBUSY` where the new end lies in another partition.
pub fn resize(disk: &impl AsRawFd, number: u32, start: u64, length: u64) -> io::Result<()> {
    const BLKPG_RESIZE_PARTITION: c_int = 3;
    order(disk, BLKPG_RESIZE_PARTITION, number, start, length)
}

fn order(disk: &impl AsRawFd, op: c_int, number: u32, start: u64, length: u64) -> io::Result<()> {
    const BLKPG: u32 = 0x1269; // _IO(0x12, 105)
    let wrong = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let mut partition = Partition {
        start: i64::try_from(start).map_err(wrong)?,
        length: i64::try_from(length).map_err(wrong)?,
        pno: c_int::try_from(number).map_err(wrong)?,
        devname: [0; 64],
        volname: [0; 64],
    };
    let datalen = size_of::<Partition>() as c_int;
    let mut argument = Argument { op, flags: 0, datalen, data: (&raw mut partition).cast() };
    // SAFETY: BLKPG takes a blkpg_ioctl_arg, whose pointer is to a live blkpg_partition of the length it says.
    cvt(unsafe { libc::ioctl(disk.as_raw_fd(), BLKPG as _, &raw mut argument) }).map(drop)
}
