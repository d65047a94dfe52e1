//! What is on a disk now, as far as its first sectors and the kernel's partitions tell: so that people notice the wrong one.

use super::host::Disk;
use super::text::clean_bytes;
use crate::storage::Storage;
use crate::sys::block::AlignedBuffer;
use crate::units::ByteSize;

/// Partitions that are named; a disk with more is no stick anyway.
const PARTITIONS_SHOWN: usize = 6;

/// Bytes from the beginning of a disk or partition that are looked at: the btrfs superblock ends last.
const LOOKED_AT: usize = 68 << 10;

/// One line about what stands on the disk.
#[must_use]
pub fn describe(device: &dyn Storage, disk: &Disk) -> String {
    let start = read(device, 0, disk.size);
    let own = start.as_deref().and_then(recognise);
    let table = start.as_deref().and_then(table);
    let parts: Vec<String> = disk
        .partitions
        .iter()
        .take(PARTITIONS_SHOWN)
        .map(|partition| {
            let inside = read(device, partition.offset, disk.size);
            let what = inside.as_deref().and_then(recognise).unwrap_or_else(|| "unknown".to_owned());
            format!("{what} {}", ByteSize(partition.size))
        })
        .collect();
    let more = disk.partitions.len().saturating_sub(PARTITIONS_SHOWN);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    match (own, table, parts.is_empty()) {
        // A hybrid ISO is a file system and has a table: the file system says more.
        (Some(own), ..) => own,
        (None, Some(table), false) => format!("{table} with {}{more}", parts.join(", ")),
        (None, Some(table), true) => format!("{table} without partitions"),
        (None, None, false) => format!("{}{more}", parts.join(", ")),
        (None, None, true) if start.is_none() => "cannot be read".to_owned(),
        (None, None, true) if start.as_deref().is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0)) => {
            "empty".to_owned()
        }
        (None, None, true) => "nothing known".to_owned(),
    }
}

fn read(device: &dyn Storage, offset: u64, end: u64) -> Option<AlignedBuffer> {
    // Partitions of real disks are aligned; direct I/O refuses others.
    let mut buffer = AlignedBuffer::new(LOOKED_AT);
    let room = usize::try_from(end.checked_sub(offset)?).unwrap_or(usize::MAX).min(LOOKED_AT);
    device.read_exact_at(&mut buffer[..room], offset).ok().map(|()| buffer)
}

fn table(bytes: &[u8]) -> Option<&'static str> {
    if has(bytes, 512, b"EFI PART") || has(bytes, 4096, b"EFI PART") {
        Some("GPT")
    } else if has(bytes, 510, &[0x55, 0xaa]) {
        Some("MBR")
    } else {
        None
    }
}

/// A signature at a fixed place, a name, and where the label stands.
struct Signature {
    at: usize,
    magic: &'static [u8],
    name: &'static str,
    label: Option<(usize, usize)>,
}

const fn signature(at: usize, magic: &'static [u8], name: &'static str, label: Option<(usize, usize)>) -> Signature {
    Signature { at, magic, name, label }
}

/// In the order in which they are asked: what is more certain first.
const SIGNATURES: &[Signature] = &[
    signature(32_769, b"CD001", "ISO 9660", Some((32_808, 32))),
    signature(0, b"LUKS\xba\xbe", "LUKS (encrypted)", None),
    signature(65_600, b"_BHRfS_M", "btrfs", Some((65_835, 256))),
    signature(0, b"XFSB", "XFS", Some((108, 12))),
    signature(1080, b"\x53\xef", "ext2/3/4", Some((1144, 16))),
    signature(0, b"hsqs", "squashfs", None),
    signature(1024, b"\x10\x20\xf5\xf2", "F2FS", None),
    signature(536, b"LVM2 001", "LVM", None),
    signature(4086, b"SWAPSPACE2", "swap", Some((1052, 16))),
    signature(3, b"NTFS    ", "NTFS", None),
    signature(3, b"EXFAT   ", "exFAT", None),
    signature(82, b"FAT32   ", "FAT32", Some((71, 11))),
    signature(54, b"FAT16   ", "FAT16", Some((43, 11))),
    signature(54, b"FAT12   ", "FAT12", Some((43, 11))),
];

fn recognise(bytes: &[u8]) -> Option<String> {
    let found = SIGNATURES.iter().find(|known| has(bytes, known.at, known.magic))?;
    let label = found.label.and_then(|(at, length)| bytes.get(at..at + length)).map(clean_bytes).unwrap_or_default();
    Some(if label.is_empty() || label == "NO NAME" {
        found.name.to_owned()
    } else {
        format!("{} {label:?}", found.name)
    })
}

fn has(bytes: &[u8], at: usize, magic: &[u8]) -> bool {
    bytes.get(at..).is_some_and(|rest| rest.starts_with(magic))
}
