//! Files that are whole or not there: written under a temporary name, synced, renamed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What the file system refused.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot use the directory {path}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
}

/// The temporary name.
pub(super) fn part(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or(OsStr::new("")).to_owned();
    name.push(".part");
    path.with_file_name(name)
}

pub(super) fn create(path: &Path) -> Result<File, FileError> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path);
    file.map_err(|source| FileError::Write { path: path.to_owned(), source })
}

/// Makes the directory that a file is to be in.
pub(super) fn make_parent(path: &Path) -> Result<(), FileError> {
    let parent = parent(path);
    fs::create_dir_all(parent).map_err(|source| FileError::Directory { path: parent.to_owned(), source })
}

/// Gives a synced file its final name.
pub(super) fn publish(path: &Path) -> Result<(), FileError> {
    fs::rename(part(path), path).map_err(|source| FileError::Write { path: path.to_owned(), source })?;
    sync_parent(path)
}

/// Opens a new file, readable by those whom `mode` names.
pub(super) fn create_new(path: &Path, mode: u32) -> Result<File, FileError> {
    let file = File::options().read(true).write(true).create_new(true).mode(mode).open(path);
    file.map_err(|source| FileError::Write { path: path.to_owned(), source })
}

/// Writes a small file, readable by those whom `mode` names: whole and on the disk, or not at all.
///
/// # Errors
/// [`FileError`]
pub fn write(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), FileError> {
    write_part(path, mode, bytes)?.sync_all().map_err(|source| refused(path, source))?;
    publish(path)
}

/// The same without waiting for the disk: whole or not there, but after a power failure perhaps an older one, or an empty one.
pub(super) fn write_soon(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), FileError> {
    write_part(path, mode, bytes)?;
    fs::rename(part(path), path).map_err(|source| refused(path, source))
}

fn write_part(path: &Path, mode: u32, bytes: &[u8]) -> Result<File, FileError> {
    let temporary = part(path);
    // A mode is given to new files only.
    remove(&temporary)?;
    let mut file = create_new(&temporary, mode)?;
    file.write_all(bytes).map_err(|source| refused(path, source))?;
    Ok(file)
}

fn refused(path: &Path, source: io::Error) -> FileError {
    FileError::Write { path: path.to_owned(), source }
}

/// Removes a file if it is there; says whether it was.
pub(super) fn remove(path: &Path) -> Result<bool, FileError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(FileError::Write { path: path.to_owned(), source }),
    }
}

pub(super) fn sync_parent(path: &Path) -> Result<(), FileError> {
    let parent = parent(path);
    let synced = File::open(parent).and_then(|directory| directory.sync_all());
    synced.map_err(|source| FileError::Directory { path: parent.to_owned(), source })
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Removes what a failed or killed run left in a directory: all that ends in `.part`.
pub(super) fn clean(directory: &Path) -> Result<(), FileError> {
    clean_matching(directory, &[".part"])
}

/// Removes the files of a directory whose names have one of these endings.
pub(super) fn clean_matching(directory: &Path, endings: &[&str]) -> Result<(), FileError> {
    let unusable = |source| FileError::Directory { path: directory.to_owned(), source };
    for entry in fs::read_dir(directory).map_err(unusable)? {
        let entry = entry.map_err(unusable)?;
        let name = entry.file_name();
        if endings.iter().any(|ending| name.as_encoded_bytes().ends_with(ending.as_bytes())) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}
