//! The data partition on a loop device: grown, mounted, found broken, made anew.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use auroraboot::appliance::boot_partition::{self, BootPartition};
use auroraboot::appliance::data::{self, Mounted, Outcome, seed};
use auroraboot::appliance::disks::{self, FileSystem, Volume};
use auroraboot::flash::host::Host;
use auroraboot::storage::Storage;
use auroraboot::sys::testbed;

use super::{Bench, MIB, gpt_disk, may_grow, mbr_disk, output, run, volumes_on};

/// As at a start: looks at the disk, opens what is found.
fn open(device: &Path, at: &Path) -> (Volume, Result<Outcome, data::Error>) {
    let volumes = volumes_on(device);
    let boot = disks::find_boot(&volumes).unwrap().volume;
    let volume = disks::find_data(&volumes, boot).unwrap().clone();
    let outcome = data::open(&volume, at);
    (volume, outcome)
}

fn mounted(outcome: Result<Outcome, data::Error>) -> Mounted {
    match outcome.unwrap() {
        Outcome::Mounted(mounted) => mounted,
        Outcome::NeedsRemake(reason) => panic!("{reason}"),
    }
}

/// Where root may not grow a file system, the notice says so; growth itself is then seen in a virtual machine only.
fn check_growth(mounted: &Mounted, from: u64, at_least: u64) {
    if may_grow() {
        assert_eq!((mounted.grown_from, mounted.notices.as_slice()), (Some(from), &[][..]));
        assert!(mounted.bytes > at_least, "{mounted:?}");
    } else {
        let expected = "the file system of the data partition cannot grow: Operation not permitted (os error 1)";
        assert_eq!((mounted.grown_from, mounted.notices.as_slice()), (None, &[expected.to_owned()][..]));
    }
}

fn reason(outcome: Result<Outcome, data::Error>) -> String {
    match outcome.unwrap() {
        Outcome::NeedsRemake(reason) => reason,
        Outcome::Mounted(mounted) => panic!("{mounted:?}"),
    }
}

fn fsck(node: &Path) {
    run(Command::new("e2fsck").arg("-fn").arg(node));
}

#[test]
fn it_grows_once_and_is_mounted_with_care() {
    testbed::own_mounts().unwrap();
    for (make, verify) in [(gpt_disk as fn(&Bench, u64) -> _, "sgdisk"), (mbr_disk, "sfdisk")] {
        let mut bench = Bench::new("grow");
        let disk = make(&bench, 1200 * MIB + 4096);
        let at = bench.path("data");
        let device = bench.attach(&disk, &[]);
        let (volume, outcome) = open(&device, &at);
        let first = mounted(outcome);
        check_growth(&first, seed::BYTES, 1050 * MIB);
        // Whatever the file system may do here, the partition has grown.
        let partition = volumes_on(&device).pop().unwrap();
        assert!(partition.size > 1098 * MIB && partition.size.is_multiple_of(MIB), "{partition:?}");
        let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
        let line = mounts.lines().find(|line| line.contains(at.to_str().unwrap())).unwrap();
        for option in ["nosuid", "nodev", "noexec", "noatime", "errors=remount-ro"] {
            assert!(line.contains(option), "{option} in {line}");
        }
        for (name, owner, mode) in [("state", 700, 0o40_700), ("log", 0, 0o40_700)] {
            let metadata = fs::metadata(at.join(name)).unwrap();
            assert_eq!((metadata.uid(), metadata.gid(), metadata.mode()), (owner, owner, mode), "{name}");
        }
        fs::write(at.join("state/image"), vec![7; 30 << 20]).unwrap();
        data::close(&at).unwrap();
        fsck(&volume.node);
        run(Command::new(verify).arg("--verify").arg(&disk));

        let (volume, outcome) = open(&device, &at);
        assert_ne!(volume.signature.unwrap().uuid, seed::UUID, "it got one of its own");
        let second = mounted(outcome);
        assert_eq!(second, if may_grow() { Mounted { grown_from: None, ..first } } else { first });
        assert_eq!(fs::metadata(at.join("state/image")).unwrap().len(), 30 << 20);
        data::close(&at).unwrap();
        fsck(&volume.node);
    }
}

