//! Metadata blocks: a byte stream cut into compressed pieces of 8 KiB.

use super::codec::Compressor;

/// Uncompressed bytes of every metadata block but the last of a table.
pub(super) const METADATA_BLOCK: usize = 8192;

/// In a metadata block's two-byte header: the block is stored plain.
const PLAIN: u16 = 1 << 15;

/// Where a piece of a metadata stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// Offset of the compressed block from the start of its table.
    pub(super) block: u64,
    /// Offset inside the uncompressed block, always below [`METADATA_BLOCK`].
    pub(super) offset: u16,
}

impl Position {
    /// The 48-bit form used for inodes and xattrs: block, then 16 bits of offset.
    pub(super) fn reference(self) -> u64 {
        (self.block << 16) | u64::from(self.offset)
    }
}

/// Compresses a stream of metadata; the finished blocks wait in memory until they are taken.
pub(super) struct MetadataWriter {
    compressor: Compressor,
    pending: Vec<u8>,
    scratch: Vec<u8>,
    finished: Vec<u8>,
    taken: u64,
}

impl MetadataWriter {
    pub(super) fn new(compressor: Compressor) -> MetadataWriter {
        let pending = Vec::with_capacity(METADATA_BLOCK);
        MetadataWriter { compressor, pending, scratch: vec![0; METADATA_BLOCK], finished: Vec::new(), taken: 0 }
    }

    /// Where the next byte will be.
    pub(super) fn position(&self) -> Position {
        // `write` never leaves a full block pending, so the offset is below 8192.
        Position { block: self.taken + self.finished.len() as u64, offset: self.pending.len() as u16 }
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = METADATA_BLOCK - self.pending.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
            if self.pending.len() == METADATA_BLOCK {
                self.end_block();
            }
        }
    }

    /// Ends the block that is being filled, if any. The stream may go on after it only in a new table.
    pub(super) fn end_block(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        match self.compressor.compress(&self.pending, &mut self.scratch) {
            Some(len) => {
                self.finished.extend_from_slice(&(len as u16).to_le_bytes());
                self.finished.extend_from_slice(&self.scratch[..len]);
            }
            None => {
                self.finished.extend_from_slice(&(self.pending.len() as u16 | PLAIN).to_le_bytes());
                self.finished.extend_from_slice(&self.pending);
            }
        }
        self.pending.clear();
    }

    /// Compressed bytes that wait to be taken.
    pub(super) fn waiting(&self) -> usize {
        self.finished.len()
    }

    /// Hands over the finished blocks; positions go on counting from the start of the table.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.taken += self.finished.len() as u64;
        std::mem::take(&mut self.finished)
    }
}

/// A table of fixed-size records that is found through an index of its blocks.
pub(super) struct IndexedTable {
    /// The metadata blocks.
    pub(super) blocks: Vec<u8>,
    /// The absolute offset of each block, given that the first is at `start`.
    pub(super) index: Vec<u8>,
}

impl IndexedTable {
    pub(super) fn new(
        compressor: Compressor,
        records: impl IntoIterator<Item = impl AsRef<[u8]>>,
        start: u64,
    ) -> IndexedTable {
        let mut writer = MetadataWriter::new(compressor);
        let mut index = Vec::new();
        for record in records {
            let position = writer.position();
            // Records divide 8192, so every block begins with one.
            if position.offset == 0 {
                index.extend_from_slice(&(start + position.block).to_le_bytes());
            }
            writer.write(record.as_ref());
        }
        writer.end_block();
        IndexedTable { blocks: writer.take(), index }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Compression, codec};
    use super::*;

    const GZIP: Compression = Compression::Gzip { level: 6 };

    fn inflate(mut table: &[u8]) -> Vec<Vec<u8>> {
        let mut blocks = Vec::new();
        while !table.is_empty() {
            let header = u16::from_le_bytes([table[0], table[1]]);
            let (body, rest) = table[2..].split_at(usize::from(header & !PLAIN));
            table = rest;
            if header & PLAIN != 0 {
                blocks.push(body.to_vec());
            } else {
                let mut block = vec![0; METADATA_BLOCK];
                let len = codec::decompress(GZIP, body, &mut block).unwrap();
                block.truncate(len);
                blocks.push(block);
            }
        }
        blocks
    }

    #[test]
    fn blocks_are_8_kib_and_positions_point_at_their_bytes() {
        let mut writer = MetadataWriter::new(Compressor::new(GZIP).unwrap());
        writer.write(&[1; 8190]);
        assert_eq!(writer.position(), Position { block: 0, offset: 8190 });
        writer.write(&[2; 2]);
        let second = writer.position();
        assert_eq!(second.offset, 0);
        assert!(second.block > 2);
        writer.write(&[3; 10_000]);
        writer.end_block();
        let blocks = inflate(&writer.take());
        assert_eq!(blocks.iter().map(Vec::len).collect::<Vec<_>>(), [8192, 8192, 10_000 - 8192]);
        assert_eq!(blocks[0][8189..], [1, 2, 2]);
    }

    #[test]
    fn positions_go_on_after_taking_and_a_short_block_is_plain() {
        let mut writer = MetadataWriter::new(Compressor::new(GZIP).unwrap());
        writer.write(&[9; 8192]);
        let before = writer.position();
        let first = writer.take();
        assert_eq!(writer.position(), before);
        assert_eq!(before.block, first.len() as u64);
        writer.write(b"ab");
        writer.end_block();
        assert_eq!(writer.take(), [2, 0x80, b'a', b'b']);
    }

    #[test]
    fn an_indexed_table_names_the_start_of_each_block() {
        let records = (0..2000_u64).map(u64::to_le_bytes);
        let table = IndexedTable::new(Compressor::new(GZIP).unwrap(), records, 5000);
        assert_eq!(inflate(&table.blocks).concat().len(), 16_000);
        assert_eq!(table.index.len(), 16);
        assert_eq!(table.index[..8], 5000_u64.to_le_bytes());
        let first = u64::from(u16::from_le_bytes([table.blocks[0], table.blocks[1]]) & !PLAIN) + 2;
        assert_eq!(table.index[8..], (5000 + first).to_le_bytes());
    }

    #[test]
    fn a_reference_is_block_and_offset() {
        assert_eq!(Position { block: 0x1234, offset: 0x56 }.reference(), 0x1234_0056);
    }
}
