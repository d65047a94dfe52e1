//! A partition is added behind the others, or grows to the end of its disk, by writes of which each leaves a table that can be read.
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

use crate::iso::gpt::{self, Gpt, Guid, TYPE_LINUX};
use crate::iso::mbr::{self, KIND_LINUX, KIND_PROTECTIVE, Mbr, SECTOR};
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
    #[error("only {free} MiB are free behind the last partition, and {needed} are needed")]
    NoRoom { free: u64, needed: u64 },
    #[error("the partition table is full")]
    Full,
    #[error("the disk has {disk} sectors, fewer than its partition table needs ({needed})")]
    DiskTooSmall { disk: u64, needed: u64 },
}

/// A partition as the kernel knows it: in bytes.
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
    /// Bytes of the partition in the table as it is; 0 when it is not there.
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
    let sectors = disk_bytes / SECTOR;
    match read(disk)? {
        Table::Gpt(mbr, old) => plan_gpt(disk, &mbr, old, sectors, place),
        Table::Mbr(mbr) => plan_mbr(mbr, sectors, place),
    }
}

/// A partition that does not exist yet.
#[derive(Debug, Clone, Copy)]
pub struct New<'a> {
    /// Bytes that it has at least; it takes all that is free.
    pub bytes: u64,
    pub guid: Guid,
    pub name: &'a str,
}

/// How a `new` partition comes to be behind the one at `last`, and where.
///
/// # Errors
/// As for [`plan`], where `last` takes the place of the partition that grows; too little room, or no free entry.
pub fn plan_new<S: Storage + ?Sized>(
    disk: &S,
    disk_bytes: u64,
    last: Place,
    new: New<'_>,
) -> Result<(Place, Plan), Error> {
    let sectors = disk_bytes / SECTOR;
    match read(disk)? {
        Table::Gpt(mbr, old) => {
            let (_, own) = find_last(&old, last)?;
            let mut table = fitted(old, own, sectors)?;
            let used = table.partitions.iter().filter(|partition| !partition.is_unused());
            let behind = used.map(|partition| partition.last_lba.saturating_add(1)).max().unwrap_or(u64::MAX);
            let (first, length) = room_behind(behind, table.last_usable_lba() + 1, new.bytes)?;
            let index = table.partitions.iter().position(gpt::Partition::is_unused).unwrap_or(table.partitions.len());
            if index >= table.slots as usize {
                return Err(Error::Full);
            }
            if index == table.partitions.len() {
                table.partitions.push(gpt::Partition::UNUSED);
            }
            table.partitions[index] = gpt::Partition::new(TYPE_LINUX, new.guid, first, length, new.name);
            let writes = gpt_writes(disk, &table, &mbr, sectors)?;
            Ok(added(index, first, length, writes))
        }
        Table::Mbr(mut mbr) => {
            find_last_mbr(&mbr, last)?;
            let used = mbr.entries.iter().filter(|entry| !entry.is_unused());
            let behind = used.map(mbr::Entry::end_lba).max().unwrap_or(u64::MAX);
            let end = sectors.min(u64::from(u32::MAX)); // what it cannot say is not used
            let (first, length) = room_behind(behind, end, new.bytes)?;
            let index = mbr.entries.iter().position(mbr::Entry::is_unused).ok_or(Error::Full)?;
            let small = |lba: u64| u32::try_from(lba).map_err(|_| Error::Full);
            mbr.entries[index] = mbr::Entry::new(KIND_LINUX, small(first)?, small(length)?);
            Ok(added(index, first, length, vec![(0, mbr.encode().to_vec())]))
        }
    }
}

fn added(index: usize, first: u64, length: u64, writes: Vec<(u64, Vec<u8>)>) -> (Place, Plan) {
    let place = Place { index: index as u32 + 1, offset: first * SECTOR };
    (place, Plan { writes, from: 0, to: length * SECTOR })
}

/// First sector and number of those between `behind` and `end` that a partition can have.
fn room_behind(behind: u64, end: u64, needed: u64) -> Result<(u64, u64), Error> {
    let first = behind.checked_next_multiple_of(MIB_SECTORS).unwrap_or(u64::MAX);
    let length = aligned_end(end).saturating_sub(first);
    if length < needed.div_ceil(SECTOR) {
        return Err(Error::NoRoom { free: length / MIB_SECTORS, needed: needed.div_ceil(1 << 20) });
    }
    Ok((first, length))
}