#[test]
fn a_file_system_whose_growth_was_cut_off_goes_on_growing() {
    testbed::own_mounts().unwrap();
    let mut bench = Bench::new("regrow");
    let disk = gpt_disk(&bench, 400 * MIB);
    let at = bench.path("data");
    let device = bench.attach(&disk, &[]);
    mounted(open(&device, &at).1);
    data::close(&at).unwrap();
    bench.detach();
    OpenOptions::new().write(true).open(&disk).unwrap().set_len(900 * MIB).unwrap();
    let device = bench.attach(&disk, &[]);
    let (volume, outcome) = open(&device, &at);
    check_growth(&mounted(outcome), 362 * MIB, 800 * MIB);
    data::close(&at).unwrap();
    fsck(&volume.node);
}

#[test]
fn what_cannot_be_mounted_says_why_and_is_made_anew() {
    testbed::own_mounts().unwrap();
    let mut bench = Bench::new("broken");
    let disk = gpt_disk(&bench, 300 * MIB);
    let at = bench.path("data");
    let device = bench.attach(&disk, &[]);
    let (volume, outcome) = open(&device, &at);
    mounted(outcome);
    fs::write(at.join("state/old"), "old").unwrap();
    data::close(&at).unwrap();
    let partition = OpenOptions::new().write(true).open(&volume.node).unwrap();
    let damages: [(&str, &dyn Fn()); 3] = [
        ("it holds no file system", &|| partition.write_all_at(&[0; 4096], 0).unwrap()),
        ("the kernel cannot mount it", &|| partition.write_all_at(&[0xff; 8], 1024).unwrap()),
        ("the kernel found", &|| {
            run(Command::new("debugfs").args(["-w", "-R", "set_super_value error_count 3"]).arg(&volume.node));
        }),
    ];
    for (expected, damage) in damages {
        damage();
        let reason = reason(open(&device, &at).1);
        assert!(reason.starts_with(expected), "{reason}");
        data::remake(&volume).unwrap();
        fsck(&volume.node);
        let again = mounted(open(&device, &at).1);
        check_growth(&again, seed::BYTES, 200 * MIB);
        assert!(!at.join("state/old").exists());
        assert_ne!(disks::read_signature(&File::open(&volume.node).unwrap()).unwrap().uuid, seed::UUID);
        fs::write(at.join("state/old"), "old").unwrap();
        data::close(&at).unwrap();
        fsck(&volume.node);
    }
}

/// As at a start where there is no data partition.
fn make(device: &Path) -> Result<Volume, data::make::Error> {
    let volumes = volumes_on(device);
    let boot = disks::find_boot(&volumes).unwrap().volume;
    assert_eq!(disks::find_data(&volumes, boot), None);
    data::make::make(&Host::new(), boot)
}

fn without_data(disk: &Path) {
    let number = super::partitions(disk).last().unwrap().0.to_string();
    run(Command::new("sfdisk").args(["-q", "--delete"]).arg(disk).arg(number));
}

#[test]
fn one_that_is_missing_is_made() {
    testbed::own_mounts().unwrap();
    for (create, verify) in [(gpt_disk as fn(&Bench, u64) -> _, "sgdisk"), (mbr_disk, "sfdisk")] {
        let mut bench = Bench::new("make");
        let disk = create(&bench, 400 * MIB);
        let number = super::partitions(&disk).last().unwrap().0;
        // What was deleted there once is nobody's, also where it is not the seed.
        let stale = super::partitions(&disk).last().unwrap().1 * super::SECTOR;
        OpenOptions::new().write(true).open(&disk).unwrap().write_all_at(b"_BHRfS_M", stale + 0x1_0040).unwrap();
        without_data(&disk);
        let at = bench.path("data");
        let device = bench.attach(&disk, &[]);
        let node = format!("{}p{number}", device.to_str().unwrap());
        bench.undo.push(super::words(&["delpart", device.to_str().unwrap(), &number.to_string()]));
        let made = make(&device).unwrap();
        assert_eq!((made.node.to_str().unwrap(), made.index), (node.as_str(), number));
        assert!(made.size > 350 * MIB && made.size.is_multiple_of(MIB) && made.offset == stale, "{made:?}");
        run(Command::new(verify).arg("--verify").arg(&disk));
        fsck(&made.node);
        let (volume, outcome) = open(&device, &at);
        assert_eq!(volume, made);
        check_growth(&mounted(outcome), seed::BYTES, 300 * MIB);
        data::close(&at).unwrap();
        fsck(&made.node);
    }
}

