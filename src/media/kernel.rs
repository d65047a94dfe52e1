//! Whether a file begins as kernels do, and what for.

use crate::units::Arch;

/// How much of a file tells: the last mark is that of x86.
pub(super) const HEAD_BYTES: u64 = 0x206;

/// Offset and bytes of what boot loaders know kernels by.
const MARKS: [(usize, &[u8]); 10] = [
    (0x202, b"HdrS"),                // bzImage (Linux x86 boot protocol 2.00 and later)
    (0, b"MZ"),                      // an EFI application: every kernel with an EFI stub
    (56, b"ARM\x64"),                // arm64 Image (booting.rst of arm64)
    (56, b"RSC\x05"),                // riscv64 Image
    (36, &[0x18, 0x28, 0x6f, 0x01]), // arm zImage
    (0, b"\x7fELF"),                 // vmlinux
    (0, &[0x1f, 0x8b]),              // Image.gz
    (0, &[0x28, 0xb5, 0x2f, 0xfd]),  // Image.zst
    (0, &[0x27, 0x05, 0x19, 0x56]),  // uImage of U-Boot
    (0, &[0xd0, 0x0d, 0xfe, 0xed]),  // FIT image of U-Boot
];

/// Whether a file with this beginning may be a kernel. Nothing more is looked at: what there is to boot is the image's to say.
pub(super) fn is_kernel(head: &[u8]) -> bool {
    MARKS.iter().any(|(offset, mark)| head.get(*offset..).is_some_and(|rest| rest.starts_with(mark)))
}

/// Where a bzImage says at which offset its version stands (`kernel_version`, boot protocol 2.00 and later), counted from byte 0x200.
const VERSION_POINTER: usize = 0x20e;
/// How much of a file tells the version: the pointer of today's kernels leads to 0x3a00 or so, still inside the set-up code.
pub(super) const VERSION_END: u64 = 64 << 10;

/// The version of a bzImage, as in `/lib/modules/<version>`.
pub(super) fn version(head: &[u8]) -> Option<String> {
    let (offset, mark) = MARKS[0];
    if !head.get(offset..)?.starts_with(mark) {
        return None;
    }
    let pointer = head.get(VERSION_POINTER..VERSION_POINTER + 2)?;
    let text = head.get(usize::from(u16::from_le_bytes([pointer[0], pointer[1]])) + 0x200..)?;
    let text = &text[..text.iter().position(|byte| *byte == 0)?];
    let version = text.split(|byte| *byte == b' ').next()?;
    (!version.is_empty()).then(|| String::from_utf8_lossy(version).into_owned())
}

/// The architecture of a kernel, where its beginning tells.
pub(super) fn arch(head: &[u8]) -> Option<Arch> {
    let has = |offset: usize, mark: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(mark));
    if has(0x202, b"HdrS") {
        return Some(Arch::Amd64);
    }
    if has(56, b"ARM\x64") {
        return Some(Arch::Arm64);
    }
    if has(56, b"RSC\x05") {
        return Some(Arch::Riscv64);
    }
    // An EFI application, such as a kernel that unpacks itself (zboot): "Machine" of its PE header.
    let pointer = head.get(0x3c..0x40).filter(|_| has(0, b"MZ"))?;
    let header = usize::try_from(u32::from_le_bytes(pointer.try_into().ok()?)).ok()?;
    let header = head.get(header..header.checked_add(6)?)?.strip_prefix(b"PE\0\0")?;
    match header {
        [0x64, 0x86] => Some(Arch::Amd64),
        [0x64, 0xaa] => Some(Arch::Arm64),
        [0x64, 0x50] => Some(Arch::Riscv64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_bzimage() {
        let mut head = vec![0; 0x400];
        head[0x202..0x206].copy_from_slice(b"HdrS");
        head[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        let text = b"6.1.0-28-amd64 (debian-kernel@lists.debian.org) #1 SMP\0";
        head[0x300..0x300 + text.len()].copy_from_slice(text);
        assert_eq!(version(&head).as_deref(), Some("6.1.0-28-amd64"));
        assert_eq!(version(&head[..0x310]), None, "cut");
        head[0x20e..0x210].copy_from_slice(&[0xff; 2]);
        assert_eq!(version(&head), None, "it leads past the end");
        head[0x202] = 0;
        assert_eq!(version(&head), None, "no bzImage");
        assert_eq!(version(b""), None);
    }

    #[test]
    fn a_kernel_tells_its_architecture() {
        let marked = |offset: usize, mark: &[u8]| {
            let mut head = vec![0; 0x400];
            head[offset..offset + mark.len()].copy_from_slice(mark);
            head
        };
        assert_eq!(arch(&marked(0x202, b"HdrS")), Some(Arch::Amd64));
        assert_eq!(arch(&marked(56, b"ARM\x64")), Some(Arch::Arm64));
        assert_eq!(arch(&marked(56, b"RSC\x05")), Some(Arch::Riscv64));
        let mut zboot = marked(0x80, b"PE\0\0\x64\xaa");
        zboot[..2].copy_from_slice(b"MZ");
        zboot[0x3c] = 0x80;
        assert_eq!(arch(&zboot), Some(Arch::Arm64));
        zboot[0x3c..0x40].copy_from_slice(&[0xff; 4]);
        assert_eq!(arch(&zboot), None, "it leads past the end");
        assert_eq!(arch(b"MZ"), None);
    }

    #[test]
    fn kernels_are_known_by_their_marks() {
        for (offset, mark) in MARKS {
            let mut head = vec![0; offset];
            head.extend_from_slice(mark);
            assert!(is_kernel(&head) && head.len() as u64 <= HEAD_BYTES, "{mark:?}");
            assert!(!is_kernel(&head[..head.len() - 1]), "{mark:?} cut");
            head.insert(0, 0);
            assert!(!is_kernel(&head), "{mark:?} elsewhere");
        }
        for head in [&b""[..], b"hello", b"#!/bin/sh\n", &[0; 4096]] {
            assert!(!is_kernel(head));
        }
    }
}
