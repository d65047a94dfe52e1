//! ISO 9660 images with Rock Ridge and Joliet: written, read, patched.
//!
//! ```text
//! system area │ descriptors │ descriptors │ file data │ directories, path tables │ EFI system │ backup
//! MBR and GPT │  (block 16) │  (block 32) │           │ ×4: 2 names, 2 bases      │ partition  │ GPT
//! ```
//! The image is a CD and a disk. As a disk, its partition 1 begins at block 16 and is an ISO 9660 image of its own: the second set of
//! descriptors leads to trees whose addresses count from there, while the data is the same. Each set has a tree with plain names and
//! Rock Ridge, and one with Joliet names. Blocks are 2048 bytes, everywhere.

mod bytes;
mod descriptor;
mod directory;
mod eltorito;
pub mod gpt;
pub mod mbr;
mod names;
mod path_table;
pub mod read;
mod record;
pub mod remaster;
mod rrip;
mod tree;
mod write;

use std::io;

pub use eltorito::{Bios, Boot};
pub use write::{Finished, Options, Writer};

/// Bytes of a logical block (ECMA-119 §6.2.2), and of a sector of a CD.
pub const BLOCK: u64 = 2048;

/// Where the first volume descriptor of a volume lies, in blocks (ECMA-119 §6.2.1).
const DESCRIPTORS: u32 = 16;

/// Blocks before partition 1, which is a volume of its own.
const PARTITION_BASE: u32 = 16;

/// Where empty files and links lie: a block of zeros before all data. One that lies where a directory begins makes libarchive see a loop.
const EMPTY: u32 = 63;

/// What is wrong with what is to be written, or what failed below.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path:?} cannot be a path in an ISO: {why}")]
    Path { path: String, why: &'static str },
    #[error("{0:?} is in the ISO twice")]
    Twice(String),
    #[error("too many {what} for an ISO (at most {max})")]
    TooMany { what: &'static str, max: usize },
    #[error("the ISO would pass 8 TiB, which its addresses cannot reach")]
    TooBig,
    #[error("{0:?} cannot be the name of a volume: at most 32 of A-Z, 0-9 and _")]
    VolumeId(String),
    #[error("the boot image {0:?} is not among the ISO's files")]
    NoBootImage(String),
    #[error("the boot image {path:?} is too short for the tables that GRUB looks for in it")]
    BootImage { path: String },
    #[error("cannot read what is to become {path:?} in the ISO")]
    Data { path: String, source: io::Error },
    #[error("what is to become {path:?} in the ISO ended {missing} bytes early")]
    Short { path: String, missing: u64 },
    #[error("cannot write the ISO")]
    Write(#[source] io::Error),
    #[error("cannot read the ISO back")]
    ReadBack(#[source] io::Error),
}
