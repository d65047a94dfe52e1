//! Which image is written, an ISO or that of a disk: the one that was named, or the newest ISO; whether it is one, and whole.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::iso::BLOCK;
use crate::iso::gpt::{self, Gpt};
use crate::limits::CHECKSUM_BYTES_MAX;
use crate::source::checksum as sha256sum;
use crate::units::Digest;

/// Why there is no image to write. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error(
        "there is no ISO in {directory}; name one (auroraboot flash FILE.iso), or the directory it was made in: --set state_dir=PATH"
    )]
    None { directory: PathBuf },
    #[error(
        "{path} belongs to user {owner}, who could have put any ISO there; if you trust it, name the ISO itself: auroraboot flash FILE.iso"
    )]
    Foreign { path: PathBuf, owner: u32 },
    #[error(
        "{path} can be written by other users, who could have put any ISO there; if you trust it, name the ISO itself: auroraboot flash FILE.iso"
    )]
    Writable { path: PathBuf },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is not a file")]
    NotAFile { path: PathBuf },
    #[error("{path} is neither an ISO 9660 image nor a disk image with partitions")]
    NotIso { path: PathBuf },
    #[error("{path} is compressed; unpack it first: unzstd {path}")]
    Compressed { path: PathBuf },
    #[error("{path} is cut short: it has {size} bytes, and {wanted} are needed; download it again, or make it again")]
    Truncated { path: PathBuf, size: u64, wanted: u64 },
    #[error("the partition table of {path} is damaged or cut short; download it again, or make it again")]
    Table { path: PathBuf, source: Option<gpt::Error> },
    #[error("{path} holds no sha256; correct it or remove it")]
    NoChecksum { path: PathBuf },
}

/// An ISO of the state directory, and why this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub path: PathBuf,
    pub why: &'static str,
}

/// What an image is, as messages call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Iso,
    /// Partitions and no ISO 9660: the image of an appliance, say.
    Disk,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Iso => "ISO",
            Self::Disk => "image",
        })
    }
}

/// An opened image that looks whole.
#[derive(Debug)]
pub struct Image {
    pub path: PathBuf,
    pub kind: Kind,
    pub file: File,
    /// Bytes.
    pub size: u64,
    /// Has a partition table, without which it is only a CD.
    pub is_hybrid: bool,
    /// What the `.sha256` file beside it says.
    pub expected: Option<Digest>,
}

/// How the names of ISOs with a cloud config end.
const CUSTOM: &str = ".iso.custom.iso";
const ISO: &str = ".iso";

/// Whether the name is that of a custom ISO, which contains a cloud config.
#[must_use]
pub fn is_custom(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().ends_with(CUSTOM.as_bytes()))
}

/// The newest custom ISO below `state_dir`, else the newest other one. `is_trusted` says whose directories may be believed: whoever can
/// write there decides what machines boot.
///
/// # Errors
/// [`ImageError`]: there is none, or it cannot be trusted.
pub fn newest(state_dir: &Path, is_trusted: &dyn Fn(u32) -> bool) -> Result<Choice, ImageError> {
    let directory = state_dir.join("iso");
    let none = || ImageError::None { directory: directory.clone() };
    for path in [state_dir, &directory] {
        let Ok(metadata) = fs::metadata(path) else { return Err(none()) };
        let path = path.to_owned();
        if !is_trusted(metadata.uid()) {
            return Err(ImageError::Foreign { path, owner: metadata.uid() });
        }
        if metadata.permissions().mode() & 0o022 != 0 {
            return Err(ImageError::Writable { path });
        }
    }
    let read = |source| ImageError::Read { path: directory.clone(), source };
    let mut found: Vec<(bool, SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(&directory).map_err(read)? {
        let path = entry.map_err(read)?.path();
        let is_iso = path.file_name().is_some_and(|name| name.as_encoded_bytes().ends_with(ISO.as_bytes()));
        if let Ok(metadata) = fs::symlink_metadata(&path)
            && is_iso
            && metadata.is_file()
        {
            found.push((is_custom(&path), metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), path));
        }
    }
    let customs = found.iter().filter(|(custom, ..)| *custom).count();
    let why = match (customs, found.len()) {
        (0, 1) => "the only ISO there; no custom ISO was made, so no cloud config is in it",
        (0, _) => "the newest ISO there; no custom ISO was made, so no cloud config is in it",
        (1, _) => "the custom ISO, which contains the cloud config",
        _ => "the newest of the custom ISOs, which contain the cloud config",
    };
    let newest = found.into_iter().max();
    newest.map(|(.., path)| Choice { path, why }).ok_or_else(none)
}