enum Table {
    Mbr(Mbr),
    /// With what protects it.
    Gpt(Mbr, Gpt),
}

fn read<S: Storage + ?Sized>(disk: &S) -> Result<Table, Error> {
    let mut sector = [0; SECTOR as usize];
    disk.read_exact_at(&mut sector, 0).map_err(Error::Read)?;
    let mbr = Mbr::decode(&sector)?.ok_or(Error::NoTable)?;
    if mbr.is_protective() {
        let gpt = Gpt::read(disk)?.ok_or(Error::NoTable)?;
        return Ok(Table::Gpt(mbr, gpt));
    }
    Ok(Table::Mbr(mbr))
}

/// The number from 0 on of the entry for the partition at `place`, behind which there is no other.
fn find_last_mbr(mbr: &Mbr, place: Place) -> Result<usize, Error> {
    let first = place.offset / SECTOR;
    let index = index_of(place)?;
    let used = |entry: &&mbr::Entry| !entry.is_unused();
    let own = mbr.entries.get(index).filter(used).filter(|own| u64::from(own.first_lba) == first);
    own.ok_or(Error::NotListed)?;
    if mbr.entries.iter().filter(used).any(|entry| u64::from(entry.first_lba) > first) {
        return Err(Error::NotLast);
    }
    Ok(index)
}

/// The same in a GPT, and what the entry says.
fn find_last(table: &Gpt, place: Place) -> Result<(usize, gpt::Partition), Error> {
    let first = place.offset / SECTOR;
    let index = index_of(place)?;
    let used = |partition: &&gpt::Partition| !partition.is_unused();
    let own = *table.partitions.get(index).filter(used).filter(|own| own.first_lba == first).ok_or(Error::NotListed)?;
    if table.partitions.iter().filter(used).any(|partition| partition.first_lba > first) {
        return Err(Error::NotLast);
    }
    Ok((index, own))
}

fn index_of(place: Place) -> Result<usize, Error> {
    usize::try_from(place.index).ok().and_then(|index| index.checked_sub(1)).ok_or(Error::NotListed)
}

/// The table for a disk of so many sectors, in which its `last` partition has to have room.
fn fitted(table: Gpt, last: gpt::Partition, sectors: u64) -> Result<Gpt, Error> {
    let mut new = Gpt { last_lba: sectors.saturating_sub(1), ..table };
    if new.last_usable_lba() < last.last_lba || last.last_lba < last.first_lba {
        return Err(Error::DiskTooSmall {
            disk: sectors,
            needed: last.last_lba.saturating_add(new.entries_sectors() + 2),
        });
    }
    // What an interrupted step 2 left.
    if new.entries_lba != USUAL_ENTRIES_LBA {
        new.entries_lba = USUAL_ENTRIES_LBA;
        new.first_usable_lba = USUAL_ENTRIES_LBA + new.entries_sectors();
    }
    Ok(new)
}

fn plan_mbr(mut mbr: Mbr, sectors: u64, place: Place) -> Result<Plan, Error> {
    let index = find_last_mbr(&mbr, place)?;
    let (first, from) = (u64::from(mbr.entries[index].first_lba), mbr.entries[index].sectors);
    let room = u32::try_from(aligned_end(sectors).saturating_sub(first)).unwrap_or(u32::MAX); // 2 TiB is all that it can say
    let to = if is_worth_it(from.into(), room.into()) { room } else { from };
    let mut writes = Vec::new();
    if to != from {
        mbr.entries[index].resize(to);
        writes.push((0, mbr.encode().to_vec()));
    }
    Ok(Plan { writes, from: u64::from(from) * SECTOR, to: u64::from(to) * SECTOR })
}

fn plan_gpt<S: Storage + ?Sized>(disk: &S, mbr: &Mbr, old: Gpt, sectors: u64, place: Place) -> Result<Plan, Error> {
    let (index, own) = find_last(&old, place)?;
    let mut new = fitted(old, own, sectors)?;
    let first = own.first_lba;
    let end = aligned_end(new.last_usable_lba() + 1);
    let (from, room) = (own.last_lba - first + 1, end.saturating_sub(first));
    let to = if is_worth_it(from, room) { room } else { from };
    new.partitions[index].last_lba = first + to - 1;
    let writes = gpt_writes(disk, &new, mbr, sectors)?;
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
    sectors / MIB_SECTORS * MIB_SECTORS
}

