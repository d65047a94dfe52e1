//! The data partition where there is none: made in what is free behind the boot partition.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use super::{seed, table};
use crate::appliance::disks::{self, DATA_LABEL, Volume};
use crate::flash::host::Host;
use crate::iso::gpt::Guid;
use crate::limits;
use crate::storage::Section;
use crate::sys::partition;

/// Why none can be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the disk is write-protected")]
    WriteProtected,
    #[error("cannot open the disk")]
    Open(#[source] io::Error),
    #[error(transparent)]
    Table(#[from] table::Error),
    #[error("cannot write an empty file system")]
    Seed(#[source] io::Error),
    #[error("the kernel does not take it before the next start")]
    Kernel(#[source] io::Error),
    #[error("the partition table lists one that the kernel does not show")]
    NotShown,
}

/// Makes the partition that [`disks::find_data`] did not find behind `boot`, with the seed on it; should the table list one, which the kernel
/// was only slow to show, that is it.
///
/// The seed is written first, to where nothing is yet: whenever the power fails there is no partition, or a good one.
///
/// # Errors
/// No room, a table that is not understood, or what the disk says.
pub fn make(host: &Host, boot: &Volume) -> Result<Volume, Error> {
    match add(boot) {
        Ok(()) | Err(Error::Table(table::Error::NotLast)) => wait_for(host, boot).ok_or(Error::NotShown),
        Err(error) => Err(error),
    }
}

fn add(boot: &Volume) -> Result<(), Error> {
    let opened = OpenOptions::new().read(true).write(true).open(&boot.disk);
    let disk = Arc::new(opened.map_err(|error| protected_or(Error::Open, error))?);
    let bytes = (&*disk).seek(SeekFrom::End(0)).map_err(Error::Open)?;
    let place = table::Place { index: boot.index, offset: boot.offset };
    let guid = random_guid().map_err(Error::Open)?;
    let new = table::New { bytes: seed::BYTES, guid, name: DATA_LABEL };
    let (added, plan) = table::plan_new(&*disk, bytes, place, new)?;
    let written = seed::write(&Section::new(Arc::clone(&disk), added.offset), || disk.sync_all());
    written.map_err(|error| protected_or(Error::Seed, error))?;
    plan.apply(&*disk, || disk.sync_all())?;
    partition::add(&*disk, added.index, added.offset, plan.to).map_err(Error::Kernel)
}

/// Some kernels let a disk that is write-protected be opened for writing, and refuse the first write.
fn protected_or(other: fn(io::Error) -> Error, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => Error::WriteProtected,
        _ => other(error),
    }
}

/// The kernel shows partitions one after the other, when it finds them as when they are added.
fn wait_for(host: &Host, boot: &Volume) -> Option<Volume> {
    let deadline = Instant::now() + limits::PARTITION_PATIENCE;
    loop {
        let found = disks::find_data(&disks::volumes(host), boot).cloned();
        if found.as_ref().is_some_and(|volume| volume.node.exists()) || Instant::now() >= deadline {
            return found;
        }
        thread::sleep(limits::READY_POLL);
    }
}

/// Version 4, RFC 9562 §5.4; the first three fields are little-endian here.
fn random_guid() -> io::Result<Guid> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    bytes[7] = bytes[7] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Ok(Guid(bytes))
}
