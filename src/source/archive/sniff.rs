//! What a file is, by its first bytes: an archive, plain or compressed, or something that another prefix takes.

use crate::rootfs::tar::{Archive, TarError};

/// How much of a file's beginning tells what it is: an ISO's first descriptor is behind 32 KiB.
pub(super) const HEAD_BYTES: usize = 64 << 10;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    Tar,
    Gzip,
    Zstd,
    /// What it is instead, and what to do with it.
    Other(String),
}

/// Signature, where it is, what has it, what to do.
const KNOWN: [(&[u8], usize, &str, &str); 13] = [
    (b"CD001", 32_769, "an ISO image", "the prefix iso: takes it"),
    (b"hsqs", 0, "a squashfs image", "unpack it as root with unsquashfs, and name the directory with dir:PATH"),
    (b"QFI\xfb", 0, "a disk image (qcow2)", "name the container image or ISO that it was made from"),
    (b"KDMV", 0, "a disk image (VMDK)", "name the container image or ISO that it was made from"),
    (b"vhdxfile", 0, "a disk image (VHDX)", "name the container image or ISO that it was made from"),
    (b"EFI PART", 512, "a disk image", "name the container image or ISO that it was made from"),
    (b"\xfd7zXZ\0", 0, "compressed with xz", "unpack it with xz -d"),
    (b"BZh", 0, "compressed with bzip2", "unpack it with bzip2 -d"),
    (b"LZIP", 0, "compressed with lzip", "unpack it with lzip -d"),
    (b"PK\x03\x04", 0, "a zip file", "unpack it"),
    (b"\x7fELF", 0, "a program", "name an archive"),
    (b"{", 0, "a JSON document", "name the archive or directory that holds it"),
    (b"070701", 0, "a cpio archive", "name the container image or ISO that it was made from"),
];

/// `head` is the beginning of the file, [`HEAD_BYTES`] of it or all.
pub(super) fn sniff(head: &[u8]) -> Content {
    let has = |signature: &[u8], at: usize| head.get(at..).is_some_and(|rest| rest.starts_with(signature));
    if head.is_empty() {
        return Content::Other("it is empty".to_owned());
    }
    if has(&[0x1f, 0x8b], 0) {
        return Content::Gzip;
    }
    // A frame, or a skippable one in front.
    if has(&[0x28, 0xb5, 0x2f, 0xfd], 0) || has(&[0x2a, 0x4d, 0x18], 1) && head[0] & 0xf0 == 0x50 {
        return Content::Zstd;
    }
    if let Some((_, _, what, remedy)) = KNOWN.iter().find(|(signature, at, _, _)| has(signature, *at)) {
        return Content::Other(format!("it is {what}; {remedy}"));
    }
    match Archive::new(head).next_member() {
        Err(TarError::Truncated { .. }) if head.len() < 512 => {}
        Err(TarError::Checksum { .. }) => {}
        _ => return Content::Tar,
    }
    if has(&[0x55, 0xaa], 510) {
        return Content::Other("it is a disk image; name the container image or ISO that it was made from".to_owned());
    }
    Content::Other("it is neither a tar file, nor one compressed with gzip or zstd".to_owned())
}
