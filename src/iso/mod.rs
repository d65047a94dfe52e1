//! ISO 9660 images: written, read, patched.

pub mod gpt;
pub mod mbr;
pub mod read;

/// Bytes of a logical block (ECMA-119 §6.2.2), and of a sector of a CD.
pub const BLOCK: u64 = 2048;
