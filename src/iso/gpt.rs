//! The GUID partition table: both headers and the entries (UEFI §5.3).

use std::io;

use flate2::Crc;

use super::bytes::{u16_at, u32_at, u64_at};
use super::mbr::SECTOR;
use crate::limits::GPT_ENTRIES_MAX;
use crate::storage::Storage;

/// Partition type of an EFI system partition.
pub const TYPE_ESP: Guid = Guid::new(0xc12a_7328, 0xf81f, 0x11d2, [0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b]);

/// Partition type of data that any system may mount ("Microsoft basic data"): what xorriso gives the ISO itself.
pub const TYPE_BASIC_DATA: Guid =
    Guid::new(0xebd0_a0a2, 0xb9e5, 0x4433, [0x87, 0xc0, 0x68, 0xb6, 0xb7, 0x26, 0x99, 0xc7]);

/// Partition type of data of Linux ("Linux filesystem data").
pub const TYPE_LINUX: Guid = Guid::new(0x0fc6_3daf, 0x8483, 0x4772, [0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4]);

/// Sector of the first header.
pub const PRIMARY_LBA: u64 = 1;

/// Why a partition table is not taken or cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the GUID partition table")]
    Read(#[source] io::Error),
    #[error("the header of the GUID partition table at sector {lba} is damaged: {what}")]
    Header { lba: u64, what: &'static str },
    #[error(
        "the GUID partition table has {0} entries of {1} bytes; up to {GPT_ENTRIES_MAX} of 128 bytes are supported"
    )]
    Entries(u32, u32),
    #[error("the checksum of the GUID partition entries at sector {0} does not hold")]
    EntriesChecksum(u64),
    #[error("{0} partitions do not fit a GUID partition table for {1}")]
    TooMany(usize, u32),
    #[error("a GUID partition table does not fit a disk of {0} sectors")]
    Disk(u64),
}

/// A GUID as it stands on disk: the first three fields little-endian.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// From the fields in the order in which they are printed.
    pub const fn new(first: u32, second: u16, third: u16, rest: [u8; 8]) -> Self {
        let (a, b, c, d) = (first.to_le_bytes(), second.to_le_bytes(), third.to_le_bytes(), rest);
        Self([
            a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], //
            d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7],
        ])
    }
}

/// One partition. A type of zeros marks an unused entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    pub kind: Guid,
    pub guid: Guid,
    /// In sectors of 512 bytes.
    pub first_lba: u64,
    /// The last sector that belongs to it.
    pub last_lba: u64,
    pub attributes: u64,
    /// UTF-16 code units, filled up with zeros.
    pub name: [u16; 36],
}

impl Partition {
    pub const UNUSED: Self =
        Self { kind: Guid([0; 16]), guid: Guid([0; 16]), first_lba: 0, last_lba: 0, attributes: 0, name: [0; 36] };

    /// `sectors` sectors (at least one) from `first_lba` on. The name is cut to what fits.
    pub fn new(kind: Guid, guid: Guid, first_lba: u64, sectors: u64, name: &str) -> Self {
        let mut units = [0; 36];
        for (unit, value) in units.iter_mut().zip(name.encode_utf16()) {
            *unit = value;
        }
        let last_lba = first_lba.saturating_add(sectors.max(1) - 1);
        Self { kind, guid, first_lba, last_lba, attributes: 0, name: units }
    }

    pub fn is_unused(&self) -> bool {
        self.kind == Self::UNUSED.kind
    }

    /// The name as text.
    pub fn name(&self) -> String {
        String::from_utf16_lossy(&self.name).trim_end_matches('\0').to_owned()
    }

