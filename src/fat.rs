//! Writes the EFI system partition of a medium: a small FAT image.
//!
//! UEFI firmware reads FAT12, FAT16 and FAT32 and tells them apart by the number of clusters (UEFI 2.10 §13.3.1.1). FAT16 it is: the
//! type that every firmware has read since the first, at a size between that of a floppy (FAT12) and a hard disk (FAT32, from 33 MB on).
//! The image depends on the label and the files alone: the volume's serial number comes from their digest, every time is 1980-01-01.

use std::collections::HashSet;
use std::io::{self, Cursor, Write};

use fatfs::{Date, DateTime, FatType, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider};
use sha2::{Digest, Sha256};

use crate::limits::ESP_BYTES_MAX;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{label:?} cannot be the label of a FAT file system: 1 to 11 characters of A-Z, 0-9, _ and -")]
    Label { label: String },
    #[error("two files of the EFI system partition have the name {path} (upper and lower case are the same there)")]
    Duplicate { path: String },
    #[error(
        "the files of the EFI system partition need {bytes} bytes; {ESP_BYTES_MAX} is what a CD's boot catalog can describe"
    )]
    TooLarge { bytes: u64 },
    #[error("cannot format the EFI system partition")]
    Format(#[source] io::Error),
    #[error("cannot write {path} in the EFI system partition")]
    File { path: String, source: io::Error },
}

const SECTOR: u64 = 512;
/// The image grows in such steps, and is never full.
const STEP: u64 = 4 << 20;
/// The largest cluster an image of at most [`ESP_BYTES_MAX`] gets.
const CLUSTER_MAX: u64 = 1024;
/// Boot sector, two FATs of 16-bit entries for at most [`CLUSTERS_MAX`] clusters, 512 root directory entries, rounded up.
const TABLES: u64 = 192 << 10;
/// Half of what FAT16 can number: far from both its ends (4085 and 65 525), where implementations disagree about the type.
const CLUSTERS_MAX: u64 = 32_768;

/// A FAT16 image with these files; paths have `/` between the names, folders are made as needed.
///
/// Its size is a multiple of 4 MiB.
///
/// # Errors
/// Names that FAT cannot hold, two equal ones, or more than [`ESP_BYTES_MAX`].
pub fn esp(label: &str, files: &[(&str, &[u8])]) -> Result<Vec<u8>, Error> {
    let padded = padded_label(label)?;
    let mut paths = HashSet::new();
    for (path, _) in files {
        if !paths.insert(path.trim_matches('/').to_ascii_lowercase()) {
            return Err(Error::Duplicate { path: (*path).to_owned() });
        }
    }
    let size = image_size(files)?;
    let mut image = vec![0; usize::try_from(size).map_err(|_| Error::TooLarge { bytes: size })?];
    let cluster = if size / SECTOR <= CLUSTERS_MAX { SECTOR } else { CLUSTER_MAX };
    let options = FormatVolumeOptions::new()
        .fat_type(FatType::Fat16)
        .bytes_per_cluster(u32::try_from(cluster).unwrap_or(u32::MAX))
        .volume_id(serial_number(label, files))
        .volume_label(padded);
    fatfs::format_volume(Cursor::new(&mut image), options).map_err(Error::Format)?;
    let options = FsOptions::new().time_provider(&EPOCH);
    let volume = FileSystem::new(Cursor::new(&mut image), options).map_err(Error::Format)?;
    for (path, data) in files {
        write(&volume, path, data).map_err(|source| Error::File { path: (*path).to_owned(), source })?;
    }
    volume.unmount().map_err(Error::Format)?;
    Ok(image)
}

fn padded_label(label: &str) -> Result<[u8; 11], Error> {
    let is_good = |c: u8| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_' || c == b'-';
    let mut padded = [b' '; 11];
    match padded.get_mut(..label.len()) {
        Some(room) if !label.is_empty() && label.bytes().all(is_good) => room.copy_from_slice(label.as_bytes()),
        _ => return Err(Error::Label { label: label.to_owned() }),
    }
    Ok(padded)
}