#[test]
fn one_that_the_kernel_was_slow_to_show_is_waited_for() {
    let mut bench = Bench::new("slow");
    let disk = gpt_disk(&bench, 300 * MIB);
    let device = bench.attach(&disk, &[]);
    let volumes = volumes_on(&device);
    let boot = disks::find_boot(&volumes).unwrap().volume;
    let before = fs::read(&disk).unwrap();
    assert_eq!(data::make::make(&Host::new(), boot).unwrap(), *disks::find_data(&volumes, boot).unwrap());
    assert!(before == fs::read(&disk).unwrap(), "nothing is written");
    run(Command::new("delpart").arg(&device).arg("3"));
    let error = make(&device).unwrap_err();
    assert_eq!(error.to_string(), "the partition table lists one that the kernel does not show");
}

#[test]
fn none_is_made_without_room_nor_on_a_disk_that_is_write_protected() {
    let mut bench = Bench::new("noroom");
    let disk = gpt_disk(&bench, 110 * MIB);
    // The boot partition takes 8 MiB of what the data partition had.
    without_data(&disk);
    run(Command::new("sgdisk").args(["--delete=2", "--new=2:8192:+42M", "--typecode=2:ef00"]).arg(&disk));
    let before = fs::read(&disk).unwrap();
    for (mib, options, expected) in [
        (110, &[][..], "only 63 MiB are free behind the last partition, and 64 are needed"),
        (300, &["--read-only"][..], "the disk is write-protected"),
    ] {
        OpenOptions::new().write(true).open(&disk).unwrap().set_len(mib * MIB).unwrap();
        let device = bench.attach(&disk, options);
        assert_eq!(make(&device).unwrap_err().to_string(), expected);
        bench.detach();
    }
    assert!(fs::read(&disk).unwrap()[..100 << 20] == before[..100 << 20], "nothing was written");
}

#[test]
fn what_somebody_else_put_there_is_left_alone() {
    testbed::own_mounts().unwrap();
    let mut bench = Bench::new("others");
    let disk = gpt_disk(&bench, 300 * MIB);
    let at = bench.path("data");
    let device = bench.attach(&disk, &[]);
    let partition = volumes_on(&device).pop().unwrap().node;
    let makers: [(&[&str], &str); 5] = [
        (&["mkfs.vfat", "-n", "PHOTOS"], "vfat labelled PHOTOS"),
        (&["mke2fs", "-q", "-F", "-t", "ext4", "-L", "photos"], "ext4 labelled photos"),
        (&["mke2fs", "-q", "-F", "-t", "ext2"], "ext4 without a label"),
        (&["mkswap", "-q"], "swap"),
        (&[], "btrfs"), // by hand: a file system that is to be recognised need not be there
    ];
    for (maker, expected) in makers {
        run(Command::new("wipefs").args(["-q", "-a"]).arg(&partition));
        if maker.is_empty() {
            let file = OpenOptions::new().write(true).open(&partition).unwrap();
            file.write_all_at(b"_BHRfS_M", 0x1_0040).unwrap();
        } else {
            run(Command::new(maker[0]).args(&maker[1..]).arg(&partition));
        }
        let (volume, outcome) = open(&device, &at);
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains(&format!("holds {expected} and is left alone")), "{error}");
        assert_eq!(data::remake(&volume).unwrap_err().to_string(), error);
        assert_eq!(volumes_on(&device).pop().unwrap().size, seed::BYTES, "it does not even grow");
    }
}

