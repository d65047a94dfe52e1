//! Inodes, as they stand in the inode table.

use super::pipeline::SizeWord;
use super::tree::Device;

/// "No fragment" and "no extended attributes".
pub(super) const NONE: u32 = u32::MAX;

/// What every inode begins with, links and attributes included although only some forms store them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Common {
    pub(super) mode: u16,
    pub(super) uid_index: u16,
    pub(super) gid_index: u16,
    pub(super) mtime: u32,
    pub(super) number: u32,
    pub(super) links: u32,
    /// Index into the xattr table or [`NONE`].
    pub(super) xattr: u32,
}

/// The directory entry type; an inode's own type is this, or this + 7 for the extended form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Directory = 1,
    File = 2,
    Symlink = 3,
    BlockDevice = 4,
    CharDevice = 5,
    Fifo = 6,
    Socket = 7,
}

/// A regular file's place in the image.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileBody<'a> {
    pub(super) size: u64,
    pub(super) start: u64,
    /// Bytes of holes.
    pub(super) sparse: u64,
    /// [`NONE`] without a tail end.
    pub(super) fragment: u32,
    pub(super) offset: u32,
    pub(super) blocks: &'a [SizeWord],
}

/// A directory's place in the directory table.
#[derive(Debug, Clone, Copy)]
pub(super) struct DirectoryBody<'a> {
    /// Bytes of the listing.
    pub(super) listing: u32,
    pub(super) block: u32,
    pub(super) offset: u16,
    pub(super) parent: u32,
    pub(super) index_count: u16,
    /// The encoded index.
    pub(super) index: &'a [u8],
}

/// Encodes inodes; the buffer is reused.
#[derive(Default)]
pub(super) struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    fn begin(&mut self, kind: Type, extended: bool, common: &Common) {
        self.bytes.clear();
        self.u16(kind as u16 + if extended { 7 } else { 0 });
        self.u16(common.mode & 0o7777);
        self.u16(common.uid_index);
        self.u16(common.gid_index);
        self.u32(common.mtime);
        self.u32(common.number);
    }

    fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn file(&mut self, common: &Common, body: &FileBody<'_>) -> &[u8] {
        let plain = common.links == 1 && common.xattr == NONE && body.sparse == 0;
        match (u32::try_from(body.start), u32::try_from(body.size)) {
            (Ok(start), Ok(size)) if plain => {
                self.begin(Type::File, false, common);
                self.u32(start);
                self.u32(body.fragment);
                self.u32(body.offset);
                self.u32(size);
            }
            _ => {
                self.begin(Type::File, true, common);
                self.u64(body.start);
                self.u64(body.size);
                self.u64(body.sparse);
                self.u32(common.links);
                self.u32(body.fragment);
                self.u32(body.offset);
                self.u32(common.xattr);
            }
        }
        for size in body.blocks {
            self.u32(size.0);
        }
        &self.bytes
    }

    pub(super) fn directory(&mut self, common: &Common, body: &DirectoryBody<'_>) -> &[u8] {
        // The size field counts three bytes more, for "." and "..", which are not stored.
        let size = body.listing + 3;
        match u16::try_from(size) {
            Ok(size) if common.xattr == NONE && body.index_count == 0 => {
                self.begin(Type::Directory, false, common);
                self.u32(body.block);
                self.u32(common.links);
                self.u16(size);
                self.u16(body.offset);
                self.u32(body.parent);
            }
            _ => {
                self.begin(Type::Directory, true, common);
                self.u32(common.links);
                self.u32(size);
                self.u32(body.block);
                self.u32(body.parent);
                self.u16(body.index_count);
                self.u16(body.offset);
                self.u32(common.xattr);
                self.bytes.extend_from_slice(body.index);
            }
        }
        &self.bytes
    }

    pub(super) fn symlink(&mut self, common: &Common, target: &[u8]) -> &[u8] {
        self.begin(Type::Symlink, common.xattr != NONE, common);
        self.u32(common.links);
        self.u32(target.len() as u32); // at most SQUASHFS_LINK_BYTES_MAX
        self.bytes.extend_from_slice(target);
        self.end_with_xattr(common)
    }

    pub(super) fn device(&mut self, common: &Common, kind: Type, number: u32) -> &[u8] {
        self.begin(kind, common.xattr != NONE, common);
        self.u32(common.links);
        self.u32(number);
        self.end_with_xattr(common)
    }

    pub(super) fn ipc(&mut self, common: &Common, kind: Type) -> &[u8] {
        self.begin(kind, common.xattr != NONE, common);
        self.u32(common.links);
        self.end_with_xattr(common)
    }

    fn end_with_xattr(&mut self, common: &Common) -> &[u8] {
        if common.xattr != NONE {
            self.u32(common.xattr);
        }
        &self.bytes
    }
}

