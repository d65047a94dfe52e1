//! Growing a partition to the end of its disk, by writes of which each leaves a table that can be read.
//!
//! MBR: one sector. GPT: the header holds the checksum of the entries, so the two cannot change at once in place. Linux takes the backup only
//! when its command line says `gpt`, and GRUB never does, so the primary copy has to be whole at any moment. Hence, each step on
//! the medium before the next begins:
//! 1. the backup's entries, then its header, at the new end of the disk: nobody looks there yet;
//! 2. the new entries behind the old ones, in the gap before the first partition; then the header, one sector, which from now on names them
//!    (UEFI §5.3.2 lets them lie anywhere before the first usable sector);
//! 3. the new entries in their usual place, which nobody reads now; then the header, which names that place again;
//! 4. the protective MBR over the whole disk.
//!
//! What a power cut leaves is mended by doing all of it again.

use std::io;

use crate::iso::gpt::{self, Gpt};
use crate::iso::mbr::{self, KIND_PROTECTIVE, Mbr, SECTOR};
use crate::limits::GROWTH_BYTES_MIN;
use crate::storage::Storage;

/// Why a partition table is left as it is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the partition table")]
    Read(#[source] io::Error),
    #[error("cannot write the partition table")]
    Write(#[source] io::Error),
    #[error(transparent)]
    Gpt(#[from] gpt::Error),
    #[error(transparent)]
    Mbr(#[from] mbr::Error),
    #[error("there is no partition table")]
    NoTable,
    #[error("the partition table does not list the partition as the kernel does")]
    NotListed,
    #[error("another partition lies behind it")]
    NotLast,
    #[error("the disk has {disk} sectors, fewer than its partition table needs ({needed})")]
    DiskTooSmall { disk: u64, needed: u64 },
}

/// The partition that is to grow, as the kernel knows it: in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// From 1 on.
    pub index: u32,
    pub offset: u64,
}

/// What to write, in this order, each on the medium before the next; and what comes of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// Byte offsets, and what is written there.
    pub writes: Vec<(u64, Vec<u8>)>,
    /// Bytes of the partition in the table as it is.
    pub from: u64,
    /// Bytes of the partition in the new table; the same when only the rest of the table needs mending.
    pub to: u64,
}

impl Plan {
    /// Carries it out.
    ///
    /// # Errors
    /// What the device says.
    pub fn apply<S: Storage + ?Sized>(&self, disk: &S, sync: impl Fn() -> io::Result<()>) -> Result<(), Error> {
        for (offset, bytes) in &self.writes {
            disk.write_all_at(bytes, *offset).and_then(|()| sync()).map_err(Error::Write)?;
        }
        Ok(())
    }
}

/// How the partition at `place` becomes as long as the disk of `disk_bytes` lets it; no writes when all is as it should be.
///
/// # Errors
/// A table that is damaged, of another kind, or not the one that the kernel read; a partition that is not the last one.
pub fn plan<S: Storage + ?Sized>(disk: &S, disk_bytes: u64, place: Place) -> Result<Plan, Error> {
    let mut sector = [0; SECTOR as usize];
    disk.read_exact_at(&mut sector, 0).map_err(Error::Read)?;
    let mbr = Mbr::decode(&sector)?.ok_or(Error::NoTable)?;
    let sectors = disk_bytes / SECTOR;
    if mbr.entries.iter().any(|entry| entry.kind == KIND_PROTECTIVE) {
        plan_gpt(disk, mbr, sectors, place)
    } else {
        plan_mbr(mbr, sectors, place)
    }
}

fn plan_mbr(mut mbr: Mbr, sectors: u64, place: Place) -> Result<Plan, Error> {
    let index = usize::try_from(place.index).ok().and_then(|index| index.checked_sub(1)).ok_or(Error::NotListed)?;
    let first = place.offset / SECTOR;
    let own = mbr.entries.get(index).filter(|entry| !entry.is_unused() && u64::from(entry.first_lba) == first);
    let from = own.ok_or(Error::NotListed)?.sectors;
    if mbr.entries.iter().any(|entry| !entry.is_unused() && u64::from(entry.first_lba) > first) {
        return Err(Error::NotLast);
    }
    let room = u32::try_from(aligned_end(sectors).saturating_sub(first)).unwrap_or(u32::MAX); // 2 TiB is all that it can say
    let to = if is_worth_it(from.into(), room.into()) { room } else { from };
    let mut writes = Vec::new();
    if to != from {
        mbr.entries[index].resize(to);
        writes.push((0, mbr.encode().to_vec()));
    }
    Ok(Plan { writes, from: u64::from(from) * SECTOR, to: u64::from(to) * SECTOR })
}

fn plan_gpt<S: Storage + ?Sized>(disk: &S, mbr: Mbr, sectors: u64, place: Place) -> Result<Plan, Error> {
    let old = Gpt::read(disk)?.ok_or(Error::NoTable)?;
    let index = usize::try_from(place.index).ok().and_then(|index| index.checked_sub(1)).ok_or(Error::NotListed)?;
    let first = place.offset / SECTOR;
    let used = |partition: &&gpt::Partition| !partition.is_unused();
    let own = *old.partitions.get(index).filter(used).filter(|own| own.first_lba == first).ok_or(Error::NotListed)?;
    if old.partitions.iter().filter(used).any(|partition| partition.first_lba > first) {
        return Err(Error::NotLast);
    }
    let mut new = old.clone();
    new.last_lba = sectors.saturating_sub(1);
    if new.last_usable_lba() < own.last_lba || own.last_lba < own.first_lba {
        return Err(Error::DiskTooSmall {
            disk: sectors,
            needed: own.last_lba.saturating_add(new.entries_sectors() + 2),
        });
    }
    // What an interrupted step 2 left.
    if new.entries_lba != USUAL_ENTRIES_LBA {
        new.entries_lba = USUAL_ENTRIES_LBA;
        new.first_usable_lba = USUAL_ENTRIES_LBA + new.entries_sectors();
    }
    let length = |last_lba: u64| last_lba - own.first_lba + 1;
    let end = aligned_end(new.last_usable_lba() + 1);
    let (from, room) = (length(own.last_lba), end.saturating_sub(first));
    let to = if is_worth_it(from, room) { room } else { from };
    new.partitions[index].last_lba = first + to - 1;
    let writes = gpt_writes(disk, &new, &mbr, sectors)?;
    Ok(Plan { writes, from: from * SECTOR, to: to * SECTOR })
}

/// The steps of the module's description; none when the disk holds what they would lead to.
fn gpt_writes<S: Storage + ?Sized>(disk: &S, new: &Gpt, mbr: &Mbr, sectors: u64) -> Result<Vec<(u64, Vec<u8>)>, Error> {
    let [header, entries, backup_entries, backup_header] = new.encode()?;
    let mut mbr = *mbr;
    if let [own] =
        &mut mbr.entries.each_mut().into_iter().filter(|entry| entry.kind == KIND_PROTECTIVE).collect::<Vec<_>>()[..]
    {
        let whole = mbr::Entry::protective(sectors);
        (own.first_lba, own.sectors, own.last_chs) = (whole.first_lba, whole.sectors, whole.last_chs);
    }
    let protective = (0, mbr.encode().to_vec());
    let mut is_done = true;
    for (offset, bytes) in [&header, &entries, &backup_entries, &backup_header, &protective] {
        let mut there = vec![0; bytes.len()];
        disk.read_exact_at(&mut there, *offset).map_err(Error::Read)?;
        is_done &= there == *bytes;
    }
    if is_done {
        return Ok(Vec::new());
    }
    let mut writes = vec![backup_entries, backup_header];
    if let Some(aside) = aside(new) {
        let [aside_header, aside_entries, ..] = aside.encode()?;
        writes.extend([aside_entries, aside_header]);
    }
    writes.extend([entries, header, protective]);
    Ok(writes)
}

/// The same table with its entries in the gap before the first partition. `None` when there is no gap: the power must not fail then.
fn aside(table: &Gpt) -> Option<Gpt> {
    let entries_lba = table.entries_lba + table.entries_sectors();
    let behind = entries_lba + table.entries_sectors();
    let first = table
        .partitions
        .iter()
        .filter(|partition| !partition.is_unused())
        .map(|partition| partition.first_lba)
        .min()?;
    let aside = Gpt { entries_lba, first_usable_lba: table.first_usable_lba.max(behind), ..table.clone() };
    (first >= behind).then_some(aside)
}

/// Where every tool puts the entries of the primary copy.
const USUAL_ENTRIES_LBA: u64 = 2;

/// The end of the disk, on a MiB: flash is erased in such pieces.
const fn aligned_end(sectors: u64) -> u64 {
    const MIB: u64 = (1 << 20) / SECTOR;
    sectors / MIB * MIB
}

/// In sectors.
const fn is_worth_it(from: u64, to: u64) -> bool {
    to >= from.saturating_add(GROWTH_BYTES_MIN / SECTOR)
}
