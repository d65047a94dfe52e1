//! Block devices: their size and switches, direct I/O, and memory that is aligned for it.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use libc::{c_int, c_ulong};

use super::cvt;
use crate::storage::Storage;

/// The number by which the kernel knows a block device; prints as `8:16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number {
    pub major: u32,
    pub minor: u32,
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl Number {
    /// Takes a `dev_t` apart, as `stat(2)` returns it.
    #[must_use]
    pub const fn of(device: u64) -> Self {
        Self { major: libc::major(device), minor: libc::minor(device) }
    }

    /// The number of the block device at `path`, also through links; `None` when there is none.
    #[must_use]
    pub fn at(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        metadata.file_type().is_block_device().then(|| Self::of(metadata.rdev()))
    }
}

// ioctl numbers of linux/fs.h. `_IO(0x12, n)` is the same everywhere; `_IOR` of a size_t differs where that has 4 bytes.
const BLKROGET: u32 = 0x125e;
const BLKRRPART: u32 = 0x125f;
const BLKFLSBUF: u32 = 0x1261;
const BLKSSZGET: u32 = 0x1268;
const BLKGETSIZE64: u32 = 0x8000_1272 | (size_of::<usize>() as u32) << 16;

/// A whole block device, opened for writing and for nobody else.
#[derive(Debug)]
pub struct Device {
    file: File,
    is_direct: bool,
}

impl Device {
    /// Opens the device with `O_EXCL`, which for block devices means: not while it, or a partition of it, is mounted or otherwise in use, by
    /// whomever and in whatever namespace (open(2)). Past the page cache if the device can do that.
    ///
    /// # Errors
    /// `EBUSY` when it is in use; what open(2) says otherwise.
    pub fn open(path: &Path) -> io::Result<Self> {
        let open = |flags| {
            let mut options = OpenOptions::new();
            options
                .read(true)
                .write(true)
                .custom_flags(libc::O_EXCL | libc::O_CLOEXEC | libc::O_NONBLOCK | flags)
                .open(path)
        };
        match open(libc::O_DIRECT) {
            Ok(file) => Ok(Self { file, is_direct: true }),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Self { file: open(0)?, is_direct: false }),
            Err(error) => Err(error),
        }
    }

    /// The device that was opened, which a name may mean no longer.
    ///
    /// # Errors
    /// What fstat(2) says.
    pub fn number(&self) -> io::Result<Number> {
        self.file.metadata().map(|metadata| Number::of(metadata.rdev()))
    }

    /// Takes the lock that keeps udev from looking at the device, and other programs of good manners from writing it
    /// (systemd's block device locking); `false` when somebody else holds it. It goes with the device.
    ///
    /// # Errors
    /// What flock(2) says.
    pub fn try_lock(&self) -> io::Result<bool> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(std::fs::TryLockError::WouldBlock) => Ok(false),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }

    /// Size in bytes.
    ///
    /// # Errors
    /// What ioctl(2) says.
    pub fn size(&self) -> io::Result<u64> {
        let mut size = 0_u64;
        self.get(BLKGETSIZE64, &mut size)?;
        Ok(size)
    }

    /// Bytes of the logical block: what a write is a multiple of.
    ///
    /// # Errors
    /// What ioctl(2) says.
    pub fn block_bytes(&self) -> io::Result<u64> {
        let mut bytes: c_int = 0;
        self.get(BLKSSZGET, &mut bytes)?;
        u64::try_from(bytes).map_err(io::Error::other)
    }

    /// Whether it refuses writes, as with a write-protect switch.
    ///
    /// # Errors
    /// What ioctl(2) says.
    pub fn is_read_only(&self) -> io::Result<bool> {
        let mut flag: c_int = 0;
        self.get(BLKROGET, &mut flag)?;
        Ok(flag != 0)
    }

    /// Whether reads and writes pass by the page cache.
    #[must_use]
    pub const fn is_direct(&self) -> bool {
        self.is_direct
    }

    /// Waits until everything written is on the medium, and forgets what the page cache knows of the device: the next read asks the medium.
    ///
    /// # Errors
    /// What fsync(2) says, which is also where buffered writes fail late.
    pub fn settle(&self) -> io::Result<()> {
        self.file.sync_all()?;
        self.order(BLKFLSBUF)
    }

    /// Has the kernel read the partition table anew.
    ///
    /// # Errors
    /// `EBUSY` when a partition is in use, `EINVAL` for a device that has none.
    pub fn reread_partitions(&self) -> io::Result<()> {
        self.order(BLKRRPART)
    }

    fn get<T>(&self, request: u32, value: &mut T) -> io::Result<()> {
        // SAFETY: each caller passes a request of linux/fs.h together with the type that the kernel writes for it.
        cvt(unsafe { libc::ioctl(self.file.as_raw_fd(), request as _, &raw mut *value) }).map(drop)
    }

    fn order(&self, request: u32) -> io::Result<()> {
        // SAFETY: BLKFLSBUF and BLKRRPART take no argument.
        cvt(unsafe { libc::ioctl(self.file.as_raw_fd(), request as _, 0 as c_ulong) }).map(drop)
    }
}

impl Storage for Device {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(&self.file, bytes, offset)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(&self.file, bytes, offset)
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Above every logical block size and every controller's demand that we know (a page of memory).
const ALIGNMENT: usize = 4096;

/// Memory for direct I/O: it begins at a multiple of 4096.
pub struct AlignedBuffer {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl AlignedBuffer {
    /// `length` zeroes.
    #[must_use]
    pub fn new(length: usize) -> Self {
        let memory = vec![0; length + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT); // at most ALIGNMENT - 1: bytes can be aligned to anything
        Self { memory, start, length }
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.length]
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.length]
    }
}

impl std::fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AlignedBuffer").field("length", &self.length).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_as_long_as_asked() {
        for length in [1, 512, 4096, 100_000] {
            let mut buffer = AlignedBuffer::new(length);
            assert_eq!(buffer.as_ptr().addr() % ALIGNMENT, 0);
            assert_eq!(buffer.len(), length);
            buffer.fill(1);
            let moved = [buffer];
            assert_eq!(moved[0].as_ptr().addr() % ALIGNMENT, 0, "moving it moves no byte");
        }
    }

    #[test]
    fn a_file_is_no_device() {
        let path = std::env::temp_dir().join(format!("auroraboot-block-{}", std::process::id()));
        std::fs::write(&path, "x").unwrap();
        assert_eq!(Number::at(&path), None);
        assert_eq!(Number::at(Path::new("/dev/null")), None, "a character device");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(Number::of(0x0810).to_string(), "8:16");
    }
}
