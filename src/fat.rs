//! Writes FAT file systems: the EFI system partition of a medium, the boot partition of a disk.
//!
//! UEFI firmware reads FAT12, FAT16 and FAT32 and tells them apart by the number of clusters (UEFI 2.10 §13.3.1.1). A medium gets FAT16: what
//! every firmware has read since the first, at a size between that of a floppy (FAT12) and a hard disk (FAT32, from 33 MB on). A disk gets
//! FAT32, which is also what the boot ROMs of small boards want. The image
//! depends on the label and the files alone: the volume's serial number comes from their digest, every date is 1980-01-01. It is written
//! once and never changed, so every file and folder lies in one piece. Sections in comments are those of Microsoft's FAT specification 1.03.

use std::collections::HashSet;

use sha2::{Digest, Sha256};

use crate::limits::ESP_BYTES_MAX;

/// Why there is no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{label:?} cannot be the label of a FAT file system: 1 to 11 characters of A-Z, 0-9, _ and -")]
    Label { label: String },
    #[error(
        "{path:?} cannot be a path in the EFI system partition: names of at most {NAME_CHARS_MAX} characters A-Z, a-z, 0-9, _, - and ."
    )]
    Path { path: String },
    #[error("{path} stands for two things in the EFI system partition (upper and lower case are the same there)")]
    Duplicate { path: String },
    #[error(
        "the files of the EFI system partition need {bytes} bytes; {ESP_BYTES_MAX} is what a CD's boot catalog can describe"
    )]
    TooLarge { bytes: u64 },
    #[error("the root directory of the EFI system partition has no room for so many names")]
    RootFull,
    #[error("the files of the boot partition need {bytes} bytes; it has {capacity}")]
    Full { bytes: u64, capacity: u64 },
    #[error("a FAT32 file system of {bytes} bytes is not supported: {} to {} are", FAT32_BYTES.start(), FAT32_BYTES.end())]
    Size { bytes: u64 },
}

const SECTOR: usize = 512;
/// The image of a medium grows in such steps, and is never full.
const STEP: u64 = 4 << 20;
/// The largest cluster an image of at most [`ESP_BYTES_MAX`] gets.
const CLUSTER_MAX: usize = 1024;
/// Half of what FAT16 can number: far from both its ends (4085 and 65 525), where implementations disagree about the type (§3.5).
const CLUSTERS_MAX: usize = 32_768;
const FATS: usize = 2;
const ENTRY: usize = 32;
/// The root directory of FAT16 has a fixed size; this is the specification's value for it.
const ROOT_ENTRIES: usize = 512;
/// The cluster of FAT32: with it and [`FAT32_BYTES`] the number of clusters is far from 65 525, below which readers see a FAT16 (§3.5).
const CLUSTER_FAT32: usize = 2048;
/// Sizes of a FAT32 file system that are written here.
const FAT32_BYTES: std::ops::RangeInclusive<u64> = 160 << 20..=4 << 30;
/// Where FAT32's table begins: what every tool takes, and a whole number of the 4 KiB that flash memory likes.
const FAT32_RESERVED: usize = 32;
/// The sectors of FAT32 beside the boot sector: free clusters, and a copy of both (§3.5, "BPB_BkBootSec").
const INFO_SECTOR: usize = 1;
const BACKUP_SECTOR: usize = 6;
/// Boot sector, the FATs of at most [`CLUSTERS_MAX`] clusters, root directory.
const TABLES_MAX: usize = SECTOR + FATS * (CLUSTERS_MAX + 2).next_multiple_of(SECTOR / 2) * 2 + ROOT_ENTRIES * ENTRY;
/// Long names could have 255; nobody's boot loader does.
const NAME_CHARS_MAX: usize = 64;

/// A FAT16 image with these files; paths have `/` between the names, folders are made as needed.
///
/// Its size is a multiple of 4 MiB.
///
/// # Errors
/// Names that FAT or we do not hold, two equal ones, or more than [`ESP_BYTES_MAX`].
pub fn esp(label: &str, files: &[(&str, &[u8])]) -> Result<Vec<u8>, Error> {
    let padded = padded_label(label)?;
    let tree = Tree::new(padded, files)?;
    if tree.entry_count(0) > ROOT_ENTRIES {
        return Err(Error::RootFull);
    }
    let geometry = Geometry::of_medium(&tree)?;
    let mut image = vec![0; geometry.sectors * SECTOR];
    image[..SECTOR].copy_from_slice(&boot_sector(&geometry, padded, serial_number(label, files)));
    Writer { image: &mut image, geometry: &geometry, next: 2 }.write(&tree);
    Ok(image)
}