#[test]
fn a_full_one_is_mounted_like_any_other() {
    testbed::own_mounts().unwrap();
    let mut bench = Bench::new("full");
    let disk = mbr_disk(&bench, 160 * MIB);
    let at = bench.path("data");
    let device = bench.attach(&disk, &[]);
    mounted(open(&device, &at).1);
    let full = fs::write(at.join("state/all"), vec![7; 160 << 20]).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    data::close(&at).unwrap();
    assert_eq!(mounted(open(&device, &at).1).notices.is_empty(), may_grow());
    data::close(&at).unwrap();
}

#[test]
fn a_write_protected_disk_is_no_reason_to_make_anything_anew() {
    testbed::own_mounts().unwrap();
    let mut bench = Bench::new("protected");
    let disk = gpt_disk(&bench, 300 * MIB);
    let at = bench.path("data");
    let device = bench.attach(&disk, &["--read-only"]);
    let (volume, outcome) = open(&device, &at);
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains("write-protected"), "{error}");
    assert!(data::remake(&volume).unwrap_err().to_string().contains("write-protected"));
}

#[test]
fn a_partition_that_is_too_small_is_not_made_anew() {
    let bench = Bench::new("small");
    let path = bench.path("small");
    File::create(&path).unwrap().set_len(seed::BYTES - 4096).unwrap();
    let volume = Volume {
        node: path.clone(),
        disk: Arc::from(path.as_path()),
        disk_size: 0,
        index: 0,
        offset: 0,
        size: 0,
        signature: None,
    };
    let error = data::remake(&volume).unwrap_err().to_string();
    assert!(error.contains("needs 67108864"), "{error}");
}

/// A partition in memory, which notes its writes.
struct Notes {
    bytes: Mutex<Vec<u8>>,
    writes: Mutex<Vec<(u64, Vec<u8>)>>,
}

