//! May this device be written? Every refusal is a sentence that says what to do instead.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::host::{By, Disk, Found, Host, Kind, Usage};
use super::image;
use crate::limits::FLASH_DEVICES_MAX;
use crate::units::ByteSize;

/// Why a device is not written. Nothing was written to any.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("there is no {path}{}; `auroraboot flash` without --to lists the sticks", hint(.suggestion.as_deref()))]
    Missing { path: PathBuf, suggestion: Option<PathBuf> },
    #[error("{path} is {what}, not a disk; `auroraboot flash` without --to lists the sticks")]
    NotBlock { path: PathBuf, what: &'static str },
    #[error("the kernel tells nothing of {path} (no /sys/dev/block entry), so what uses it cannot be checked")]
    Unknown { path: PathBuf },
    #[error("{path} is a partition of {disk}, and an {image} takes the whole stick: --to {disk}")]
    Partition { path: PathBuf, disk: PathBuf, image: image::Kind },
    #[error("{second} is {first} again; name each stick once")]
    Twice { first: PathBuf, second: PathBuf },
    #[error("{count} devices; at most {FLASH_DEVICES_MAX} are written at the same time")]
    TooMany { count: usize },
    #[error("{node} is a volume made of other disks (LVM, dm-crypt, RAID), not a stick")]
    Mapping { node: PathBuf },
    #[error("{node} is an optical drive; burning discs takes another program")]
    Optical { node: PathBuf },
    #[error("{node} has no medium in it")]
    NoMedium { node: PathBuf },
    #[error("the {kind} {path} itself lies on {node}; copy it somewhere else first")]
    ImageOnIt { kind: image::Kind, path: PathBuf, node: PathBuf },
    #[error("{node} is in use: {}{}", uses(.usages), remedy(.usages))]
    InUse { node: PathBuf, usages: Vec<Usage> },
    #[error("{node} is write-protected; many sticks and SD cards have a switch for that")]
    ReadOnly { node: PathBuf },
    #[error("{node} is too small: it holds {}, the {image} needs {} ({missing} bytes more)", ByteSize(*.size), ByteSize(*.needed))]
    TooSmall { node: PathBuf, size: u64, image: image::Kind, needed: u64, missing: u64 },
    #[error(
        "{node} ({transport}) is an internal disk, neither removable nor on USB; if it is the right one, add --allow-internal"
    )]
    Internal { node: PathBuf, transport: &'static str },
    #[error("{node} may only be opened by root: sudo auroraboot flash …")]
    Permission { node: PathBuf },
    #[error(
        "{node} is in use by something that this process cannot see: a mount of another container or user session, a RAID, a virtual machine"
    )]
    Busy { node: PathBuf },
    #[error("another program holds the lock of {node} (a formatter, another flash?); try again when it is done")]
    Locked { node: PathBuf },
    #[error("{node} has blocks of {block} bytes, which is no size that an image can be written in")]
    Blocks { node: PathBuf, block: u64 },
    #[error("{node} was replaced by another device just now; try again")]
    Replaced { node: PathBuf },
    #[error("cannot open {node}")]
    Open { node: PathBuf, source: io::Error },
}

fn hint(suggestion: Option<&Path>) -> String {
    suggestion.map(|path| format!(", did you mean {}?", path.display())).unwrap_or_default()
}

/// `/dev/sdb1 is mounted at /media/stick; /dev/sdb2 is swap`.
fn uses(usages: &[Usage]) -> String {
    let say = |usage: &Usage| {
        let node = usage.node.display();
        let through = usage.through.iter().map(|name| format!(", through {name},")).collect::<String>();
        match &usage.by {
            By::Mount(at) if at == Path::new("/") => format!("{node}{through} holds the running system (/)"),
            By::Mount(at) => format!("{node}{through} is mounted at {}", at.display()),
            By::Swap => format!("{node}{through} is swap"),
            By::Backing(name) => format!("{node}{through} is what {name} stands on"),
            By::Volume => format!("{node} is part of {}", usage.through.join(", ")),
        }
    };
    usages.iter().map(say).collect::<Vec<_>>().join("; ")
}

