//! The partition table at every moment in which the power may fail while the data partition grows.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use auroraboot::appliance::data::table::{self, New, Place, Plan};
use auroraboot::iso::gpt::Guid;
use auroraboot::storage::Storage;

use super::{Bench, MIB, SECTOR, gpt_disk, mbr_disk, partitions, run};

/// Notes every write and carries out none.
#[derive(Default)]
struct Recorder(Mutex<Vec<(u64, Vec<u8>)>>);

impl Storage for Recorder {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.lock().unwrap().push((offset, bytes.to_vec()));
        Ok(())
    }

    fn read_exact_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

fn plan(disk: &Path, place: Place) -> Plan {
    let file = File::open(disk).unwrap();
    table::plan(&file, file.metadata().unwrap().len(), place).unwrap()
}

/// A second data partition, behind the one at `place`.
fn plan_new(disk: &Path, place: Place) -> Result<Plan, table::Error> {
    let file = File::open(disk).unwrap();
    let new = New { bytes: 64 * MIB, guid: Guid([0x42; 16]), name: "AURORADATA" };
    table::plan_new(&file, file.metadata().unwrap().len(), place, new).map(|(_, plan)| plan)
}

fn apply(disk: &Path, plan: &Plan) {
    let file = OpenOptions::new().read(true).write(true).open(disk).unwrap();
    plan.apply(&file, || Ok(())).unwrap();
}

/// The states in which a power cut can leave the disk: all writes before one, and of that one any of a few sets of its sectors.
fn states(writes: &[(u64, Vec<u8>)]) -> Vec<Vec<(u64, Vec<u8>)>> {
    let mut states = Vec::new();
    for (index, (offset, bytes)) in writes.iter().enumerate() {
        let sectors: Vec<_> = bytes.chunks(SECTOR as usize).enumerate().collect();
        let count = sectors.len();
        type Taken = fn(usize, usize) -> bool;
        let sets: [Taken; 5] =
            [|_, _| false, |at, _| at == 0, |at, _| at != 0, |at, count| at < count / 2, |at, _| at % 2 == 1];
        for set in sets {
            let mut state = writes[..index].to_vec();
            let taken = sectors.iter().filter(|(at, _)| set(*at, count));
            state.extend(taken.map(|(at, sector)| (offset + *at as u64 * SECTOR, sector.to_vec())));
            states.push(state);
        }
    }
    states.push(writes.to_vec());
    states
}

/// Grows `disk`, cut off in every way, and judges what there is then and what the next start makes of it.
fn cut_off_everywhere(bench: &Bench, disk: &Path, place: Place, judge: impl Fn(&Path)) {
    let whole = plan(disk, place);
    assert!(whole.to > whole.from);
    let mut grown = partitions(disk);
    grown.last_mut().unwrap().2 = whole.to / SECTOR;
    each_cut(bench, disk, &whole, &grown, |copy| {
        let again = plan(copy, place);
        apply(copy, &again);
        assert_eq!(again.to, whole.to);
        assert_eq!(partitions(copy), grown);
        judge(copy);
        assert_eq!(plan(copy, place).writes, [], "a second time there is nothing to do");
    });
}

/// Carries `whole` out on copies of `disk`, cut off in every way: there are the partitions that were or those of `after`, and `then`.
fn each_cut(bench: &Bench, disk: &Path, whole: &Plan, after: &[(u32, u64, u64)], then: impl Fn(&Path)) {
    let before = partitions(disk);
    let recorder = Recorder::default();
    whole.apply(&recorder, || Ok(())).unwrap();
    let writes = recorder.0.into_inner().unwrap();
    assert!(!writes.is_empty());
    let copy = bench.path("cut.img");
    for state in states(&writes) {
        run(Command::new("cp").arg("--sparse=always").arg(disk).arg(&copy));
        let file = OpenOptions::new().read(true).write(true).open(&copy).unwrap();
        for (offset, bytes) in &state {
            file.write_all_at(bytes, *offset).unwrap();
        }
        // sfdisk takes the backup where the primary copy is damaged; Linux does not, so neither may we.
        let now = partitions(&copy);
        assert!(now == before || now == after, "{now:?} after {} writes", state.len());
        then(&copy);
    }
    fs::remove_file(&copy).unwrap();
}

