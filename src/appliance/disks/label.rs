//! Label and identity of a FAT or ext4 file system, read from its own structures.

use crate::limits::FAT_ROOT_BYTES_MAX;
use crate::storage::Storage;

/// The file systems that are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    Fat,
    Ext4,
}

impl FileSystem {
    /// The kernel's name for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fat => "vfat",
            Self::Ext4 => "ext4",
        }
    }
}

/// What a file system says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    pub file_system: FileSystem,
    /// Empty when it has none.
    pub label: String,
    /// As blkid(8) prints it: `ABCD-0123`, or a UUID.
    pub uuid: String,
}

/// What is on the device; `None` for anything else than FAT and ext2 to ext4, and for what cannot be read.
#[must_use]
pub fn read<S: Storage + ?Sized>(device: &S) -> Option<Signature> {
    ext4(device).or_else(|| fat(device))
}

/// Blocks of an ext4.
#[must_use]
pub fn ext4_blocks<S: Storage + ?Sized>(device: &S) -> Option<u64> {
    let block = superblock(device)?;
    let (low, high) = (u32_at(&block, 0x4), u32_at(&block, 0x150));
    let has_high = u32_at(&block, 0x60) & 0x80 != 0; // INCOMPAT_64BIT
    Some(u64::from(low) | if has_high { u64::from(high) << 32 } else { 0 })
}

/// What the kernel found wrong with an ext4 when it last used it; `None` when that is nothing.
#[must_use]
pub fn ext4_errors<S: Storage + ?Sized>(device: &S) -> Option<String> {
    const ERROR_FS: u16 = 2;
    let block = superblock(device)?;
    let count = u32_at(&block, 0x194);
    if u16_at(&block, 0x3a) & ERROR_FS == 0 && count == 0 {
        return None;
    }
    let function = text(&block[0x1a8..0x1c8], 0);
    Some(format!("the kernel found {count} errors in it, the first in {function}"))
}

/// By what other file systems and volumes are known: a name, a byte offset, the bytes there (blkid's libblkid/src/superblocks).
const OTHERS: [(&str, u64, &[u8]); 9] = [
    ("XFS", 0, b"XFSB"),
    ("btrfs", 0x1_0040, b"_BHRfS_M"),
    ("F2FS", 1024, &[0x10, 0x20, 0xf5, 0xf2]),
    ("NTFS", 3, b"NTFS    "),
    ("exFAT", 3, b"EXFAT   "),
    ("LUKS", 0, b"LUKS\xba\xbe"),
    ("LVM", 512, b"LABELONE"),
    ("swap", 4086, b"SWAPSPACE2"),
    ("squashfs", 0, b"hsqs"),
];

/// What somebody else keeps on the device, so that nobody wipes it by mistake: anything known but a file system labelled `own`.
#[must_use]
pub fn somebody_elses<S: Storage + ?Sized>(device: &S, own: &str) -> Option<String> {
    match read(device) {
        Some(found) if found.label == own => None,
        Some(found) if found.label.is_empty() => Some(format!("{} without a label", found.file_system.name())),
        Some(found) => Some(format!("{} labelled {}", found.file_system.name(), found.label)),
        None => {
            OTHERS.iter().find(|(_, offset, magic)| has(device, *offset, magic)).map(|(name, ..)| (*name).to_owned())
        }
    }
}

fn has<S: Storage + ?Sized>(device: &S, offset: u64, magic: &[u8]) -> bool {
    let mut there = [0; 16];
    let there = &mut there[..magic.len()];
    device.read_exact_at(there, offset).is_ok() && there == magic
}

/// At byte 1024 (Linux' Documentation/filesystems/ext4/super.rst).
fn superblock<S: Storage + ?Sized>(device: &S) -> Option<[u8; 1024]> {
    let mut block = [0; 1024];
    device.read_exact_at(&mut block, 1024).ok()?;
    (block[0x38..0x3a] == [0x53, 0xef]).then_some(block)
}

fn ext4<S: Storage + ?Sized>(device: &S) -> Option<Signature> {
    let block = superblock(device)?;
    let hex = |range: std::ops::Range<usize>| block[range].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let uuid = [0x68..0x6c, 0x6c..0x6e, 0x6e..0x70, 0x70..0x72, 0x72..0x78].map(hex).join("-");
    Some(Signature { file_system: FileSystem::Ext4, label: text(&block[0x78..0x88], 0), uuid })
}

