//! May this device be written? Every refusal is a sentence that says what to do instead.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::host::{By, Disk, Found, Host, Kind, Usage};
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
    #[error("{path} is a partition of {disk}, and an ISO takes the whole stick: --to {disk}")]
    Partition { path: PathBuf, disk: PathBuf },
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
    #[error("the ISO {iso} itself lies on {node}; copy it somewhere else first")]
    IsoOnIt { iso: PathBuf, node: PathBuf },
    #[error("{node} is in use: {}{}", uses(.usages), remedy(.usages))]
    InUse { node: PathBuf, usages: Vec<Usage> },
    #[error("{node} is write-protected; many sticks and SD cards have a switch for that")]
    ReadOnly { node: PathBuf },
    #[error("{node} is too small: it holds {}, the ISO needs {} ({missing} bytes more)", ByteSize(*.size), ByteSize(*.needed))]
    TooSmall { node: PathBuf, size: u64, needed: u64, missing: u64 },
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
    #[error("{node} has blocks of {block} bytes, which is no size that an ISO can be written in")]
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
            By::Mount(at) if usage.through.is_empty() && !is_system(at) => Some(at.as_path()),
            _ => None,
        })
        .collect();
    let Some(mounts) = mounts else { return String::new() };
    let paths: Vec<String> = mounts.iter().map(|at| at.display().to_string()).collect();
    format!("; if it is the right one: umount {}", paths.join(" "))
}

/// Mount points of which nobody should be told to unmount them.
fn is_system(at: &Path) -> bool {
    let first = at.components().nth(1).map(|part| part.as_os_str().to_string_lossy());
    !matches!(first.as_deref(), Some("media" | "mnt" | "run"))
}

/// What flashing needs to know of the ISO to check a disk for it.
#[derive(Debug, Clone, Copy)]
pub struct Needs<'a> {
    pub iso: &'a Path,
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
        let disk = find(host, &path)?;
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

fn find(host: &Host, path: &Path) -> Result<Disk, Refusal> {
    let Some(number) = host.number_at(path) else { return Err(no_block_device(host, path)) };
    match host.find(number) {
        None => Err(Refusal::Unknown { path: path.to_owned() }),
        Some(Found::Partition { disk, .. }) => Err(Refusal::Partition { path: path.to_owned(), disk }),
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
    if host.lies_on(needs.iso, &usages) {
        return Err(Refusal::IsoOnIt { iso: needs.iso.to_owned(), node: node() });
    }
    if !usages.is_empty() {
        return Err(Refusal::InUse { node: node(), usages });
    }
    if disk.read_only {
        return Err(Refusal::ReadOnly { node: node() });
    }
    fits(disk, disk.size, needs.size)?;
    if disk.kind == Kind::Internal && consent.yes && !consent.allow_internal {
        return Err(Refusal::Internal { node: node(), transport: disk.transport });
    }
    Ok(())
}

/// Whether `needed` bytes fit on the disk, whose size the opened device tells once more.
///
/// # Errors
/// [`Refusal::TooSmall`].
pub fn fits(disk: &Disk, size: u64, needed: u64) -> Result<(), Refusal> {
    match needed.checked_sub(size) {
        None | Some(0) => Ok(()),
        Some(missing) => Err(Refusal::TooSmall { node: disk.node.clone(), size, needed, missing }),
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