/// What a person does about mounts that are not the system's.
fn remedy(usages: &[Usage]) -> String {
    let mounts: Option<Vec<&Path>> = usages
        .iter()
        .map(|usage| match &usage.by {
            By::Mount(at) if usage.is_removable_mount() => Some(at.as_path()),
            _ => None,
        })
        .collect();
    let Some(mounts) = mounts else { return String::new() };
    let paths: Vec<String> = mounts.iter().map(|at| at.display().to_string()).collect();
    format!("; if it is the right one: umount {}", paths.join(" "))
}

impl Usage {
    /// Mounted where sticks are mounted: what may be unmounted without further thought.
    fn is_removable_mount(&self) -> bool {
        let By::Mount(at) = &self.by else { return false };
        self.through.is_empty() && ["/media", "/mnt", "/run/media"].iter().any(|above| at.starts_with(above))
    }
}

/// What flashing needs to know of the image to check a disk for it.
#[derive(Debug, Clone, Copy)]
pub struct Needs<'a> {
    pub kind: image::Kind,
    pub path: &'a Path,
    /// Bytes.
    pub size: u64,
}

/// What was said about disks that are no sticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consent {
    /// `--yes`: nobody will be asked.
    pub yes: bool,
    /// `--allow-internal`.
    pub allow_internal: bool,
}

/// The whole disks behind the paths of `--to`, in order, each of them fit to be written.
///
/// # Errors
/// The first [`Refusal`].
pub fn targets(host: &Host, paths: &[String], needs: Needs<'_>, consent: Consent) -> Result<Vec<Disk>, Refusal> {
    if paths.len() > FLASH_DEVICES_MAX {
        return Err(Refusal::TooMany { count: paths.len() });
    }
    let mut disks: Vec<(PathBuf, Disk)> = Vec::new();
    for path in paths.iter().map(PathBuf::from) {
        let disk = find(host, &path, needs.kind)?;
        if let Some((first, _)) = disks.iter().find(|(_, known)| known.number == disk.number) {
            return Err(Refusal::Twice { first: first.clone(), second: path });
        }
        disks.push((path, disk));
    }
    for (_, disk) in &disks {
        check(host, disk, needs, consent)?;
    }
    Ok(disks.into_iter().map(|(_, disk)| disk).collect())
}

fn find(host: &Host, path: &Path, image: image::Kind) -> Result<Disk, Refusal> {
    let Some(number) = host.number_at(path) else { return Err(no_block_device(host, path)) };
    match host.find(number) {
        None => Err(Refusal::Unknown { path: path.to_owned() }),
        Some(Found::Partition { disk, .. }) => Err(Refusal::Partition { path: path.to_owned(), disk, image }),
        Some(Found::Disk(disk)) => Ok(disk),
    }
}

fn no_block_device(host: &Host, path: &Path) -> Refusal {
    let owned = path.to_owned();
    let Ok(metadata) = fs::metadata(path) else {
        // `--to sdb`
        let device = Path::new("/dev").join(path);
        let suggestion = host.number_at(&device).map(|_| device);
        return Refusal::Missing { path: owned, suggestion };
    };
    let kind = metadata.file_type();
    let what = if kind.is_dir() {
        "a directory"
    } else if kind.is_file() {
        "a file"
    } else if kind.is_char_device() {
        "a character device"
    } else {
        "a pipe or a socket"
    };
    Refusal::NotBlock { path: owned, what }
}

fn check(host: &Host, disk: &Disk, needs: Needs<'_>, consent: Consent) -> Result<(), Refusal> {
    let node = || disk.node.clone();
    match disk.kind {
        Kind::Optical => return Err(Refusal::Optical { node: node() }),
        Kind::Mapping => return Err(Refusal::Mapping { node: node() }),
        Kind::Stick | Kind::Internal | Kind::Loop => {}
    }
    if disk.size == 0 {
        return Err(Refusal::NoMedium { node: node() });
    }
    let usages = host.usages(disk);
    // Nobody is told to copy the image away from the system's disk.
    let is_movable = usages.iter().all(|usage| usage.is_removable_mount());
    if is_movable && host.lies_on(needs.path, &usages) {
        return Err(Refusal::ImageOnIt { kind: needs.kind, path: needs.path.to_owned(), node: node() });
    }
    if !usages.is_empty() {
        return Err(Refusal::InUse { node: node(), usages });
    }
    if disk.read_only {
        return Err(Refusal::ReadOnly { node: node() });
    }
    fits(disk, disk.size, needs)?;
    if disk.kind == Kind::Internal && consent.yes && !consent.allow_internal {
        return Err(Refusal::Internal { node: node(), transport: disk.transport });
    }
    Ok(())
}