/// A device number as Linux encodes it on disk (`new_encode_dev`); `None` when it does not fit 12 and 20 bits.
pub(super) fn encode_device(device: Device) -> Option<u32> {
    let Device { major, minor } = device;
    (major < 1 << 12 && minor < 1 << 20).then_some((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMON: Common =
        Common { mode: 0o104755, uid_index: 1, gid_index: 2, mtime: 3, number: 4, links: 1, xattr: NONE };
    const FILE: FileBody<'static> = FileBody {
        size: 0x1_0005,
        start: 96,
        sparse: 0,
        fragment: NONE,
        offset: 0,
        blocks: &[SizeWord(100), SizeWord::HOLE],
    };

    #[test]
    fn a_plain_file_is_short() {
        let mut encoder = Encoder::default();
        let bytes = encoder.file(&COMMON, &FILE);
        let head = [2, 0, 0o755 & 0xff, 0o4755 >> 8, 1, 0, 2, 0, 3, 0, 0, 0, 4, 0, 0, 0];
        assert_eq!(bytes[..16], head.map(|byte: u16| byte as u8));
        assert_eq!(bytes[16..], [96, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 5, 0, 1, 0, 100, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn links_attributes_holes_and_size_make_a_file_extended() {
        let mut encoder = Encoder::default();
        let long = u64::from(u32::MAX) + 1;
        for (common, body) in [
            (Common { links: 2, ..COMMON }, FILE),
            (Common { xattr: 0, ..COMMON }, FILE),
            (COMMON, FileBody { sparse: 4096, ..FILE }),
            (COMMON, FileBody { size: long, ..FILE }),
            (COMMON, FileBody { start: long, ..FILE }),
        ] {
            let bytes = encoder.file(&common, &body);
            assert_eq!((bytes[0], bytes.len()), (9, 56 + 8));
        }
        assert_eq!(encoder.file(&COMMON, &FileBody { size: long - 1, ..FILE })[0], 2);
    }

    #[test]
    fn a_directory_is_extended_when_its_listing_is_long_or_indexed() {
        let mut encoder = Encoder::default();
        let body = DirectoryBody { listing: 65_532, block: 1, offset: 2, parent: 3, index_count: 0, index: &[] };
        assert_eq!(encoder.directory(&COMMON, &body).len(), 32);
        assert_eq!(encoder.directory(&COMMON, &body)[0], 1);
        let long = DirectoryBody { listing: 65_533, ..body };
        let bytes = encoder.directory(&COMMON, &long);
        assert_eq!((bytes[0], bytes.len()), (8, 40));
        assert_eq!(bytes[20..24], 65_536_u32.to_le_bytes());
        assert_eq!(encoder.directory(&COMMON, &DirectoryBody { index_count: 1, index: &[7; 13], ..body }).len(), 53);
        assert_eq!(encoder.directory(&Common { xattr: 5, ..COMMON }, &body)[0], 8);
    }

    #[test]
    fn the_attribute_index_ends_the_other_extended_forms() {
        let mut encoder = Encoder::default();
        let with = Common { xattr: 6, ..COMMON };
        assert_eq!(encoder.symlink(&COMMON, b"ab").len(), 26);
        assert_eq!(encoder.symlink(&with, b"ab")[20..], [2, 0, 0, 0, b'a', b'b', 6, 0, 0, 0]);
        assert_eq!(encoder.device(&COMMON, Type::CharDevice, 9)[16..], [1, 0, 0, 0, 9, 0, 0, 0]);
        assert_eq!(encoder.device(&with, Type::BlockDevice, 9)[0], 11);
        assert_eq!(encoder.ipc(&with, Type::Socket)[16..], [1, 0, 0, 0, 6, 0, 0, 0]);
        assert_eq!(encoder.ipc(&COMMON, Type::Fifo)[0], 6);
    }

    #[test]
    fn device_numbers_are_split_as_linux_does() {
        assert_eq!(encode_device(Device { major: 8, minor: 1 }), Some(0x801));
        assert_eq!(encode_device(Device { major: 0xfff, minor: 0xf_ffff }), Some(0xffff_ffff));
        assert_eq!(encode_device(Device { major: 1, minor: 0x12345 }), Some(0x1230_0145));
        assert_eq!(encode_device(Device { major: 1 << 12, minor: 0 }), None);
        assert_eq!(encode_device(Device { major: 0, minor: 1 << 20 }), None);
    }
}
