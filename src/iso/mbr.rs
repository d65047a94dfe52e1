//! The master boot record: boot code and four partition entries.

use super::bytes::u32_at;

/// Bytes of the record, and of one sector as partition tables count them.
pub const SECTOR: u64 = 512;

/// What stands before the partition entries: boot code, and at byte 440 the disk signature.
pub const CODE_LEN: usize = 446;

/// Partition type of the entry that keeps tools without GPT away (UEFI §5.2.3).
pub const KIND_PROTECTIVE: u8 = 0xee;

/// Partition type of an EFI system partition in an MBR (UEFI §5.2.2).
pub const KIND_ESP: u8 = 0xef;

/// Partition type of data of Linux.
pub const KIND_LINUX: u8 = 0x83;

/// Why a sector is not a master boot record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("master boot record of {0} bytes instead of 512")]
    Length(usize),
}

/// One of the four partition entries. All zeros is an unused one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Entry {
    /// 0x80 for "active".
    pub status: u8,
    /// Cylinder, head and sector of the first sector, packed.
    pub first_chs: [u8; 3],
    pub kind: u8,
    /// Cylinder, head and sector of the last sector, packed.
    pub last_chs: [u8; 3],
    /// In sectors of 512 bytes.
    pub first_lba: u32,
    /// Length in sectors of 512 bytes.
    pub sectors: u32,
}

impl Entry {
    /// An entry of the given type and place, with the CHS addresses that belong to it.
    pub fn new(kind: u8, first_lba: u32, sectors: u32) -> Self {
        let mut entry = Self { kind, first_lba, ..Self::default() };
        entry.first_chs = chs(first_lba, USUAL);
        entry.resize(sectors);
        entry
    }

    /// The entry that covers a whole GPT disk of `disk_sectors` (UEFI §5.2.3): from sector 1, cut to 32 bits.
    pub fn protective(disk_sectors: u64) -> Self {
        let sectors = u32::try_from(disk_sectors.saturating_sub(1)).unwrap_or(u32::MAX);
        Self { first_chs: [0, 2, 0], ..Self::new(KIND_PROTECTIVE, 1, sectors) }
    }

    /// Gives it another length, with the last CHS address that belongs to it.
    pub fn resize(&mut self, sectors: u32) {
        self.place(self.first_lba, sectors);
    }

    /// Lets it begin elsewhere.
    pub fn move_to(&mut self, first_lba: u32) {
        self.place(first_lba, self.sectors);
    }

    /// CHS addresses stay in the geometry they were in: some BIOSes guess from them how a stick is to be addressed.
    fn place(&mut self, first_lba: u32, sectors: u32) {
        let last = |first_lba: u32, sectors: u32| first_lba.saturating_add(sectors.saturating_sub(1));
        let is_isohybrid = chs(last(self.first_lba, self.sectors), ISOHYBRID) == self.last_chs;
        let geometry = if is_isohybrid { ISOHYBRID } else { USUAL };
        if first_lba != self.first_lba {
            self.first_chs = chs(first_lba, geometry);
        }
        // The highest address stands for "beyond", whatever the length.
        if self.last_chs[1..] != [0xff, 0xff] {
            self.last_chs = chs(last(first_lba, sectors), geometry);
        }
        (self.first_lba, self.sectors) = (first_lba, sectors);
    }

    /// Whether nothing is there. A type of 0 with a length is a partition: Debian's media have such an entry.
    pub const fn is_unused(&self) -> bool {
        self.sectors == 0
    }

    /// The first sector behind it.
    pub fn end_lba(&self) -> u64 {
        u64::from(self.first_lba) + u64::from(self.sectors)
    }
}

/// Sector 0 of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mbr {
    /// Boot code with whatever else stands before the entries; kept as it is.
    pub code: [u8; CODE_LEN],
    pub entries: [Entry; 4],
}

impl Default for Mbr {
    fn default() -> Self {
        Self { code: [0; CODE_LEN], entries: [Entry::default(); 4] }
    }
}

impl Mbr {
    /// Reads sector 0. `None` when it lacks the boot signature: there is no partition table.
    ///
    /// # Errors
    /// Another length than 512 bytes.
    pub fn decode(sector: &[u8]) -> Result<Option<Self>, Error> {
        let sector: &[u8; SECTOR as usize] = sector.try_into().map_err(|_| Error::Length(sector.len()))?;
        if sector[510..] != SIGNATURE {
            return Ok(None);
        }
        let mut mbr = Self::default();
        mbr.code.copy_from_slice(&sector[..CODE_LEN]);
        for (entry, bytes) in mbr.entries.iter_mut().zip(sector[CODE_LEN..510].chunks_exact(ENTRY_LEN)) {
            *entry = Entry {
                status: bytes[0],
                first_chs: [bytes[1], bytes[2], bytes[3]],
                kind: bytes[4],
                last_chs: [bytes[5], bytes[6], bytes[7]],
                first_lba: u32_at(bytes, 8),
                sectors: u32_at(bytes, 12),
            };
        }
        Ok(Some(mbr))
    }