/// The volume descriptors begin there (ECMA-119 §6.2.1).
const DESCRIPTORS: u64 = 16 * BLOCK;
/// The primary volume descriptor is the first of any image worth booting; more of others than this before it is none.
const DESCRIPTORS_READ: u64 = 16;

/// Opens the image at `path` and looks whether it is one and whole, and for the checksum beside it.
///
/// # Errors
/// [`ImageError`].
pub fn open(path: &Path) -> Result<Image, ImageError> {
    let owned = || path.to_owned();
    let read = |source| ImageError::Read { path: owned(), source };
    // Before it is opened, which would wait for a writer if it were a pipe.
    if !fs::metadata(path).map_err(read)?.is_file() {
        return Err(ImageError::NotAFile { path: owned() });
    }
    let file = File::open(path).map_err(read)?;
    let size = file.metadata().map_err(read)?.len();
    let mut boot = [0; 512];
    let is_hybrid = file.read_exact_at(&mut boot, 0).is_ok() && boot[510..] == [0x55, 0xaa];
    let descriptor = primary(&file);
    let kind = if descriptor.is_some() { Kind::Iso } else { Kind::Disk };
    let wanted = match &descriptor {
        // Its partition table is not asked: those of good hybrid ISOs may claim more, up to whole cylinders.
        Some(descriptor) => volume_bytes(descriptor),
        None if is_hybrid => {
            let partitions = partitions_bytes(&boot);
            partitions.max(gpt_bytes(&file, &boot).map_err(|source| ImageError::Table { path: owned(), source })?)
        }
        None if boot.starts_with(ZSTD) => return Err(ImageError::Compressed { path: owned() }),
        None => 0,
    };
    if wanted == 0 {
        return Err(ImageError::NotIso { path: owned() });
    }
    if size < wanted {
        return Err(ImageError::Truncated { path: owned(), size, wanted });
    }
    Ok(Image { path: owned(), kind, file, size, is_hybrid, expected: checksum(path)? })
}

/// The primary volume descriptor (ECMA-119 §8.4).
fn primary(file: &File) -> Option<[u8; BLOCK as usize]> {
    let mut sector = [0; BLOCK as usize];
    for index in 0..DESCRIPTORS_READ {
        file.read_exact_at(&mut sector, DESCRIPTORS + index * BLOCK).ok()?;
        if &sector[1..6] != b"CD001" {
            return None;
        }
        if sector[0] == 1 {
            return Some(sector);
        }
    }
    None
}

/// Volume Space Size (§8.4.8) times Logical Block Size (§8.4.12), of each the little-endian half.
fn volume_bytes(descriptor: &[u8; BLOCK as usize]) -> u64 {
    let blocks = u32::from_le_bytes([descriptor[80], descriptor[81], descriptor[82], descriptor[83]]);
    let block = u16::from_le_bytes([descriptor[128], descriptor[129]]);
    u64::from(blocks) * u64::from(block)
}

/// Where the last partition ends (the table at byte 446 of an MBR; the entry that protects a GPT may claim any length).
fn partitions_bytes(boot: &[u8; 512]) -> u64 {
    let number =
        |entry: &[u8], at: usize| entry[at..].first_chunk().map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes)));
    let entries = boot[446..510].chunks_exact(16).filter(|entry| entry[4] != 0 && number(entry, 12) > 0);
    let length = |entry: &[u8]| if entry[4] == GPT_PROTECTIVE { 1 } else { number(entry, 12) };
    entries.map(|entry| (number(entry, 8) + length(entry)) * 512).max().unwrap_or(0)
}

