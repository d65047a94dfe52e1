//! What a person is shown and asked before a disk is overwritten.

use std::path::Path;

use super::host::{Disk, Kind};
use crate::units::ByteSize;

/// `SanDisk Ultra, 32.0 GB, USB, serial 4C530001; on it now: GPT with FAT32 "DATA" 32.0 GB`.
#[must_use]
pub fn describe(disk: &Disk, contents: &str) -> String {
    let mut facts = vec![short(disk), disk.transport.to_owned()];
    if disk.removable && disk.transport != "SD card" {
        facts.push("removable".to_owned());
    }
    if !disk.serial.is_empty() {
        facts.push(format!("serial {}", disk.serial));
    }
    format!("{}; on it now: {contents}", facts.join(", "))
}

/// `SanDisk Ultra, 32.0 GB`.
#[must_use]
pub fn short(disk: &Disk) -> String {
    let model = if disk.model.is_empty() { "unknown model" } else { &disk.model };
    format!("{model}, {}", ByteSize(disk.size))
}

/// The question that is asked once for all disks.
#[must_use]
pub fn ask(iso: &Path, size: u64, disks: &[Disk]) -> String {
    let name = iso.file_name().unwrap_or(iso.as_os_str()).to_string_lossy();
    let names: Vec<String> = disks.iter().map(|disk| format!("{} ({})", disk.node.display(), short(disk))).collect();
    let it = if disks.len() == 1 { "it" } else { "them" };
    format!("Write {name} ({}) to {}? Everything on {it} is lost. [y/N] ", ByteSize(size), names.join(" and "))
}

/// Whether the answer to [`ask`] was yes.
#[must_use]
pub fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

/// The question about an internal disk, which a habitual `y` does not answer.
#[must_use]
pub fn ask_internal(disk: &Disk) -> String {
    let (node, transport) = (disk.node.display(), disk.transport);
    format!(
        "{node} is an internal disk ({transport}), not a stick. To overwrite it all the same, type its name, {node}: "
    )
}

/// Whether the answer to [`ask_internal`] was the disk's name.
#[must_use]
pub fn is_named(disk: &Disk, answer: &str) -> bool {
    disk.node.to_str() == Some(answer.trim())
}

/// What `auroraboot flash` without `--to` tells.
#[must_use]
pub fn list(disks: &[Disk]) -> String {
    let sticks: Vec<&Disk> = disks.iter().filter(|disk| disk.kind == Kind::Stick).collect();
    let Some(first) = sticks.first() else {
        return "no USB stick, SD card or other removable disk is here; plug one in, then: auroraboot flash --to /dev/sdX".to_owned();
    };
    let width = sticks.iter().map(|disk| disk.node.as_os_str().len()).max().unwrap_or(0);
    let rows = sticks.iter().map(|disk| {
        let note = if disk.read_only { ", write-protected" } else { "" };
        format!("  {:width$}  {}, {}{note}\n", disk.node.display().to_string(), short(disk), disk.transport)
    });
    let rows: String = rows.collect();
    format!("which stick? These are here:\n{rows}Write to one with: auroraboot flash --to {}", first.node.display())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FakeHost, SATA, USB};
    use super::*;

    fn disks() -> Vec<Disk> {
        let fake = FakeHost::new("question");
        let names =
            [("removable", "1"), ("device/vendor", "SanDisk"), ("device/model", "Ultra"), ("device/serial", "4C53")];
        fake.disk(USB, "sdb", "8:16", 62_500_000, &names);
        fake.disk(SATA, "sda", "8:0", 2_000_000_000, &[("ro", "1")]);
        fake.host().disks().into_iter().rev().collect()
    }

    #[test]
    fn what_is_asked_names_everything_that_is_lost() {
        let disks = disks();
        let iso = Path::new("/tmp/auroraboot/iso/kairos.iso.custom.iso");
        assert_eq!(
            ask(iso, 412_000_000, &disks[..1]),
            "Write kairos.iso.custom.iso (412.0 MB) to /dev/sdb (SanDisk Ultra, 32.0 GB)? Everything on it is lost. [y/N] "
        );
        assert!(ask(iso, 1, &disks).contains(
            "to /dev/sdb (SanDisk Ultra, 32.0 GB) and /dev/sda (unknown model, 1024.0 GB)? Everything on them is lost."
        ));
        assert_eq!(
            describe(&disks[0], "empty"),
            "SanDisk Ultra, 32.0 GB, USB, removable, serial 4C53; on it now: empty"
        );
    }

    #[test]
    fn only_yes_is_yes_and_only_the_name_is_the_name() {
        for (answer, wanted) in [
            ("y\n", true),
            ("YES\n", true),
            (" y \n", true),
            ("", false),
            ("\n", false),
            ("n\n", false),
            ("yy\n", false),
            ("j\n", false),
        ] {
            assert_eq!(is_yes(answer), wanted, "{answer:?}");
        }
        let disk = &disks()[1];
        assert!(ask_internal(disk).ends_with("type its name, /dev/sda: "));
        for (answer, wanted) in
            [("/dev/sda\n", true), ("sda\n", false), ("y\n", false), ("\n", false), ("/dev/sdb\n", false)]
        {
            assert_eq!(is_named(disk, answer), wanted, "{answer:?}");
        }
    }

    #[test]
    fn the_list_shows_sticks_and_what_to_type() {
        let list = list(&disks());
        assert_eq!(
            list,
            "which stick? These are here:\n  /dev/sdb  SanDisk Ultra, 32.0 GB, USB\nWrite to one with: auroraboot flash --to /dev/sdb"
        );
        assert!(super::list(&[]).starts_with("no USB stick"));
    }
}
