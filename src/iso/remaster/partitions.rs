//! Partition tables around an image that grows.
//!
//! A partition that covers the file system (from sector 0, as isohybrid and xorriso make it, or from where the second set of descriptors
//! has its base) grows with it. A partition behind it, an appended EFI system partition, would lie within it then: it moves to the new
//! end. xorriso's "Gap" partitions behind it only fill the table and go. Partitions inside the file system stay.

use super::{Error, Patches};
use crate::iso::BLOCK;
use crate::iso::gpt::{Gpt, Partition, TYPE_BASIC_DATA};
use crate::iso::mbr::{KIND_PROTECTIVE, Mbr, SECTOR};
use crate::iso::read::{self, BootImage, Budget, Image, data_end};
use crate::limits::ISO_TAIL_PARTITIONS_MAX;
use crate::storage::{Extent, Storage};

/// Sectors of a block.
const SECTORS: u64 = BLOCK / SECTOR;
/// What mkisofs and xorriso put behind a file system that ends its medium: a CD written track at once cannot be read to its very end, and
/// GRUB on a BIOS reads CDs by 32 KiB: SeaBIOS and it see no file system in an image whose directories are in a last, shorter piece.
const PADDING: u64 = 150 * BLOCK;
/// To what images for USB sticks are filled up, and partitions are aligned.
const MIB: u64 = 1 << 20;

/// The source's tables, and what they mean for its growth.
#[derive(Debug)]
pub(super) struct Partitions {
    source_size: u64,
    keep: u64,
    mbr: Option<Mbr>,
    gpt: Option<Gpt>,
    boot_images: Vec<BootImage>,
    /// First sectors of partitions that cover the file system.
    iso_starts: Vec<u64>,
    /// Runs of sectors that move, in their order.
    tail: Vec<Run>,
}

/// Sectors from `first` up to `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first: u64,
    end: u64,
}

/// The end of the new image.
#[derive(Debug)]
pub(super) struct Tail {
    /// Byte behind the file system.
    pub(super) data_end: u64,
    /// Bytes of the image.
    pub(super) size: u64,
    /// From where in the source to where.
    pub(super) moves: Vec<(Extent, u64)>,
}

impl Partitions {
    pub(super) fn read<S: Storage + ?Sized>(image: &Image<'_, S>) -> Result<Self, Error> {
        let disk = image.disk();
        let mbr = Mbr::decode(&disk.read(0, SECTOR)?).unwrap_or_default();
        // A table that does not hold is none to firmware either.
        let gpt = Gpt::read(disk.storage).ok().flatten();
        let bases: Vec<u64> =
            image.sets().iter().filter_map(|set| set.trees.first()).map(|tree| tree.base * SECTORS).collect();
        let boot_images = image.boot_images().to_vec();
        let mut partitions = Self {
            source_size: disk.size,
            keep: disk.size,
            mbr,
            gpt,
            boot_images,
            iso_starts: bases,
            tail: Vec::new(),
        };
        let iso_end = partitions.runs().filter(|run| partitions.is_iso(*run)).map(|run| run.end).max();
        if let Some(iso_end) = iso_end {
            partitions.tail = partitions.behind(iso_end)?;
        }
        partitions.keep = partitions.cut(image);
        Ok(partitions)
    }

    /// Bytes of the source that the target begins with.
    pub(super) const fn keep(&self) -> u64 {
        self.keep
    }

    /// Every partition but the protective one and gaps; xorriso calls partition 1 a gap, too, when it adds a session in place.
    fn runs(&self) -> impl Iterator<Item = Run> {
        let of_gpt = self.gpt.iter().flat_map(|gpt| &gpt.partitions);
        let is_one = |entry: &&Partition| !is_gap(entry) || self.iso_starts.contains(&entry.first_lba);
        let of_gpt = of_gpt.filter(|entry| !entry.is_unused()).filter(is_one);
        let of_gpt = of_gpt.map(|entry| Run { first: entry.first_lba, end: entry.last_lba.saturating_add(1) });
        let of_mbr = self.mbr.iter().flat_map(|mbr| &mbr.entries);
        let of_mbr = of_mbr.filter(|entry| !entry.is_unused() && entry.kind != KIND_PROTECTIVE);
        of_gpt.chain(of_mbr.map(|entry| Run { first: entry.first_lba.into(), end: entry.end_lba() }))
    }

