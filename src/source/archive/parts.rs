//! Files that a stream is split into, on their way into the cache: their digests are known only when they are whole.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::Error;
use crate::limits;
use crate::rootfs::tar::TarError;
use crate::source::cache::{self, BlobCache};
use crate::source::manifest::Compression;
use crate::source::part;
use crate::source::retry::Stop;
use crate::units::Digest;

/// A member that is whole on the disk, under its digest or as a part.
#[derive(Debug, Clone)]
pub(super) struct Spooled {
    pub digest: Digest,
    pub size: u64,
    /// As its first bytes tell.
    pub compression: Compression,
    /// `None`: it was in the cache before.
    part: Option<PathBuf>,
}

/// The parts of one stream. What is not kept in the end goes when this goes; what a killed run left goes when the next one begins.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    cache: &'a BlobCache,
    directory: PathBuf,
    made: Vec<PathBuf>,
    /// That were or will be written.
    bytes: u64,
    flusher: Flusher,
    /// One stream at a time: until it is closed, no other one takes our parts for remains.
    _lock: File,
}

const PREFIX: &str = "spool-";
const SUFFIX: &str = ".part";
const FLUSHED_BYTES_MIN: u64 = 1 << 20;
/// Files that may wait to be brought to the disk: each is open until then.
const FLUSHES_WAITING_MAX: usize = 16;
const LOCK_POLL: Duration = Duration::from_millis(50);

impl<'a> Parts<'a> {
    /// Waits for another stream of this process, and removes what a killed run left.
    pub fn open(cache: &'a BlobCache, stop: &Stop) -> Result<Self, Error> {
        let directory = cache.path(&Digest([0; 32])).parent().map(Path::to_owned).unwrap_or_default();
        let path = directory.join("spool.part");
        let write = |source| Error::Cache(cache::Error::Write { path: path.clone(), source });
        let lock = File::options().create(true).append(true).mode(0o600).open(&path).map_err(write)?;
        while let Err(std::fs::TryLockError::WouldBlock) = lock.try_lock() {
            if stop.wait(LOCK_POLL) {
                return Err(Error::Stopped);
            }
        }
        for entry in std::fs::read_dir(&directory).map_err(write)?.flatten() {
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX)) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(Self { cache, directory, made: Vec::new(), bytes: 0, flusher: Flusher::new(), _lock: lock })
    }

    /// Writes one member. One that the cache has under the digest that its name gives is only hashed: no byte is written twice.
    pub fn spool(&mut self, name: &str, size: u64, data: &mut dyn Read) -> Result<Spooled, Error> {
        if let Some(digest) = digest_in(name).filter(|digest| self.has(digest, size)) {
            let mut hash = Sha256::new();
            let compression = pour(data, size, |bytes| {
                hash.update(bytes);
                Ok(())
            })?;
            let actual = Digest(hash.finalize().into());
            if actual != digest {
                return Err(Error::Corrupt { path: name.to_owned(), wanted: digest, actual });
            }
            return Ok(Spooled { digest, size, compression, part: None });
        }
        if self.made.len() >= limits::SPOOL_PARTS_MAX {
            return Err(Error::Limit { what: "layers in the archive", limit: limits::SPOOL_PARTS_MAX as u64 });
        }
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > limits::SPOOL_BYTES_MAX {
            return Err(Error::Limit { what: "bytes of layers in the archive", limit: limits::SPOOL_BYTES_MAX });
        }
        let path = self.directory.join(format!("{PREFIX}{}{SUFFIX}", self.made.len()));
        let write = |source| Error::from(part::Error::of_write(&path, size, source));
        let open = File::options().create(true).write(true).truncate(true).mode(0o600).open(&path);
        let file = Arc::new(open.map_err(write)?);
        self.made.push(path.clone());
        let (mut hash, mut unflushed) = (Sha256::new(), 0);
        let compression = pour(data, size, |bytes| {
            (&*file).write_all(bytes).map_err(write)?;
            hash.update(bytes);
            unflushed += bytes.len() as u64;
            if unflushed >= limits::FLUSH_BYTES {
                unflushed = 0;
                self.flusher.flush(&file);
            }
            Ok(())
        })?;
        // Small ones are brought there in the end, and only those that are kept.
        if size >= FLUSHED_BYTES_MIN {
            self.flusher.flush(&file);
        }
        Ok(Spooled { digest: Digest(hash.finalize().into()), size, compression, part: Some(path) })
    }

    /// Whether the cache has a blob of that digest and size; one of another size is no damage, for a name may mean anything.
    fn has(&self, digest: &Digest, size: u64) -> bool {
        std::fs::metadata(self.cache.path(digest)).is_ok_and(|blob| blob.len() == size)
    }

    /// Gives those that are to be kept their final names, durably; the others go.
    pub fn commit(mut self, kept: &[Spooled]) -> Result<(), Error> {
        self.flusher.finish();
        for spooled in kept {
            let Some(part) = &spooled.part else { continue };
            let path = self.cache.path(&spooled.digest);
            let write = |source| Error::Cache(cache::Error::Write { path: path.clone(), source });
            // One that is there already gives way: this one was hashed just now.
            if !part.exists() {
                continue; // The same member is two layers.
            }
            File::open(part).and_then(|file| file.sync_all()).map_err(write)?;
            std::fs::rename(part, &path).map_err(write)?;
        }
        let write = |source| Error::Cache(cache::Error::Write { path: self.directory.clone(), source });
        File::open(&self.directory).and_then(|directory| directory.sync_all()).map_err(write)
    }
}

