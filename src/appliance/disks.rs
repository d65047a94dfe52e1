//! Which disk is ours: every file system that can be found, with the label that people gave it.

mod label;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use label::{FileSystem, Signature, ext4_blocks, ext4_errors, read as read_signature, somebody_elses};

use crate::flash::host::Host;

/// Label of the partition with the loader, the kernel and the configuration.
pub const BOOT_LABEL: &str = "APPLIANCE";

/// Label of the partition for what the server keeps.
pub const DATA_LABEL: &str = "AURORADATA";

/// Label of a stick that brings configuration.
pub const STICK_LABEL: &str = "AURORABOOT";

/// A partition, or a whole disk that has none, and the file system on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Such as `/dev/sda2`.
    pub node: PathBuf,
    /// The disk that it is on, such as `/dev/sda`; shared by all on it.
    pub disk: Arc<Path>,
    /// The disk's size in bytes.
    pub disk_size: u64,
    /// Number of the partition; 0 for a whole disk.
    pub index: u32,
    /// Bytes from the disk's beginning.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// What is on it; `None` when that is nothing we know.
    pub signature: Option<Signature>,
}

impl Volume {
    fn is_labelled(&self, label: &str) -> bool {
        self.signature.as_ref().is_some_and(|signature| signature.label.eq_ignore_ascii_case(label))
    }
}

/// Every partition and every disk without partitions, in the order of the disks' names.
#[must_use]
pub fn volumes(host: &Host) -> Vec<Volume> {
    volumes_with(host, |node| std::fs::File::open(node).ok().and_then(|device| label::read(&device)))
}

fn volumes_with(host: &Host, signature: impl Fn(&Path) -> Option<Signature>) -> Vec<Volume> {
    let mut found = Vec::new();
    for disk in host.disks() {
        let node: Arc<Path> = disk.node.as_path().into();
        let volume = |own: &PathBuf, index, offset, size| Volume {
            node: own.clone(),
            disk: Arc::clone(&node),
            disk_size: disk.size,
            index,
            offset,
            size,
            signature: signature(own),
        };
        if disk.partitions.is_empty() {
            found.push(volume(&disk.node, 0, 0, disk.size));
        }
        found.extend(disk.partitions.iter().map(|part| volume(&part.node, part.index, part.offset, part.size)));
    }
    found
}

/// The boot partition, and others that bear its label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot<'a> {
    pub volume: &'a Volume,
    /// Worth a warning: of which disk the loader took the kernel is not known.
    pub others: Vec<&'a Volume>,
}

/// The partition labelled `APPLIANCE`: the first one, but one with `AURORADATA` beside it before one without.
#[must_use]
pub fn find_boot(volumes: &[Volume]) -> Option<Boot<'_>> {
    let is_boot = |volume: &&Volume| {
        volume.is_labelled(BOOT_LABEL)
            && volume.signature.as_ref().is_some_and(|found| found.file_system == FileSystem::Fat)
    };
    let has_data = |boot: &Volume| find_data(volumes, boot).is_some_and(|data| data.is_labelled(DATA_LABEL));
    let mut candidates: Vec<&Volume> = volumes.iter().filter(is_boot).collect();
    candidates.sort_by_key(|volume| !has_data(volume)); // stable
    let mut candidates = candidates.into_iter();
    candidates.next().map(|volume| Boot { volume, others: candidates.collect() })
}

/// The partition that follows the boot partition on its disk, whatever is on it: it may be in need of being made anew.
#[must_use]
pub fn find_data<'a>(volumes: &'a [Volume], boot: &Volume) -> Option<&'a Volume> {
    let behind = volumes.iter().filter(|volume| volume.disk == boot.disk && volume.offset > boot.offset);
    behind.min_by_key(|volume| volume.offset)
}

/// The stick labelled `AURORABOOT` in any case, on another disk than the boot partition's.
#[must_use]
pub fn find_stick<'a>(volumes: &'a [Volume], boot: Option<&Volume>) -> Option<&'a Volume> {
    let elsewhere = |volume: &&Volume| boot.is_none_or(|boot| boot.disk != volume.disk);
    volumes.iter().filter(elsewhere).find(|volume| volume.is_labelled(STICK_LABEL))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(disk: &str, index: u32, file_system: FileSystem, label: &str) -> Volume {
        Volume {
            node: format!("{disk}{index}").into(),
            disk: Path::new(disk).into(),
            disk_size: 1 << 30,
            index,
            offset: u64::from(index) << 20,
            size: 1 << 20,
            signature: Some(Signature { file_system, label: label.to_owned(), uuid: String::new() }),
        }
    }

    fn node(volume: Option<&Volume>) -> Option<&str> {
        volume.and_then(|volume| volume.node.to_str())
    }

    #[test]
    fn the_boot_partition_is_the_one_with_data_beside_it() {
        let lone = volume("/dev/sda", 1, FileSystem::Fat, "APPLIANCE");
        let other = volume("/dev/sda", 2, FileSystem::Ext4, "root");
        let boot = volume("/dev/sdb", 2, FileSystem::Fat, "appliance");
        let data = volume("/dev/sdb", 3, FileSystem::Ext4, "AURORADATA");
        let wrong_kind = volume("/dev/sdc", 1, FileSystem::Ext4, "APPLIANCE");
        let all = [lone.clone(), other.clone(), boot.clone(), data.clone(), wrong_kind];
        let found = find_boot(&all).unwrap();
        assert_eq!((node(Some(found.volume)), found.others), (Some("/dev/sdb2"), vec![&lone]));
        assert_eq!(node(find_data(&all, &boot)), Some("/dev/sdb3"));
        assert_eq!(node(find_data(&all, &data)), None);
        let alone = [other, lone];
        let found = find_boot(&alone).unwrap();
        assert_eq!((node(Some(found.volume)), found.others.len()), (Some("/dev/sda1"), 0));
        assert_eq!(find_boot(&alone[..1]), None);
    }

    #[test]
    fn the_data_partition_is_the_next_one_whatever_is_on_it() {
        let boot = volume("/dev/mmcblk0p", 1, FileSystem::Fat, "APPLIANCE");
        let broken = Volume { signature: None, ..volume("/dev/mmcblk0p", 2, FileSystem::Ext4, "") };
        let last = volume("/dev/mmcblk0p", 3, FileSystem::Ext4, "AURORADATA");
        let all = [last, broken, boot];
        assert_eq!(node(find_data(&all, &all[2])), Some("/dev/mmcblk0p2"));
    }

    #[test]
    fn a_stick_is_on_another_disk_and_its_label_in_any_case() {
        let boot = volume("/dev/sda", 1, FileSystem::Fat, "APPLIANCE");
        let decoy = volume("/dev/sda", 2, FileSystem::Fat, "AURORABOOT");
        let stick = volume("/dev/sdb", 1, FileSystem::Ext4, "AuroraBoot");
        let all = [boot, decoy, stick];
        assert_eq!(node(find_stick(&all, Some(&all[0]))), Some("/dev/sdb1"));
        assert_eq!(node(find_stick(&all[..2], Some(&all[0]))), None);
        assert_eq!(node(find_stick(&all, None)), Some("/dev/sda2"));
    }
}
