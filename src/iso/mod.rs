//! ISO 9660 images: written, read, patched.

pub mod gpt;
pub mod mbr;