impl Drop for Parts<'_> {
    fn drop(&mut self) {
        for path in &self.made {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The digest in the name of a member: `blobs/sha256/<hex>`, and skopeo's and Podman's `<hex>.tar`. It is a hint until the bytes
/// were hashed.
fn digest_in(name: &str) -> Option<Digest> {
    let file = name.rsplit('/').next()?;
    let stem = file.split('.').next()?;
    format!("sha256:{stem}").parse().ok()
}

/// Takes exactly `size` bytes, and tells what compressed them.
fn pour(
    data: &mut dyn Read,
    size: u64,
    mut take: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<Compression, Error> {
    let mut buffer = vec![0; limits::BLOB_BUFFER_BYTES];
    let mut compression = None;
    let mut left = size;
    while left > 0 {
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let count = match data.read(&mut buffer[..room]) {
            Ok(0) => return Err(Error::CutOff { at: size - left }),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(TarError::Read { at: size - left, source }.into()),
        };
        compression.get_or_insert_with(|| compression_of(&buffer[..count]));
        take(&buffer[..count])?;
        left -= count as u64;
    }
    Ok(compression.unwrap_or(Compression::None))
}

/// What compressed a layer that begins so.
pub(super) fn compression_of(head: &[u8]) -> Compression {
    match head {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        _ => Compression::None,
    }
}

/// Brings files to the disk while others still arrive, so that nobody waits long for that in the end.
#[derive(Debug)]
struct Flusher {
    files: Option<SyncSender<Arc<File>>>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    /// Without a thread, where none can be had, it does nothing: what is kept is brought to the disk in the end anyway.
    fn new() -> Self {
        let (files, to_flush) = sync_channel::<Arc<File>>(FLUSHES_WAITING_MAX);
        let flush = move || to_flush.into_iter().for_each(|file| drop(file.sync_data()));
        let thread = std::thread::Builder::new().name("flush".to_owned()).spawn(flush).ok();
        Self { files: Some(files), thread }
    }

    /// Waits where the disk does not keep up.
    fn flush(&self, file: &Arc<File>) {
        let _ = self.files.as_ref().map(|files| files.send(Arc::clone(file)));
    }

    fn finish(&mut self) {
        drop(self.files.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::manifest::digest_of;

    /// A cache that goes when the test ends.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> (Self, BlobCache) {
            let path = std::env::temp_dir().join(format!("auroraboot-parts-{}-{name}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            let cache = BlobCache::open(&path).unwrap();
            (Self(path), cache)
        }

        fn names(&self) -> Vec<String> {
            let entries = std::fs::read_dir(self.0.join("blobs/sha256")).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn spool(parts: &mut Parts<'_>, name: &str, data: &[u8]) -> Result<Spooled, Error> {
        parts.spool(name, data.len() as u64, &mut &data[..])
    }

    #[test]
    fn what_is_kept_gets_its_digest_as_name_and_the_rest_goes() {
        let (place, cache) = Place::new("kept");
        let mut parts = Parts::open(&cache, &Stop::default()).unwrap();
        let one = spool(&mut parts, "a/layer.tar", b"one").unwrap();
        let same = spool(&mut parts, "b/layer.tar", b"one").unwrap();
        spool(&mut parts, "c/layer.tar", b"two").unwrap();
        assert_eq!(place.names(), ["spool-0.part", "spool-1.part", "spool-2.part", "spool.part"]);
        parts.commit(&[one.clone(), same]).unwrap();
        assert_eq!(place.names(), [digest_of(b"one").hex().as_str(), "spool.part"]);
        assert_eq!(std::fs::read(cache.path(&one.digest)).unwrap(), b"one");
        drop(Parts::open(&cache, &Stop::default()).unwrap());
        assert_eq!(place.names().len(), 2);
    }

    #[test]
    fn what_is_there_under_the_digest_in_its_name_is_not_written() {
        let (place, cache) = Place::new("there");
        let digest = digest_of(b"one");
        cache.write_document(&digest, b"one").unwrap();
        for name in [format!("blobs/sha256/{}", digest.hex()), format!("{}.tar", digest.hex())] {
            let mut parts = Parts::open(&cache, &Stop::default()).unwrap();
            assert_eq!(spool(&mut parts, &name, b"one").unwrap().digest, digest);
            assert_eq!(place.names().len(), 2, "no part");
            assert!(matches!(spool(&mut parts, &name, b"two"), Err(Error::Corrupt { .. })));
            // Of another size it is something else that has the same name, which harms nothing.
            assert_eq!(spool(&mut parts, &name, b"three").unwrap().digest, digest_of(b"three"));
            assert_eq!(cache.read_document(&digest, 10).as_deref(), Some(&b"one"[..]));
        }
    }

    #[test]
    fn streams_take_turns() {
        let (_place, cache) = Place::new("turns");
        let first = Parts::open(&cache, &Stop::default()).unwrap();
        let stop = Stop::default();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| Parts::open(&cache, &stop).err());
            stop.stop();
            assert!(matches!(waits.join().unwrap(), Some(Error::Stopped)));
            let second = scope.spawn(|| Parts::open(&cache, &Stop::default()).is_ok());
            drop(first);
            assert!(second.join().unwrap());
        });
    }

    #[test]
    fn the_number_of_parts_is_bounded() {
        let (place, cache) = Place::new("bounded");
        let mut parts = Parts::open(&cache, &Stop::default()).unwrap();
        for _ in 0..limits::SPOOL_PARTS_MAX {
            spool(&mut parts, "x", b"x").unwrap();
        }
        assert!(matches!(spool(&mut parts, "x", b"x"), Err(Error::Limit { what: "layers in the archive", .. })));
        drop(parts);
        assert_eq!(place.names(), ["spool.part"]);
    }

    #[test]
    fn the_bytes_of_all_parts_are_bounded_before_they_come() {
        let (place, cache) = Place::new("bytes");
        let mut parts = Parts::open(&cache, &Stop::default()).unwrap();
        spool(&mut parts, "x", b"x").unwrap();
        let more = parts.spool("y", limits::SPOOL_BYTES_MAX, &mut io::repeat(0));
        assert!(matches!(more, Err(Error::Limit { what: "bytes of layers in the archive", .. })));
        assert_eq!(place.names(), ["spool-0.part", "spool.part"]);
    }

    #[test]
    fn what_is_shorter_than_its_header_says_is_cut() {
        let (_place, cache) = Place::new("short");
        let mut parts = Parts::open(&cache, &Stop::default()).unwrap();
        let cut = parts.spool("x", 4, &mut &b"abc"[..]);
        assert!(matches!(cut, Err(Error::CutOff { at: 3 })), "{cut:?}");
    }
}
