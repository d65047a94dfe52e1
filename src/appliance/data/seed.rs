//! The data partition as it is born: an empty ext4 inside this program, made by `image/seed`.

use std::io::{self, Read};

use crate::storage::Storage;

const COMPRESSED: &[u8] = include_bytes!("../data.ext4.zst");

/// Bytes of the file system; a partition must have as many.
pub const BYTES: u64 = 64 << 20;

/// The UUID that every copy has until it gets one of its own.
pub const UUID: &str = "6175726f-7261-4461-8461-64617461db01";

const BLOCK: usize = 4096;

/// Writes the seed to a partition, whatever was there. `sync` waits until all that was written is on the medium.
///
/// Its first block, with the superblock, is zeroed first and written last: with the power cut at any point there is a whole file system or
/// none that can be mounted. Free blocks are left as they are, but every block in use is written even where it holds zeros: in
/// the journal of an earlier file system made of this seed, old transactions have the numbers and the checksums that new ones will have, and
/// recovery would take them for such.
///
/// # Errors
/// What the device says.
pub fn write<S: Storage + ?Sized>(partition: &S, sync: impl Fn() -> io::Result<()>) -> io::Result<()> {
    let mut seed = zstd::stream::read::Decoder::new(COMPRESSED)?;
    let mut head = vec![0; HEAD_BLOCKS * BLOCK];
    seed.read_exact(&mut head)?;
    let used = used_blocks(&head).ok_or_else(|| io::Error::other("the seed's block bitmap is not where it was"))?;
    partition.write_all_at(&[0; BLOCK], 0)?;
    sync()?;
    let mut bytes = vec![0; BLOCK * BLOCKS_AT_ONCE];
    let mut rest = head[BLOCK..].chain(seed);
    let mut at = BLOCK;
    let end = used * BLOCK;
    while at < end {
        let piece = &mut bytes[..(end - at).min(BLOCK * BLOCKS_AT_ONCE)];
        rest.read_exact(piece)?;
        partition.write_all_at(piece, at as u64)?;
        at += piece.len();
    }
    sync()?;
    partition.write_all_at(&head[..BLOCK], 0)?;
    sync()
}

/// Superblock, group descriptors and the block bitmap are among the first blocks.
const HEAD_BLOCKS: usize = 16;

/// 1 MiB.
const BLOCKS_AT_ONCE: usize = 256;

/// Up to where blocks are in use. The seed has one block group, whose descriptor is the first in block 1 (`meta_bg`).
fn used_blocks(head: &[u8]) -> Option<usize> {
    let field = head.get(BLOCK..BLOCK + 4)?;
    let bitmap_at = usize::try_from(u32::from_le_bytes(field.try_into().ok()?)).ok()?.checked_mul(BLOCK)?;
    let bitmap = head.get(bitmap_at..bitmap_at.checked_add(SEED_BLOCKS / 8)?)?;
    let last = bitmap.iter().rposition(|byte| *byte != 0)?;
    Some(last * 8 + 8 - bitmap[last].leading_zeros() as usize)
}

const SEED_BLOCKS: usize = BYTES as usize / BLOCK;
