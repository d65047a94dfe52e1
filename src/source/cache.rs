//! Blobs by digest in `state_dir`, so that a second run downloads nothing.
//!
//! A blob has its final name only after its digest was verified and its bytes reached the disk. What a killed run left
//! behind is `<hex>.part`.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::units::Digest;

const PART: &str = "part";

/// Why the cache cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot create {path} for downloaded layers; set state_dir to a directory that can be written")]
    Create { path: PathBuf, source: io::Error },
    #[error("another auroraboot is using {0}; end it, or give this one another state_dir")]
    Locked(PathBuf),
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
}

/// The directory `<state_dir>/blobs/sha256`, held by one process at a time. Clones share the lock.
#[derive(Debug, Clone)]
pub struct BlobCache {
    dir: PathBuf,
    _lock: Arc<File>,
}

impl BlobCache {
    /// Opens or creates the cache and takes its lock, which ends with the process however it ends.
    ///
    /// # Errors
    /// When another process has it, or the directory cannot be made.
    pub fn open(state_dir: &Path) -> Result<Self, Error> {
        let blobs = state_dir.join("blobs");
        let dir = blobs.join("sha256");
        let create_error = |source| Error::Create { path: dir.clone(), source };
        // 0700: layers may hold what their registry's login protects.
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(create_error)?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(blobs.join("lock"));
        let lock = lock.map_err(create_error)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir, _lock: Arc::new(lock) }),
            Err(TryLockError::WouldBlock) => Err(Error::Locked(state_dir.to_owned())),
            Err(TryLockError::Error(source)) => Err(create_error(source)),
        }
    }

    /// Where a blob is, once it is whole.
    #[must_use]
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.hex())
    }

    /// Where a blob grows.
    #[must_use]
    pub fn part_path(&self, digest: &Digest) -> PathBuf {
        self.path(digest).with_extension(PART)
    }

    /// Opens a whole blob if it is there with the right size; of another size it is removed. The digest is still to be
    /// verified.
    #[must_use]
    pub fn open_blob(&self, digest: &Digest, size: u64) -> Option<File> {
        let path = self.path(digest);
        let file = File::open(&path).ok()?;
        if file.metadata().is_ok_and(|metadata| metadata.len() == size) {
            return Some(file);
        }
        log::warn!("{} is damaged and is fetched again", path.display());
        let _ = std::fs::remove_file(&path);
        None
    }

    /// Opens the part file of a blob, new or as an earlier run left it.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn open_part(&self, digest: &Digest) -> Result<File, Error> {
        let path = self.part_path(digest);
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        open.map_err(|source| Error::Write { path, source })
    }

    /// Gives a verified part its final name, durably.
    ///
    /// # Errors
    /// [`Error::Write`]; the part is then still there.
    pub fn commit(&self, part: &File, digest: &Digest) -> Result<(), Error> {
        let path = self.path(digest);
        let rename = || {
            part.sync_all()?;
            std::fs::rename(self.part_path(digest), &path)?;
            File::open(&self.dir)?.sync_all()
        };
        rename().map_err(|source| Error::Write { path: path.clone(), source })
    }

    /// Reads a small document, such as a manifest, if it is there and has its digest.
    #[must_use]
    pub fn read_document(&self, digest: &Digest, bytes_max: u64) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.path(digest)).ok()?.take(bytes_max).read_to_end(&mut bytes).ok()?;
        (super::manifest::digest_of(&bytes) == *digest).then_some(bytes)
    }

    /// Keeps a small document under the digest it has.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn write_document(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        let mut part = self.open_part(digest)?;
        let path = self.part_path(digest);
        let write = part.set_len(0).and_then(|()| part.write_all(bytes));
        write.map_err(|source| Error::Write { path, source })?;
        self.commit(&part, digest)
    }

    /// Removes every blob and part that is not to be kept; returns the bytes freed. It is for the owner of `state_dir`
    /// to call: a blob of another image that is still wanted is only known there.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn prune(&self, keep: &[Digest]) -> io::Result<u64> {
        let keep: Vec<String> = keep.iter().map(Digest::hex).collect();
        let mut freed: u64 = 0;
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let stem = Path::new(&name).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
            if keep.contains(&stem) {
                continue;
            }
            let size = entry.metadata().map_or(0, |metadata| metadata.len());
            if std::fs::remove_file(entry.path()).is_ok() {
                freed = freed.saturating_add(size);
            }
        }
        Ok(freed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::manifest::digest_of;
    use std::time::Duration;

    fn state_dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("auroraboot-cache-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        dir
    }

    #[test]
    fn one_process_at_a_time() {
        let dir = state_dir("lock");
        let cache = BlobCache::open(&dir).unwrap();
        let clone = cache.clone();
        drop(cache);
        let error = BlobCache::open(&dir).unwrap_err();
        assert!(matches!(&error, Error::Locked(path) if *path == dir), "{error}");
        drop(clone);
        // A child that another test is just starting holds a copy of the lock until it runs its program.
        let opens = |_| BlobCache::open(&dir).map_err(|_| std::thread::sleep(Duration::from_millis(10))).is_ok();
        assert!((0..1000).any(opens), "the lock ends with its last holder");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let error = BlobCache::open(Path::new("/proc/version/x")).unwrap_err();
        assert!(error.to_string().contains("/proc/version/x"), "{error}");
    }

    #[test]
    fn documents_come_back_only_unaltered() {
        let cache = BlobCache::open(&state_dir("documents")).unwrap();
        let digest = digest_of(b"hello");
        assert_eq!(cache.read_document(&digest, 100), None);
        cache.write_document(&digest, b"hello").unwrap();
        assert_eq!(cache.read_document(&digest, 100).as_deref(), Some(&b"hello"[..]));
        assert_eq!(cache.read_document(&digest, 4), None, "bounded");
        std::fs::write(cache.path(&digest), b"hullo").unwrap();
        assert_eq!(cache.read_document(&digest, 100), None);
    }

    #[test]
    fn a_blob_of_the_wrong_size_is_dropped() {
        let cache = BlobCache::open(&state_dir("size")).unwrap();
        let digest = digest_of(b"hello");
        cache.write_document(&digest, b"hello").unwrap();
        assert!(cache.open_blob(&digest, 5).is_some());
        assert!(cache.open_blob(&digest, 6).is_none());
        assert!(!cache.path(&digest).exists());
    }

    #[test]
    fn prune_keeps_what_it_is_told() {
        let cache = BlobCache::open(&state_dir("prune")).unwrap();
        let (a, b) = (digest_of(b"a"), digest_of(b"bb"));
        cache.write_document(&a, b"a").unwrap();
        cache.write_document(&b, b"bb").unwrap();
        cache.open_part(&digest_of(b"c")).unwrap();
        assert_eq!(cache.prune(&[a]).unwrap(), 2);
        let left: Vec<_> = std::fs::read_dir(&cache.dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [a.hex().as_str()]);
    }
}
