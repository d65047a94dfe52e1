//! The sha256 of an ISO, and the file beside it that `sha256sum -c` reads.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest as _, Sha256};

use super::files::{self, FileError};
use super::names;
use crate::fingerprint;
use crate::limits::CHECKSUM_BYTES_MAX;
use crate::storage::Storage;
use crate::units::Digest;

const BUFFER_BYTES: usize = 256 << 10;

/// Hashes the first `size` bytes. `None` when cancelled.
pub(super) fn hash(file: &File, size: u64, cancelled: &AtomicBool) -> io::Result<Option<Digest>> {
    fingerprint::digest(file, size, &|| cancelled.load(Ordering::Relaxed))
}

/// The checksum of a file's beginning.
#[derive(Clone, Default)]
pub struct Hashing {
    hasher: Sha256,
    /// Bytes.
    done: u64,
}

impl fmt::Debug for Hashing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hashing").field("done", &self.done).finish_non_exhaustive()
    }
}

/// Two of one file are equal when they are equally far.
impl PartialEq for Hashing {
    fn eq(&self, other: &Self) -> bool {
        self.done == other.done
    }
}

impl Eq for Hashing {}

impl Hashing {
    /// Hashes on up to byte `end`, unless told to stop.
    pub(super) fn go_on(&mut self, file: &File, end: u64, stop: &AtomicBool) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES];
        while self.done < end && !stop.load(Ordering::Relaxed) {
            let len = usize::try_from(end - self.done).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
            file.read_exact_at(&mut buffer[..len], self.done)?;
            self.hasher.update(&buffer[..len]);
            self.done += len as u64;
        }
        Ok(())
    }

    /// Of a file of `size` bytes, once it is that far.
    pub(super) fn digest(self, size: u64) -> Option<Digest> {
        (self.done == size).then(|| Digest(self.hasher.finalize().into()))
    }
}

/// Where the checksum of an ISO stands.
pub(super) fn path(iso: &Path) -> PathBuf {
    let name = iso.file_name().unwrap_or_default().to_string_lossy();
    iso.with_file_name(names::checksum(&name))
}

/// Writes the checksum beside an ISO, unless it stands there already.
pub(super) fn write(iso: &Path, digest: Digest) -> Result<(), FileError> {
    let path = path(iso);
    let line = line(iso, digest);
    let is_small = std::fs::metadata(&path).is_ok_and(|found| found.len() <= CHECKSUM_BYTES_MAX);
    if is_small && std::fs::read(&path).is_ok_and(|found| found == line.as_bytes()) {
        return Ok(());
    }
    files::write(&path, 0o644, line.as_bytes())
}

/// Two blanks, as `sha256sum` writes it. The original's single one is read by GNU's `sha256sum -c` (coreutils 9.1), but busybox's takes the
/// first letter of the name for a blank and finds no such file.
fn line(iso: &Path, digest: Digest) -> String {
    format!("{}  {}\n", digest.hex(), iso.file_name().unwrap_or_default().to_string_lossy())
}