/// What the files and folders take at the largest cluster size, and the tables, rounded up to the next step.
fn image_size(files: &[(&str, &[u8])]) -> Result<u64, Error> {
    let contents = files.iter().map(|(path, data)| {
        let folders = path.matches('/').count() as u64;
        (data.len() as u64).next_multiple_of(CLUSTER_MAX) + folders * CLUSTER_MAX
    });
    let bytes = contents.sum::<u64>() + TABLES;
    let size = (bytes / STEP + 1) * STEP;
    if size > ESP_BYTES_MAX { Err(Error::TooLarge { bytes }) } else { Ok(size) }
}

/// Different content, different number: a machine may have two such media in it.
fn serial_number(label: &str, files: &[(&str, &[u8])]) -> u32 {
    let mut hasher = Sha256::new();
    let parts = files.iter().flat_map(|(path, data)| [path.as_bytes(), data]);
    for part in std::iter::once(label.as_bytes()).chain(parts) {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let digest = hasher.finalize();
    u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]])
}

fn write(volume: &FileSystem<Cursor<&mut Vec<u8>>>, path: &str, data: &[u8]) -> io::Result<()> {
    let mut folder = volume.root_dir();
    let mut names = path.split('/').filter(|name| !name.is_empty()).peekable();
    while let Some(name) = names.next() {
        if names.peek().is_some() {
            folder = folder.create_dir(name)?; // or the one that is there
            continue;
        }
        let mut file = folder.create_file(name)?;
        file.write_all(data)?;
        return file.flush();
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))
}

/// FAT's first moment: the image must not tell when it was made.
#[derive(Debug)]
struct Epoch;

static EPOCH: Epoch = Epoch;

impl TimeProvider for Epoch {
    fn get_current_date(&self) -> Date {
        Date { year: 1980, month: 1, day: 1 }
    }

    fn get_current_date_time(&self) -> DateTime {
        DateTime { date: self.get_current_date(), time: Time { hour: 0, min: 0, sec: 0, millis: 0 } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn the_image_depends_on_its_content_alone() {
        let files: [(&str, &[u8]); 2] = [("EFI/BOOT/bootx64.efi", b"one"), ("startup.nsh", b"two")];
        let image = esp("EFI_LIVE", &files).unwrap();
        assert_eq!(image, esp("EFI_LIVE", &files).unwrap());
        let other = esp("EFI_LIVE", &[files[0], ("startup.nsh", b"tvo")]).unwrap();
        assert_ne!(image[39..43], other[39..43], "serial number");
    }

    #[test]
    fn it_is_fat16_whatever_its_size() {
        let most = usize::try_from(ESP_BYTES_MAX - STEP / 2).unwrap();
        for length in [0, 1 << 20, (4 << 20) - (200 << 10), 4 << 20, 15 << 20, (16 << 20) - 1, most] {
            let data = vec![7; length];
            let image = esp("EFI_LIVE", &[("EFI/BOOT/BOOTX64.EFI", &data)]).unwrap();
            assert_eq!(image.len() % (4 << 20), 0);
            let volume = FileSystem::new(Cursor::new(image), FsOptions::new()).unwrap();
            assert_eq!(volume.fat_type(), FatType::Fat16, "{length}");
            assert!(u64::from(volume.stats().unwrap().total_clusters()) <= CLUSTERS_MAX);
            let mut read = Vec::new();
            volume.root_dir().open_file("efi/boot/bootx64.efi").unwrap().read_to_end(&mut read).unwrap();
            assert!(read == data, "{length}");
        }
    }

    #[test]
    fn what_fat_or_a_boot_catalog_cannot_hold_is_refused() {
        let too_much = vec![0; usize::try_from(ESP_BYTES_MAX).unwrap()];
        assert!(matches!(esp("EFI_LIVE", &[("a", &too_much)]), Err(Error::TooLarge { .. })));
        for label in ["", "ABCDEFGHIJKL", "lower", "A B"] {
            assert!(matches!(esp(label, &[]), Err(Error::Label { .. })), "{label}");
        }
        assert!(matches!(esp("L", &[("A/b", b""), ("/a/B", b"")]), Err(Error::Duplicate { .. })));
        for files in [&[("a?", &b""[..])][..], &[("", b"")], &[("a", b""), ("a/b", b"")]] {
            assert!(matches!(esp("L", files), Err(Error::File { .. })), "{files:?}");
        }
    }
}
