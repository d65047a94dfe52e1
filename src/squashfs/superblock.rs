//! The superblock, and the compressor options that follow it.

use super::Compression;

pub(super) const SUPERBLOCK_LEN: u64 = 96;

/// "This table is not there."
pub(super) const NO_TABLE: u64 = u64::MAX;

const MAGIC: u32 = 0x7371_7368;
const ALWAYS_FRAGMENTS: u16 = 1 << 5;
const DUPLICATES: u16 = 1 << 6;
const EXPORTABLE: u16 = 1 << 7;
const COMPRESSOR_OPTIONS: u16 = 1 << 10;

/// The level a reader assumes when the image has no compressor options, as mksquashfs does.
const ZSTD_DEFAULT_LEVEL: i32 = 15;
const GZIP_DEFAULT_LEVEL: u32 = 9;
const GZIP_WINDOW_BITS: u16 = 15;

pub(super) struct Superblock {
    pub(super) inodes: u32,
    pub(super) mod_time: u32,
    pub(super) block_size: u32,
    pub(super) fragments: u32,
    pub(super) compression: Compression,
    pub(super) ids: u16,
    pub(super) root_inode: u64,
    pub(super) bytes_used: u64,
    pub(super) id_table: u64,
    pub(super) xattr_table: u64,
    pub(super) inode_table: u64,
    pub(super) directory_table: u64,
    pub(super) fragment_table: u64,
    pub(super) export_table: u64,
}

impl Superblock {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SUPERBLOCK_LEN as usize);
        for word in [MAGIC, self.inodes, self.mod_time, self.block_size, self.fragments] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        let compression: u16 = match self.compression {
            Compression::Gzip { .. } => 1,
            Compression::Zstd { .. } => 6,
        };
        let options = if compressor_options(self.compression).is_empty() { 0 } else { COMPRESSOR_OPTIONS };
        let flags = ALWAYS_FRAGMENTS | DUPLICATES | EXPORTABLE | options;
        let (major, minor) = (4, 0);
        for half in [compression, self.block_size.trailing_zeros() as u16, flags, self.ids, major, minor] {
            bytes.extend_from_slice(&half.to_le_bytes());
        }
        for long in [
            self.root_inode,
            self.bytes_used,
            self.id_table,
            self.xattr_table,
            self.inode_table,
            self.directory_table,
            self.fragment_table,
            self.export_table,
        ] {
            bytes.extend_from_slice(&long.to_le_bytes());
        }
        bytes
    }
}

/// The plain metadata block after the superblock that tells the level (`unsquashfs -s` shows it, nothing needs it);
/// empty for the default level.
pub(super) fn compressor_options(compression: Compression) -> Vec<u8> {
    let body = match compression {
        Compression::Zstd { level: ZSTD_DEFAULT_LEVEL } | Compression::Gzip { level: GZIP_DEFAULT_LEVEL } => {
            return Vec::new();
        }
        Compression::Zstd { level } => level.to_le_bytes().to_vec(),
        Compression::Gzip { level } => {
            [&level.to_le_bytes()[..], &GZIP_WINDOW_BITS.to_le_bytes(), &0_u16.to_le_bytes()].concat()
        }
    };
    [&(body.len() as u16 | 1 << 15).to_le_bytes()[..], &body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_where_the_format_has_them() {
        let bytes = Superblock {
            inodes: 1,
            mod_time: 2,
            block_size: 1 << 20,
            fragments: 3,
            compression: Compression::Zstd { level: 3 },
            ids: 4,
            root_inode: 5,
            bytes_used: 6,
            id_table: 7,
            xattr_table: NO_TABLE,
            inode_table: 8,
            directory_table: 9,
            fragment_table: 10,
            export_table: 11,
        }
        .encode();
        assert_eq!(bytes.len() as u64, SUPERBLOCK_LEN);
        assert_eq!(bytes[..20], *b"hsqs\x01\0\0\0\x02\0\0\0\0\0\x10\0\x03\0\0\0");
        assert_eq!(bytes[20..32], [6, 0, 20, 0, 0xe0, 4, 4, 0, 4, 0, 0, 0]);
        let longs: Vec<u64> = bytes[32..].chunks(8).map(|long| u64::from_le_bytes(long.try_into().unwrap())).collect();
        assert_eq!(longs, [5, 6, 7, NO_TABLE, 8, 9, 10, 11]);
    }

    #[test]
    fn only_levels_that_differ_from_the_default_are_told() {
        assert_eq!(compressor_options(Compression::Zstd { level: 3 }), [4, 0x80, 3, 0, 0, 0]);
        assert_eq!(compressor_options(Compression::Gzip { level: 6 }), [8, 0x80, 6, 0, 0, 0, 15, 0, 0, 0]);
        assert!(compressor_options(Compression::Zstd { level: 15 }).is_empty());
        assert!(compressor_options(Compression::Gzip { level: 9 }).is_empty());
    }
}