/// Microsoft's FAT specification (fatgen103): the volume label stands in the root directory; what the boot sector says may be old.
fn fat<S: Storage + ?Sized>(device: &S) -> Option<Signature> {
    let mut sector = [0; 512];
    device.read_exact_at(&mut sector, 0).ok()?;
    let shape = Shape::of(&sector)?;
    let (serial_at, label_at) = if shape.is_fat32 { (67, 71) } else { (39, 43) };
    let serial = u32_at(&sector, serial_at);
    let in_sector = || Some(text(&sector[label_at..label_at + 11], b' ')).filter(|label| label != "NO NAME");
    let label = root_label(device, &shape).or_else(in_sector).unwrap_or_default();
    let uuid = format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff);
    Some(Signature { file_system: FileSystem::Fat, label, uuid })
}

/// Where the parts of a FAT lie, in bytes.
struct Shape {
    is_fat32: bool,
    fat_at: u64,
    fat_bytes: u64,
    root_at: u64,
    root_bytes: u64,
    clusters_at: u64,
    cluster_bytes: u64,
    root_cluster: u32,
}

impl Shape {
    fn of(sector: &[u8; 512]) -> Option<Self> {
        let sector_bytes = u64::from(u16_at(sector, 11));
        let per_cluster = u64::from(sector[13]);
        let fats = u64::from(sector[16]);
        let is_plausible = matches!(sector_bytes, 512 | 1024 | 2048 | 4096)
            && per_cluster.is_power_of_two()
            && (1..=2).contains(&fats)
            && matches!(sector[0], 0xeb | 0xe9)
            && sector[510..] == [0x55, 0xaa];
        if !is_plausible {
            return None;
        }
        let is_fat32 = u16_at(sector, 22) == 0;
        let fat_sectors = if is_fat32 { u64::from(u32_at(sector, 36)) } else { u64::from(u16_at(sector, 22)) };
        let fat_at = u64::from(u16_at(sector, 14)) * sector_bytes;
        let root_at = fat_at + fats * fat_sectors * sector_bytes;
        let root_bytes = (u64::from(u16_at(sector, 17)) * 32).next_multiple_of(sector_bytes);
        (fat_at > 0 && fat_sectors > 0).then_some(Self {
            is_fat32,
            fat_at,
            fat_bytes: fat_sectors * sector_bytes,
            root_at,
            root_bytes,
            clusters_at: root_at + root_bytes,
            cluster_bytes: per_cluster * sector_bytes,
            root_cluster: u32_at(sector, 44),
        })
    }
}

/// The label that the root directory holds, as far as it can be read.
fn root_label<S: Storage + ?Sized>(device: &S, shape: &Shape) -> Option<String> {
    if !shape.is_fat32 {
        let length = shape.root_bytes.min(FAT_ROOT_BYTES_MAX);
        return search(device, shape.root_at, length)?.label();
    }
    let mut cluster = shape.root_cluster;
    for _ in 0..FAT_ROOT_BYTES_MAX / shape.cluster_bytes.max(512) {
        let at = shape.clusters_at.checked_add(u64::from(cluster.checked_sub(2)?) * shape.cluster_bytes)?;
        match search(device, at, shape.cluster_bytes)? {
            Search::GoOn => {}
            found => return found.label(),
        }
        let entry_at = u64::from(cluster) * 4;
        if entry_at >= shape.fat_bytes {
            return None;
        }
        let mut entry = [0; 4];
        device.read_exact_at(&mut entry, shape.fat_at + entry_at).ok()?;
        cluster = u32::from_le_bytes(entry) & 0x0fff_ffff;
        if cluster >= 0x0fff_fff7 {
            return None;
        }
    }
    None
}

enum Search {
    Label(String),
    End,
    GoOn,
}

impl Search {
    fn label(self) -> Option<String> {
        match self {
            Self::Label(label) => Some(label),
            Self::End | Self::GoOn => None,
        }
    }
}

/// Looks through directory entries of 32 bytes for the one with the attribute "volume label".
fn search<S: Storage + ?Sized>(device: &S, at: u64, length: u64) -> Option<Search> {
    const VOLUME_LABEL: u8 = 0x08;
    const LONG_NAME: u8 = 0x0f;
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    device.read_exact_at(&mut bytes, at).ok()?;
    for entry in bytes.chunks_exact(32) {
        let attributes = entry[11] & 0x3f;
        match entry[0] {
            0 => return Some(Search::End),
            0xe5 => {}
            _ if attributes != LONG_NAME && attributes & VOLUME_LABEL != 0 => {
                return Some(Search::Label(text(&entry[..11], b' ')));
            }
            _ => {}
        }
    }
    Some(Search::GoOn)
}

/// Text that is filled up with `filler`; what is no ASCII is shown as `?`.
fn text(bytes: &[u8], filler: u8) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let end = bytes[..end].iter().rposition(|byte| *byte != filler).map_or(0, |last| last + 1);
    let plain = |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '?' };
    bytes[..end].iter().map(plain).collect()
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