/// The beginning of a FAT32 file system of `bytes` bytes with these files, up to the end of the last one; zeros follow.
///
/// `first_lba` is the sector of the disk at which it will stand.
///
/// # Errors
/// Names that FAT or we do not hold, two equal ones, a size that is not supported, or more than fits.
pub fn fat32(label: &str, files: &[(&str, &[u8])], bytes: u64, first_lba: u32) -> Result<Vec<u8>, Error> {
    let padded = padded_label(label)?;
    let tree = Tree::new(padded, files)?;
    let geometry = Geometry::of_partition(bytes)?;
    let root = (tree.entry_count(0) * ENTRY).div_ceil(CLUSTER_FAT32);
    let used = root + tree.sizes().map(|size| size.div_ceil(CLUSTER_FAT32)).sum::<usize>();
    if used > geometry.clusters() {
        let size = |clusters: usize| (clusters * CLUSTER_FAT32) as u64;
        return Err(Error::Full { bytes: size(used), capacity: size(geometry.clusters()) });
    }
    let mut image = vec![0; geometry.data(2) + used * CLUSTER_FAT32];
    let boot = boot_sector_fat32(&geometry, padded, serial_number(label, files), first_lba);
    let info = info_sector(geometry.clusters() - used, used + 2);
    for first in [0, BACKUP_SECTOR] {
        image[first * SECTOR..][..SECTOR].copy_from_slice(&boot);
        image[(first + INFO_SECTOR) * SECTOR..][..SECTOR].copy_from_slice(&info);
    }
    Writer { image: &mut image, geometry: &geometry, next: 2 }.write(&tree);
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

/// The folders of an image; the first is the root.
struct Tree<'a> {
    label: [u8; 11],
    folders: Vec<Folder<'a>>,
}

struct Folder<'a> {
    /// The folder it is in; the root is in itself.
    parent: usize,
    entries: Vec<Entry<'a>>,
}

struct Entry<'a> {
    name: &'a str,
    short: [u8; 11],
    content: Content<'a>,
}

#[derive(Clone, Copy)]
enum Content<'a> {
    File(&'a [u8]),
    Folder(usize),
}

impl<'a> Tree<'a> {
    fn new(label: [u8; 11], files: &[(&'a str, &'a [u8])]) -> Result<Self, Error> {
        let mut tree = Self { label, folders: vec![Folder { parent: 0, entries: Vec::new() }] };
        for (path, data) in files {
            tree.add(path, data)?;
        }
        Ok(tree)
    }

    fn add(&mut self, path: &'a str, data: &'a [u8]) -> Result<(), Error> {
        let mut names = path.trim_matches('/').split('/').peekable();
        let mut folder = 0;
        while let Some(name) = names.next() {
            if !is_name(name) {
                return Err(Error::Path { path: path.to_owned() });
            }
            let known = self.folders[folder].entries.iter().find(|entry| entry.name.eq_ignore_ascii_case(name));
            folder = match (known.map(|entry| entry.content), names.peek()) {
                (Some(Content::Folder(folder)), Some(_)) => folder,
                (Some(_), _) => return Err(Error::Duplicate { path: path.to_owned() }),
                (None, Some(_)) => {
                    let new = self.folders.len();
                    self.folders.push(Folder { parent: folder, entries: Vec::new() });
                    self.folders[folder].insert(name, Content::Folder(new));
                    new
                }
                (None, None) => {
                    self.folders[folder].insert(name, Content::File(data));
                    folder
                }
            };
        }
        Ok(())
    }

    /// Directory entries of 32 bytes: the label in the root, `.` and `..` elsewhere, and one per name and 13 characters of a long name.
    fn entry_count(&self, folder: usize) -> usize {
        let names = self.folders[folder].entries.iter().map(|entry| 1 + entry.long_entries());
        names.sum::<usize>() + if folder == 0 { 1 } else { 2 }
    }

