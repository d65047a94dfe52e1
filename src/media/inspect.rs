//! An ISO that somebody else made: whether it boots Kairos, and where kernel, initrd and squashfs lie in it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::files::FileError;
use super::{Artifact, ImageFacts, Medium, checksum, kernel, menu};
use crate::iso::read::{self, Entry, Image, Kind};
use crate::rootfs::shown;
use crate::storage::{Extent, Storage};
use crate::units::{Arch, ByteSize, Digest};

/// An ISO that was downloaded or copied to its place.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    pub iso: &'a Path,
    /// When it is known; otherwise the file is read for it.
    pub sha256: Option<Digest>,
    /// Whether the checksum is to stand in a file beside the ISO.
    pub checksum_file: bool,
    /// Whether machines are to boot it from the network. Without that any ISO will do: it is only copied, with files added.
    pub must_boot: bool,
    /// An earlier run brought it.
    pub reused: bool,
}

/// Why an ISO is none to work with.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path} cannot be used")]
    Iso { path: PathBuf, source: read::Error },
    #[error(
        "{path} (volume {volume:?}) has no {missing}: it is not an ISO of Kairos, or of a kind that is not known here; {found}"
    )]
    Missing { path: PathBuf, volume: String, missing: String, found: String },
    #[error("{path}: /{file} is empty")]
    Empty { path: PathBuf, file: &'static str },
    #[error("cancelled")]
    Cancelled,
}

/// Looks into an ISO.
///
/// # Errors
/// [`InspectError`]: it is not an ISO, truncated, damaged, or without the files that machines are to boot.
pub fn inspect(given: &Given<'_>, cancelled: &AtomicBool) -> Result<Medium, InspectError> {
    let path = given.iso;
    let unreadable = |source| FileError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let (size, built) = (metadata.len(), metadata.modified().map_err(unreadable)?);
    let found = match find(&file, size, path) {
        Err(InspectError::Missing { .. } | InspectError::Empty { .. }) if !given.must_boot => None,
        found => Some(found?),
    };
    let (facts, kernel_arch, warnings) = match &found {
        Some([kernel, _, squashfs]) => facts(&file, kernel, squashfs).map_err(unreadable)?,
        None => Default::default(),
    };
    let sha256 = match given.sha256 {
        Some(sha256) => sha256,
        None => checksum::hash(&file, size, cancelled).map_err(unreadable)?.ok_or(InspectError::Cancelled)?,
    };
    if given.checksum_file {
        checksum::write(path, sha256)?;
    }
    let iso = Artifact { path: path.to_owned(), size };
    let [kernel, initrd, squashfs] = found.map(|files| files.map(|file| file.extents)).unwrap_or_default();
    Ok(Medium { iso, sha256, kernel, initrd, squashfs, facts, kernel_arch, warnings, reused: given.reused, built })
}

const WANTED: [&str; 3] = [menu::KERNEL_PATH, menu::INITRD_PATH, menu::SQUASHFS_PATH];

/// Kernel, initrd and squashfs.
fn find(file: &File, size: u64, path: &Path) -> Result<[Entry; 3], InspectError> {
    let bad = |source| InspectError::Iso { path: path.to_owned(), source };
    let image = Image::open(file, size).map_err(bad)?;
    let look = |name: &str| image.find(&format!("/{name}")).map_err(bad);
    let found = [look(WANTED[0])?, look(WANTED[1])?, look(WANTED[2])?];
    let missing: Vec<String> = WANTED
        .iter()
        .zip(&found)
        .filter(|(_, entry)| !entry.as_ref().is_some_and(|entry| entry.kind == Kind::File))
        .map(|(name, _)| format!("/{name}"))
        .collect();
    let [Some(kernel), Some(initrd), Some(squashfs)] = found else {
        return Err(missing_files(&image, path, &missing));
    };
    if !missing.is_empty() {
        return Err(missing_files(&image, path, &missing));
    }
    let found = [kernel, initrd, squashfs];
    match WANTED.iter().zip(&found).find(|(_, entry)| entry.size == 0) {
        Some((name, _)) => Err(InspectError::Empty { path: path.to_owned(), file: name }),
        None => Ok(found),
    }
}

/// Names shown of what an ISO does have.
const NAMES_SHOWN: usize = 12;

fn missing_files(image: &Image<'_, File>, path: &Path, missing: &[String]) -> InspectError {
    let names = image.list("/").unwrap_or_default();
    let mut names: Vec<String> = names.iter().map(|entry| shown(&entry.name)).collect();
    names.sort();
    let more = if names.len() > NAMES_SHOWN { ", …" } else { "" };
    names.truncate(NAMES_SHOWN);
    let found = if names.is_empty() { "it is empty".to_owned() } else { format!("it has {}{more}", names.join(", ")) };
    InspectError::Missing {
        path: path.to_owned(),
        volume: shown(image.volume_id()),
        missing: missing.join(", no "),
        found,
    }
}

/// What can be told from the first bytes of kernel and squashfs.
fn facts(file: &File, kernel: &Entry, squashfs: &Entry) -> io::Result<(ImageFacts, Option<Arch>, Vec<String>)> {
    let mut warnings = Vec::new();
    let kernel_head = head(file, &kernel.extents, kernel::VERSION_END)?;
    if !kernel::is_kernel(&kernel_head) {
        warnings.push(format!(
            "/{} ({}) of the ISO does not begin as a kernel does (bzImage, EFI, ELF, Image, uImage): machines may not boot",
            menu::KERNEL_PATH,
            ByteSize(kernel.size)
        ));
    }
    let superblock = head(file, &squashfs.extents, SUPERBLOCK_BYTES)?;
    let (compression, files) = match superblock.first_chunk::<{ SUPERBLOCK_BYTES as usize }>() {
        Some(superblock) if superblock[..4] == *b"hsqs" => {
            let files = u32::from_le_bytes([superblock[4], superblock[5], superblock[6], superblock[7]]);
            (COMPRESSIONS.get(usize::from(superblock[20])).copied().unwrap_or("unknown"), u64::from(files))
        }
        _ => {
            let (path, size) = (menu::SQUASHFS_PATH, ByteSize(squashfs.size));
            warnings.push(format!("/{path} ({size}) of the ISO is not a squashfs: machines may not boot"));
            ("unknown", 0)
        }
    };
    let facts = ImageFacts {
        name: None,
        kairos: BTreeMap::new(),
        kernel_version: kernel::version(&kernel_head).map(|version| shown(&version)),
        kernel_path: menu::KERNEL_PATH.to_owned(),
        initrd_path: menu::INITRD_PATH.to_owned(),
        kernel_reads_squashfs: None,
        kernel_reads_zstd: None,
        compression: compression.to_owned(),
        files,
        data_bytes: 0,
    };
    Ok((facts, kernel::arch(&kernel_head), warnings))
}

/// Magic, count of inodes and, at byte 20, compression (squashfs 4.0).
const SUPERBLOCK_BYTES: u64 = 96;
/// By their number in the superblock.
const COMPRESSIONS: [&str; 7] = ["unknown", "gzip", "lzma", "lzo", "xz", "lz4", "zstd"];

/// The first bytes of a file.
fn head(file: &File, extents: &[Extent], bytes: u64) -> io::Result<Vec<u8>> {
    let Some(first) = extents.first() else { return Ok(Vec::new()) };
    let mut head = vec![0; usize::try_from(first.length.min(bytes)).unwrap_or(0)];
    file.read_exact_at(&mut head, first.offset)?;
    Ok(head)
}
