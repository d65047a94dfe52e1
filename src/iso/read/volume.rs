//! Volume descriptors (ECMA-119 §8) and what they lead to.
//!
//! An image may hold a second set: xorriso's `-partition_offset 16` makes the partition that begins at block 16 a volume
//! of its own, with descriptors at block 32 and addresses that count from there. Both share the data of the files.

use super::disk::{Budget, Disk};
use super::{BootImage, Error, directory::Directory, susp};
use crate::iso::bytes::{u16_at, u32_at};
use crate::iso::descriptor::EL_TORITO;
use crate::iso::gpt::Gpt;
use crate::iso::mbr::Mbr;
use crate::iso::{BLOCK, DESCRIPTORS};
use crate::limits::ISO_DESCRIPTORS_MAX;
use crate::storage::Storage;

/// Block of a volume's first descriptor, counted from its base.
const FIRST: u64 = DESCRIPTORS as u64;
/// Partitions whose first block is looked at for a second set.
const PARTITIONS_LOOKED_AT: usize = 16;

/// Bytes that SUSP may be told to skip in each system use area: CD-XA has 14, more would leave no room.
const SKIP_MAX: u8 = 32;

/// Where the four possible path tables stand (§8.4.15 to §8.4.18): type L, its copy, type M, its copy. 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::iso) struct PathTables {
    /// Bytes of each.
    pub(in crate::iso) size: u32,
    pub(in crate::iso) blocks: [u32; 4],
}

/// How the names of a tree are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::iso) enum Names {
    Plain,
    /// With the bytes that SUSP skips at the start of each system use area.
    RockRidge {
        skip: u8,
    },
    Joliet,
}

/// Where a descriptor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::iso) struct Descriptor {
    pub(in crate::iso) block: u64,
    /// Blocks before its session, which the size of the volume that it names does not count.
    pub(in crate::iso) session: u64,
}

/// One tree of directories: a root and the descriptors that name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::iso) struct Tree {
    pub(in crate::iso) names: Names,
    /// Block from which its addresses count.
    pub(in crate::iso) base: u64,
    /// Block of the root directory, from the base.
    pub(in crate::iso) root: u32,
    /// Bytes of the root directory.
    pub(in crate::iso) root_size: u32,
    pub(in crate::iso) path_tables: PathTables,
    /// The descriptors that lead here: one, and more where an enhanced descriptor (§8.5) shares the primary's tree, or a
    /// session has a copy.
    pub(in crate::iso) descriptors: Vec<Descriptor>,
    /// Blocks of the volume, as its descriptor says.
    pub(in crate::iso) blocks: u32,
}

/// One set of descriptors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::iso) struct Set {
    /// The primary tree, and the Joliet tree if there is one.
    pub(in crate::iso) trees: Vec<Tree>,
    /// Block of the El Torito boot catalog.
    pub(in crate::iso) boot_catalog: Option<u32>,
    /// The primary descriptor's volume identifier.
    pub(in crate::iso) volume_id: String,
    /// The first block behind the descriptors.
    pub(in crate::iso) end: u64,
}

/// Reads the set at block 16, and the one of a partition that is a volume of its own.
pub(in crate::iso) fn sets<S: Storage + ?Sized>(disk: Disk<'_, S>) -> Result<Vec<Set>, Error> {
    if disk.size < (FIRST + 1) * BLOCK || !is_descriptor(&disk.block(FIRST)?) {
        return Err(Error::NotAnIso);
    }
    let mut sets = vec![set(disk, 0)?];
    // A second set that cannot be read is no volume: it may be the rest of something older.
    sets.extend(second_base(disk)?.and_then(|base| set(disk, base).ok()));
    Ok(sets)
}

/// Where xorriso lets a session begin that others may follow, in blocks: what stands in its descriptors is copied to the usual place.
const SESSION_STARTS: [u64; 2] = [32, 48];

/// Adds the copies of a set's descriptors: isolinux reads those of its own session, which the table in its image names.
pub(super) fn add_copies<S: Storage + ?Sized>(disk: Disk<'_, S>, set: &mut Set, boot_images: &[BootImage]) {
    let Some(base) = set.trees.first().map(|tree| tree.base) else { return };
    let named = boot_images.iter().filter_map(|image| boot_info_descriptor(disk, image));
    let mut starts: Vec<u64> = named.filter_map(|block| block.checked_sub(FIRST)).chain(SESSION_STARTS).collect();
    starts.sort_unstable();
    starts.dedup();
    for start in starts.into_iter().filter(|start| *start > 0) {
        for number in (base + FIRST..set.end).map(|number| number + start) {
            let Some(block) = disk.block(number).ok().filter(|block| is_descriptor(block) && matches!(block[0], 1 | 2))
            else {
                continue;
            };
            let same = |tree: &&mut Tree| tree.root == u32_at(&block, 158) && tree.root_size == u32_at(&block, 166);
            if let Some(tree) = set.trees.iter_mut().find(same) {
                tree.descriptors.push(Descriptor { block: number, session: start });
            }
        }
    }
}

/// The block of the primary descriptor as mkisofs' boot info table has it, at byte 8 of a boot image with its own place behind it.
fn boot_info_descriptor<S: Storage + ?Sized>(disk: Disk<'_, S>, image: &BootImage) -> Option<u64> {
    let table = disk.read(image.extent().offset.checked_add(8)?, 8).ok()?;
    (u32_at(&table, 4) == image.location).then(|| u32_at(&table, 0).into())
}

fn is_descriptor(block: &[u8]) -> bool {
    &block[1..6] == b"CD001"
}

