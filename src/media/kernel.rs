//! Whether a file begins as kernels do.

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

#[cfg(test)]
mod tests {
    use super::*;

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