/// Whether the image fits on the disk, whose size the opened device tells once more.
///
/// # Errors
/// [`Refusal::TooSmall`].
pub fn fits(disk: &Disk, size: u64, image: Needs<'_>) -> Result<(), Refusal> {
    let (node, needed) = (disk.node.clone(), image.size);
    match needed.checked_sub(size) {
        None | Some(0) => Ok(()),
        Some(missing) => Err(Refusal::TooSmall { node, size, image: image.kind, needed, missing }),
    }
}

/// What an error of opening the device means.
#[must_use]
pub fn cannot_open(disk: &Disk, error: io::Error) -> Refusal {
    let node = disk.node.clone();
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => Refusal::Permission { node },
        Some(libc::EBUSY) => Refusal::Busy { node },
        Some(libc::EROFS) => Refusal::ReadOnly { node },
        Some(libc::ENOMEDIUM) => Refusal::NoMedium { node },
        _ => Refusal::Open { node, source: error },
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FakeHost, SATA, USB};
    use super::*;

    const ASK: Consent = Consent { yes: false, allow_internal: false };
    const YES: Consent = Consent { yes: true, allow_internal: false };

    fn host() -> FakeHost {
        let fake = FakeHost::new("checks");
        fake.disk(SATA, "sda", "8:0", 1_000_000, &[]);
        fake.partition(SATA, "sda", "sda1", "8:1", 2048, 1000);
        fake.disk(USB, "sdb", "8:16", 1_000_000, &[("removable", "1")]);
        fake.partition(USB, "sdb", "sdb1", "8:17", 2048, 1000);
        fake.file("sys/class/block/disk/by-id/usb-Ultra/dev", "8:16");
        fake.disk("devices/virtual", "loop0", "7:0", 1_000_000, &[]);
        fake
    }

    fn check(fake: &FakeHost, paths: &[&str], size: u64, consent: Consent) -> Result<Vec<String>, String> {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        let needs = Needs { kind: image::Kind::Disk, path: Path::new("/proc/self/stat"), size };
        let found = targets(&fake.host(), &paths, needs, consent).map_err(|refusal| refusal.to_string())?;
        Ok(found.into_iter().map(|disk| disk.name).collect())
    }

    #[test]
    fn sticks_and_loop_devices_may_be_written_internal_disks_by_name_only() {
        let fake = host();
        assert_eq!(check(&fake, &["/dev/sdb", "/dev/loop0"], 512_000_000, YES).unwrap(), ["sdb", "loop0"]);
        assert_eq!(check(&fake, &["/dev/disk/by-id/usb-Ultra"], 1, YES).unwrap(), ["sdb"]);
        assert_eq!(check(&fake, &["/dev/sda"], 1, ASK).unwrap(), ["sda"], "its name is asked for later");
        let error = check(&fake, &["/dev/sda"], 1, YES).unwrap_err();
        assert!(error.starts_with("/dev/sda (SATA) is an internal disk"), "{error}");
        assert_eq!(check(&fake, &["/dev/sda"], 1, Consent { allow_internal: true, ..YES }).unwrap(), ["sda"]);
    }

    #[test]
    fn what_is_no_disk_is_refused_with_what_it_is() {
        for (path, message) in [
            ("/dev/sdb1", "/dev/sdb1 is a partition of /dev/sdb, and an image takes the whole stick: --to /dev/sdb"),
            ("sdb", "there is no sdb, did you mean /dev/sdb?; "),
            ("/dev/sdz", "there is no /dev/sdz; "),
            ("/proc", "/proc is a directory, not a disk; "),
            ("/proc/self/stat", "/proc/self/stat is a file, not a disk; "),
            ("/dev/null", "/dev/null is a character device, not a disk; "),
        ] {
            let error = check(&host(), &[path], 1, YES).unwrap_err();
            assert!(error.starts_with(message), "{path}: {error}");
        }
    }

    #[test]
    fn the_same_stick_twice_and_too_many_are_refused() {
        let fake = host();
        let error = check(&fake, &["/dev/sdb", "/dev/disk/by-id/usb-Ultra"], 1, YES).unwrap_err();
        assert_eq!(error, "/dev/disk/by-id/usb-Ultra is /dev/sdb again; name each stick once");
        let many = vec!["/dev/sdb"; FLASH_DEVICES_MAX + 1];
        assert_eq!(check(&fake, &many, 1, YES).unwrap_err(), "17 devices; at most 16 are written at the same time");
    }

    #[test]
    fn a_disk_in_use_is_refused_whatever_was_allowed() {
        let all = Consent { yes: true, allow_internal: true };
        for (mounts, swaps, message) in [
            (
                "1 1 8:17 / /media/me/DATA rw - vfat /dev/sdb1 rw",
                "",
                "/dev/sdb is in use: /dev/sdb1 is mounted at /media/me/DATA; if it is the right one: umount /media/me/DATA",
            ),
            ("1 1 8:17 / / rw - ext4 /dev/sdb1 rw", "", "/dev/sdb is in use: /dev/sdb1 holds the running system (/)"),
            ("1 1 8:16 / /srv rw - ext4 /dev/sdb rw", "", "/dev/sdb is in use: /dev/sdb is mounted at /srv"),
            ("", "Filename\n/dev/sdb1 partition 1 0 -2", "/dev/sdb is in use: /dev/sdb1 is swap"),
        ] {
            let fake = host();
            fake.file("proc/self/mountinfo", mounts);
            fake.file("proc/swaps", swaps);
            assert_eq!(check(&fake, &["/dev/sdb"], 1, all).unwrap_err(), message);
        }
        let fake = host();
        fake.disk("devices/virtual", "dm-0", "253:0", 900, &[("dm/name", "vg-root")]);
        fake.file("sys/class/block/sdb1/holders/dm-0", "");
        assert_eq!(
            check(&fake, &["/dev/sdb"], 1, all).unwrap_err(),
            "/dev/sdb is in use: /dev/sdb1 is part of dm-0 (vg-root)"
        );
    }

    #[test]
    fn the_disk_that_the_iso_lies_on_is_refused() {
        let fake = host();
        fake.file(
            "proc/self/mountinfo",
            "1 1 0:1 / / rw - overlay overlay rw\n2 1 8:17 / /media/isos rw - vfat /dev/sdb1 rw",
        );
        let refuse = |iso| {
            let needs = Needs { kind: image::Kind::Iso, path: Path::new(iso), size: 1 };
            targets(&fake.host(), &["/dev/sdb".to_owned()], needs, YES).unwrap_err().to_string()
        };
        let message = "the ISO /media/isos/a.iso itself lies on /dev/sdb; copy it somewhere else first";
        assert_eq!(refuse("/media/isos/a.iso"), message);
        assert!(refuse("/media/others/a.iso").starts_with("/dev/sdb is in use"), "it lies elsewhere");
    }

    #[test]
    fn write_protected_empty_small_and_made_of_others() {
        for (attributes, sectors, message) in [
            (&[("ro", "1")][..], 1000, "/dev/sdd is write-protected; "),
            (&[], 0, "/dev/sdd has no medium in it"),
            (&[], 9, "/dev/sdd is too small: it holds 4.6 kB, the image needs 5.0 kB (392 bytes more)"),
            (&[("device/type", "5")], 1000, "/dev/sdd is an optical drive; "),
            (&[("slaves/sda", "")], 1000, "/dev/sdd is a volume made of other disks "),
        ] {
            let fake = host();
            fake.disk("devices/pci0/usb2/2-1/host9/target9/9:0:0:0", "sdd", "8:48", sectors, attributes);
            let error = check(&fake, &["/dev/sdd"], 5000, YES).unwrap_err();
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn errors_of_opening_say_what_to_do() {
        let disk = match host().host().find(crate::sys::block::Number { major: 8, minor: 16 }) {
            Some(Found::Disk(disk)) => disk,
            other => panic!("{other:?}"),
        };
        for (errno, message) in [
            (libc::EACCES, "/dev/sdb may only be opened by root: sudo "),
            (libc::EBUSY, "/dev/sdb is in use by something that this process cannot see: "),
            (libc::EROFS, "/dev/sdb is write-protected; "),
            (libc::ENOMEDIUM, "/dev/sdb has no medium in it"),
            (libc::EIO, "cannot open /dev/sdb"),
        ] {
            let error = cannot_open(&disk, io::Error::from_raw_os_error(errno)).to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
