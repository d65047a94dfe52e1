//! Where the image goes: positioned reads and writes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A file written and read at given offsets. The writer never names a path and never seeks.
pub trait Output: Send + Sync {
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// What the file reports (disk full).
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Fills `bytes` from `offset`.
    ///
    /// # Errors
    /// What the file reports, or an unexpected end.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    /// Cuts or extends the file: what an abandoned duplicate wrote past the image's end goes away.
    ///
    /// # Errors
    /// What the file reports.
    fn set_len(&self, len: u64) -> io::Result<()>;
}

impl Output for File {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }
}

impl<T: Output + ?Sized> Output for Arc<T> {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        (**self).write_all_at(bytes, offset)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_exact_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        (**self).set_len(len)
    }
}