fn set<S: Storage + ?Sized>(disk: Disk<'_, S>, base: u64) -> Result<Set, Error> {
    let mut set = Set { trees: Vec::new(), boot_catalog: None, volume_id: String::new(), end: 0 };
    for number in base + FIRST..base + FIRST + ISO_DESCRIPTORS_MAX {
        let block = disk.block(number)?;
        if !is_descriptor(&block) {
            return Err(Error::Descriptors { block: number, what: "the list of volume descriptors has no end" });
        }
        match block[0] {
            0 if block[7..39].starts_with(EL_TORITO) => set.boot_catalog = Some(u32_at(&block, 71)),
            1 if set.trees.is_empty() => {
                set.volume_id = String::from_utf8_lossy(&block[40..72]).trim_end_matches([' ', '\0']).to_owned();
                let primary = tree(&block, number, base, Names::Plain)?;
                // Before anything else is read: it may lie behind the cut.
                let volume = u64::from(primary.blocks) * BLOCK;
                if base == 0 && volume > disk.size {
                    return Err(Error::Truncated { volume, size: disk.size });
                }
                set.trees.push(primary);
            }
            2 => supplementary(&mut set, &block, number, base)?,
            255 => {
                let primary = set
                    .trees
                    .first_mut()
                    .ok_or(Error::Descriptors { block: number, what: "there is no primary one" })?;
                if let Some(skip) = rock_ridge(disk, primary)? {
                    primary.names = Names::RockRidge { skip };
                }
                set.end = number + 1;
                return Ok(set);
            }
            _ => {}
        }
    }
    Err(Error::Descriptors { block: base + FIRST, what: "the list of volume descriptors has no end" })
}

/// Joliet, or an enhanced descriptor that shares the primary's directories. Others are left alone.
fn supplementary(set: &mut Set, block: &[u8], number: u64, base: u64) -> Result<(), Error> {
    let joliet = [&b"%/@"[..], b"%/C", b"%/E"].iter().any(|escape| block[88..120].starts_with(escape));
    if joliet && !set.trees.iter().any(|tree| tree.names == Names::Joliet) {
        set.trees.push(tree(block, number, base, Names::Joliet)?);
    } else if let Some(shared) = set.trees.iter_mut().find(|tree| tree.root == u32_at(block, 158)) {
        shared.descriptors.push(Descriptor { block: number, session: 0 });
    }
    Ok(())
}

fn tree(block: &[u8], number: u64, base: u64, names: Names) -> Result<Tree, Error> {
    if u64::from(u16_at(block, 128)) != BLOCK {
        return Err(Error::Descriptors { block: number, what: "its blocks are not 2048 bytes long" });
    }
    let big = |at: usize| u32::from_be_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    Ok(Tree {
        names,
        base,
        root: u32_at(block, 158),
        root_size: u32_at(block, 166),
        path_tables: PathTables {
            size: u32_at(block, 132),
            blocks: [u32_at(block, 140), u32_at(block, 144), big(148), big(152)],
        },
        descriptors: vec![Descriptor { block: number, session: 0 }],
        blocks: u32_at(block, 80),
    })
}

/// The bytes to skip in system use areas, when the root directory says that it has Rock Ridge (SUSP §5.3).
fn rock_ridge<S: Storage + ?Sized>(disk: Disk<'_, S>, tree: &Tree) -> Result<Option<u8>, Error> {
    let root = Directory::load(disk, tree, tree.root, tree.root_size, &mut Budget::new())?;
    let Some(record) = root.records().next().transpose()? else { return Ok(None) };
    // CD-XA puts 14 bytes of its own before SP.
    for area_start in [0, 14] {
        let area = record.system_use().get(area_start..).unwrap_or_default();
        if let [b'S', b'P', 7, 1, 0xbe, 0xef, skip @ 0..=SKIP_MAX, ..] = *area {
            let found = susp::parse(disk, tree.base, record, area_start as u8, &mut Budget::new())?;
            return Ok(found.mode.is_some().then_some(skip));
        }
    }
    Ok(None)
}

/// The first block of a partition that is a volume of its own.
fn second_base<S: Storage + ?Sized>(disk: Disk<'_, S>) -> Result<Option<u64>, Error> {
    let Ok(Some(mbr)) = Mbr::decode(&disk.read(0, 512)?) else { return Ok(None) };
    let gpt = Gpt::read(disk.storage).ok().flatten();
    let of_gpt =
        gpt.iter().flat_map(|gpt| &gpt.partitions).filter(|entry| !entry.is_unused()).map(|entry| entry.first_lba);
    let of_mbr = mbr.entries.iter().filter(|entry| !entry.is_unused()).map(|entry| u64::from(entry.first_lba));
    let starts = of_gpt.chain(of_mbr).take(PARTITIONS_LOOKED_AT);
    Ok(starts.filter(|start| *start > 0 && start % 4 == 0).map(|start| start / 4).find(|&base| is_volume(disk, base)))
}

/// Whether a volume begins at that block: its root directory must say that it is where the descriptor says.
fn is_volume<S: Storage + ?Sized>(disk: Disk<'_, S>, base: u64) -> bool {
    let Ok(descriptor) = disk.block(base.saturating_add(FIRST)) else { return false };
    let root = u32_at(&descriptor, 158);
    let Ok(directory) = disk.block(base.saturating_add(root.into())) else { return false };
    is_descriptor(&descriptor) && descriptor[0] == 1 && directory[0] >= 34 && u32_at(&directory, 2) == root
}