    /// The 512 bytes of sector 0.
    pub fn encode(&self) -> [u8; SECTOR as usize] {
        let mut sector = [0; SECTOR as usize];
        sector[..CODE_LEN].copy_from_slice(&self.code);
        for (entry, bytes) in self.entries.iter().zip(sector[CODE_LEN..510].chunks_exact_mut(ENTRY_LEN)) {
            bytes[0] = entry.status;
            bytes[1..4].copy_from_slice(&entry.first_chs);
            bytes[4] = entry.kind;
            bytes[5..8].copy_from_slice(&entry.last_chs);
            bytes[8..12].copy_from_slice(&entry.first_lba.to_le_bytes());
            bytes[12..16].copy_from_slice(&entry.sectors.to_le_bytes());
        }
        sector[510..].copy_from_slice(&SIGNATURE);
        sector
    }

    /// Whether an entry says that the disk has a GPT.
    pub fn is_protective(&self) -> bool {
        self.entries.iter().any(|entry| entry.kind == KIND_PROTECTIVE)
    }
}

const SIGNATURE: [u8; 2] = [0x55, 0xaa];
const ENTRY_LEN: usize = 16;

/// How a BIOS counts.
#[derive(Clone, Copy)]
struct Geometry {
    heads: u32,
    sectors: u32,
}

const USUAL: Geometry = Geometry { heads: 255, sectors: 63 };
/// What isohybrid and xorriso make USB sticks look like.
const ISOHYBRID: Geometry = Geometry { heads: 64, sectors: 32 };

/// The packed CHS address; what lies beyond cylinder 1023 is the highest address.
fn chs(lba: u32, Geometry { heads, sectors }: Geometry) -> [u8; 3] {
    let (cylinder, head, sector) = (lba / (heads * sectors), lba / sectors % heads, lba % sectors + 1);
    if cylinder > 1023 {
        return [(heads - 1) as u8, sectors as u8 | 0xc0, 0xff];
    }
    [head as u8, sector as u8 | ((cylinder >> 2) & 0xc0) as u8, cylinder as u8]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_the_code_stays() {
        let mut mbr = Mbr::default();
        mbr.code[..4].copy_from_slice(b"code");
        mbr.code[440..444].copy_from_slice(b"disk");
        mbr.entries[0] = Entry { status: 0x80, ..Entry::protective(8192) };
        mbr.entries[3] = Entry::new(KIND_ESP, 2048, 4096);
        let sector = mbr.encode();
        assert_eq!(sector[446..462], [0x80, 0, 2, 0, 0xee, 130, 2, 0, 1, 0, 0, 0, 0xff, 0x1f, 0, 0]);
        assert_eq!(Mbr::decode(&sector), Ok(Some(mbr)));
        assert!(mbr.is_protective());
    }

    #[test]
    fn a_sector_without_signature_has_no_table_and_a_short_one_is_refused() {
        assert_eq!(Mbr::decode(&[0; 512]), Ok(None));
        assert_eq!(Mbr::decode(&[0; 510]), Err(Error::Length(510)));
    }

    #[test]
    fn disks_beyond_32_bits_are_covered_as_far_as_it_goes() {
        assert_eq!(Entry::protective(1 << 40).sectors, u32::MAX);
        assert_eq!(Entry::protective(0).sectors, 0);
        assert_eq!(Entry::new(0x17, u32::MAX, u32::MAX).end_lba(), 2 * u64::from(u32::MAX));
        assert_eq!(Entry::new(0x17, 0, u32::MAX).last_chs, [0xfe, 0xff, 0xff]);
    }

    #[test]
    fn an_entry_that_grows_keeps_its_geometry() {
        let mut isohybrid = Entry { first_chs: [0, 1, 0], last_chs: [63, 32, 1], ..Entry::new(0x17, 0, 4096) };
        isohybrid.resize(6 * 64 * 32);
        assert_eq!((isohybrid.sectors, isohybrid.last_chs), (12_288, [63, 32, 5]));
        let mut beyond = Entry { last_chs: [0xfe, 0xff, 0xff], ..Entry::new(0xee, 1, 4096) };
        beyond.resize(8192);
        assert_eq!((beyond.sectors, beyond.last_chs), (8192, [0xfe, 0xff, 0xff]));
        isohybrid.move_to(2048);
        assert_eq!((isohybrid.first_chs, isohybrid.last_chs), ([0, 1, 1], [63, 32, 6]));
        let mut usual = Entry::new(0x83, 0, 63 * 255);
        usual.resize(2 * 63 * 255);
        assert_eq!(usual.last_chs, [254, 63, 1]);
    }
}
