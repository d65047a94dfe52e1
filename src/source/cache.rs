//! Blobs by digest in `state_dir`, so that a second run downloads nothing.
//!
//! Beside them is what tags stood for, so that it needs no registry either while that is down.
//!
//! A blob has its final name only after its digest was verified and its bytes reached the disk. What a killed run left
//! behind is `<hex>.part`.

mod inventory;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::fingerprint;
use crate::limits;
use crate::units::Digest;

pub use inventory::{CachedImage, Evicted, Inventory, Stored};

const PART: &str = "part";

/// Why the cache cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot create {path} for downloaded layers; set state_dir to a directory that can be written")]
    Create { path: PathBuf, source: io::Error },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
}

/// The directory `<state_dir>/blobs/sha256`. Whoever owns the state directory sees to it that one process at a time uses it.
#[derive(Debug, Clone)]
pub struct BlobCache {
    dir: PathBuf,
    /// `<state_dir>/blobs/tags`: what names stood for when their registries were last asked.
    tags: PathBuf,
}

impl BlobCache {
    /// Opens or creates the cache.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(state_dir: &Path) -> Result<Self, Error> {
        let (dir, tags) = (state_dir.join("blobs/sha256"), state_dir.join("blobs/tags"));
        for path in [&dir, &tags] {
            // 0700: layers may hold what their registry's login protects.
            let created = DirBuilder::new().recursive(true).mode(0o700).create(path);
            created.map_err(|source| Error::Create { path: path.clone(), source })?;
        }
        Ok(Self { dir, tags })
    }

    /// The cache of a state directory that is not to be touched; `None` where there is none.
    ///
    /// # Errors
    /// It is closed to this user.
    pub fn existing(state_dir: &Path) -> io::Result<Option<Self>> {
        let (dir, tags) = (state_dir.join("blobs/sha256"), state_dir.join("blobs/tags"));
        match std::fs::metadata(&dir).and_then(|_| std::fs::metadata(&tags)) {
            Ok(_) => Ok(Some(Self { dir, tags })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
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

    /// Opens a whole blob if it is there with the right size. The digest is still to be verified. One of another size stays until a
    /// verified one takes its place: whoever gave the size may be wrong about it, and other images may need the blob.
    #[must_use]
    pub fn open_blob(&self, digest: &Digest, size: u64) -> Option<File> {
        let path = self.path(digest);
        let file = File::open(&path).ok()?;
        let length = file.metadata().ok()?.len();
        if length == size {
            return Some(file);
        }
        log::warn!("{} has {length} bytes instead of {size}: it is not used", path.display());
        None
    }

    /// Reads blobs, and removes those that are not what their names say or cannot be read; returns how many that were.
    pub fn remove_damaged(&self, blobs: &[Digest], is_stopped: &dyn Fn() -> bool) -> usize {
        let is_damaged = |blob: &Digest| {
            let Ok(file) = File::open(self.path(blob)) else { return false };
            let length = file.metadata().map_or(0, |metadata| metadata.len());
            match fingerprint::digest(&file, length, is_stopped) {
                Ok(Some(actual)) => actual != *blob,
                Ok(None) => false,
                Err(_) => true,
            }
        };
        let mut removed = 0;
        for blob in blobs.iter().filter(|blob| is_damaged(blob)) {
            let path = self.path(blob);
            match std::fs::remove_file(&path) {
                Ok(()) => {
                    log::warn!("{} was damaged, and is removed", path.display());
                    removed += 1;
                }
                Err(error) => log::warn!("{} is damaged, and cannot be removed: {error}", path.display()),
            }
        }
        removed
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

    /// Keeps what `name` stands for now, durably; what it stood for before is forgotten.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn remember(&self, name: &str, digest: &Digest) -> Result<(), Error> {
        let path = self.tag_path(name);
        let part = path.with_extension(PART);
        let write = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
            file.write_all(tag_line(name, digest).as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&part, &path)?;
            File::open(&self.tags)?.sync_all()
        };
        write().map_err(|source| Error::Write { path: path.clone(), source })
    }

    /// What `name` stood for when it was last remembered, and when that was.
    #[must_use]
    pub fn recall(&self, name: &str) -> Option<(Digest, SystemTime)> {
        let (digest, remembered, when) = read_tag(&self.tag_path(name))?;
        (remembered == name).then_some((digest, when))
    }

    /// Names hold `/` and `:` and may be longer than a file's name may be, so the file goes by their hash.
    fn tag_path(&self, name: &str) -> PathBuf {
        self.tags.join(super::manifest::digest_of(name.as_bytes()).hex())
    }

    /// Notes that blobs were used just now: what was used longest ago goes first. A disk that is read only still serves.
    pub fn touch(&self, blobs: &[Digest]) {
        for path in blobs.iter().map(|digest| self.path(digest)) {
            let opened = OpenOptions::new().append(true).open(&path);
            let touched = opened.and_then(|blob| blob.set_modified(SystemTime::now()));
            touched.unwrap_or_else(|error| log::debug!("{}: {error}", path.display()));
        }
    }
}

/// What a tag's file says, unless it is damaged: what it stands for, the name, and since when.
fn read_tag(path: &Path) -> Option<(Digest, String, SystemTime)> {
    let file = File::open(path).ok()?;
    let when = file.metadata().ok()?.modified().ok()?;
    let mut line = String::new();
    file.take(limits::TAG_LINE_BYTES_MAX).read_to_string(&mut line).ok()?;
    let (digest, name) = line.strip_suffix('\n')?.split_once(' ')?;
    Some((digest.parse().ok()?, name.to_owned(), when))
}

/// What is kept of a name: the name itself too, for whoever looks into the directory.
fn tag_line(name: &str, digest: &Digest) -> String {
    format!("{digest} {name}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::manifest::digest_of;

    /// A state directory that goes when the test ends.
    pub(super) struct StateDir(PathBuf);

    impl StateDir {
        pub(crate) fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("auroraboot-cache-{}-{name}", std::process::id()));
            let _ = std::fs::remove_dir_all(&dir);
            Self(dir)
        }

        pub(crate) fn cache(&self) -> BlobCache {
            BlobCache::open(&self.0).unwrap()
        }
    }

    impl Drop for StateDir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_a_name_stood_for_is_recalled_unless_it_is_damaged() {
        let state = StateDir::new("tags");
        let (cache, before) = (state.cache(), SystemTime::now() - std::time::Duration::from_secs(60));
        let name = "quay.io/kairos/debian:v1 amd64";
        assert_eq!(cache.recall(name), None);
        cache.remember(name, &digest_of(b"old")).unwrap();
        cache.remember(name, &digest_of(b"new")).unwrap();
        let (digest, when) = state.cache().recall(name).unwrap();
        assert_eq!((digest, when > before), (digest_of(b"new"), true));
        assert_eq!(cache.recall("quay.io/kairos/debian:v1 arm64"), None);
        let names: Vec<_> = std::fs::read_dir(&cache.tags).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(names, [cache.tag_path(name)]);
        let long = format!("{name}{}", "x".repeat(usize::try_from(limits::TAG_LINE_BYTES_MAX).unwrap()));
        cache.remember(&long, &digest_of(b"new")).unwrap();
        assert_eq!(cache.recall(&long), None, "bounded");
        for damaged in ["", "sha256:00 x", &tag_line("other", &digest)] {
            std::fs::write(cache.tag_path(name), damaged).unwrap();
            assert_eq!(cache.recall(name), None, "{damaged:?}");
        }
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let error = BlobCache::open(Path::new("/proc/version/x")).unwrap_err();
        assert!(error.to_string().contains("/proc/version/x"), "{error}");
    }

    #[test]
    fn documents_come_back_only_unaltered() {
        let state = StateDir::new("documents");
        let cache = state.cache();
        let digest = digest_of(b"hello");
        assert_eq!(cache.read_document(&digest, 100), None);
        cache.write_document(&digest, b"hello").unwrap();
        assert_eq!(cache.read_document(&digest, 100).as_deref(), Some(&b"hello"[..]));
        assert_eq!(cache.read_document(&digest, 4), None, "bounded");
        std::fs::write(cache.path(&digest), b"hullo").unwrap();
        assert_eq!(cache.read_document(&digest, 100), None);
    }

    #[test]
    fn a_blob_of_another_size_is_not_used_and_a_manifest_that_lies_costs_nobody_a_blob() {
        let state = StateDir::new("size");
        let cache = state.cache();
        let digest = digest_of(b"hello");
        cache.write_document(&digest, b"hello").unwrap();
        assert!(cache.open_blob(&digest, 6).is_none());
        assert!(cache.open_blob(&digest, 5).is_some());
        std::fs::write(cache.path(&digest), b"hell").unwrap();
        assert!(cache.open_blob(&digest, 5).is_none());
        cache.write_document(&digest, b"hello").unwrap();
        assert!(cache.open_blob(&digest, 5).is_some(), "what is verified takes its place");
    }

    #[test]
    fn damaged_blobs_are_removed_and_no_others() {
        let state = StateDir::new("damaged");
        let cache = state.cache();
        let blobs = [&b"good"[..], b"altered", b"cut", b"none"].map(digest_of);
        for (digest, bytes) in blobs.iter().zip([&b"good"[..], b"Altered", b"cu"]) {
            std::fs::write(cache.path(digest), bytes).unwrap();
        }
        assert_eq!(cache.remove_damaged(&blobs, &|| true), 0, "stopped before it could tell");
        assert_eq!(cache.remove_damaged(&blobs, &|| false), 2);
        assert_eq!(blobs.map(|blob| cache.path(&blob).exists()), [true, false, false, false]);
        assert_eq!(cache.remove_damaged(&blobs, &|| false), 0);
    }
}
