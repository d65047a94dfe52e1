//! Positioned reads and writes: what a file system image is written to and read from.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A file written and read at given offsets. Writers of images never name a path and never seek.
pub trait Storage: Send + Sync {
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

impl Storage for File {
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

impl<T: Storage + ?Sized> Storage for Arc<T> {
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

/// A run of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub offset: u64,
    pub length: u64,
}

/// What begins at byte `base` of another storage: an image inside an image. It ends where the other one ends.
#[derive(Debug, Clone)]
pub struct Section<S> {
    inner: S,
    base: u64,
}

impl<S: Storage> Section<S> {
    pub const fn new(inner: S, base: u64) -> Self {
        Self { inner, base }
    }

    fn at(&self, offset: u64) -> io::Result<u64> {
        self.base.checked_add(offset).ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }
}

impl<S: Storage> Storage for Section<S> {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.inner.write_all_at(bytes, self.at(offset)?)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_exact_at(bytes, self.at(offset)?)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(self.at(len)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_begins_at_its_base() {
        let path = std::env::temp_dir().join(format!("auroraboot-section-{}", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let outer = Arc::new(file);
        let section = Section::new(Arc::clone(&outer), 4096);
        section.write_all_at(b"squashfs", 10).unwrap();
        let mut bytes = [0; 4];
        outer.read_exact_at(&mut bytes, 4106).unwrap();
        assert_eq!(&bytes, b"squa");
        section.set_len(12).unwrap();
        assert_eq!(outer.metadata().unwrap().len(), 4108);
        assert!(section.write_all_at(b"x", u64::MAX).is_err());
    }
}