    /// Whether a partition holds the file system: it begins where one of its sets of descriptors counts from, and holds them.
    /// (xorriso's `--mbr-force-bootable` makes an entry of one sector that begins at 0, too.)
    fn is_iso(&self, run: Run) -> bool {
        let descriptors = run.first.saturating_add(17 * SECTORS);
        self.iso_starts.contains(&run.first) && run.end >= descriptors
    }

    /// What lies behind the file system's partition; partitions that share sectors move together.
    fn behind(&self, iso_end: u64) -> Result<Vec<Run>, Error> {
        let mut runs: Vec<Run> = self.runs().filter(|run| run.first >= iso_end && run.end > run.first).collect();
        if runs.len() > ISO_TAIL_PARTITIONS_MAX {
            return Err(Error::TooMany("partitions"));
        }
        runs.sort_by_key(|run| (run.first, run.end));
        let mut merged: Vec<Run> = Vec::new();
        for run in runs {
            if run.end > self.source_size / SECTOR {
                return Err(Error::Damaged("a partition passes its end"));
            }
            match merged.last_mut() {
                Some(last) if run.first < last.end => last.end = last.end.max(run.end),
                _ => merged.push(run),
            }
        }
        Ok(merged)
    }

    /// How much of the source is kept: without the backup GPT at its end, and without the partitions that move, provided that nothing
    /// else lies behind their beginning. xorriso, told to add a session to such an image in place, writes behind the EFI partition.
    fn cut<S: Storage + ?Sized>(&self, image: &Image<'_, S>) -> u64 {
        let needed = self.needed(image).unwrap_or(u64::MAX);
        let mut keep = self.source_size;
        if let Some(gpt) = self.gpt.as_ref().filter(|gpt| gpt.last_lba == (self.source_size / SECTOR).saturating_sub(1))
        {
            let backup = (gpt.last_usable_lba() + 1) * SECTOR;
            keep = if backup >= needed { backup } else { keep };
        }
        if let Some(run) = self.tail.first().filter(|run| run.first * SECTOR >= needed) {
            keep = keep.min(run.first * SECTOR);
        }
        keep
    }

    /// The byte behind the backup GPT. It is not always the end of the file: xorriso may fill that up with zeros.
    fn gpt_end(&self) -> Option<u64> {
        let sectors = self.gpt.as_ref()?.last_lba.saturating_add(1);
        (sectors <= self.source_size / SECTOR).then(|| sectors * SECTOR)
    }

    /// The byte behind everything that is known to be in use.
    fn needed<S: Storage + ?Sized>(&self, image: &Image<'_, S>) -> Result<u64, read::Error> {
        let mut needed = 0;
        for set in image.sets() {
            needed = needed.max(set.end * BLOCK);
            for tree in &set.trees {
                needed = needed.max(data_end(image.disk(), tree, &mut Budget::new())?);
            }
        }
        // The catalog is found by its block alone, so it stays where it is, wherever that is.
        let catalog = self.boot_images.iter().map(|image| image.entry_at + 32).max().unwrap_or(0);
        needed = needed.max(catalog);
        let images = self.boot_images.iter().map(BootImage::extent);
        let of_images = images.filter(|image| !self.tail.iter().any(|run| run.contains(image.offset / SECTOR)));
        let of_images = of_images.map(|image| image.offset + image.length);
        let of_partitions =
            self.runs().filter(|run| !self.is_iso(*run) && !self.tail.iter().any(|tail| tail.contains(run.first)));
        let of_partitions = of_partitions.map(|run| run.end.saturating_mul(SECTOR));
        Ok(of_images.chain(of_partitions).fold(needed, u64::max))
    }

    /// Completes the image behind `end`, where its last directory or file ends.
    pub(super) fn place(&self, end: u64, patches: &mut Patches) -> Result<Tail, Error> {
        let data_end = end.saturating_add(if self.tail.is_empty() { PADDING } else { 0 });
        let mut at = data_end;
        let mut moves = Vec::new();
        let mut starts = Vec::new();
        for run in &self.tail {
            let alignment = if (run.first * SECTOR).is_multiple_of(MIB) { MIB } else { BLOCK };
            at = at.checked_next_multiple_of(alignment).ok_or(Error::TooBig)?;
            let extent = Extent { offset: run.first * SECTOR, length: (run.end - run.first) * SECTOR };
            starts.push(at / SECTOR);
            moves.push((extent, at));
            at = at.saturating_add(extent.length);
        }
        // Without a GPT, tools want to see room for one behind the last partition, as xorriso leaves it.
        at = at.saturating_add(if self.tail.is_empty() || self.gpt.is_some() { 0 } else { PADDING });
        let backup = self.gpt.as_ref().map_or(0, |gpt| (gpt.entries_sectors() + 1) * SECTOR);
        let alignment = if self.source_size.is_multiple_of(MIB) { MIB } else { BLOCK };
        let size = at.saturating_add(backup).checked_next_multiple_of(alignment).ok_or(Error::TooBig)?;
        super::block(size)?;
        let tail = Tail { data_end, size, moves };
        self.patch_gpt(&starts, &tail, patches)?;
        self.patch_mbr(&starts, &tail, patches)?;
        for image in &self.boot_images {
            if let Some(sector) = self.moved(&starts, u64::from(image.location) * SECTORS) {
                let location = u32::try_from(sector / SECTORS).map_err(|_| Error::TooBig)?;
                patches.push(image.entry_at + 8, location.to_le_bytes());
            }
        }
        Ok(tail)
    }