    fn decode(bytes: &[u8]) -> Self {
        let mut name = [0; 36];
        for (unit, at) in name.iter_mut().zip((56..).step_by(2)) {
            *unit = u16_at(bytes, at);
        }
        Self {
            kind: guid(bytes, 0),
            guid: guid(bytes, 16),
            first_lba: u64_at(bytes, 32),
            last_lba: u64_at(bytes, 40),
            attributes: u64_at(bytes, 48),
            name,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.kind.0);
        out.extend_from_slice(&self.guid.0);
        for long in [self.first_lba, self.last_lba, self.attributes] {
            out.extend_from_slice(&long.to_le_bytes());
        }
        for unit in self.name {
            out.extend_from_slice(&unit.to_le_bytes());
        }
    }
}

/// A partition table. Both copies on disk are made of the same facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpt {
    pub disk_guid: Guid,
    /// Where the first copy's entries stand; hybrids with an Apple partition map put them behind it.
    pub entries_lba: u64,
    /// Room for this many entries.
    pub slots: u32,
    /// The first sector that a partition may use.
    pub first_usable_lba: u64,
    /// Sector of the backup header: the disk's last. Its entries stand before it, and nothing else may.
    pub last_lba: u64,
    /// By number, from 1 on; may hold unused ones.
    pub partitions: Vec<Partition>,
}

impl Gpt {
    /// An empty table for a disk of `sectors`: 128 entries behind the primary header, as every tool makes it.
    pub const fn new(disk_guid: Guid, sectors: u64) -> Self {
        Self {
            disk_guid,
            entries_lba: 2,
            slots: 128,
            first_usable_lba: 34,
            last_lba: sectors.saturating_sub(1),
            partitions: Vec::new(),
        }
    }

    /// Reads the primary copy. `None` when there is none at sector 1.
    ///
    /// # Errors
    /// A header or entries whose checksum does not hold, or a shape that is not supported.
    pub fn read<S: Storage + ?Sized>(disk: &S) -> Result<Option<Self>, Error> {
        let lba = PRIMARY_LBA;
        let mut header = [0; SECTOR as usize];
        disk.read_exact_at(&mut header, lba * SECTOR).map_err(Error::Read)?;
        if &header[..8] != SIGNATURE {
            return Ok(None);
        }
        check_header(&header, lba)?;
        let (slots, entry_len) = (u32_at(&header, 80), u32_at(&header, 84));
        if slots == 0 || slots > GPT_ENTRIES_MAX || entry_len as usize != ENTRY_LEN {
            return Err(Error::Entries(slots, entry_len));
        }
        let entries_lba = u64_at(&header, 72);
        let offset = entries_lba.checked_mul(SECTOR).ok_or(Error::Header { lba, what: "its entries are nowhere" })?;
        let mut entries = vec![0; slots as usize * ENTRY_LEN];
        disk.read_exact_at(&mut entries, offset).map_err(Error::Read)?;
        if crc32(&entries) != u32_at(&header, 88) {
            return Err(Error::EntriesChecksum(entries_lba));
        }
        let mut partitions: Vec<Partition> = entries.chunks_exact(ENTRY_LEN).map(Partition::decode).collect();
        let used = partitions.iter().rposition(|partition| !partition.is_unused()).map_or(0, |last| last + 1);
        partitions.truncate(used);
        Ok(Some(Self {
            disk_guid: guid(&header, 56),
            entries_lba,
            slots,
            first_usable_lba: u64_at(&header, 40),
            last_lba: u64_at(&header, 32),
            partitions,
        }))
    }

    /// Sectors that one copy of the entries takes.
    pub fn entries_sectors(&self) -> u64 {
        (u64::from(self.slots) * ENTRY_LEN as u64).div_ceil(SECTOR)
    }

    /// The last sector that a partition may use: the one before the backup entries.
    pub fn last_usable_lba(&self) -> u64 {
        self.last_lba.saturating_sub(self.entries_sectors() + 1)
    }