    /// Bytes of everything that takes clusters.
    fn sizes(&self) -> impl Iterator<Item = usize> {
        let folders = (1..self.folders.len()).map(|folder| self.entry_count(folder) * ENTRY);
        let entries = self.folders.iter().flat_map(|folder| &folder.entries);
        let files = entries.map(|entry| match entry.content {
            Content::File(data) => data.len(),
            Content::Folder(_) => 0,
        });
        folders.chain(files)
    }
}

/// Names that FAT holds as they are, and every firmware and tool reads alike; not `.` and `..`.
fn is_name(name: &str) -> bool {
    let is_good = |c: u8| c.is_ascii_alphanumeric() || b"_-.".contains(&c);
    name.len() <= NAME_CHARS_MAX && name.bytes().all(is_good) && name.bytes().any(|c| c != b'.') && !name.ends_with('.')
}

impl<'a> Folder<'a> {
    fn insert(&mut self, name: &'a str, content: Content<'a>) {
        let taken: HashSet<[u8; 11]> = self.entries.iter().map(|entry| entry.short).collect();
        let short = plain_short_name(name).unwrap_or_else(|| numbered_short_name(name, &taken));
        self.entries.push(Entry { name, short, content });
    }
}

/// The name as 8 + 3 characters in capitals, when it fits (§6.1).
fn plain_short_name(name: &str) -> Option<[u8; 11]> {
    let (base, extension) = name.split_once('.').unwrap_or((name, ""));
    let fits = (1..=8).contains(&base.len()) && extension.len() <= 3 && !extension.contains('.');
    fits.then(|| short_name(base.as_bytes(), extension.as_bytes()))
}

