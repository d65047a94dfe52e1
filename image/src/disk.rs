//! Lays a disk image out: partition table, boot code, partitions.
//!
//! ```text
//! GPT   [1 BIOS boot: GRUB's core]  1/2 ESP: shim, GRUB  2/3 boot: kernel, configuration  3/4 data
//! MBR                                                     1 boot: firmware, kernel, …       2 data
//! ```
//! Laptops show the boot partition because its type is that of data: Windows and macOS hide an ESP.

use std::io;

use auroraboot::iso::gpt::{self, Gpt, Guid, Partition, TYPE_BASIC_DATA, TYPE_ESP, TYPE_LINUX};
use auroraboot::iso::mbr::{Entry, KIND_LINUX, Mbr, SECTOR};
use auroraboot::storage::Storage;
use sha2::{Digest, Sha256};

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot write the image")]
    Write(#[from] io::Error),
    #[error(transparent)]
    Gpt(#[from] gpt::Error),
    #[error("partition {name} ends behind sector 2^32, which a master boot record cannot describe")]
    TooFar { name: &'static str },
    #[error("GRUB's {0} is too short, or has another form than is known")]
    Grub(&'static str),
}

/// What is in a partition. Zeros follow up to its length.
#[derive(Debug)]
pub struct Part<'a> {
    pub kind: Kind,
    pub content: &'a [u8],
    /// In bytes; a multiple of [`ALIGNMENT`].
    pub length: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    BiosBoot,
    Esp,
    Boot,
    Data,
}

/// Where partitions begin and what their length is a multiple of: no flash memory has larger erase blocks that matter here.
pub const ALIGNMENT: u64 = 1 << 20;

/// The first byte of each partition, and behind the last one the end.
pub fn places(parts: &[Part<'_>]) -> Vec<u64> {
    let mut places = vec![ALIGNMENT];
    for part in parts {
        let last = places[places.len() - 1];
        places.push(last + part.length);
    }
    places
}

/// Writes a disk with a GUID partition table. `boot_sector` is GRUB's for BIOS, which loads the core in the partition for that; `seed` is
/// what identifiers are made from.
///
/// # Errors
/// The image cannot be written, or GRUB's files are not what is known.
pub fn write_gpt<S: Storage>(
    image: &S,
    parts: &[Part<'_>],
    boot_sector: Option<&[u8]>,
    seed: &[u8],
) -> Result<(), Error> {
    let places = places(parts);
    // Behind the last partition: room for the backup.
    let sectors = (places[parts.len()] + ALIGNMENT) / SECTOR;
    let mut table = Gpt::new(guid(seed, "disk"), sectors);
    for (part, place) in parts.iter().zip(&places) {
        let (kind, name) = part.kind.gpt();
        table.partitions.push(Partition::new(kind, guid(seed, name), place / SECTOR, part.length / SECTOR, name));
    }
    image.set_len(sectors * SECTOR)?;
    let mut mbr = Mbr::default();
    mbr.entries[0] = Entry::protective(sectors);
    if let (Some(boot_sector), Some(index)) = (boot_sector, parts.iter().position(|part| part.kind == Kind::BiosBoot)) {
        mbr.code = boot_code(boot_sector, places[index] / SECTOR)?;
    }
    image.write_all_at(&mbr.encode(), 0)?;
    for (offset, bytes) in table.encode()? {
        image.write_all_at(&bytes, offset)?;
    }
    write_parts(image, parts, &places)
}

/// Writes a disk with a master boot record alone: what the boot ROMs of small boards read.
///
/// # Errors
/// The image cannot be written.
pub fn write_mbr<S: Storage>(image: &S, parts: &[Part<'_>], seed: &[u8]) -> Result<(), Error> {
    let places = places(parts);
    let mut mbr = Mbr::default();
    mbr.code[440..444].copy_from_slice(&guid(seed, "disk").0[..4]); // the disk's signature
    for (number, (part, place)) in parts.iter().zip(&places).enumerate().take(mbr.entries.len()) {
        let too_far = |_| Error::TooFar { name: part.kind.gpt().1 };
        let first = u32::try_from(place / SECTOR).map_err(too_far)?;
        let sectors = u32::try_from(part.length / SECTOR).map_err(too_far)?;
        let status = if part.kind == Kind::Boot { ACTIVE } else { 0 };
        mbr.entries[number] = Entry { status, ..Entry::new(part.kind.mbr(), first, sectors) };
    }
    image.set_len(places[parts.len()])?;
    image.write_all_at(&mbr.encode(), 0)?;
    write_parts(image, parts, &places)
}

fn write_parts<S: Storage>(image: &S, parts: &[Part<'_>], places: &[u64]) -> Result<(), Error> {
    for (part, place) in parts.iter().zip(places) {
        // What is zero stays a hole.
        for (index, piece) in
            part.content.chunks(HOLE).enumerate().filter(|(_, piece)| piece.iter().any(|byte| *byte != 0))
        {
            image.write_all_at(piece, place + (index * HOLE) as u64)?;
        }
    }
    Ok(())
}

const HOLE: usize = 4096;
const ACTIVE: u8 = 0x80;

impl Kind {
    const fn gpt(self) -> (Guid, &'static str) {
        match self {
            Self::BiosBoot => (TYPE_BIOS_BOOT, "BIOS boot"),
            Self::Esp => (TYPE_ESP, "EFI system partition"),
            Self::Boot => (TYPE_BASIC_DATA, "APPLIANCE"),
            Self::Data => (TYPE_LINUX, "AURORADATA"),
        }
    }

    const fn mbr(self) -> u8 {
        match self {
            Self::Data => KIND_LINUX,
            _ => 0x0c, // FAT32 with LBA addresses
        }
    }
}

/// "Hah!IdontNeedEFI": where GRUB puts its core on a disk with GPT (GRUB manual, "BIOS installation").
const TYPE_BIOS_BOOT: Guid = Guid::new(0x2168_6148, 0x6449, 0x6e6f, [0x74, 0x4e, 0x65, 0x65, 0x64, 0x45, 0x46, 0x49]);

/// A GUID that depends on what it is for alone (RFC 9562 §5.8: version 8, made by the vendor's own rule).
fn guid(seed: &[u8], what: &str) -> Guid {
    let digest = Sha256::new().chain_update(seed).chain_update(what).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes[7] = bytes[7] & 0x0f | 0x80; // the third field is little-endian
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Guid(bytes)
}

/// GRUB's boot.img with the place of the core (its source: boot/i386/pc/boot.S, machine/boot.h).
fn boot_code(boot_sector: &[u8], core_lba: u64) -> Result<[u8; 446], Error> {
    const KERNEL_SECTOR: usize = 0x5c;
    const DRIVE_CHECK: usize = 0x66;
    let mut code = [0; 446];
    code.copy_from_slice(boot_sector.get(..446).ok_or(Error::Grub("boot.img"))?);
    code[KERNEL_SECTOR..KERNEL_SECTOR + 8].copy_from_slice(&core_lba.to_le_bytes());
    // Two NOPs for the jump over a workaround: some BIOSes pass a floppy's number for the disk that they boot from.
    code[DRIVE_CHECK..DRIVE_CHECK + 2].copy_from_slice(&[0x90, 0x90]);
    code[440..].fill(0); // the disk's signature, unused with GPT
    Ok(code)
}

/// GRUB's core for its place on the disk: the first sector holds a list of where the others are (boot/i386/pc/diskboot.S).
///
/// # Errors
/// It is too short.
pub fn placed_core(core: &[u8], first_lba: u64) -> Result<Vec<u8>, Error> {
    const LIST: usize = 0x1f4;
    let sectors = core.len().div_ceil(SECTOR as usize);
    let rest = sectors.checked_sub(1).and_then(|rest| u16::try_from(rest).ok()).filter(|rest| *rest > 0);
    let rest = rest.ok_or(Error::Grub("core image"))?;
    let mut placed = core.to_vec();
    placed.resize(sectors * SECTOR as usize, 0);
    placed[LIST..LIST + 8].copy_from_slice(&(first_lba + 1).to_le_bytes());
    placed[LIST + 8..LIST + 10].copy_from_slice(&rest.to_le_bytes());
    Ok(placed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Memory(Mutex<Vec<u8>>);

    impl Storage for Memory {
        fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            let at = usize::try_from(offset).unwrap();
            self.0.lock().unwrap()[at..at + bytes.len()].copy_from_slice(bytes);
            Ok(())
        }
        fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
            let at = usize::try_from(offset).unwrap();
            bytes.copy_from_slice(&self.0.lock().unwrap()[at..at + bytes.len()]);
            Ok(())
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.lock().unwrap().resize(usize::try_from(len).unwrap(), 0);
            Ok(())
        }
    }

    #[test]
    fn the_core_is_where_the_boot_sector_looks() {
        let core = vec![7; 1000];
        let placed = placed_core(&core, 2048).unwrap();
        assert_eq!((placed.len(), &placed[0x1f4..0x1fe]), (1024, &[1, 8, 0, 0, 0, 0, 0, 0, 1, 0][..]));
        let parts = [
            Part { kind: Kind::BiosBoot, content: &placed, length: ALIGNMENT },
            Part { kind: Kind::Boot, content: b"boot", length: ALIGNMENT },
        ];
        let image = Memory::default();
        write_gpt(&image, &parts, Some(&[1; 512]), b"seed").unwrap();
        let table = Gpt::read(&image).unwrap().unwrap();
        assert_eq!((table.partitions[0].first_lba, table.partitions[1].first_lba), (2048, 4096));
        let image = image.0.into_inner().unwrap();
        assert_eq!(image[0x5c..0x68], [0, 8, 0, 0, 0, 0, 0, 0, 1, 1, 0x90, 0x90]);
        assert_eq!(&image[2 << 20..][..4], b"boot");
        assert_eq!(image.len(), 4 << 20);
    }

    #[test]
    fn guids_differ_and_are_of_the_right_version() {
        let (one, other) = (guid(b"board", "disk"), guid(b"board", "data"));
        assert_ne!(one, other);
        assert_eq!((one.0[7] >> 4, one.0[8] >> 6), (8, 2));
    }
}