const MIB_SECTORS: u64 = (1 << 20) / SECTOR;

/// In sectors.
const fn is_worth_it(from: u64, to: u64) -> bool {
    to >= from.saturating_add(GROWTH_BYTES_MIN / SECTOR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iso::gpt::{Partition, TYPE_BASIC_DATA};
    use crate::iso::mbr::Entry;
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    /// A disk of any size, of which only the sectors that were written take memory.
    #[derive(Default)]
    struct Disk {
        sectors: Mutex<BTreeMap<u64, [u8; 512]>>,
    }

    impl Storage for Disk {
        fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            for (index, sector) in bytes.chunks_exact(512).enumerate() {
                self.sectors.lock().unwrap().insert(offset / 512 + index as u64, sector.try_into().unwrap());
            }
            Ok(())
        }

        fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
            let sectors = self.sectors.lock().unwrap();
            for (index, sector) in bytes.chunks_exact_mut(512).enumerate() {
                sector.copy_from_slice(sectors.get(&(offset / 512 + index as u64)).unwrap_or(&[0; 512]));
            }
            Ok(())
        }

        fn set_len(&self, _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    const GIB: u64 = 1 << 30;

    fn with_mbr(entries: &[(u32, u32)]) -> Disk {
        let mut mbr = Mbr::default();
        for (slot, (first, sectors)) in mbr.entries.iter_mut().zip(entries) {
            *slot = Entry::new(0x83, *first, *sectors);
        }
        let disk = Disk::default();
        disk.write_all_at(&mbr.encode(), 0).unwrap();
        disk
    }

    /// Partitions as first sector and number of them, on a disk of so many sectors.
    fn with_gpt(partitions: &[(u64, u64)], sectors: u64) -> Disk {
        let mut gpt = Gpt::new(Guid([7; 16]), sectors);
        let made =
            partitions.iter().map(|(first, count)| Partition::new(TYPE_BASIC_DATA, Guid([1; 16]), *first, *count, "x"));
        gpt.partitions = made.collect();
        let mut mbr = Mbr::default();
        mbr.entries[0] = Entry::protective(sectors);
        let disk = Disk::default();
        disk.write_all_at(&mbr.encode(), 0).unwrap();
        for (offset, bytes) in gpt.encode().unwrap() {
            disk.write_all_at(&bytes, offset).unwrap();
        }
        disk
    }

    fn at(index: u32, lba: u64) -> Place {
        Place { index, offset: lba * 512 }
    }

    #[test]
    fn a_partition_grows_only_for_what_is_worth_it() {
        let sectors = 200 * MIB_SECTORS;
        for (more, expected) in [(0, 100), (7, 100), (9, 109), (1000, 1100)] {
            let disk = with_mbr(&[(2048, 4096), (100 * 2048, 100 * 2048)]);
            let plan = plan(&disk, (sectors + more * MIB_SECTORS) * 512, at(2, 100 * MIB_SECTORS)).unwrap();
            assert_eq!((plan.from >> 20, plan.to >> 20), (100, expected));
            assert_eq!(plan.writes.len(), usize::from(expected > 100));
        }
        assert_eq!(GROWTH_BYTES_MIN, 8 << 20);
    }

    #[test]
    fn an_mbr_says_two_tebibytes_at_most() {
        let disk = with_mbr(&[(2048, 4096)]);
        let plan = plan(&disk, 10_000 * GIB, at(1, 2048)).unwrap();
        assert_eq!(plan.to, u64::from(u32::MAX) * 512);
        plan.apply(&disk, || Ok(())).unwrap();
        let mut sector = [0; 512];
        disk.read_exact_at(&mut sector, 0).unwrap();
        let entry = Mbr::decode(&sector).unwrap().unwrap().entries[0];
        assert_eq!((entry.kind, entry.first_lba, entry.sectors), (0x83, 2048, u32::MAX));
    }

    #[test]
    fn a_gpt_on_ten_terabytes() {
        let disk = with_gpt(&[(2048, 4096), (8192, 4096)], 100 * MIB_SECTORS);
        let plan = plan(&disk, 10_000 * GIB, at(2, 8192)).unwrap();
        plan.apply(&disk, || Ok(())).unwrap();
        let gpt = Gpt::read(&disk).unwrap().unwrap();
        let last = gpt.partitions[1].last_lba;
        assert_eq!((gpt.last_lba, gpt.entries_lba, gpt.first_usable_lba), (10_000 * GIB / 512 - 1, 2, 34));
        assert!(
            (last + 1).is_multiple_of(MIB_SECTORS)
                && last <= gpt.last_usable_lba()
                && gpt.last_usable_lba() - last <= MIB_SECTORS
        );
        assert_eq!(super::plan(&disk, 10_000 * GIB, at(2, 8192)).unwrap().writes, []);
    }

    #[test]
    fn each_write_of_a_header_is_one_sector_and_entries_in_use_are_never_written() {
        let disk = with_gpt(&[(2048, 4096), (8192, 4096)], 100 * MIB_SECTORS);
        let plan = plan(&disk, GIB, at(2, 8192)).unwrap();
        let places: Vec<(u64, usize)> =
            plan.writes.iter().map(|(offset, bytes)| (offset / 512, bytes.len() / 512)).collect();
        let end = GIB / 512;
        assert_eq!(places, [(end - 33, 32), (end - 1, 1), (34, 32), (1, 1), (2, 32), (1, 1), (0, 1)]);
    }

    #[test]
    fn a_table_without_a_gap_is_written_in_place() {
        let disk = with_gpt(&[(40, 4096), (8192, 4096)], 100 * MIB_SECTORS);
        let plan = plan(&disk, GIB, at(2, 8192)).unwrap();
        assert_eq!(plan.writes.len(), 5);
        plan.apply(&disk, || Ok(())).unwrap();
        assert_eq!(Gpt::read(&disk).unwrap().unwrap().partitions[0].first_lba, 40);
    }

    #[test]
    fn what_is_not_ours_to_change_is_left() {
        let place = at(1, 2048);
        let refused = |disk: &Disk, bytes| plan(disk, bytes, place).unwrap_err();
        assert!(matches!(refused(&Disk::default(), GIB), Error::NoTable));
        assert!(matches!(refused(&with_mbr(&[(2048, 4096), (8192, 4096)]), GIB), Error::NotLast));
        assert!(matches!(refused(&with_mbr(&[(4096, 4096)]), GIB), Error::NotListed));
        assert!(matches!(refused(&with_gpt(&[(2048, 4096), (8192, 4096)], 1 << 20), GIB), Error::NotLast));
        assert!(matches!(refused(&with_gpt(&[(4096, 4096)], 1 << 20), GIB), Error::NotListed));
        let cut = refused(&with_gpt(&[(2048, 400_000)], 1 << 20), 100 << 20);
        assert_eq!(cut.to_string(), "the disk has 204800 sectors, fewer than its partition table needs (402081)");
        assert!(matches!(plan(&with_mbr(&[(2048, 4096)]), GIB, at(0, 2048)), Err(Error::NotListed)));
        assert!(matches!(plan(&with_mbr(&[(2048, 4096)]), GIB, at(5, 2048)), Err(Error::NotListed)));
        assert!(matches!(plan(&with_gpt(&[(2048, 4096)], 1 << 20), GIB, at(129, 2048)), Err(Error::NotListed)));
        let damaged = with_gpt(&[(2048, 4096)], 1 << 20);
        damaged.sectors.lock().unwrap().get_mut(&1).unwrap()[40] ^= 1;
        assert!(matches!(refused(&damaged, GIB), Error::Gpt(_)));
    }

    fn new(mib: u64) -> New<'static> {
        New { bytes: mib << 20, guid: Guid([9; 16]), name: "data" }
    }

    #[test]
    fn a_partition_is_added_behind_all_others_in_the_first_free_entry() {
        let disk = with_gpt(&[(2048, 4096), (8192, 4096)], 100 * MIB_SECTORS);
        let (place, plan) = plan_new(&disk, GIB, at(2, 8192), new(64)).unwrap();
        assert_eq!((place, plan.from, plan.to), (at(3, 12_288), 0, GIB - (12_288 * 512) - (1 << 20)));
        plan.apply(&disk, || Ok(())).unwrap();
        let table = Gpt::read(&disk).unwrap().unwrap();
        let added = table.partitions[2];
        assert_eq!((table.last_lba, added.kind, added.name().as_str()), (GIB / 512 - 1, TYPE_LINUX, "data"));
        assert_eq!((added.guid, added.first_lba, added.last_lba + 1), (Guid([9; 16]), 12_288, GIB / 512 - MIB_SECTORS));
        assert!(matches!(plan_new(&disk, GIB, at(2, 8192), new(64)), Err(Error::NotLast)), "now there is one");

        let disk = with_mbr(&[(2048, 4096), (0, 0), (8192, 4095)]);
        let (place, plan) = plan_new(&disk, GIB, at(3, 8192), new(64)).unwrap();
        assert_eq!((place, plan.to), (at(2, 12_288), GIB - (12_288 * 512)));
        plan.apply(&disk, || Ok(())).unwrap();
        let mut sector = [0; 512];
        disk.read_exact_at(&mut sector, 0).unwrap();
        let entry = Mbr::decode(&sector).unwrap().unwrap().entries[1];
        assert_eq!((entry.kind, entry.first_lba, entry.end_lba()), (KIND_LINUX, 12_288, GIB / 512));
    }

    #[test]
    fn nothing_is_added_without_room_or_a_free_entry() {
        let added =
            |disk: &Disk, mib: u64, place| plan_new(disk, mib << 20, place, new(64)).map(|(_, plan)| plan.to >> 20);
        // Partitions end at 6 MiB; a GPT keeps the last MiB for its backup.
        let (gpt, mbr) = (with_gpt(&[(2048, 10_240)], 50 * MIB_SECTORS), with_mbr(&[(2048, 10_240)]));
        for (disk, fits) in [(&gpt, 71), (&mbr, 70)] {
            assert_eq!(added(disk, fits, at(1, 2048)).unwrap(), 64);
            let error = added(disk, fits - 1, at(1, 2048)).unwrap_err();
            assert_eq!(error.to_string(), "only 63 MiB are free behind the last partition, and 64 are needed");
        }
        assert!(matches!(added(&gpt, 3, at(1, 2048)), Err(Error::DiskTooSmall { .. })));
        assert!(matches!(added(&gpt, 100, at(0, 0)), Err(Error::NotListed)), "a file system on the whole disk");
        assert!(matches!(added(&mbr, 100, at(2, 2048)), Err(Error::NotListed)));
        assert!(matches!(added(&Disk::default(), 100, at(1, 2048)), Err(Error::NoTable)));
        let four = [(2048, 2048), (4096, 2048), (6144, 2048), (8192, 2048)];
        assert!(matches!(added(&with_mbr(&four), 100, at(4, 8192)), Err(Error::Full)));
        let all: Vec<(u64, u64)> = (1..129).map(|n| (n * 2048, 2048)).collect();
        assert!(matches!(added(&with_gpt(&all, 1 << 20), 500, at(128, 128 * 2048)), Err(Error::Full)));
        assert_eq!(added(&with_gpt(&all[..127], 1 << 20), 500, at(127, 127 * 2048)).unwrap(), 371);
        // An entry that reaches beyond the next: nothing may be written where it says that something is.
        let overlap = with_gpt(&[(2048, u64::MAX - 4096), (4096, 2048)], 1 << 20);
        assert!(matches!(added(&overlap, 500, at(2, 4096)), Err(Error::NoRoom { free: 0, .. })));
    }

    #[test]
    fn an_mbr_says_where_up_to_two_tebibytes() {
        let disk = with_mbr(&[(2048, 4096)]);
        let (_, plan) = plan_new(&disk, 10_000 * GIB, at(1, 2048), new(64)).unwrap();
        assert_eq!(plan.to >> 20, (2 << 20) - 1 - 3);
        let beyond = with_mbr(&[(u32::MAX - 100, 99)]);
        assert!(matches!(
            plan_new(&beyond, 10_000 * GIB, at(1, u64::from(u32::MAX - 100)), new(64)),
            Err(Error::NoRoom { .. })
        ));
    }

    #[test]
    fn a_device_that_fails_is_told() {
        let disk = with_mbr(&[(2048, 4096)]);
        let plan = plan(&disk, GIB, at(1, 2048)).unwrap();
        let error = plan.apply(&disk, || Err(io::Error::other("no medium"))).unwrap_err();
        assert_eq!(error.to_string(), "cannot write the partition table");
    }
}
