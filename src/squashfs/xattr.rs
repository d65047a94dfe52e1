//! The table of extended attributes: every distinct set stored once.

use super::Error;
use super::codec::Compressor;
use super::metadata::{IndexedTable, MetadataWriter};
use super::pipeline::{ContentHash, content_hash};
use super::tree::Xattr;
use crate::limits;
use std::collections::HashMap;

/// The namespaces squashfs knows, in the order of their type numbers.
const PREFIXES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

/// Type number and the name after the prefix; `None` for what squashfs cannot hold.
fn split(name: &[u8]) -> Option<(u16, &[u8])> {
    let (number, rest) = (0..).zip(PREFIXES).find_map(|(number, prefix)| Some((number, name.strip_prefix(prefix)?)))?;
    (!rest.is_empty()).then_some((number, rest))
}

/// Whether squashfs can store an attribute of this name (`user.`, `trusted.`, `security.`; never `system.posix_acl_*`).
pub fn xattr_storable(name: &[u8]) -> bool {
    split(name).is_some()
}

/// Collects the sets of all inodes.
pub(super) struct XattrTable {
    pairs: MetadataWriter,
    /// Reference, count and size of each set.
    sets: Vec<[u8; 16]>,
    by_content: HashMap<ContentHash, u32>,
    bytes: usize,
    pub(super) dropped: u64,
}

impl XattrTable {
    pub(super) fn new(compressor: Compressor) -> XattrTable {
        let pairs = MetadataWriter::new(compressor);
        XattrTable { pairs, sets: Vec::new(), by_content: HashMap::new(), bytes: 0, dropped: 0 }
    }

    /// The index of this set, [`super::inode::NONE`] for a set with nothing squashfs can hold.
    ///
    /// # Errors
    /// A name or value that is too long, too many sets.
    pub(super) fn add(&mut self, xattrs: &[Xattr]) -> Result<u32, Error> {
        let mut encoded = Vec::new();
        let mut count = 0_u32;
        for Xattr { name, value } in xattrs {
            let Some((prefix, rest)) = split(name) else {
                self.dropped += 1;
                continue;
            };
            if name.len() > limits::NAME_BYTES_MAX || value.len() > limits::SQUASHFS_XATTR_VALUE_BYTES_MAX {
                return Err(Error::Xattr(String::from_utf8_lossy(name).into_owned()));
            }
            count += 1;
            encoded.extend_from_slice(&prefix.to_le_bytes());
            encoded.extend_from_slice(&(rest.len() as u16).to_le_bytes());
            encoded.extend_from_slice(rest);
            encoded.extend_from_slice(&(value.len() as u32).to_le_bytes());
            encoded.extend_from_slice(value);
        }
        if count == 0 {
            return Ok(super::inode::NONE);
        }
        let hash = content_hash(&encoded);
        if let Some(index) = self.by_content.get(&hash) {
            return Ok(*index);
        }
        self.bytes += encoded.len();
        if self.bytes > limits::SQUASHFS_XATTRS_BYTES_MAX {
            return Err(Error::TooMany("bytes of extended attributes"));
        }
        let index = self.sets.len() as u32;
        let mut set = [0; 16];
        set[..8].copy_from_slice(&self.pairs.position().reference().to_le_bytes());
        set[8..12].copy_from_slice(&count.to_le_bytes());
        set[12..].copy_from_slice(&(encoded.len() as u32).to_le_bytes());
        self.sets.push(set);
        self.by_content.insert(hash, index);
        self.pairs.write(&encoded);
        Ok(index)
    }

    /// The encoded table for offset `start`, and where in it the superblock is to point; `None` without any attributes.
    pub(super) fn finish(mut self, compressor: Compressor, start: u64) -> Option<(Vec<u8>, u64)> {
        if self.sets.is_empty() {
            return None;
        }
        self.pairs.end_block();
        let mut bytes = self.pairs.take();
        let table = IndexedTable::new(compressor, &self.sets, start + bytes.len() as u64);
        bytes.extend_from_slice(&table.blocks);
        let header = start + bytes.len() as u64;
        bytes.extend_from_slice(&start.to_le_bytes());
        bytes.extend_from_slice(&(self.sets.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&table.index);
        Some((bytes, header))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Compression;
    use super::super::inode::NONE;
    use super::*;

    fn compressor() -> Compressor {
        Compressor::new(Compression::Gzip { level: 9 }).unwrap()
    }

    fn xattr(name: &str, value: &[u8]) -> Xattr {
        Xattr { name: name.as_bytes().into(), value: value.into() }
    }

    #[test]
    fn equal_sets_share_an_index_and_foreign_namespaces_are_counted() {
        let mut table = XattrTable::new(compressor());
        let capability = xattr("security.capability", b"\x01\0\0\x02");
        let acl = xattr("system.posix_acl_access", b"x");
        assert_eq!(table.add(&[]).unwrap(), NONE);
        assert_eq!(table.add(std::slice::from_ref(&acl)).unwrap(), NONE);
        assert_eq!(table.add(std::slice::from_ref(&capability)).unwrap(), 0);
        assert_eq!(table.add(&[xattr("user.a", b"1"), capability.clone()]).unwrap(), 1);
        assert_eq!(table.add(&[acl, capability]).unwrap(), 0);
        assert_eq!(table.dropped, 2);
    }

    #[test]
    fn the_table_ends_with_header_and_index() {
        let mut table = XattrTable::new(compressor());
        table.add(&[xattr("trusted.x", b"yz")]).unwrap();
        let (bytes, header) = table.finish(compressor(), 1000).unwrap();
        assert_eq!(bytes[2..13], [1, 0, 1, 0, b'x', 2, 0, 0, 0, b'y', b'z']);
        let header = (header - 1000) as usize;
        assert_eq!(bytes[header..header + 16], [0xe8, 3, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[header + 16..], (1000 + 13_u64).to_le_bytes());
        assert!(XattrTable::new(compressor()).finish(compressor(), 0).is_none());
    }

    #[test]
    fn values_and_totals_are_bounded() {
        let mut table = XattrTable::new(compressor());
        let long = vec![0; limits::SQUASHFS_XATTR_VALUE_BYTES_MAX + 1];
        assert!(matches!(table.add(&[xattr("user.long", &long)]), Err(Error::Xattr(name)) if name == "user.long"));
        let name = format!("user.{}", "n".repeat(251));
        assert!(matches!(table.add(&[xattr(&name, b"")]), Err(Error::Xattr(_))));
        let mut last = Ok(0);
        for set in 0..=limits::SQUASHFS_XATTRS_BYTES_MAX / limits::SQUASHFS_XATTR_VALUE_BYTES_MAX {
            let mut value = vec![0; limits::SQUASHFS_XATTR_VALUE_BYTES_MAX];
            value[..8].copy_from_slice(&set.to_le_bytes());
            last = table.add(&[xattr("user.v", &value)]);
        }
        assert!(matches!(last, Err(Error::TooMany(_))));
    }

    #[test]
    fn names_without_a_rest_or_a_known_prefix_cannot_be_stored() {
        assert!(xattr_storable(b"security.capability"));
        for name in [&b"user."[..], b"system.posix_acl_access", b"user", b""] {
            assert!(!xattr_storable(name));
        }
    }
}