/// A name that does not fit gets `~` and a number behind what fits of it (§7.1, "basis name").
fn numbered_short_name(name: &str, taken: &HashSet<[u8; 11]>) -> [u8; 11] {
    let (base, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let base: Vec<u8> = base.bytes().filter(|c| *c != b'.').collect();
    let extension = &extension.as_bytes()[..extension.len().min(3)];
    let numbered = (1_u32..).map(|number| {
        let tail = format!("~{number}");
        let kept = base.len().min(8_usize.saturating_sub(tail.len()));
        short_name(&[&base[..kept], tail.as_bytes()].concat(), extension)
    });
    // There are fewer names than numbers.
    numbered.into_iter().find(|short| !taken.contains(short)).unwrap_or([b' '; 11])
}

fn short_name(base: &[u8], extension: &[u8]) -> [u8; 11] {
    let mut short = [b' '; 11];
    short[..8].iter_mut().zip(base).for_each(|(to, from)| *to = from.to_ascii_uppercase());
    short[8..].iter_mut().zip(extension).for_each(|(to, from)| *to = from.to_ascii_uppercase());
    short
}

impl Entry<'_> {
    /// How many entries a long name takes; none when the short one says it all.
    fn long_entries(&self) -> usize {
        let said = plain_short_name(self.name).is_some() && !self.name.bytes().any(|c| c.is_ascii_lowercase());
        if said { 0 } else { self.name.len().div_ceil(13) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fat16,
    Fat32,
}

impl Kind {
    /// Bytes of a number in the table.
    const fn link(self) -> usize {
        match self {
            Self::Fat16 => 2,
            Self::Fat32 => 4,
        }
    }
}

/// Where things are in the image.
struct Geometry {
    kind: Kind,
    sectors: usize,
    cluster: usize,
    /// Sectors before the first FAT.
    reserved: usize,
    fat_sectors: usize,
}

impl Geometry {
    /// Everything at the largest cluster size and the tables, rounded up to the next step.
    fn of_medium(tree: &Tree<'_>) -> Result<Self, Error> {
        let contents: u64 = tree.sizes().map(|bytes| (bytes as u64).next_multiple_of(CLUSTER_MAX as u64)).sum();
        let bytes = contents + TABLES_MAX as u64;
        let size = (bytes / STEP + 1) * STEP;
        let sectors = usize::try_from(size / SECTOR as u64).map_err(|_| Error::TooLarge { bytes })?;
        if size > ESP_BYTES_MAX {
            return Err(Error::TooLarge { bytes });
        }
        let cluster = if sectors <= CLUSTERS_MAX { SECTOR } else { CLUSTER_MAX };
        // For as many clusters as if there were nothing but clusters: a little too long, which is allowed (§3.8).
        let fat_sectors = (sectors * SECTOR / cluster + 2).div_ceil(SECTOR / 2);
        Ok(Self { kind: Kind::Fat16, sectors, cluster, reserved: 1, fat_sectors })
    }

    fn of_partition(bytes: u64) -> Result<Self, Error> {
        let sectors = usize::try_from(bytes / SECTOR as u64).map_err(|_| Error::Size { bytes })?;
        if !FAT32_BYTES.contains(&bytes) {
            return Err(Error::Size { bytes });
        }
        let cluster = CLUSTER_FAT32;
        // A little too long as well; clusters begin at a multiple of their size.
        let fat_sectors = (sectors * SECTOR / cluster + 2).div_ceil(SECTOR / 4).next_multiple_of(cluster / SECTOR);
        Ok(Self { kind: Kind::Fat32, sectors, cluster, reserved: FAT32_RESERVED, fat_sectors })
    }

    const fn fat(&self, number: usize) -> usize {
        (self.reserved + number * self.fat_sectors) * SECTOR
    }

    /// Where FAT16's root directory stands; FAT32's takes clusters like any other.
    const fn root(&self) -> usize {
        self.fat(FATS)
    }

    /// Clusters are numbered from 2.
    const fn data(&self, cluster: u32) -> usize {
        let root = match self.kind {
            Kind::Fat16 => ROOT_ENTRIES * ENTRY,
            Kind::Fat32 => 0,
        };
        self.root() + root + (cluster as usize - 2) * self.cluster
    }

    const fn clusters(&self) -> usize {
        (self.sectors * SECTOR - self.data(2)) / self.cluster
    }
}

/// §3.1 and §3.2. The code asks the BIOS for the next boot device: nothing boots from here that way.
fn boot_sector(geometry: &Geometry, label: [u8; 11], serial: u32) -> [u8; SECTOR] {
    let mut sector = [0; SECTOR];
    let mut put = |at: usize, bytes: &[u8]| sector[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &[0xEB, 0x3C, 0x90]); // jump to offset 62
    put(3, b"MSWIN4.1"); // "best choice" for what old implementations check
    put(11, &low16(SECTOR));
    put(13, &[low8(geometry.cluster / SECTOR)]);
    put(14, &low16(1)); // sectors before the first FAT
    put(16, &[low8(FATS)]);
    put(17, &low16(ROOT_ENTRIES));
    put(19, &low16(geometry.sectors));
    put(21, &[0xF8]); // not removable
    put(22, &low16(geometry.fat_sectors));
    put(24, &low16(32)); // sectors per track
    put(26, &low16(64)); // heads
    put(36, &[0x80, 0, 0x29]); // drive number; the next three fields are there
    put(39, &serial.to_le_bytes());
    put(43, &label);
    put(54, b"FAT16   ");
    put(62, &[0xCD, 0x18, 0xEB, 0xFE]); // int 0x18, then stay
    put(510, &[0x55, 0xAA]);
    sector
}

/// §3.1 and §3.3.
fn boot_sector_fat32(geometry: &Geometry, label: [u8; 11], serial: u32, first_lba: u32) -> [u8; SECTOR] {
    let mut sector = [0; SECTOR];
    let mut put = |at: usize, bytes: &[u8]| sector[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &[0xEB, 0x58, 0x90]); // jump to offset 90
    put(3, b"MSWIN4.1");
    put(11, &low16(SECTOR));
    put(13, &[low8(geometry.cluster / SECTOR)]);
    put(14, &low16(geometry.reserved));
    put(16, &[low8(FATS)]);
    put(21, &[0xF8]);
    put(24, &low16(63)); // sectors per track
    put(26, &low16(255)); // heads
    put(28, &first_lba.to_le_bytes());
    put(32, &low32(geometry.sectors));
    put(36, &low32(geometry.fat_sectors));
    put(44, &low32(2)); // the root directory's first cluster
    put(48, &low16(INFO_SECTOR));
    put(50, &low16(BACKUP_SECTOR));
    put(64, &[0x80, 0, 0x29]);
    put(67, &serial.to_le_bytes());
    put(71, &label);
    put(82, b"FAT32   ");
    put(90, &[0xCD, 0x18, 0xEB, 0xFE]);
    put(510, &[0x55, 0xAA]);
    sector
}

/// §5: hints for who writes here next.
fn info_sector(free: usize, next: usize) -> [u8; SECTOR] {
    let mut sector = [0; SECTOR];
    let mut put = |at: usize, bytes: &[u8]| sector[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"RRaA");
    put(484, b"rrAa");
    put(488, &low32(free));
    put(492, &low32(next));
    put(510, &[0x55, 0xAA]);
    sector
}

/// Clusters are given out one after the other.
struct Writer<'a> {
    image: &'a mut [u8],
    geometry: &'a Geometry,
    /// The next free cluster.
    next: u32,
}

/// Cut to the size of a number in the table: FAT32's have 28 bits (§4).
const END_OF_CHAIN: u32 = 0x0FFF_FFFF;
/// The first entry holds the media byte.
const MEDIA: u32 = 0x0FFF_FFF8;

impl Writer<'_> {
    fn write(&mut self, tree: &Tree<'_>) {
        self.chain(0, &[MEDIA, END_OF_CHAIN]); // the second says "cleanly unmounted, no errors" (§4.1)
        let mut starts = Vec::new();
        for folder in 0..tree.folders.len() {
            starts.push(match (folder, self.geometry.kind) {
                (0, Kind::Fat16) => 0,
                _ => self.claim(tree.entry_count(folder) * ENTRY),
            });
        }
        for (number, folder) in tree.folders.iter().enumerate() {
            let mut table = Vec::new();
            if number == 0 {
                push_entry(&mut table, tree.label, VOLUME_LABEL, 0, 0);
            } else {
                // The root goes by the number 0 here, wherever it is (§6.5).
                let parent = if folder.parent == 0 { 0 } else { starts[folder.parent] };
                push_entry(&mut table, short_name(b".", b""), DIRECTORY, starts[number], 0);
                push_entry(&mut table, short_name(b"..", b""), DIRECTORY, parent, 0);
            }
            for entry in &folder.entries {
                push_long_name(&mut table, entry);
                match entry.content {
                    Content::Folder(folder) => push_entry(&mut table, entry.short, DIRECTORY, starts[folder], 0),
                    Content::File(data) => {
                        let start = self.claim(data.len());
                        push_entry(&mut table, entry.short, ARCHIVE, start, data.len());
                        self.put(if start == 0 { 0 } else { self.geometry.data(start) }, data);
                    }
                }
            }
            let at = if starts[number] == 0 { self.geometry.root() } else { self.geometry.data(starts[number]) };
            self.put(at, &table);
        }
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.image[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Clusters for so many bytes in one piece; the first one's number, 0 for no bytes.
    fn claim(&mut self, bytes: usize) -> u32 {
        // There are as many as were counted before.
        let count = u32::try_from(bytes.div_ceil(self.geometry.cluster)).unwrap_or(u32::MAX);
        if count == 0 {
            return 0;
        }
        let (first, last) = (self.next, self.next + count - 1);
        let links: Vec<u32> = (first + 1..=last).chain([END_OF_CHAIN]).collect();
        self.chain(first, &links);
        self.next = last + 1;
        first
    }

    fn chain(&mut self, first: u32, links: &[u32]) {
        let width = self.geometry.kind.link();
        let bytes: Vec<u8> = links.iter().flat_map(|link| link.to_le_bytes().into_iter().take(width)).collect();
        for fat in 0..FATS {
            self.put(self.geometry.fat(fat) + first as usize * width, &bytes);
        }
    }
}

const VOLUME_LABEL: u8 = 0x08;
const DIRECTORY: u8 = 0x10;
const ARCHIVE: u8 = 0x20;
const LONG_NAME: u8 = 0x0F;
/// 1980-01-01, FAT's first day: the image must not tell when it was made.
const DATE: [u8; 2] = (1_u16 << 5 | 1).to_le_bytes();

/// §6.
fn push_entry(table: &mut Vec<u8>, short: [u8; 11], attributes: u8, cluster: u32, size: usize) {
    let mut entry = [0; ENTRY];
    entry[..11].copy_from_slice(&short);
    entry[11] = attributes;
    entry[16..18].copy_from_slice(&DATE); // created
    entry[18..20].copy_from_slice(&DATE); // read
    let [low, high] = [cluster & 0xFFFF, cluster >> 16].map(|half| low16(half as usize));
    entry[20..22].copy_from_slice(&high); // 0 on FAT16
    entry[24..26].copy_from_slice(&DATE); // written
    entry[26..28].copy_from_slice(&low);
    entry[28..].copy_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes());
    table.extend_from_slice(&entry);
}

/// §7: before the short name, the last 13 characters first.
fn push_long_name(table: &mut Vec<u8>, entry: &Entry<'_>) {
    let checksum = entry.short.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let count = entry.long_entries();
    for part in (0..count).rev() {
        let unit = |n: usize| match (part * 13 + n).cmp(&entry.name.len()) {
            std::cmp::Ordering::Less => u16::from(entry.name.as_bytes()[part * 13 + n]),
            std::cmp::Ordering::Equal => 0,
            std::cmp::Ordering::Greater => 0xFFFF,
        };
        let units = |range: std::ops::Range<usize>| range.flat_map(|n| unit(n).to_le_bytes()).collect::<Vec<u8>>();
        let last = if part + 1 == count { 0x40 } else { 0 };
        table.push(low8(part + 1) | last);
        table.extend(units(0..5));
        table.extend([LONG_NAME, 0, checksum]);
        table.extend(units(5..11));
        table.extend([0, 0]);
        table.extend(units(11..13));
    }
}

/// For numbers that are known to be small: [`ESP_BYTES_MAX`] keeps a medium's image below 65 536 sectors, [`FAT32_BYTES`] a disk's below 2^32.
fn low32(number: usize) -> [u8; 4] {
    u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes()
}

fn low16(number: usize) -> [u8; 2] {
    u16::try_from(number).unwrap_or(u16::MAX).to_le_bytes()
}

fn low8(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_depends_on_its_content_alone() {
        let files: [(&str, &[u8]); 2] = [("EFI/BOOT/bootx64.efi", b"one"), ("startup.nsh", b"two")];
        let image = esp("EFI_LIVE", &files).unwrap();
        assert_eq!(image, esp("EFI_LIVE", &files).unwrap());
        let other = esp("EFI_LIVE", &[files[0], ("startup.nsh", b"tvo")]).unwrap();
        assert_ne!(image[39..43], other[39..43], "serial number");
    }

    #[test]
    fn it_is_fat16_and_has_room_whatever_its_size() {
        let most = usize::try_from(ESP_BYTES_MAX - STEP / 2).unwrap();
        for length in [0, 1 << 20, (4 << 20) - (200 << 10), 4 << 20, 15 << 20, (16 << 20) - (200 << 10), most] {
            let data = vec![7; length];
            let image = esp("EFI_LIVE", &[("EFI/BOOT/BOOTX64.EFI", &data)]).unwrap();
            assert_eq!(image.len() % (4 << 20), 0);
            let field = |at: usize| usize::from(u16::from_le_bytes([image[at], image[at + 1]]));
            let sectors_before = 1 + FATS * field(22) + ROOT_ENTRIES * ENTRY / SECTOR;
            let clusters = (field(19) - sectors_before) / usize::from(image[13]);
            assert!((8000..=CLUSTERS_MAX).contains(&clusters), "{length}: {clusters}");
            assert!(field(22) * SECTOR / 2 >= clusters + 2, "{length}: the FAT is too short");
            assert!(image.iter().filter(|byte| **byte == 7).count() >= length, "{length}");
        }
    }

    #[test]
    fn fat32_ends_behind_its_last_file_and_knows_what_is_free() {
        let data = vec![7; 5000];
        let image = fat32("APPLIANCE", &[("EFI/BOOT/BOOTX64.EFI", &data)], 256 << 20, 8192).unwrap();
        let field = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().unwrap());
        let (fat_sectors, clusters) = (field(36) as usize, ((256 << 20) / SECTOR - 32) / 4);
        let data_at = (32 + 2 * fat_sectors) * SECTOR;
        assert_eq!(data_at % CLUSTER_FAT32, 0);
        assert!(clusters - fat_sectors / 2 > 65_525, "a FAT16 to every reader");
        assert!(fat_sectors * SECTOR / 4 >= clusters - fat_sectors / 2 + 2, "the FAT is too short");
        // Root, EFI and BOOT take a cluster each, the file three.
        assert_eq!(image.len(), data_at + 6 * CLUSTER_FAT32);
        assert_eq!(field(SECTOR + 488) as usize, clusters - fat_sectors / 2 - 6);
        assert_eq!((field(28), field(SECTOR + 492)), (8192, 8));
        assert_eq!(image[..2 * SECTOR], image[6 * SECTOR..8 * SECTOR], "the backup");
        assert_eq!(&image[32 * SECTOR + 20..][..16], [6, 0, 0, 0, 7, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0x0F, 0, 0, 0, 0]);
    }

    #[test]
    fn fat32_of_other_sizes_is_refused() {
        for bytes in [0, 64 << 20, FAT32_BYTES.start() - 1, FAT32_BYTES.end() + 1, u64::MAX] {
            assert_eq!(fat32("L", &[], bytes, 0), Err(Error::Size { bytes }));
        }
        let room = vec![0; 100 << 20];
        assert!(fat32("L", &[("A", &room)], 160 << 20, 0).is_ok());
        assert!(matches!(fat32("L", &[("A", &room), ("B", &room)], 160 << 20, 0), Err(Error::Full { .. })));
    }

    #[test]
    fn short_names_stay_different() {
        let files: Vec<String> = (0..12).map(|n| format!("a/MokManager.x.{n}.efi")).collect();
        let files: Vec<(&str, &[u8])> = files.iter().map(|path| (path.as_str(), &b""[..])).collect();
        let tree = Tree::new(*b"LABEL      ", &files).unwrap();
        let shorts: Vec<&[u8]> = tree.folders[1].entries.iter().map(|entry| &entry.short[..]).collect();
        assert_eq!((shorts[0], shorts[11]), (&b"MOKMAN~1EFI"[..], &b"MOKMA~12EFI"[..]));
        assert_eq!(plain_short_name("bootx64.efi"), Some(*b"BOOTX64 EFI"));
        assert_eq!(plain_short_name("EFI"), Some(*b"EFI        "));
        for name in ["grubriscv64.efi", "a.b.c", ".profile", "a.html"] {
            assert_eq!(plain_short_name(name), None, "{name}");
        }
    }

    #[test]
    fn what_fat_or_a_boot_catalog_cannot_hold_is_refused() {
        let too_much = vec![0; usize::try_from(ESP_BYTES_MAX).unwrap()];
        assert!(matches!(esp("EFI_LIVE", &[("a", &too_much)]), Err(Error::TooLarge { .. })));
        for label in ["", "ABCDEFGHIJKL", "lower", "A B"] {
            assert_eq!(esp(label, &[]), Err(Error::Label { label: label.to_owned() }));
        }
        for files in [["A/b", "/a/B"], ["a", "a/b"], ["a/b", "a"]] {
            let refused = esp("L", &files.map(|path| (path, &b""[..])));
            assert_eq!(refused, Err(Error::Duplicate { path: files[1].to_owned() }));
        }
        let long = "n".repeat(NAME_CHARS_MAX + 1);
        for path in ["", "/", "a//b", "a?", "é", "..", "a/./b", "a.", &long] {
            assert_eq!(esp("L", &[(path, b"")]), Err(Error::Path { path: path.to_owned() }));
        }
        let many: Vec<String> = (0..ROOT_ENTRIES).map(|n| format!("F{n}")).collect();
        let many: Vec<(&str, &[u8])> = many.iter().map(|path| (path.as_str(), &b""[..])).collect();
        assert_eq!(esp("L", &many), Err(Error::RootFull));
        assert!(esp("L", &many[1..]).is_ok());
    }
}
