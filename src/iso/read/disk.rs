//! The bytes of an image, read within bounds: no length that an image names is believed.

use crate::iso::BLOCK;
use crate::iso::read::Error;
use crate::limits::ISO_LOOKUP_BYTES_MAX;
use crate::storage::Storage;

/// An image of known size.
#[derive(Debug)]
pub(in crate::iso) struct Disk<'a, S: ?Sized> {
    pub(in crate::iso) storage: &'a S,
    /// Bytes.
    pub(in crate::iso) size: u64,
}

impl<S: ?Sized> Clone for Disk<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: ?Sized> Copy for Disk<'_, S> {}

impl<S: Storage + ?Sized> Disk<'_, S> {
    /// Reads `len` bytes, which callers have bounded; past the image's end is an error before anything is allocated.
    pub(in crate::iso) fn read(&self, offset: u64, len: u64) -> Result<Vec<u8>, Error> {
        let fits = offset.checked_add(len).is_some_and(|end| end <= self.size);
        let len = usize::try_from(len).ok().filter(|_| fits).ok_or(Error::Beyond { offset, size: self.size })?;
        let mut bytes = vec![0; len];
        self.storage.read_exact_at(&mut bytes, offset).map_err(|source| Error::Read { offset, source })?;
        Ok(bytes)
    }

    /// Reads one block.
    pub(in crate::iso) fn block(&self, number: u64) -> Result<Vec<u8>, Error> {
        self.read(number.saturating_mul(BLOCK), BLOCK)
    }
}

/// How much may still be read for one lookup: what directories in circles and endless continuations run into.
#[derive(Debug)]
pub(in crate::iso) struct Budget(u64);

impl Budget {
    pub(in crate::iso) const fn new() -> Self {
        Self(ISO_LOOKUP_BYTES_MAX)
    }

    /// Every read costs something, or empty ones would go on for ever.
    pub(in crate::iso) fn charge(&mut self, bytes: u64) -> Result<(), Error> {
        self.0 = self.0.checked_sub(bytes.saturating_add(64)).ok_or(Error::TooMuch)?;
        Ok(())
    }
}