    /// What to write where, as pairs of byte offset and bytes: primary header, primary entries, backup entries, backup header.
    ///
    /// # Errors
    /// More partitions than slots, or a disk too small for both copies.
    pub fn encode(&self) -> Result<[(u64, Vec<u8>); 4], Error> {
        if self.partitions.len() > self.slots as usize || self.slots > GPT_ENTRIES_MAX {
            return Err(Error::TooMany(self.partitions.len(), self.slots));
        }
        let sectors = self.last_lba.saturating_add(1);
        if self.entries_lba.saturating_add(self.entries_sectors()) > self.last_usable_lba()
            || sectors > u64::MAX / SECTOR
        {
            return Err(Error::Disk(sectors));
        }
        let mut entries = Vec::with_capacity(self.slots as usize * ENTRY_LEN);
        for partition in &self.partitions {
            partition.encode(&mut entries);
        }
        entries.resize(self.slots as usize * ENTRY_LEN, 0);
        let crc = crc32(&entries);
        let backup_lba = self.last_usable_lba() + 1;
        let primary = self.header(PRIMARY_LBA, self.last_lba, self.entries_lba, crc);
        let backup = self.header(self.last_lba, PRIMARY_LBA, backup_lba, crc);
        Ok([
            (PRIMARY_LBA * SECTOR, primary),
            (self.entries_lba * SECTOR, entries.clone()),
            (backup_lba * SECTOR, entries),
            (self.last_lba * SECTOR, backup),
        ])
    }

    fn header(&self, my_lba: u64, other_lba: u64, entries_lba: u64, entries_crc: u32) -> Vec<u8> {
        let mut header = Vec::with_capacity(SECTOR as usize);
        header.extend_from_slice(SIGNATURE);
        for word in [REVISION, HEADER_LEN as u32, 0, 0] {
            header.extend_from_slice(&word.to_le_bytes());
        }
        for lba in [my_lba, other_lba, self.first_usable_lba, self.last_usable_lba()] {
            header.extend_from_slice(&lba.to_le_bytes());
        }
        header.extend_from_slice(&self.disk_guid.0);
        header.extend_from_slice(&entries_lba.to_le_bytes());
        for word in [self.slots, ENTRY_LEN as u32, entries_crc] {
            header.extend_from_slice(&word.to_le_bytes());
        }
        let crc = crc32(&header);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        header.resize(SECTOR as usize, 0);
        header
    }
}

const SIGNATURE: &[u8; 8] = b"EFI PART";
const REVISION: u32 = 0x0001_0000;
const HEADER_LEN: usize = 92;
const ENTRY_LEN: usize = 128;

