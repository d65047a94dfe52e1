//! Directory records (ECMA-119 §9.1) and how they fill the blocks of a directory.

use super::BLOCK;
use super::bytes::{both16, both32};

/// `\0`: the directory itself.
pub(super) const SELF: &[u8] = &[0];
/// `\x01`: its parent.
pub(super) const PARENT: &[u8] = &[1];

/// File flags (§9.1.6).
pub(super) const DIRECTORY: u8 = 0x02;
/// Another section of the same file follows.
pub(super) const NOT_LAST_SECTION: u8 = 0x80;

/// Bytes before the identifier (§9.1).
pub(super) const HEAD_LEN: usize = 33;
/// What its length byte can say, evened: records begin at even positions.
pub(super) const RECORD_LEN_MAX: usize = 254;

/// One record: a name and where its bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// Block, counted from the volume's base.
    pub location: u32,
    /// Bytes.
    pub size: u32,
    pub flags: u8,
    /// §9.1.5.
    pub time: [u8; 7],
    pub identifier: &'a [u8],
    /// SUSP entries.
    pub system_use: &'a [u8],
}

/// Where the system use field begins in a record with such an identifier: at an even position (§9.1.12).
pub(super) const fn system_use_at(identifier_len: usize) -> usize {
    HEAD_LEN + identifier_len + (identifier_len + 1) % 2
}

/// Bytes of system use that a record with such an identifier has room for.
pub(super) const fn system_use_room(identifier_len: usize) -> usize {
    RECORD_LEN_MAX.saturating_sub(system_use_at(identifier_len))
}

impl Record<'_> {
    /// Bytes on disk.
    pub(super) const fn len(&self) -> usize {
        let len = system_use_at(self.identifier.len()) + self.system_use.len();
        len + len % 2
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[self.len().to_le_bytes()[0], 0]);
        out.extend_from_slice(&both32(self.location));
        out.extend_from_slice(&both32(self.size));
        out.extend_from_slice(&self.time);
        out.extend_from_slice(&[self.flags, 0, 0]);
        out.extend_from_slice(&both16(1)); // volume sequence number
        out.push(self.identifier.len().to_le_bytes()[0]);
        out.extend_from_slice(self.identifier);
        out.resize(start + system_use_at(self.identifier.len()), 0);
        out.extend_from_slice(self.system_use);
        out.resize(start + self.len(), 0);
    }
}

/// The position of the next record of `len` bytes behind `used` bytes of a directory: none crosses a block (§6.8.1.1).
pub(super) const fn place(used: u64, len: usize) -> u64 {
    let left = BLOCK - used % BLOCK;
    if (len as u64) > left { used + left } else { used }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record<'a>(identifier: &'a [u8], system_use: &'a [u8]) -> Record<'a> {
        Record {
            location: 20,
            size: 2048,
            flags: DIRECTORY,
            time: [123, 11, 14, 22, 13, 20, 0],
            identifier,
            system_use,
        }
    }

    #[test]
    fn a_record_on_disk() {
        let mut bytes = Vec::new();
        record(SELF, b"").encode(&mut bytes);
        let expected = [
            34, 0, 20, 0, 0, 0, 0, 0, 0, 20, 0, 8, 0, 0, 0, 0, 8, 0, 123, 11, 14, 22, 13, 20, 0, 2, 0, 0, 1, 0, 0, 1,
            1, 0,
        ];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn everything_in_it_is_even() {
        for (identifier, system_use, len) in
            [(&b"A"[..], &b""[..], 34), (b"AB", b"", 36), (b"AB", b"xyz", 40), (b"A", b"xyz", 38)]
        {
            let record = record(identifier, system_use);
            let mut bytes = vec![7; 10];
            record.encode(&mut bytes);
            assert_eq!((record.len(), bytes.len()), (len, 10 + len), "{identifier:?}");
            let at = 10 + system_use_at(identifier.len());
            assert_eq!(&bytes[at..at + system_use.len()], system_use);
        }
        assert_eq!(system_use_room(1), 220);
    }

    #[test]
    fn records_do_not_cross_blocks() {
        assert_eq!(place(0, 100), 0);
        assert_eq!(place(1948, 100), 1948);
        assert_eq!(place(1950, 100), 2048);
        assert_eq!(place(4096, 100), 4096);
    }
}