impl Storage for Notes {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.bytes.lock().unwrap()[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        self.writes.lock().unwrap().push((offset, bytes.to_vec()));
        Ok(())
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        bytes.copy_from_slice(&self.bytes.lock().unwrap()[offset as usize..][..bytes.len()]);
        Ok(())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[test]
fn a_power_cut_while_it_is_made_anew_leaves_none_or_a_whole_one() {
    let bench = Bench::new("remake");
    let used = Notes { bytes: Mutex::new(vec![0xa5; seed::BYTES as usize]), writes: Mutex::default() };
    // What was there before is of the same kind: its superblock fits everything that the seed has elsewhere.
    used.write_all_at(&super::seed()[..4096], 0).unwrap();
    used.writes.lock().unwrap().clear();
    assert_eq!(disks::read_signature(&used).unwrap().file_system, FileSystem::Ext4);
    seed::write(&used, || Ok(())).unwrap();
    let writes = used.writes.into_inner().unwrap();
    let state = Notes { bytes: Mutex::new(vec![0xa5; seed::BYTES as usize]), writes: Mutex::default() };
    for (offset, bytes) in &writes[..writes.len() - 1] {
        state.write_all_at(bytes, *offset).unwrap();
        assert_eq!(disks::read_signature(&state), None, "after the write at {offset}");
    }
    let (offset, bytes) = writes.last().unwrap();
    assert_eq!((*offset, bytes.len()), (0, 4096));
    let image = bench.path("remade");
    fs::write(&image, used.bytes.into_inner().unwrap()).unwrap();
    fsck(&image);
    let written: usize = writes.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(written < 20 << 20, "{written} bytes: free blocks stay as they are");
    let journal = output(Command::new("debugfs").args(["-R", "dump <8> /dev/stdout"]).arg(&image)).stdout;
    assert!(journal.len() > 4 << 20 && journal[4096..].iter().all(|byte| *byte == 0), "old transactions are gone");
}

#[test]
fn the_seed_is_what_the_program_says_of_it() {
    let seed_bytes = super::seed();
    assert_eq!(seed_bytes.len() as u64, seed::BYTES);
    let bench = Bench::new("seed");
    let path = bench.path("seed");
    fs::write(&path, &seed_bytes).unwrap();
    let signature = disks::read_signature(&File::open(&path).unwrap()).unwrap();
    assert_eq!((signature.label.as_str(), signature.uuid.as_str()), (disks::DATA_LABEL, seed::UUID));
    let features = run(Command::new("dumpe2fs").arg("-h").arg(&path));
    for feature in ["64bit", "meta_bg", "metadata_csum", "metadata_csum_seed"] {
        assert!(features.contains(feature), "{feature}");
    }
    fsck(&path);
}

/// The boot partition's rules, on an ext4: the machine that tests may lack vfat.
fn boot_on_ext4(bench: &mut Bench, options: &[&str]) -> Volume {
    let path = bench.path("boot.img");
    fs::write(&path, super::seed()).unwrap();
    let device = bench.attach_plain(&path, options);
    volumes_on(&device).pop().unwrap()
}

#[test]
fn a_file_on_the_boot_partition_is_replaced_whole_and_nothing_else_is_writable() {
    testbed::own_mounts().unwrap();
    let mut bench = Bench::new("boot");
    let volume = boot_on_ext4(&mut bench, &[]);
    let at = bench.path("boot");
    let boot = BootPartition::mount(&volume, &at).unwrap();
    let read_only = || fs::write(at.join("x"), "x").unwrap_err().kind();
    assert_eq!(read_only(), io::ErrorKind::ReadOnlyFilesystem);
    boot.write("console.yaml", b"first").unwrap();
    boot.write("console.yaml", b"second").unwrap();
    boot.write("last-good/auroraboot.yaml", b"good").unwrap();
    assert_eq!(fs::read(at.join("console.yaml")).unwrap(), b"second");
    assert_eq!(fs::read(at.join("last-good/auroraboot.yaml")).unwrap(), b"good");
    assert!(!at.join("console.yaml.part").exists());
    assert_eq!(read_only(), io::ErrorKind::ReadOnlyFilesystem);
    boot.remove("console.yaml").unwrap();
    boot.remove("console.yaml").unwrap();
    assert!(!at.join("console.yaml").exists());
    for name in ["", "../x", "/etc/passwd", "a/b/c", ".x", "a//b", "a\nb", "a/.."] {
        assert!(boot.write(name, b"").unwrap_err().to_string().contains("cannot be the name"), "{name:?}");
    }
    let full = boot.write("large", &vec![1; 80 << 20]).unwrap_err();
    assert!(full.to_string().contains("is full: remove files"), "{full}");
    assert!(!at.join("large").exists() && !at.join("large.part").exists());
    assert_eq!(read_only(), io::ErrorKind::ReadOnlyFilesystem, "also after a failure");
    boot.write("small", b"fits again").unwrap();
    boot.unmount().unwrap();
    fsck(&volume.node);
}

#[test]
fn a_write_protected_boot_partition_says_what_to_do() {
    testbed::own_mounts().unwrap();
    let mut bench = Bench::new("switch");
    let volume = boot_on_ext4(&mut bench, &["--read-only"]);
    let boot = BootPartition::mount(&volume, &bench.path("boot")).unwrap();
    let error = boot.write("console.yaml", b"x").unwrap_err().to_string();
    assert!(error.contains("move the switch"), "{error}");
    boot.unmount().unwrap();
}

#[test]
fn a_stick_is_mounted_read_only() {
    testbed::own_mounts().unwrap();
    let mut bench = Bench::new("stick");
    let volume = boot_on_ext4(&mut bench, &[]);
    let at = bench.path("stick");
    boot_partition::mount_stick(&volume, &at).unwrap();
    assert_eq!(fs::write(at.join("x"), "x").unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
    auroraboot::sys::mount::unmount(&at, false).unwrap();
}
