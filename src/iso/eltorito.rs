//! What makes an image boot as a CD: El Torito's catalog, and the tables inside GRUB's boot image.

use super::read::{PLATFORM_BIOS, PLATFORM_EFI};
use super::{BLOCK, DESCRIPTORS};

/// How an image boots.
#[derive(Debug, Clone, Copy, Default)]
pub struct Boot<'a> {
    pub bios: Option<Bios<'a>>,
    /// A FAT image: the EFI system partition, behind the volume.
    pub esp: Option<&'a [u8]>,
}

/// Booting by BIOS: GRUB's `cdboot.img` with a core image behind it, and its `boot_hybrid.img` in the MBR.
#[derive(Debug, Clone, Copy)]
pub struct Bios<'a> {
    /// A file that has been added.
    pub image: &'a str,
    /// The first 440 bytes count; the rest of the sector is the partition table's.
    pub mbr: &'a [u8],
}

const BOOTABLE: u8 = 0x88;

/// Sectors of 512 bytes that the BIOS loads: `cdboot.img`, which loads the rest itself.
const BIOS_SECTORS: u16 = 4;

/// Where an EFI boot image lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Efi {
    /// Block.
    pub location: u32,
    /// Bytes.
    pub size: u64,
}

impl Efi {
    /// Sectors of 512 bytes; 0 stands for everything to the end of the volume where 16 bits do not suffice (UEFI §13.3.2.1).
    fn sectors(self) -> u16 {
        u16::try_from(self.size.div_ceil(512)).unwrap_or(0)
    }
}

/// The boot catalog: one block (El Torito §2.0).
pub(super) fn catalog(bios: Option<u32>, efi: Option<Efi>) -> Vec<u8> {
    let bios_entry = bios.map(|location| boot_entry(location, BIOS_SECTORS));
    let efi_entry = efi.map(|efi| boot_entry(efi.location, efi.sectors()));
    let platform = if bios.is_some() { PLATFORM_BIOS } else { PLATFORM_EFI };
    let mut out = validation_entry(platform);
    match (bios_entry, efi_entry) {
        (Some(bios), Some(efi)) => {
            const LAST_HEADER: u8 = 0x91;
            out.extend_from_slice(&bios);
            out.extend_from_slice(&[LAST_HEADER, PLATFORM_EFI, 1, 0]);
            out.resize(96, 0);
            out.extend_from_slice(&efi);
        }
        (Some(only), None) | (None, Some(only)) => out.extend_from_slice(&only),
        (None, None) => {}
    }
    out.resize(BLOCK as usize, 0);
    out
}

/// §2.1: its 16-bit words add up to zero.
fn validation_entry(platform: u8) -> Vec<u8> {
    let mut entry = vec![0; 32];
    entry[0] = 1;
    entry[1] = platform;
    entry[30..].copy_from_slice(&[0x55, 0xaa]);
    let sum = entry.chunks_exact(2).fold(0_u16, |sum, word| sum.wrapping_add(u16::from_le_bytes([word[0], word[1]])));
    entry[28..30].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
    entry
}

/// §2.2: no emulation, the default segment.
fn boot_entry(location: u32, sectors: u16) -> [u8; 32] {
    let mut entry = [0; 32];
    entry[0] = BOOTABLE;
    entry[6..8].copy_from_slice(&sectors.to_le_bytes());
    entry[8..12].copy_from_slice(&location.to_le_bytes());
    entry
}

/// mkisofs' boot information table: what a boot image learns of itself.
const TABLE_AT: usize = 8;
const TABLE_END: usize = 64;
/// Where `cdboot.img` looks for the sector of what follows it (`GRUB_BOOT_I386_PC_CDBOOT` … xorriso's `--grub2-boot-info`).
const GRUB2_INFO_AT: usize = 2548;