/// Where a disk with a GPT ends: behind the backup of the table, which is its last sector, and behind the last partition (UEFI 2.10 §5.3.2
/// and §5.3.3). 0 when the MBR announces none; an error without a source when it does and there is none.
fn gpt_bytes(file: &File, boot: &[u8; 512]) -> Result<u64, Option<gpt::Error>> {
    if !boot[446..510].chunks_exact(16).any(|entry| entry[4] == GPT_PROTECTIVE) {
        return Ok(0);
    }
    let Some(gpt) = Gpt::read(file).map_err(Some)? else { return gpt_bytes_4096(file).ok_or(None) };
    let partitions = gpt.partitions.iter().filter(|partition| !partition.is_unused());
    let last = partitions.map(|partition| partition.last_lba).fold(gpt.last_lba, u64::max);
    Ok(last.saturating_add(1).saturating_mul(512))
}

/// The same for an image that is made for disks with sectors of 4096 bytes, as far as its header tells.
fn gpt_bytes_4096(file: &File) -> Option<u64> {
    let mut header = [0; 512];
    file.read_exact_at(&mut header, 4096).ok()?;
    let last = u64::from_le_bytes(*header[32..].first_chunk()?);
    header.starts_with(b"EFI PART").then(|| last.saturating_add(1).saturating_mul(4096))
}

/// UEFI 2.10 §5.2.3.
const GPT_PROTECTIVE: u8 = 0xee;

