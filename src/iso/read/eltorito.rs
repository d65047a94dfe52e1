//! The El Torito boot catalog: which images firmware may start from the image as a CD.

use super::Error;
use super::disk::Disk;
use crate::iso::BLOCK;
use crate::iso::bytes::{u16_at, u32_at};
use crate::limits::ISO_BOOT_CATALOG_BYTES_MAX;
use crate::storage::{Extent, Storage};

/// Platform of PCs with a BIOS.
pub const PLATFORM_BIOS: u8 = 0;
/// Platform of UEFI.
pub const PLATFORM_EFI: u8 = 0xef;

/// One boot image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootImage {
    pub platform: u8,
    /// Whether firmware may start it.
    pub bootable: bool,
    /// Block where it begins.
    pub location: u32,
    /// What firmware loads, in sectors of 512 bytes; 0 and 1 for images that are longer than the field can say.
    pub sectors: u16,
    /// Byte of the image where its catalog entry stands.
    pub(in crate::iso) entry_at: u64,
}

impl BootImage {
    /// What the catalog says of its place.
    pub fn extent(&self) -> Extent {
        Extent { offset: u64::from(self.location) * BLOCK, length: u64::from(self.sectors) * 512 }
    }
}

const ENTRY_LEN: usize = 32;

/// Reads the catalog at `block`. One that does not begin as it must has no images.
pub(super) fn boot_images<S: Storage + ?Sized>(disk: Disk<'_, S>, block: u32) -> Result<Vec<BootImage>, Error> {
    let start = u64::from(block) * BLOCK;
    let len = ISO_BOOT_CATALOG_BYTES_MAX.min(disk.size.saturating_sub(start));
    let catalog = disk.read(start, len)?;
    let mut entries = catalog.chunks_exact(ENTRY_LEN).zip((start..).step_by(ENTRY_LEN));
    let mut images = Vec::new();
    let platform = match entries.next() {
        Some((validation, _)) if is_validation(validation) => validation[1],
        _ => return Ok(images),
    };
    images.extend(entries.next().map(|(entry, at)| boot_image(entry, platform, at)));
    while let Some((header, _)) = entries.next().filter(|(header, _)| matches!(header[0], 0x90 | 0x91)) {
        let count = u16_at(header, 2);
        for _ in 0..count {
            // Extensions of an entry stand behind it.
            match entries.find(|(entry, _)| entry[0] != 0x44) {
                Some((entry, at)) => images.push(boot_image(entry, header[1], at)),
                None => return Ok(images),
            }
        }
        if header[0] == 0x91 {
            break;
        }
    }
    Ok(images)
}

/// The words of a validation entry sum up to 0.
fn is_validation(entry: &[u8]) -> bool {
    let sum = entry.chunks_exact(2).fold(0_u16, |sum, pair| sum.wrapping_add(u16::from_le_bytes([pair[0], pair[1]])));
    entry[0] == 1 && sum == 0 && entry[30..] == [0x55, 0xaa]
}

fn boot_image(entry: &[u8], platform: u8, entry_at: u64) -> BootImage {
    BootImage { platform, bootable: entry[0] == 0x88, location: u32_at(entry, 8), sectors: u16_at(entry, 6), entry_at }
}