    /// Where a sector is now, if it moved.
    fn moved(&self, starts: &[u64], sector: u64) -> Option<u64> {
        let (run, start) = self.tail.iter().zip(starts).find(|(run, _)| run.contains(sector))?;
        Some(start + (sector - run.first))
    }

    fn patch_gpt(&self, starts: &[u64], tail: &Tail, patches: &mut Patches) -> Result<(), Error> {
        let Some(mut gpt) = self.gpt.clone() else { return Ok(()) };
        gpt.last_lba = tail.size / SECTOR - 1;
        let is_iso = |entry: &Partition| {
            self.is_iso(Run { first: entry.first_lba, end: entry.last_lba.saturating_add(1) }) && !entry.is_unused()
        };
        let iso_end = gpt.partitions.iter().filter(|entry| is_iso(entry)).map(|entry| entry.last_lba).max();
        let last_usable = gpt.last_usable_lba();
        for entry in gpt.partitions.iter_mut().filter(|entry| !entry.is_unused()) {
            if is_iso(entry) {
                entry.last_lba = (tail.data_end / SECTOR).saturating_sub(1);
            } else if let Some(first) = self.moved(starts, entry.first_lba) {
                // Nothing says that it ends behind its beginning.
                entry.last_lba = first.saturating_add(entry.last_lba).saturating_sub(entry.first_lba);
                entry.first_lba = first;
            } else if iso_end.is_some_and(|end| entry.first_lba > end) && is_gap(entry) {
                *entry = Partition::UNUSED;
            }
        }
        if iso_end.is_none() {
            // grub-mkrescue's table has no partition for the file system: gaps fill what is between the others.
            let last = gpt.partitions.iter_mut().filter(|entry| !entry.is_unused()).max_by_key(|entry| entry.last_lba);
            if let Some(gap) = last.filter(|entry| is_gap(entry)) {
                gap.last_lba = (last_usable + 1) / SECTORS * SECTORS - 1;
            }
        }
        patches.0.extend(gpt.encode()?);
        Ok(())
    }

    fn patch_mbr(&self, starts: &[u64], tail: &Tail, patches: &mut Patches) -> Result<(), Error> {
        let Some(mut mbr) = self.mbr else { return Ok(()) };
        let (old_sectors, new_sectors) = (self.gpt_end().unwrap_or(self.source_size) / SECTOR, tail.size / SECTOR);
        for entry in mbr.entries.iter_mut().filter(|entry| !entry.is_unused()) {
            let first = u64::from(entry.first_lba);
            if entry.kind == KIND_PROTECTIVE || self.is_iso(Run { first, end: entry.end_lba() }) {
                // isohybrid's entry reaches to the end of the file, with what it is filled up with.
                let end = if entry.end_lba() >= old_sectors { new_sectors } else { tail.data_end / SECTOR };
                entry.resize(u32::try_from(end.saturating_sub(first)).unwrap_or(u32::MAX));
            } else if let Some(first) = self.moved(starts, first) {
                entry.move_to(sector32(first)?);
            }
        }
        patches.push(0, mbr.encode());
        Ok(())
    }
}

impl Run {
    fn contains(self, sector: u64) -> bool {
        (self.first..self.end).contains(&sector)
    }
}

/// One of the partitions with which xorriso fills what no other covers.
fn is_gap(entry: &Partition) -> bool {
    entry.kind == TYPE_BASIC_DATA && entry.name().starts_with("Gap")
}

fn sector32(sector: u64) -> Result<u32, Error> {
    u32::try_from(sector).map_err(|_| Error::TooBig)
}