/// How a zstd frame begins (RFC 8878 §3.1.1).
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// The digest in `<ISO>.sha256`, if there is such a file.
fn checksum(iso: &Path) -> Result<Option<Digest>, ImageError> {
    let mut path = iso.as_os_str().to_owned();
    path.push(".sha256");
    let path = PathBuf::from(path);
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|source| ImageError::Read { path: path.clone(), source })?,
    };
    let mut bytes = Vec::new();
    let read = file.take(CHECKSUM_BYTES_MAX).read_to_end(&mut bytes);
    read.map_err(|source| ImageError::Read { path: path.clone(), source })?;
    let name = iso.file_name().unwrap_or_default().to_string_lossy();
    let digest = sha256sum::parse(&String::from_utf8_lossy(&bytes), &name);
    digest.map(Some).ok_or(ImageError::NoChecksum { path })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("auroraboot-image-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(path.join("iso")).unwrap();
            for directory in [path.clone(), path.join("iso")] {
                fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).unwrap();
            }
            Self(path)
        }

        /// An ISO of the state directory, so many seconds old.
        fn iso(&self, name: &str, age: u64) -> PathBuf {
            let path = self.0.join("iso").join(name);
            fs::write(&path, image(20)).unwrap();
            let time = SystemTime::now() - Duration::from_secs(age);
            File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
            path
        }

        fn chosen(&self) -> Result<(String, &'static str), ImageError> {
            let choice = newest(&self.0, &|owner| owner == fs::metadata(&self.0).unwrap().uid())?;
            Ok((choice.path.file_name().unwrap().to_str().unwrap().to_owned(), choice.why))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// An ISO of so many sectors.
    fn image(sectors: u32) -> Vec<u8> {
        let mut bytes = vec![0; sectors as usize * 2048];
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        let descriptor = &mut bytes[16 * 2048..];
        descriptor[..7].copy_from_slice(b"\x01CD001\x01");
        descriptor[40..72].copy_from_slice(b"COS_LIVE                        ");
        descriptor[80..84].copy_from_slice(&sectors.to_le_bytes());
        descriptor[128..130].copy_from_slice(&2048_u16.to_le_bytes());
        bytes
    }

    #[test]
    fn the_newest_custom_iso_is_taken_else_the_newest_and_it_says_why() {
        let state = Scratch::new("newest");
        assert!(matches!(state.chosen(), Err(ImageError::None { .. })));
        state.iso("old.iso", 100);
        let (name, why) = state.chosen().unwrap();
        assert_eq!(name, "old.iso");
        assert!(why.contains("no cloud config is in it"), "{why}");
        state.iso("new.iso", 10);
        fs::write(state.0.join("iso/new.iso.sha256"), "").unwrap();
        assert_eq!(state.chosen().unwrap().0, "new.iso");
        state.iso("old.iso.custom.iso", 50);
        let (name, why) = state.chosen().unwrap();
        assert_eq!((name.as_str(), why), ("old.iso.custom.iso", "the custom ISO, which contains the cloud config"));
        state.iso("mine.iso.custom.iso", 20);
        assert_eq!(state.chosen().unwrap().0, "mine.iso.custom.iso");
        std::os::unix::fs::symlink("/dev/zero", state.0.join("iso/z.iso.custom.iso")).unwrap();
        assert_eq!(state.chosen().unwrap().0, "mine.iso.custom.iso", "a link is none of ours");
    }

    #[test]
    fn a_directory_that_others_can_fill_is_not_believed() {
        let state = Scratch::new("trust");
        state.iso("a.iso", 1);
        let error = newest(&state.0, &|_| false).unwrap_err();
        assert!(matches!(error, ImageError::Foreign { .. }), "{error}");
        fs::set_permissions(state.0.join("iso"), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(state.chosen(), Err(ImageError::Writable { .. })));
        let missing = newest(&state.0.join("nowhere"), &|_| true).unwrap_err().to_string();
        assert!(missing.contains("/nowhere/iso; name one"), "{missing}");
    }

    #[test]
    fn what_is_no_iso_or_not_all_of_one_is_refused() {
        let state = Scratch::new("open");
        let path = state.0.join("a.iso");
        let write = |bytes: &[u8]| fs::write(&path, bytes).unwrap();
        let refusal = || open(&path).unwrap_err().to_string();
        assert!(refusal().starts_with("cannot read "), "{}", refusal());
        write(b"");
        assert!(refusal().ends_with("is neither an ISO 9660 image nor a disk image with partitions"), "{}", refusal());
        write(&vec![0; 1 << 20]);
        assert!(refusal().ends_with("is neither an ISO 9660 image nor a disk image with partitions"), "{}", refusal());
        let mut descriptors = image(40);
        for sector in 16..40 {
            descriptors[sector * 2048..][..6].copy_from_slice(b"\x02CD001");
        }
        write(&descriptors);
        assert!(
            refusal().ends_with("is neither an ISO 9660 image nor a disk image with partitions"),
            "no primary descriptor"
        );
        write(&image(40)[..30 * 2048]);
        assert!(refusal().contains("is cut short: it has 61440 bytes, and 81920 are needed; "), "{}", refusal());
        assert!(open(&state.0).unwrap_err().to_string().ends_with("is not a file"));
        write(&image(40));
        let iso = open(&path).unwrap();
        assert_eq!((iso.size, iso.kind, iso.is_hybrid, iso.expected), (81_920, Kind::Iso, true, None));
        let mut cd = image(40);
        cd[510] = 0;
        write(&cd);
        assert!(!open(&path).unwrap().is_hybrid);
    }

    #[test]
    fn a_disk_image_is_taken_as_well_when_its_partitions_are_in_it() {
        let state = Scratch::new("disk");
        let path = state.0.join("a.img");
        let mut disk = vec![0; 40 * 512];
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        fs::write(&path, &disk).unwrap();
        assert!(matches!(open(&path), Err(ImageError::NotIso { .. })), "a boot sector without partitions");
        (disk[450], disk[454], disk[458]) = (0x0c, 8, 32);
        fs::write(&path, &disk).unwrap();
        let image = open(&path).unwrap();
        assert_eq!((image.size, image.kind, image.is_hybrid), (20_480, Kind::Disk, true));
        fs::write(&path, &disk[..39 * 512]).unwrap();
        assert!(matches!(open(&path), Err(ImageError::Truncated { wanted: 20_480, .. })));
        fs::write(&path, [ZSTD, &disk].concat()).unwrap();
        assert!(open(&path).unwrap_err().to_string().contains("unpack it first"));
    }

    /// A disk of 100 KiB: a GPT with one partition up to `last_lba`, and the MBR that protects it.
    fn gpt_disk(last_lba: u64) -> Vec<u8> {
        let mut table = Gpt::new(gpt::Guid([7; 16]), 200);
        table.partitions.push(gpt::Partition::new(gpt::TYPE_LINUX, gpt::Guid([1; 16]), 40, last_lba - 39, "a"));
        let mut disk = vec![0; 200 * 512];
        (disk[450], disk[454], disk[458]) = (GPT_PROTECTIVE, 1, 199);
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        for (offset, bytes) in table.encode().unwrap() {
            disk[usize::try_from(offset).unwrap()..][..bytes.len()].copy_from_slice(&bytes);
        }
        disk
    }

    #[test]
    fn a_disk_image_with_a_gpt_has_to_reach_to_the_backup_of_its_table() {
        let state = Scratch::new("gpt");
        let path = state.0.join("a.img");
        let opened = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            open(&path).map(|image| image.size)
        };
        let disk = gpt_disk(100);
        assert_eq!(opened(&disk).unwrap(), 102_400);
        assert_eq!(opened(&[&disk[..], &[0; 4096]].concat()).unwrap(), 106_496, "room behind it is no harm");
        for size in [102_399, 101_888, 60_000, 34 * 512] {
            let error = opened(&disk[..size]).unwrap_err().to_string();
            let wanted = format!("is cut short: it has {size} bytes, and 102400 are needed; download it again");
            assert!(error.contains(&wanted), "{error}");
        }
        assert!(matches!(opened(&gpt_disk(300)), Err(ImageError::Truncated { wanted: 154_112, .. })), "a partition");
        for size in [17 * 512, 1024, 600] {
            assert!(matches!(opened(&disk[..size]), Err(ImageError::Table { source: Some(_), .. })), "{size}");
        }
        let mut damaged = disk.clone();
        damaged[1024 + 40] ^= 1;
        assert!(matches!(opened(&damaged), Err(ImageError::Table { source: Some(_), .. })), "its checksum");
        damaged[512..1024].fill(0);
        assert!(matches!(opened(&damaged), Err(ImageError::Table { source: None, .. })), "announced, and not there");
        // Sectors of 4096 bytes: the header in the second one, its backup in the 25th.
        damaged[4096..4104].copy_from_slice(b"EFI PART");
        damaged[4128..4136].copy_from_slice(&24_u64.to_le_bytes());
        assert_eq!(opened(&damaged).unwrap(), 102_400);
        assert!(matches!(opened(&damaged[..102_399]), Err(ImageError::Truncated { wanted: 102_400, .. })));
        let mut iso = image(40);
        iso[..512].copy_from_slice(&disk[..512]);
        assert_eq!(opened(&iso).unwrap(), 81_920, "an ISO is as long as its volume says");
    }

    #[test]
    fn the_checksum_beside_it_is_read() {
        let digest = "ab".repeat(32);
        let state = Scratch::new("checksum");
        let iso = state.iso("a.iso", 1);
        let beside = state.0.join("iso/a.iso.sha256");
        fs::write(&beside, format!("{digest}  a.iso\n")).unwrap();
        assert_eq!(open(&iso).unwrap().expected.unwrap().hex(), digest);
        fs::write(&beside, " ".repeat(usize::try_from(CHECKSUM_BYTES_MAX).unwrap()) + &digest).unwrap();
        let error = open(&iso).unwrap_err().to_string();
        assert!(error.ends_with("a.iso.sha256 holds no sha256; correct it or remove it"), "{error}");
    }
}
