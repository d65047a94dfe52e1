//! The data partition: what the server keeps between two boots. It holds nothing that cannot be fetched or built again.

pub mod make;
pub mod seed;
pub mod table;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::boot_partition::SERVER_USER;
use super::disks::{self, FileSystem, Volume};
use crate::sys::mount::{Flags, mount, resize_ext4, set_ext4_uuid, space, unmount};
use crate::sys::partition;
use crate::units::chain;

/// Why the data partition cannot be had, where making it anew would not help.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0} is write-protected: move the switch of the card or stick, or use another one")]
    WriteProtected(PathBuf),
    #[error("this kernel cannot mount ext4: the module is missing from the image")]
    NoExt4,
    #[error("cannot mount {node} at {at}")]
    Mount { node: PathBuf, at: PathBuf, source: io::Error },
    #[error("cannot make the directory {path}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("{node}, next to the boot partition, holds {what} and is left alone; to use it, wipe its beginning")]
    SomebodyElses { node: PathBuf, what: String },
    #[error("{node} has {bytes} bytes; a data partition needs {needed}", needed = seed::BYTES)]
    TooSmall { node: PathBuf, bytes: u64 },
    #[error("cannot write an empty file system to {node}")]
    Remake { node: PathBuf, source: io::Error },
}

/// What became of the data partition.
#[derive(Debug)]
pub enum Outcome {
    Mounted(Mounted),
    /// It cannot be mounted, or should not be: why. [`remake`] empties it.
    NeedsRemake(String),
}

/// A data partition that can be used.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mounted {
    /// Bytes that files and directories can take.
    pub bytes: u64,
    /// Bytes of the whole file system before it grew, if it did.
    pub grown_from: Option<u64>,
    /// What did not go well but does not keep it from being used.
    pub notices: Vec<String>,
}

/// Lets the partition grow to the end of its disk, mounts it at `at` (`/data`), lets the file system grow, and makes its directories.
///
/// # Errors
/// What making the partition anew would not mend.
pub fn open(volume: &Volume, at: &Path) -> Result<Outcome, Error> {
    let mut mounted = Mounted::default();
    check_ours(volume)?;
    if let Err(error) = grow_partition(volume) {
        mounted.notices.push(format!("the data partition cannot grow: {}", chain(&error)));
    }
    if let Some(reason) = damage(volume) {
        return Ok(Outcome::NeedsRemake(reason));
    }
    make_mount_point(at)?;
    let flags = Flags::NO_SUID.and(Flags::NO_DEV).and(Flags::NO_EXEC).and(Flags::NO_ATIME);
    if let Err(error) = mount(&volume.node, at, FileSystem::Ext4.name(), flags, "errors=remount-ro") {
        return why_not(volume, at, error).map(Outcome::NeedsRemake);
    }
    match settle(volume, at, &mut mounted) {
        Ok(()) => Ok(Outcome::Mounted(mounted)),
        // A directory that cannot be made or owned: the tree is damaged, or the file system turned read-only at the first write.
        Err(error) => {
            let _ = unmount(at, false);
            Ok(Outcome::NeedsRemake(chain(&error)))
        }
    }
}

/// Puts a memory disk at `at` in the place of a data partition that cannot be used: for half of the machine's memory at most.
///
/// # Errors
/// What mount(2) says.
pub fn in_memory(at: &Path) -> Result<(), Error> {
    make_mount_point(at)?;
    let flags = Flags::NO_SUID.and(Flags::NO_DEV).and(Flags::NO_EXEC).and(Flags::NO_ATIME);
    let kind = Path::new("tmpfs");
    let mounted = mount(kind, at, "tmpfs", flags, "mode=0755,size=50%");
    mounted.map_err(|source| Error::Mount { node: kind.to_owned(), at: at.to_owned(), source })?;
    make_directory(&at.join("state"), 0o700, SERVER_USER)?;
    make_directory(&at.join("log"), 0o700, 0)
}

/// What is done once it is mounted.
fn settle(volume: &Volume, at: &Path, mounted: &mut Mounted) -> Result<(), Error> {
    let failed = |source| Error::Mount { node: volume.node.clone(), at: at.to_owned(), source };
    let root = File::open(at).map_err(failed)?;
    let before = space(at).map_err(failed)?;
    mounted.bytes = before.blocks.saturating_mul(before.block_bytes);
    if let Err(error) = grow_file_system(volume, &root, at, mounted) {
        mounted.notices.push(format!("the file system of the data partition cannot grow: {error}"));
    }
    let signature = File::open(&volume.node).ok().and_then(|device| disks::read_signature(&device));
    if signature.is_some_and(|signature| signature.uuid == seed::UUID) {
        // Two appliances' cards in one machine would be hard to tell apart; nothing here goes by it, so it may fail.
        let _ = random_uuid().and_then(|uuid| set_ext4_uuid(&root, uuid));
    }
    make_directory(&at.join("state"), 0o700, SERVER_USER)?;
    make_directory(&at.join("log"), 0o700, 0)
}

