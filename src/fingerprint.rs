//! By what a file is known again without reading it, and by what when that fails: all its bytes.
//!
//! A state directory that goes to another machine with `cp`, `rsync` or `tar` has other inodes there, and often other times. What was
//! noted of its files then fits none of them, though not one byte is different.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::units::{ByteSize, Digest};

const BUFFER_BYTES: usize = 256 << 10;

/// A file as it was at some time: who changes or replaces it changes one of these. Hashing it all at every start would take seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Bytes.
    size: u64,
    mtime: i64,
    mtime_nsec: i64,
    inode: u64,
}

/// How a file compares with what was noted of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// As it was left.
    Untouched,
    /// Copied or touched, and every byte as it was. Whoever notes the new fingerprint saves the next run the reading.
    Unaltered(Fingerprint),
    /// Of the same size, with other bytes.
    Altered,
    /// Another file or none, or one that was not read to its end: that was to stop, or the disk has a fault.
    Other,
}

impl Fingerprint {
    #[must_use]
    pub fn of(found: &Metadata) -> Self {
        // Not the time of change: who hands the ISO to another user with chown does not touch it.
        Self { size: found.size(), mtime: found.mtime(), mtime_nsec: found.mtime_nsec(), inode: found.ino() }
    }

    /// Of what is at a path; of a link itself, not of what it leads to.
    ///
    /// # Errors
    /// Nothing is there, or the way to it is barred.
    pub fn at(path: &Path) -> io::Result<Self> {
        fs::symlink_metadata(path).map(|found| Self::of(&found))
    }

    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    #[must_use]
    pub const fn inode(&self) -> u64 {
        self.inode
    }

    /// Whether the file at `path` is the one that this was taken of. With its sha256, one that only looks different is read: 0.7 s
    /// for a gigabyte with SHA extensions, until `is_stopped`.
    pub fn check(&self, path: &Path, sha256: Option<Digest>, is_stopped: &dyn Fn() -> bool) -> Known {
        let Some(found) = fs::symlink_metadata(path).ok().filter(Metadata::is_file) else { return Known::Other };
        let now = Self::of(&found);
        if now == *self {
            return Known::Untouched;
        }
        let Some(sha256) = sha256.filter(|_| now.size == self.size) else { return Known::Other };
        log::info!("ISO: Checking {} ({}): it was copied or touched", path.display(), ByteSize(now.size));
        match File::open(path).and_then(|file| digest(&file, now.size, is_stopped)) {
            Ok(Some(actual)) if actual == sha256 => Known::Unaltered(now),
            Ok(Some(_)) => {
                log::warn!("{} is not what it was: its sha256 is not the noted one", path.display());
                Known::Altered
            }
            Ok(None) => Known::Other,
            Err(error) => {
                log::warn!("cannot read {}: {error}", path.display());
                Known::Other
            }
        }
    }
}

/// The sha256 of the first `length` bytes of a file; `None` when that was to stop.
///
/// # Errors
/// As [`hash`].
pub fn digest(file: &File, length: u64, is_stopped: &dyn Fn() -> bool) -> io::Result<Option<Digest>> {
    Ok(hash(file, length, is_stopped)?.map(|hash| Digest(hash.finalize().into())))
}

/// The same, to be gone on with behind these bytes; `None` when that was to stop.
///
/// # Errors
/// The file is shorter, or cannot be read.
pub fn hash(file: &File, length: u64, is_stopped: &dyn Fn() -> bool) -> io::Result<Option<Sha256>> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut at = 0;
    while at < length {
        if is_stopped() {
            return Ok(None);
        }
        let room = usize::try_from(length - at).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact_at(&mut buffer[..room], at)?;
        hash.update(&buffer[..room]);
        at += room as u64;
    }
    Ok(Some(hash))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::path::PathBuf;

    /// A directory that goes when the test ends.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("auroraboot-fingerprint-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, bytes).unwrap();
            path
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn sha256(bytes: &[u8]) -> Option<Digest> {
        Some(Digest(Sha256::digest(bytes).into()))
    }

    #[test]
    fn a_copy_is_known_by_its_bytes_and_only_by_all_of_them() {
        let scratch = Scratch::new("copy");
        let bytes = vec![7; 2 * BUFFER_BYTES + 1];
        let file = scratch.file("a.iso", &bytes);
        let print = Fingerprint::at(&file).unwrap();
        let reads = Cell::new(0);
        let count = || {
            reads.set(reads.get() + 1);
            false
        };
        assert_eq!(print.check(&file, sha256(&bytes), &count), Known::Untouched);
        assert_eq!(print.check(&file, None, &count), Known::Untouched);
        assert_eq!(reads.get(), 0, "nothing is read of what nobody touched");

        let copy = scratch.0.join("copy.iso");
        fs::copy(&file, &copy).unwrap();
        let now = Fingerprint::at(&copy).unwrap();
        assert_eq!(print.check(&copy, sha256(&bytes), &count), Known::Unaltered(now.clone()));
        assert_eq!(reads.get(), 3, "three buffers");
        assert_eq!(now.check(&copy, sha256(&bytes), &count), Known::Untouched, "once noted");
        assert_eq!(print.check(&copy, None, &count), Known::Other, "no sha256 is known");
        assert_eq!(print.check(&copy, sha256(&bytes), &|| true), Known::Other, "stopped");

        let mut altered = bytes.clone();
        *altered.last_mut().unwrap() ^= 1;
        let other = scratch.file("altered.iso", &altered);
        assert_eq!(print.check(&other, sha256(&bytes), &|| false), Known::Altered, "the last byte");
    }

    #[test]
    fn what_cannot_be_it_is_not_read() {
        let scratch = Scratch::new("other");
        let file = scratch.file("a.iso", b"iso");
        let print = Fingerprint::at(&file).unwrap();
        let never = || -> bool { panic!("read") };
        let check = |path: &Path| print.check(path, sha256(b"iso"), &never);
        assert_eq!(check(&scratch.0.join("none")), Known::Other);
        assert_eq!(check(&scratch.file("longer.iso", b"iso!")), Known::Other);
        assert_eq!(check(&scratch.0), Known::Other, "a directory");
        let link = scratch.0.join("link.iso");
        std::os::unix::fs::symlink("a.iso", &link).unwrap();
        assert_eq!(check(&link), Known::Other, "a link could lead anywhere at the next look");
    }

    #[test]
    fn a_file_that_ends_early_has_no_sha256() {
        let scratch = Scratch::new("short");
        let file = File::open(scratch.file("a.iso", b"iso")).unwrap();
        assert_eq!(digest(&file, 3, &|| false).unwrap(), sha256(b"iso"));
        assert_eq!(digest(&file, 2, &|| false).unwrap(), sha256(b"is"));
        assert_eq!(digest(&file, 0, &|| true).unwrap(), sha256(b""), "there is nothing to stop");
        assert_eq!(digest(&file, 4, &|| false).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