/// Adds a partition, cut off in every way; the next start adds it, or lets the one that is there grow.
fn cut_off_adding(bench: &Bench, disk: &Path, judge: impl Fn(&Path)) {
    let last = *partitions(disk).last().unwrap();
    let place = Place { index: last.0, offset: last.1 * SECTOR };
    let whole = plan_new(disk, place).unwrap();
    let first = (last.1 + last.2).next_multiple_of(MIB / SECTOR);
    let mut after = partitions(disk);
    after.push((last.0 + 1, first, whole.to / SECTOR));
    assert!(whole.from == 0 && whole.to >= 64 * MIB);
    each_cut(bench, disk, &whole, &after, |copy| {
        let again = match plan_new(copy, place) {
            Err(table::Error::NotLast) => plan(copy, Place { index: last.0 + 1, offset: first * SECTOR }),
            again => again.unwrap(),
        };
        apply(copy, &again);
        assert_eq!(partitions(copy), after);
        judge(copy);
    });
}

fn sgdisk(disk: &Path) {
    let said = run(Command::new("sgdisk").arg("--verify").arg(disk));
    assert!(said.contains("No problems found"), "{said}");
    sfdisk(disk);
}

fn sfdisk(disk: &Path) {
    run(Command::new("sfdisk").arg("--verify").arg(disk));
}

#[test]
fn a_gpt_survives_a_power_cut_at_any_write() {
    let bench = Bench::new("gpt");
    let disk = gpt_disk(&bench, 300 * MIB + 7 * SECTOR);
    let place = Place { index: 3, offset: partitions(&disk)[2].1 * SECTOR };
    cut_off_everywhere(&bench, &disk, place, sgdisk);
}

#[test]
fn an_mbr_survives_a_power_cut_at_any_write() {
    let bench = Bench::new("mbr");
    let disk = mbr_disk(&bench, 300 * MIB + 7 * SECTOR);
    let place = Place { index: 2, offset: partitions(&disk)[1].1 * SECTOR };
    cut_off_everywhere(&bench, &disk, place, sfdisk);
}

#[test]
fn a_partition_is_added_whenever_the_power_fails() {
    let bench = Bench::new("add");
    // On a medium that is larger than the image, and on one whose table is made for all of it.
    cut_off_adding(&bench, &gpt_disk(&bench, 300 * MIB + 7 * SECTOR), sgdisk);
    let disk = gpt_disk(&bench, 300 * MIB);
    run(Command::new("sgdisk").arg("--move-second-header").arg(&disk));
    cut_off_adding(&bench, &disk, sgdisk);
    cut_off_adding(&bench, &mbr_disk(&bench, 300 * MIB + 7 * SECTOR), sfdisk);
}

#[test]
fn a_medium_of_the_very_size_of_the_image_is_left_alone() {
    let bench = Bench::new("same");
    let disk = gpt_disk(&bench, 110 * MIB);
    let place = Place { index: 3, offset: partitions(&disk)[2].1 * SECTOR };
    let plan = plan(&disk, place);
    assert_eq!((plan.writes, plan.from), (vec![], plan.to));
}

#[test]
fn what_was_at_the_end_of_the_disk_before_is_no_matter() {
    let bench = Bench::new("stale");
    let disk = gpt_disk(&bench, 200 * MIB);
    // Another system's backup table, whole and valid.
    let other = bench.path("other.img");
    File::create(&other).unwrap().set_len(200 * MIB).unwrap();
    run(Command::new("sgdisk").args(["--new=1:2048:+100M"]).arg(&other));
    let bytes = fs::read(&other).unwrap();
    super::put(&disk, &bytes[bytes.len() - 64 * 512..], bytes.len() as u64 - 64 * 512);
    let place = Place { index: 3, offset: partitions(&disk)[2].1 * SECTOR };
    cut_off_everywhere(&bench, &disk, place, sgdisk);
}
