//! Directories and their records (ECMA-119 §9.1), taken apart.

use super::Error;
use super::disk::{Budget, Disk};
use super::volume::Tree;
use crate::iso::BLOCK;
use crate::iso::bytes::u32_at;
use crate::iso::record::{DIRECTORY, HEAD_LEN, NOT_LAST_SECTION, PARENT, SELF, system_use_at};
use crate::limits::ISO_DIRECTORY_BYTES_MAX;
use crate::storage::Storage;

/// A directory's bytes as they lie in the image.
#[derive(Debug, Clone)]
pub(in crate::iso) struct Directory {
    /// Block, counted from its volume's base.
    pub(in crate::iso) location: u32,
    pub(in crate::iso) bytes: Vec<u8>,
}

impl Directory {
    /// Reads the directory at block `location` of the tree's volume.
    pub(in crate::iso) fn load<S: Storage + ?Sized>(
        disk: Disk<'_, S>,
        tree: &Tree,
        location: u32,
        size: u32,
        budget: &mut Budget,
    ) -> Result<Self, Error> {
        let offset = tree.base.saturating_add(location.into()).saturating_mul(BLOCK);
        if size == 0 || size as usize > ISO_DIRECTORY_BYTES_MAX {
            return Err(Error::DirectorySize { offset, size });
        }
        budget.charge(size.into())?;
        let directory = Self { location, bytes: disk.read(offset, size.into())? };
        match directory.records().next() {
            Some(Ok(first)) if first.identifier() == SELF && first.is_directory() => Ok(directory),
            _ => Err(Error::NotADirectory { offset }),
        }
    }

    /// Reads a directory of which only the place is known, as Rock Ridge's `CL` names it: its first record says its size.
    pub(in crate::iso) fn load_at<S: Storage + ?Sized>(
        disk: Disk<'_, S>,
        tree: &Tree,
        location: u32,
        budget: &mut Budget,
    ) -> Result<Self, Error> {
        let block = disk.block(tree.base.saturating_add(location.into()))?;
        Self::load(disk, tree, location, u32_at(&block, 10), budget)
    }

    /// The records in their order, `.` and `..` first.
    pub(in crate::iso) const fn records(&self) -> Records<'_> {
        Records { bytes: self.bytes.as_slice(), at: 0 }
    }
}

/// Iterates over records; ends after the first damaged one.
#[derive(Debug)]
pub(in crate::iso) struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let block = BLOCK as usize;
        // A length of 0 fills the rest of a block: no record crosses its end (§6.8.1.1).
        while *self.bytes.get(self.at)? == 0 {
            self.at = (self.at / block + 1) * block;
        }
        let at = self.at;
        let len = usize::from(self.bytes[at]);
        let record = self.bytes.get(at..at + len).filter(|bytes| bytes.len() > HEAD_LEN && at % block + len <= block);
        let Some(bytes) = record.filter(|bytes| HEAD_LEN + usize::from(bytes[32]) <= bytes.len() && bytes[32] > 0)
        else {
            self.at = self.bytes.len();
            return Some(Err(Error::Record { at }));
        };
        self.at += len;
        Some(Ok(Record { at, bytes }))
    }
}

/// One record.
#[derive(Debug, Clone, Copy)]
pub(in crate::iso) struct Record<'a> {
    /// Position in its directory.
    pub(in crate::iso) at: usize,
    pub(in crate::iso) bytes: &'a [u8],
}

impl<'a> Record<'a> {
    /// Block of the data, counted from the volume's base: behind the extended attribute record, if there is one.
    pub(in crate::iso) fn location(&self) -> u32 {
        u32_at(self.bytes, 2).saturating_add(self.bytes[1].into())
    }

    /// Bytes of data.
    pub(in crate::iso) fn size(&self) -> u32 {
        u32_at(self.bytes, 10)
    }

    pub(in crate::iso) const fn is_directory(&self) -> bool {
        self.bytes[25] & DIRECTORY != 0
    }

    /// Whether the next record is another section of the same file.
    pub(in crate::iso) const fn is_continued(&self) -> bool {
        self.bytes[25] & NOT_LAST_SECTION != 0
    }

    /// Whether the data lies in units with gaps between them (§6.4.3), which nobody makes.
    pub(in crate::iso) const fn is_interleaved(&self) -> bool {
        self.bytes[26] != 0 || self.bytes[27] != 0
    }

    pub(in crate::iso) fn identifier(&self) -> &'a [u8] {
        &self.bytes[HEAD_LEN..HEAD_LEN + usize::from(self.bytes[32])]
    }

    /// `.` or `..`
    pub(in crate::iso) fn is_dot(&self) -> bool {
        [SELF, PARENT].contains(&self.identifier())
    }

    /// Where the system use area begins in the record: at an even position (§9.1.12).
    pub(in crate::iso) fn system_use_at(&self) -> usize {
        system_use_at(self.identifier().len())
    }

    pub(in crate::iso) fn system_use(&self) -> &'a [u8] {
        self.bytes.get(self.system_use_at()..).unwrap_or_default()
    }
}
