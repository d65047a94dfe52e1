//! What a file is, by its first bytes: an archive, plain or compressed, or something that another prefix takes.

use crate::rootfs::tar::{Archive, TarError};

/// How much of a file's beginning tells what it is: an ISO's first descriptor is behind 32 KiB.
pub(super) const HEAD_BYTES: usize = 64 << 10;

/// A tar header.
const BLOCK_BYTES: usize = 512;

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
    let is_tar = match Archive::new(head).next_member() {
        Err(TarError::Checksum { .. } | TarError::Number { field: "checksum", .. }) => false,
        Err(TarError::Truncated { .. }) => head.len() >= BLOCK_BYTES,
        _ => true,
    };
    if is_tar {
        return Content::Tar;
    }
    if has(&[0x55, 0xaa], 510) {
        return Content::Other("it is a disk image; name the container image or ISO that it was made from".to_owned());
    }
    Content::Other("it is neither a tar file, nor one compressed with gzip or zstd".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(signature: &[u8], at: usize) -> Vec<u8> {
        let mut head = vec![0; HEAD_BYTES];
        head[at..at + signature.len()].copy_from_slice(signature);
        head
    }

    #[test]
    fn what_is_told_by_its_first_bytes() {
        assert_eq!(sniff(&with(b"\x1f\x8b\x08", 0)), Content::Gzip);
        assert_eq!(sniff(&with(b"\x28\xb5\x2f\xfd", 0)), Content::Zstd);
        assert_eq!(sniff(&with(b"\x5a\x2a\x4d\x18", 0)), Content::Zstd);
        assert_eq!(sniff(&[0; 1024]), Content::Tar, "one without members");
        for (signature, at, what, _) in KNOWN {
            let Content::Other(text) = sniff(&with(signature, at)) else { panic!("{what}") };
            assert!(text.contains(what), "{text}");
        }
        for (head, what) in [
            (&b""[..], "it is empty"),
            (b"hello", "it is neither"),
            (&[b'x'; 600], "it is neither"),
            (&with(b"\xeb\x63", 0)[..], "it is neither"),
        ] {
            assert!(matches!(sniff(head), Content::Other(text) if text.starts_with(what)), "{what}");
        }
        let mut disk = with(&[0x55, 0xaa], 510);
        disk[0] = 0xeb;
        assert!(matches!(sniff(&disk), Content::Other(text) if text.contains("disk image")));
    }
}
