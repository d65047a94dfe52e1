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

#[cfg(test)]
mod tests {
    use super::super::host::{Found, Host};
    use super::super::testing::{FakeHost, USB};
    use super::*;
    use crate::sys::block::Number;
    use std::io;

    struct Bytes(Vec<u8>);

    impl Storage for Bytes {
        fn write_all_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
            let at = usize::try_from(offset).unwrap();
            bytes.copy_from_slice(self.0.get(at..at + bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }

        fn set_len(&self, _len: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    const DISK_BYTES: usize = 4 << 20;

    /// A disk with so many partitions of 128 KiB from 1 MiB on.
    fn disk(partitions: u64) -> Disk {
        let fake = FakeHost::new("contents");
        fake.disk(USB, "sdb", "8:16", DISK_BYTES as u64 / 512, &[]);
        for index in 1..=partitions {
            let (name, number) = (format!("sdb{index}"), format!("8:{}", 16 + index));
            fake.partition(USB, "sdb", &name, &number, 2048 + 256 * (index - 1), 256);
        }
        let host: Host = fake.host();
        match host.find(Number { major: 8, minor: 16 }) {
            Some(Found::Disk(disk)) => disk,
            other => panic!("{other:?}"),
        }
    }

    fn shown(partitions: u64, put: &[(usize, &[u8])]) -> String {
        let mut bytes = vec![0; DISK_BYTES];
        for (at, what) in put {
            bytes[*at..at + what.len()].copy_from_slice(what);
        }
        describe(&Bytes(bytes), &disk(partitions))
    }

    #[test]
    fn what_is_on_a_stick_is_told_in_a_line() {
        const MBR: (usize, &[u8]) = (510, &[0x55, 0xaa]);
        const GPT: (usize, &[u8]) = (512, b"EFI PART");
        assert_eq!(shown(0, &[]), "empty");
        assert_eq!(shown(0, &[(700, b"?")]), "nothing known");
        assert_eq!(shown(0, &[MBR, GPT]), "GPT without partitions");
        assert_eq!(shown(0, &[MBR, (82, b"FAT32   "), (71, b"KINGSTON   ")]), "FAT32 \"KINGSTON\"");
        assert_eq!(
            shown(1, &[MBR, (82 + (1 << 20), b"FAT32   "), (71 + (1 << 20), b"NO NAME    ")]),
            "MBR with FAT32 131.1 kB"
        );
        assert_eq!(shown(2, &[(32_769, b"CD001"), (32_808, b"COS_LIVE  "), MBR, GPT]), "ISO 9660 \"COS_LIVE\"");
        assert_eq!(
            shown(2, &[GPT, (1080 + (1 << 20), b"\x53\xef"), (1144 + (1 << 20), b"ro\x1b[Jot")]),
            "GPT with ext2/3/4 \"ro [Jot\" 131.1 kB, unknown 131.1 kB"
        );
        assert!(shown(9, &[MBR]).ends_with(", unknown 131.1 kB and 3 more"));
    }

    #[test]
    fn a_disk_that_cannot_be_read_or_is_tiny_is_no_error() {
        assert_eq!(describe(&Bytes(Vec::new()), &disk(0)), "cannot be read");
        let tiny = Disk { size: 512, ..disk(0) };
        assert_eq!(describe(&Bytes(vec![0; 512]), &tiny), "empty");
    }
}