/// Writes both tables into a boot image that lies at block `location`. False when it is too short to be one.
pub(super) fn patch_boot_image(image: &mut [u8], location: u32) -> bool {
    let Ok(len) = u32::try_from(image.len()) else { return false };
    if image.len() < GRUB2_INFO_AT + 8 {
        return false;
    }
    // In sectors of 512 bytes, of what comes behind the image's first five.
    let behind = u64::from(location) * 4 + 5;
    image[GRUB2_INFO_AT..GRUB2_INFO_AT + 8].copy_from_slice(&behind.to_le_bytes());
    let words = image[TABLE_END..].chunks(4).map(|word| {
        let mut bytes = [0; 4];
        bytes[..word.len()].copy_from_slice(word);
        u32::from_le_bytes(bytes)
    });
    let checksum = words.fold(0_u32, u32::wrapping_add);
    image[TABLE_AT..TABLE_END].fill(0);
    for (index, value) in [DESCRIPTORS, location, len, checksum].into_iter().enumerate() {
        let at = TABLE_AT + 4 * index;
        image[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    true
}

/// Where `boot_hybrid.img` looks for the sector of the boot image, and how many of its sectors it passes over: GRUB's core follows
/// the four of `cdboot.img`. isolinux' MBR, which uses the same place, wants the first.
const HYBRID_SECTOR_AT: usize = 0x1b0;
const CDBOOT_SECTORS: u64 = 4;

/// Tells the MBR's code where the boot image is.
pub(super) fn patch_mbr_code(code: &mut [u8], location: u32) {
    let sector = u64::from(location) * 4 + CDBOOT_SECTORS;
    if let Some(place) = code.get_mut(HYBRID_SECTOR_AT..HYBRID_SECTOR_AT + 8) {
        place.copy_from_slice(&sector.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(bytes: &[u8]) -> u16 {
        bytes.chunks_exact(2).fold(0, |sum, word| sum.wrapping_add(u16::from_le_bytes([word[0], word[1]])))
    }

    #[test]
    fn a_catalog_for_bios_and_efi() {
        let efi = Efi { location: 5000, size: 8 << 20 };
        let bytes = catalog(Some(100), Some(efi));
        assert_eq!(words(&bytes[..32]), 0, "the validation entry adds up to zero");
        assert_eq!((bytes[0], bytes[1], bytes[30], bytes[31]), (1, PLATFORM_BIOS, 0x55, 0xaa));
        assert_eq!((bytes[32], bytes[38], bytes[40]), (BOOTABLE, 4, 100));
        assert_eq!(bytes[64..68], [0x91, PLATFORM_EFI, 1, 0]);
        assert_eq!((bytes[96], &bytes[102..104], &bytes[104..108]), (BOOTABLE, &[0, 64][..], &[0x88, 0x13, 0, 0][..]));
        assert_eq!(bytes.len() as u64, BLOCK);
    }

    #[test]
    fn efi_alone_comes_first() {
        let bytes = catalog(None, Some(Efi { location: 7, size: 64 << 20 }));
        assert_eq!((bytes[1], bytes[32], bytes[38], bytes[39], bytes[40]), (PLATFORM_EFI, BOOTABLE, 0, 0, 7));
        assert!(bytes[64..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_boot_image_learns_where_it_is() {
        let mut image = vec![1; 4097];
        assert!(patch_boot_image(&mut image, 100));
        assert_eq!(image[8..20], [16, 0, 0, 0, 100, 0, 0, 0, 1, 16, 0, 0]);
        let expected = {
            let mut words: Vec<u32> = vec![0x0101_0101; (4096 - 64) / 4];
            words[(2548 - 64) / 4] = 405;
            words[(2548 - 64) / 4 + 1] = 0;
            words.into_iter().fold(1_u32, u32::wrapping_add)
        };
        assert_eq!(image[20..24], expected.to_le_bytes());
        assert!(image[24..64].iter().all(|byte| *byte == 0));
        assert!(!patch_boot_image(&mut [0; 2048], 100));
    }

    #[test]
    fn the_mbr_learns_where_the_core_is() {
        let mut code = [0; 440];
        patch_mbr_code(&mut code, 100);
        assert_eq!(code[0x1b0..0x1b8], 404_u64.to_le_bytes());
    }
}
