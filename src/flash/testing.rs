//! A `/sys` and `/proc` of a host that does not exist.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::host::Host;

/// Where the kernel puts a disk on USB, and one on SATA.
pub const USB: &str = "devices/pci0000:00/0000:00:14.0/usb1/1-2/1-2:1.0/host2/target2:0:0/2:0:0:0";
pub const SATA: &str = "devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0";

/// The tree, removed in the end.
pub struct FakeHost(PathBuf);

impl FakeHost {
    pub fn new(test: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("auroraboot-flash-{test}-{}-{count}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let fake = Self(root);
        for directory in ["sys/block", "sys/class/block", "sys/dev/block"] {
            fs::create_dir_all(fake.0.join(directory)).unwrap();
        }
        fake
    }

    pub fn host(&self) -> Host {
        Host::fake(&self.0)
    }

    /// A disk of so many sectors on the device `at`, with attributes such as `removable` or, of the device, `device/model`.
    pub fn disk(&self, at: &str, name: &str, number: &str, sectors: u64, attributes: &[(&str, &str)]) {
        let directory = self.0.join("sys").join(at).join("block").join(name);
        fs::create_dir_all(&directory).unwrap();
        let _ = symlink("../..", directory.join("device"));
        self.list(&directory, name, number, sectors);
        symlink(&directory, self.0.join("sys/block").join(name)).unwrap();
        for (attribute, text) in attributes {
            write(&directory.join(attribute), text);
        }
    }

    pub fn partition(&self, at: &str, disk: &str, name: &str, number: &str, start: u64, sectors: u64) {
        let directory = self.0.join("sys").join(at).join("block").join(disk).join(name);
        self.list(&directory, name, number, sectors);
        write(&directory.join("partition"), "1\n");
        write(&directory.join("start"), &format!("{start}\n"));
    }

    /// Attributes of the device itself.
    pub fn attributes(&self, at: &str, attributes: &[(&str, &str)]) {
        for (attribute, text) in attributes {
            write(&self.0.join("sys").join(at).join(attribute), text);
        }
    }

    pub fn file(&self, path: &str, text: &str) {
        write(&self.0.join(path), text);
    }

    fn list(&self, directory: &Path, name: &str, number: &str, sectors: u64) {
        write(&directory.join("dev"), &format!("{number}\n"));
        write(&directory.join("size"), &format!("{sectors}\n"));
        write(&directory.join("uevent"), &format!("MAJOR=8\nDEVNAME={name}\nDEVTYPE=disk\n"));
        symlink(directory, self.0.join("sys/class/block").join(name)).unwrap();
        symlink(directory, self.0.join("sys/dev/block").join(number)).unwrap();
    }
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

impl Drop for FakeHost {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
