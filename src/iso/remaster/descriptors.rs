//! Volume descriptors of a patched image: roots, path tables, sizes; and the checksums that no longer hold.

use super::place::Root;
use super::{Error, Patches, block, partitions::Tail};
use crate::iso::BLOCK;
use crate::iso::bytes::both32;
use crate::iso::read::{Image, Tree};
use crate::storage::Storage;

/// Changes the descriptors that lead to a tree.
pub(super) fn patch(tree: &Tree, root: &Root, keep: u64, tail: &Tail, patches: &mut Patches) -> Result<(), Error> {
    // A volume that reached into what was cut off (an appended partition, the backup GPT) reaches to the end again, as xorriso makes
    // it; another one ends where the last directory does.
    let old_end = tree.base.saturating_add(tree.blocks.into()).saturating_mul(BLOCK);
    let end = if old_end > keep { tail.size } else { tail.data_end };
    let end = block(end)?;
    let [type_l, copy_l, type_m, copy_m] = root.tables.blocks;
    let mut tables = both32(root.tables.size).to_vec();
    for bytes in [type_l.to_le_bytes(), copy_l.to_le_bytes(), type_m.to_be_bytes(), copy_m.to_be_bytes()] {
        tables.extend_from_slice(&bytes);
    }
    for descriptor in &tree.descriptors {
        let at = descriptor.block.saturating_mul(BLOCK);
        let blocks = u64::from(end).saturating_sub(tree.base + descriptor.session);
        let blocks = u32::try_from(blocks).map_err(|_| Error::TooBig)?;
        if at.saturating_add(BLOCK) > keep {
            return Err(Error::Damaged("a volume descriptor lies behind the file system"));
        }
        patches.push(at + 80, both32(blocks));
        patches.push(at + 132, tables.clone());
        patches.push(at + 158, both32(root.place.location));
        patches.push(at + 166, both32(root.place.size));
    }
    Ok(())
}

/// Removes checksums over the whole image: `checkisomd5` would call a patched medium broken, and xorriso would not load it.
pub(super) fn drop_checksums<S: Storage + ?Sized>(image: &Image<'_, S>, patches: &mut Patches) -> Result<(), Error> {
    let primary = image.sets()[0].trees[0].descriptors[0].block;
    let descriptor = image.disk().block(primary)?;
    let application_use = &descriptor[APPLICATION_USE..APPLICATION_USE + APPLICATION_USE_LEN];
    if contains(application_use, b"ISO MD5SUM") {
        patches.push(primary * BLOCK + APPLICATION_USE as u64, [b' '; APPLICATION_USE_LEN]);
    }
    for set in image.sets() {
        let Ok(tag) = image.disk().block(set.end) else { continue };
        if tag.starts_with(b"libisofs_sb_checksum_tag_v1") || tag.starts_with(b"libisofs_rlsb32_checksum_tag_v1") {
            patches.push(set.end * BLOCK, vec![0; BLOCK as usize]);
        }
    }
    Ok(())
}

/// ECMA-119 §8.4.32.
const APPLICATION_USE: usize = 883;
const APPLICATION_USE_LEN: usize = 512;

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}