fn check_header(header: &[u8; SECTOR as usize], lba: u64) -> Result<(), Error> {
    let damaged = |what| Err(Error::Header { lba, what });
    let len = u32_at(header, 12) as usize;
    if !(HEADER_LEN..=header.len()).contains(&len) {
        return damaged("its length is out of range");
    }
    let mut bytes = header[..len].to_vec();
    bytes[16..20].fill(0);
    if crc32(&bytes) != u32_at(header, 16) {
        return damaged("its checksum does not hold");
    }
    if u64_at(header, 24) != lba {
        return damaged("it says it stands elsewhere");
    }
    Ok(())
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn guid(bytes: &[u8], at: usize) -> Guid {
    let mut guid = Guid::default();
    guid.0.copy_from_slice(&bytes[at..at + 16]);
    guid
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    struct Disk(Mutex<Vec<u8>>);

    impl Storage for Disk {
        fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            self.0.lock().unwrap()[offset as usize..][..bytes.len()].copy_from_slice(bytes);
            Ok(())
        }

        fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
            let disk = self.0.lock().unwrap();
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            let end = start.checked_add(bytes.len()).filter(|&end| end <= disk.len());
            bytes.copy_from_slice(&disk[start..end.ok_or(io::ErrorKind::UnexpectedEof)?]);
            Ok(())
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.lock().unwrap().resize(len as usize, 0);
            Ok(())
        }
    }

    fn example() -> Gpt {
        let mut gpt = Gpt::new(Guid([7; 16]), 1000);
        gpt.partitions.push(Partition::new(TYPE_BASIC_DATA, Guid([1; 16]), 64, 400, "ISO9660"));
        gpt.partitions.push(Partition::UNUSED);
        gpt.partitions.push(Partition::new(TYPE_ESP, Guid([2; 16]), 464, 100, "EFI"));
        gpt
    }

    fn written(gpt: &Gpt) -> Disk {
        let disk = Disk(Mutex::new(vec![0; (gpt.last_lba as usize + 1) * 512]));
        for (offset, bytes) in gpt.encode().unwrap() {
            disk.write_all_at(&bytes, offset).unwrap();
        }
        disk
    }

    #[test]
    fn what_is_written_is_read_back() {
        let gpt = example();
        assert_eq!(Gpt::read(&written(&gpt)).unwrap(), Some(gpt.clone()));
        assert_eq!(gpt.last_usable_lba(), 966);
        assert_eq!(gpt.partitions[2].name(), "EFI");
        assert_eq!((gpt.partitions[0].first_lba, gpt.partitions[0].last_lba), (64, 463));
    }

    #[test]
    fn both_copies_name_each_other() {
        let [primary, _, backup_entries, backup] = example().encode().unwrap();
        assert_eq!((u64_at(&primary.1, 24), u64_at(&primary.1, 32)), (1, 999));
        assert_eq!((u64_at(&backup.1, 24), u64_at(&backup.1, 32)), (999, 1));
        assert_eq!((backup.0, u64_at(&backup.1, 72) * 512), (999 * 512, backup_entries.0));
        assert_eq!(backup_entries.0, 967 * 512);
    }

    #[test]
    fn every_damaged_bit_of_header_and_entries_is_noticed() {
        let disk = written(&example());
        for at in (512..512 + 92).chain(1024..1024 + 3 * 128) {
            disk.0.lock().unwrap()[at] ^= 0x10;
            assert!(!matches!(Gpt::read(&disk), Ok(Some(_))), "byte {at}");
            disk.0.lock().unwrap()[at] ^= 0x10;
        }
        assert_eq!(Gpt::read(&Disk(Mutex::new(vec![0; 2048]))).unwrap(), None);
        assert!(matches!(Gpt::read(&Disk(Mutex::new(vec![0; 600]))), Err(Error::Read(_))));
    }

    #[test]
    fn a_hostile_header_with_right_checksums_is_refused() {
        let hostile = |at: usize, value: u64, len: usize| {
            let disk = written(&example());
            {
                let mut bytes = disk.0.lock().unwrap();
                bytes[512 + at..512 + at + len].copy_from_slice(&value.to_le_bytes()[..len]);
                bytes[512 + 16..512 + 20].fill(0);
                let crc = crc32(&bytes[512..512 + 92]);
                bytes[512 + 16..512 + 20].copy_from_slice(&crc.to_le_bytes());
            }
            Gpt::read(&disk).unwrap_err()
        };
        assert!(matches!(hostile(80, u64::from(GPT_ENTRIES_MAX) + 1, 4), Error::Entries(..)));
        assert!(matches!(hostile(80, 0, 4), Error::Entries(..)));
        assert!(matches!(hostile(84, 1 << 20, 4), Error::Entries(..)));
        assert!(matches!(hostile(72, u64::MAX, 8), Error::Header { .. }));
        assert!(matches!(hostile(72, 1 << 50, 8), Error::Read(_)));
        assert!(matches!(hostile(24, 5, 8), Error::Header { .. }));
    }

    #[test]
    fn what_does_not_fit_is_not_encoded() {
        let mut gpt = example();
        gpt.slots = 2;
        assert!(matches!(gpt.encode(), Err(Error::TooMany(3, 2))));
        assert!(matches!(Gpt::new(Guid::default(), 60).encode(), Err(Error::Disk(60))));
        assert!(matches!(Gpt::new(Guid::default(), 0).encode(), Err(Error::Disk(_))));
        assert!(Gpt::new(Guid::default(), 100).encode().is_ok());
    }
}
