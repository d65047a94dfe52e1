//! Directory listings: entries grouped under headers, and the index that makes large directories quick.

use super::Error;
use super::inode::Type;
use super::metadata::{METADATA_BLOCK, MetadataWriter, Position};

/// Entries under one header, at most.
const HEADER_ENTRIES: usize = 256;
const HEADER_LEN: usize = 12;
const ENTRY_LEN: usize = 8;

/// One name of a directory and the inode it stands for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    pub(super) inode: u64,
    pub(super) number: u32,
    pub(super) kind: Type,
}

/// A written listing.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) start: Position,
    pub(super) len: u32,
    pub(super) index_count: u16,
    pub(super) index: Vec<u8>,
}

/// Writes the entries of one directory, which come in the order of their names.
pub(super) struct ListingWriter<'w> {
    table: &'w mut MetadataWriter,
    start: Position,
    written: u64,
    /// `written` at the last index entry.
    indexed: u64,
    index_count: u16,
    index: Vec<u8>,
    /// Entries under the header that is not written yet.
    group: Group,
}

#[derive(Default)]
struct Group {
    count: usize,
    inode_block: u32,
    number: u32,
    bytes: Vec<u8>,
    first_name: Vec<u8>,
}

impl<'w> ListingWriter<'w> {
    pub(super) fn new(table: &'w mut MetadataWriter) -> ListingWriter<'w> {
        let start = table.position();
        ListingWriter {
            table,
            start,
            written: 0,
            indexed: 0,
            index_count: 0,
            index: Vec::new(),
            group: Group::default(),
        }
    }

    /// # Errors
    /// [`Error::TooMany`]: the directory is larger than the format allows.
    pub(super) fn add(&mut self, entry: &Entry<'_>) -> Result<(), Error> {
        // 32 bits: the inode table's blocks are counted in bytes of at most 4 GiB, checked where inodes are written.
        let inode_block = (entry.inode >> 16) as u32;
        let difference = i64::from(entry.number) - i64::from(self.group.number);
        let delta = i16::try_from(difference);
        let (delta, new_group) = match delta {
            Ok(delta) if self.group.count > 0 && self.continues(inode_block, entry.name.len()) => (delta, false),
            _ => (0, true),
        };
        if new_group {
            self.end_group()?;
            self.group.inode_block = inode_block;
            self.group.number = entry.number;
            self.group.first_name.extend_from_slice(entry.name);
        }
        let bytes = &mut self.group.bytes;
        bytes.extend_from_slice(&((entry.inode & 0xffff) as u16).to_le_bytes());
        bytes.extend_from_slice(&delta.to_le_bytes());
        bytes.extend_from_slice(&(entry.kind as u16).to_le_bytes());
        bytes.extend_from_slice(&(entry.name.len() as u16 - 1).to_le_bytes()); // 1 to 255, checked by the caller
        bytes.extend_from_slice(entry.name);
        self.group.count += 1;
        Ok(())
    }

    /// Whether an entry can stand under the current header. A header never reaches beyond 8 KiB after the last index
    /// entry, so a look-up never scans more than about two blocks.
    fn continues(&self, inode_block: u32, name_len: usize) -> bool {
        let ahead = (self.written - self.indexed) as usize + HEADER_LEN + self.group.bytes.len() + ENTRY_LEN + name_len;
        self.group.count < HEADER_ENTRIES && self.group.inode_block == inode_block && ahead <= METADATA_BLOCK
    }

    fn end_group(&mut self) -> Result<(), Error> {
        if self.group.count == 0 {
            return Ok(());
        }
        let len = (HEADER_LEN + self.group.bytes.len()) as u64;
        if self.written + len - self.indexed > METADATA_BLOCK as u64 {
            self.add_index_entry()?;
        }
        let group = &mut self.group;
        self.table.write(&(group.count as u32 - 1).to_le_bytes());
        self.table.write(&group.inode_block.to_le_bytes());
        self.table.write(&group.number.to_le_bytes());
        self.table.write(&group.bytes);
        self.written += len;
        group.count = 0;
        group.bytes.clear();
        group.first_name.clear();
        Ok(())
    }

    /// Points at the header that comes next: its offset in the listing, its metadata block, its first name.
    fn add_index_entry(&mut self) -> Result<(), Error> {
        let too_large = || Error::TooMany("bytes of names in one directory");
        let offset = u32::try_from(self.written).map_err(|_| too_large())?;
        let block = u32::try_from(self.table.position().block).map_err(|_| Error::TooMany("directory entries"))?;
        self.index_count = self.index_count.checked_add(1).ok_or_else(too_large)?;
        self.index.extend_from_slice(&offset.to_le_bytes());
        self.index.extend_from_slice(&block.to_le_bytes());
        self.index.extend_from_slice(&(self.group.first_name.len() as u32 - 1).to_le_bytes());
        self.index.extend_from_slice(&self.group.first_name);
        self.indexed = self.written;
        Ok(())
    }

    /// # Errors
    /// As [`ListingWriter::add`].
    pub(super) fn finish(mut self) -> Result<Listing, Error> {
        self.end_group()?;
        let len = u32::try_from(self.written).ok().filter(|len| *len <= u32::MAX - 3);
        let len = len.ok_or(Error::TooMany("bytes of names in one directory"))?;
        Ok(Listing { start: self.start, len, index_count: self.index_count, index: self.index })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Compression;
    use super::super::codec::Compressor;
    use super::*;

    fn write(entries: &[Entry<'_>]) -> (Listing, Vec<u8>) {
        // Noise-free short listings stay plain or not as they like; these tests look at lengths and at plain blocks.
        let mut table = MetadataWriter::new(Compressor::new(Compression::Gzip { level: 1 }).unwrap());
        let mut writer = ListingWriter::new(&mut table);
        for entry in entries {
            writer.add(entry).unwrap();
        }
        let listing = writer.finish().unwrap();
        table.end_block();
        (listing, table.take())
    }

    fn entry(name: &[u8], inode: u64, number: u32) -> Entry<'_> {
        Entry { name, inode, number, kind: Type::File }
    }

    #[test]
    fn one_entry_byte_for_byte() {
        let (listing, bytes) = write(&[Entry { name: b"etc", inode: 0x7_0010, number: 9, kind: Type::Directory }]);
        assert_eq!(listing.len, 23);
        assert_eq!(bytes[2..14], [0, 0, 0, 0, 7, 0, 0, 0, 9, 0, 0, 0]);
        assert_eq!(bytes[14..], [0x10, 0, 0, 0, 1, 0, 2, 0, b'e', b't', b'c']);
    }

    #[test]
    fn a_header_ends_at_256_entries_another_inode_block_or_a_far_number() {
        let names: Vec<[u8; 3]> = (0..=255_u16).map(|n| [b'a', (n >> 8) as u8 + 1, n as u8]).collect();
        let mut many: Vec<Entry<'_>> = names.iter().map(|name| entry(name, 0, 1)).collect();
        assert_eq!(write(&many).0.len as usize, HEADER_LEN + 256 * 11);
        many.push(entry(b"b", 0, 1));
        assert_eq!(write(&many).0.len as usize, 2 * HEADER_LEN + 256 * 11 + 9);

        let two = |second| write(&[entry(b"a", 0, 40_000), second]).0.len;
        assert_eq!(two(entry(b"b", 9, 40_000 + 32_767)), 12 + 18);
        assert_eq!(two(entry(b"b", 9, 40_000 - 32_768)), 12 + 18);
        assert_eq!(two(entry(b"b", 9, 40_000 + 32_768)), 24 + 18);
        assert_eq!(two(entry(b"b", 9, 40_000 - 32_769)), 24 + 18);
        assert_eq!(two(entry(b"b", 1 << 16, 40_000)), 24 + 18);
    }

    #[test]
    fn a_long_listing_has_an_index_entry_about_every_8_kib() {
        let names: Vec<String> = (0..1000).map(|n| format!("{n:0>100}")).collect();
        let entries: Vec<Entry<'_>> = names.iter().map(|name| entry(name.as_bytes(), 0, 1)).collect();
        let (listing, _) = write(&entries);
        assert_eq!(listing.index.len(), usize::from(listing.index_count) * 112);
        assert_eq!(usize::from(listing.index_count), listing.len as usize / METADATA_BLOCK);
        let mut last = 0;
        for index in listing.index.chunks(112) {
            let offset = u32::from_le_bytes(index[..4].try_into().unwrap());
            assert!(offset > last && offset - last <= METADATA_BLOCK as u32);
            last = offset;
            // 75 entries of 108 bytes and a header: the name at that offset is the one the index gives.
            let name = &index[12..];
            let position: usize = std::str::from_utf8(name).unwrap().parse().unwrap();
            assert_eq!(position % 75, 0);
        }
    }

    #[test]
    fn an_empty_directory_has_no_bytes() {
        let (listing, bytes) = write(&[]);
        assert_eq!((listing.len, listing.index_count, bytes.len()), (0, 0, 0));
    }
}
