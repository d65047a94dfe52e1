//! The boot partition, where the configuration lives: read-only but for the moment in which a file is written.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::disks::{FileSystem, Signature, Volume};
use crate::sys::mount::{Flags, mount, sync_file_system, unmount};

/// Who may read the boot partition besides root: the server, whose cloud config lies there.
pub const SERVER_USER: u32 = 700;

/// Why the boot partition cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no file system that is known on {0}")]
    NoFileSystem(PathBuf),
    #[error("cannot make the directory {path}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("cannot mount {node} at {at}")]
    Mount { node: PathBuf, at: PathBuf, source: io::Error },
    #[error("{0:?} cannot be the name of a file on the boot partition")]
    Name(String),
    #[error("{0} is write-protected: move the switch of the card or stick, or use another one")]
    WriteProtected(PathBuf),
    #[error("{node} is full: remove files from the boot partition that the appliance does not need")]
    Full { node: PathBuf, source: io::Error },
    #[error("cannot write {name} to {node}")]
    Write { name: String, node: PathBuf, source: io::Error },
    #[error("cannot remove {name} from {node}")]
    Remove { name: String, node: PathBuf, source: io::Error },
}

/// A mounted boot partition.
#[derive(Debug)]
pub struct BootPartition {
    node: PathBuf,
    at: PathBuf,
    options: String,
    /// One writer at a time, or the first one's end would make it read-only under the second.
    writing: Mutex<()>,
}

const SEALED: Flags = Flags::NO_SUID.and(Flags::NO_DEV).and(Flags::NO_EXEC).and(Flags::NO_ATIME);

impl BootPartition {
    /// Mounts it read-only at `at`, such as `/boot`.
    ///
    /// # Errors
    /// What mount(2) says; `ENODEV` when the module of its file system is not loaded.
    pub fn mount(volume: &Volume, at: &Path) -> Result<Self, Error> {
        let signature = volume.signature.as_ref().ok_or_else(|| Error::NoFileSystem(volume.node.clone()))?;
        let options = options(signature);
        let boot = Self { node: volume.node.clone(), at: at.to_owned(), options, writing: Mutex::new(()) };
        mount_read_only(volume, signature, at, &boot.options)?;
        Ok(boot)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// The device, for messages.
    #[must_use]
    pub fn node(&self) -> &Path {
        &self.node
    }

    /// Writes a file such as `console.yaml` or `last-good/auroraboot.yaml`: there is the old one or the new one, never half of it.
    ///
    /// # Errors
    /// A name that leaves the partition; a medium that is full, protected or broken. The old file then stays.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        check(name)?;
        let failed = |source| self.failure(source, |node, source| Error::Write { name: name.into(), node, source });
        self.while_writable(|| replace(&self.at.join(name), bytes)).map_err(failed)
    }

    /// Removes a file; none there is fine.
    ///
    /// # Errors
    /// A name that leaves the partition; a medium that is protected or broken.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        check(name)?;
        let path = self.at.join(name);
        if !path.exists() {
            return Ok(());
        }
        let failed = |source| self.failure(source, |node, source| Error::Remove { name: name.into(), node, source });
        self.while_writable(|| fs::remove_file(&path)).map_err(failed)
    }

    /// Unmounts it, later if somebody is reading.
    ///
    /// # Errors
    /// What umount2(2) says.
    pub fn unmount(&self) -> io::Result<()> {
        unmount(&self.at, false).or_else(|_| unmount(&self.at, true))
    }

    /// Makes it read-only again whatever came of `change`, when everything is on the medium.
    fn while_writable(&self, change: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let _guard = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.remount(SEALED)?;
        let changed = change().and_then(|()| sync_file_system(&File::open(&self.at)?));
        let locked = self.remount(SEALED.and(Flags::READ_ONLY));
        changed.and(locked)
    }

    fn remount(&self, flags: Flags) -> io::Result<()> {
        mount(&self.node, &self.at, "", flags.and(Flags::REMOUNT), &self.options)
    }

    fn failure(&self, source: io::Error, other: impl FnOnce(PathBuf, io::Error) -> Error) -> Error {
        let node = self.node.clone();
        match source.kind() {
            // The kernel refuses to remount it, or its own errors made it so.
            io::ErrorKind::ReadOnlyFilesystem => Error::WriteProtected(node),
            io::ErrorKind::PermissionDenied if source.raw_os_error() == Some(libc::EACCES) => {
                Error::WriteProtected(node)
            }
            io::ErrorKind::StorageFull => Error::Full { node, source },
            _ => other(node, source),
        }
    }
}

/// Mounts a stick read-only at `at`, with the same care: `/stick`.
///
/// # Errors
/// As [`BootPartition::mount`].
pub fn mount_stick(stick: &Volume, at: &Path) -> Result<(), Error> {
    let signature = stick.signature.as_ref().ok_or_else(|| Error::NoFileSystem(stick.node.clone()))?;
    mount_read_only(stick, signature, at, &options(signature))
}

fn mount_read_only(volume: &Volume, signature: &Signature, at: &Path, options: &str) -> Result<(), Error> {
    match fs::create_dir(at) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::Directory { path: at.to_owned(), source });
        }
        _ => {}
    }
    let flags = SEALED.and(Flags::READ_ONLY);
    mount(&volume.node, at, signature.file_system.name(), flags, options).map_err(|source| Error::Mount {
        node: volume.node.clone(),
        at: at.to_owned(),
        source,
    })
}

/// FAT knows no owners: all is the server's, and nobody else's. Short names are shown in the case in which Windows shows them.
fn options(signature: &Signature) -> String {
    match signature.file_system {
        FileSystem::Fat => format!(
            "uid={SERVER_USER},gid={SERVER_USER},umask=0077,codepage=437,iocharset=ascii,utf8,shortname=mixed,errors=remount-ro"
        ),
        FileSystem::Ext4 => String::new(),
    }
}

/// One name, or one in a directory.
fn check(name: &str) -> Result<(), Error> {
    let is_plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let parts: Vec<&str> = name.split('/').collect();
    if parts.len() <= 2 && parts.into_iter().all(is_plain) && name.len() <= 200 {
        return Ok(());
    }
    Err(Error::Name(name.to_owned()))
}

/// A temporary name, all bytes on the medium, then the real name. What an earlier attempt left is overwritten.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".part");
    let temporary = PathBuf::from(temporary);
    let written = File::create(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary); // on a full medium it would stay in the way
    }
    written
}