/// Rewrites the partition's entry and tells the kernel, when there is room behind it.
fn grow_partition(volume: &Volume) -> Result<(), GrowError> {
    let disk = OpenOptions::new().read(true).write(true).open(&volume.disk).map_err(GrowError::Open)?;
    let bytes = (&disk).seek(SeekFrom::End(0)).map_err(GrowError::Open)?;
    let place = table::Place { index: volume.index, offset: volume.offset };
    let plan = table::plan(&disk, bytes, place)?;
    plan.apply(&disk, || disk.sync_all())?;
    if plan.to > volume.size {
        partition::resize(&disk, volume.index, volume.offset, plan.to).map_err(GrowError::Kernel)?;
    }
    Ok(())
}

/// Why the partition stays as long as it is.
#[derive(Debug, thiserror::Error)]
enum GrowError {
    #[error("cannot open the disk for writing")]
    Open(#[source] io::Error),
    #[error(transparent)]
    Table(#[from] table::Error),
    #[error("the kernel does not take the new length of the partition before the next start")]
    Kernel(#[source] io::Error),
}

fn grow_file_system(volume: &Volume, root: &File, at: &Path, mounted: &mut Mounted) -> io::Result<()> {
    let device = File::open(&volume.node)?;
    let blocks = (&device).seek(SeekFrom::End(0))? / EXT4_BLOCK;
    let Some(has) = disks::ext4_blocks(&device) else { return Ok(()) };
    if blocks <= has {
        return Ok(());
    }
    resize_ext4(root, blocks)?;
    let after = space(at)?;
    mounted.grown_from = Some(has * EXT4_BLOCK);
    mounted.bytes = after.blocks.saturating_mul(after.block_bytes);
    Ok(())
}

/// The seed's.
const EXT4_BLOCK: u64 = 4096;

/// What speaks against mounting it. There is no fsck here, and damage that the kernel found once grows.
fn damage(volume: &Volume) -> Option<String> {
    let device = File::open(&volume.node).ok()?;
    match disks::read_signature(&device) {
        Some(_) => disks::ext4_errors(&device),
        None => Some("it holds no file system".to_owned()),
    }
}

/// The partition is known by its place. Whoever put something else there would not like to see it go.
fn check_ours(volume: &Volume) -> Result<(), Error> {
    let Ok(device) = File::open(&volume.node) else { return Ok(()) }; // whoever uses it next says why
    match disks::somebody_elses(&device, disks::DATA_LABEL) {
        Some(what) => Err(Error::SomebodyElses { node: volume.node.clone(), what }),
        None => Ok(()),
    }
}

/// Tells what a new file system would mend from what it would not.
fn why_not(volume: &Volume, at: &Path, error: io::Error) -> Result<String, Error> {
    match error.raw_os_error() {
        Some(libc::EROFS | libc::EACCES) => Err(Error::WriteProtected(volume.node.clone())),
        Some(libc::ENODEV) => Err(Error::NoExt4),
        Some(libc::EPERM | libc::EBUSY | libc::ENOENT | libc::ENOTBLK | libc::ENXIO) => {
            Err(Error::Mount { node: volume.node.clone(), at: at.to_owned(), source: error })
        }
        _ => Ok(format!("the kernel cannot mount it: {error}")),
    }
}

/// Makes an empty file system of the partition. All that was on it is gone.
///
/// # Errors
/// A partition that is too small, cannot be written, or holds what somebody else put there.
pub fn remake(volume: &Volume) -> Result<(), Error> {
    check_ours(volume)?;
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            Error::WriteProtected(volume.node.clone())
        }
        _ => Error::Remake { node: volume.node.clone(), source },
    };
    let device = OpenOptions::new().read(true).write(true).open(&volume.node).map_err(failed)?;
    let bytes = (&device).seek(SeekFrom::End(0)).map_err(failed)?;
    if bytes < seed::BYTES {
        return Err(Error::TooSmall { node: volume.node.clone(), bytes });
    }
    seed::write(&device, || device.sync_all()).map_err(failed)
}

/// Unmounts it, later if somebody uses it.
///
/// # Errors
/// What umount2(2) says.
pub fn close(at: &Path) -> io::Result<()> {
    unmount(at, false).or_else(|_| unmount(at, true))
}

/// Its mode and owner are those of what is mounted there, and the root that it is in may be read-only.
fn make_mount_point(path: &Path) -> Result<(), Error> {
    match fs::create_dir(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(Error::Directory { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// One that is there keeps its content and gets the mode and the owner.
fn make_directory(path: &Path, mode: u32, owner: u32) -> Result<(), Error> {
    let made = match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => chown(path, Some(owner), Some(owner))
            .and_then(|()| fs::set_permissions(path, PermissionsExt::from_mode(mode))),
    };
    made.map_err(|source| Error::Directory { path: path.to_owned(), source })
}

/// Version 4, RFC 9562 §5.4.
fn random_uuid() -> io::Result<[u8; 16]> {
    let mut uuid = [0; 16];
    io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut uuid)?;
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    Ok(uuid)
}
