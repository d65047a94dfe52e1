//! Labels and identities as mkfs writes them, judged by blkid.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use auroraboot::appliance::disks::{FileSystem, read_signature};

use super::{Bench, MIB, run};

fn blkid(path: &Path, tag: &str) -> String {
    run(Command::new("blkid").args(["-p", "-s", tag, "-o", "value"]).arg(path)).trim().to_owned()
}

#[test]
fn labels_and_identities_are_what_blkid_says() {
    let bench = Bench::new("labels");
    let path = bench.path("image");
    let commands: [(&str, u64, &[&str], FileSystem); 7] = [
        ("mkfs.vfat", 2, &["-F", "12", "-n", "AURORABOOT"], FileSystem::Fat),
        ("mkfs.vfat", 20, &["-F", "16", "-n", "Aurora Boot"], FileSystem::Fat),
        ("mkfs.vfat", 64, &["-F", "32", "-n", "APPLIANCE"], FileSystem::Fat),
        ("mkfs.vfat", 64, &["-F", "32", "-S", "4096", "-n", "APPLIANCE"], FileSystem::Fat),
        ("mkfs.vfat", 64, &["-F", "32"], FileSystem::Fat),
        ("mke2fs", 20, &["-q", "-t", "ext4", "-L", "AuroraBoot"], FileSystem::Ext4),
        ("mke2fs", 20, &["-q", "-t", "ext2"], FileSystem::Ext4),
    ];
    for (command, size, arguments, file_system) in commands {
        let _ = fs::remove_file(&path);
        File::create(&path).unwrap().set_len(size * MIB).unwrap();
        run(Command::new(command).args(arguments).arg(&path));
        let found = read_signature(&File::open(&path).unwrap()).unwrap();
        assert_eq!(found.file_system, file_system, "{command} {arguments:?}");
        assert_eq!((found.label, found.uuid), (blkid(&path, "LABEL"), blkid(&path, "UUID")), "{command} {arguments:?}");
    }
}

#[test]
fn a_label_given_later_counts_and_so_does_one_behind_many_files() {
    let bench = Bench::new("relabel");
    let path = bench.path("image");
    File::create(&path).unwrap().set_len(64 * MIB).unwrap();
    run(Command::new("mkfs.vfat").args(["-F", "32", "-s", "1"]).arg(&path));
    // The root directory's first clusters are full of long names before the label comes.
    for index in 0..40 {
        let name = format!("::a file with a rather long name that takes several entries {index}");
        run(Command::new("mcopy").arg("-i").arg(&path).arg("/dev/null").arg(name));
    }
    run(Command::new("mlabel").arg("-i").arg(&path).arg("::auroraboot"));
    let found = read_signature(&File::open(&path).unwrap()).unwrap();
    assert_eq!(found.label, "AURORABOOT");
    assert_eq!(found.label, blkid(&path, "LABEL"));
}

#[test]
fn a_fat_made_to_be_slow_is_given_up() {
    let bench = Bench::new("circle");
    let path = bench.path("image");
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    file.set_len(64 * MIB).unwrap();
    run(Command::new("mkfs.vfat").args(["-F", "32", "-s", "1", "-n", "AURORABOOT"]).arg(&path));
    let mut sector = [0; 512];
    file.read_exact_at(&mut sector, 0).unwrap();
    let number = |at: usize| u64::from(u32::from_le_bytes(sector[at..at + 4].try_into().unwrap()));
    let fat_at = u64::from(u16::from_le_bytes(sector[14..16].try_into().unwrap())) * 512;
    let root_at = fat_at + u64::from(sector[16]) * number(36) * 512;
    // The root directory is full, names no label, and follows itself.
    file.write_all_at(&[b'A'; 512], root_at).unwrap();
    file.write_all_at(&2_u32.to_le_bytes(), fat_at + 8).unwrap();
    let began = Instant::now();
    let found = read_signature(&file).unwrap();
    assert_eq!(found.label, "AURORABOOT", "what the boot sector says");
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[test]
fn every_damaged_field_of_a_boot_sector_is_taken_calmly() {
    let bench = Bench::new("fields");
    let path = bench.path("image");
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    file.set_len(8 * MIB).unwrap();
    run(Command::new("mkfs.vfat").args(["-n", "AURORABOOT"]).arg(&path));
    let mut sector = [0; 512];
    file.read_exact_at(&mut sector, 0).unwrap();
    for at in 0..90 {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut damaged = sector;
            damaged[at] = value;
            file.write_all_at(&damaged, 0).unwrap();
            let _ = read_signature(&file); // anything but a panic
        }
    }
    file.write_all_at(&[0xff; 512], 0).unwrap();
    assert_eq!(read_signature(&file), None);
}
