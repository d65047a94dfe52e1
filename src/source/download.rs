//! One layer from the network into its part file: resumed where it broke, hashed while it streams.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::blob::Blob;
use super::cache::BlobCache;
use super::client::Transient;
use super::pull::{Counters, Error};
use super::registry::{self, Registry};
use super::retry::Stop;
use crate::limits;
use crate::units::{Digest, chain};

/// What it takes to download one blob.
pub(super) struct Download<'a> {
    pub registry: &'a Registry,
    pub cache: &'a BlobCache,
    pub blob: &'a Blob,
    pub counters: &'a Counters,
}

/// The part file as far as it goes. The hash runs along, so nothing is read twice however often the connection breaks.
struct Part {
    file: Arc<File>,
    have: u64,
    hash: Sha256,
    /// Begun by an earlier run that may have died with the power: nobody sees it before its digest is known.
    hidden: bool,
}

/// Why an attempt ended before the blob did.
enum Fault {
    Lasting(Error),
    Passing(Box<registry::Error>, Option<Duration>),
}

impl Download<'_> {
    /// The blob from the cache. It is hashed before anyone sees it, so that a damaged file costs a download and not the
    /// whole run.
    pub fn cached(&self) -> Result<Option<File>, Error> {
        let (digest, size) = (self.digest(), self.blob.layer.size);
        let Some(file) = self.cache.open_blob(&digest, size) else { return Ok(None) };
        let path = self.cache.path(&digest);
        if finish(self.hash_file(&file, &path, size)?) == digest {
            return Ok(Some(file));
        }
        log::warn!("{} is damaged and is fetched again", path.display());
        std::fs::remove_file(&path).map_err(|source| Error::Write { path, source })?;
        Ok(None)
    }

    /// Downloads the blob whole and verified. Readers follow along through [`Blob::expose`].
    pub fn run(&self) -> Result<Arc<File>, Error> {
        let digest = self.digest();
        let mut part = self.open_part()?;
        loop {
            self.fill(&mut part)?;
            let actual = finish(part.hash.clone());
            if actual == digest {
                return Ok(part.file);
            }
            let was_hidden = part.hidden;
            self.counters.here.fetch_sub(part.have, Ordering::Relaxed);
            part = self.truncated(part.file)?;
            if !was_hidden {
                let _ = std::fs::remove_file(self.cache.part_path(&digest));
                return Err(Error::Digest { wanted: digest, actual });
            }
            log::warn!("what an earlier run left of layer {} is damaged; starting over", digest.short());
        }
    }

    fn digest(&self) -> Digest {
        self.blob.layer.digest
    }

    fn stop(&self) -> &Stop {
        self.registry.client().stopper()
    }

    fn open_part(&self) -> Result<Part, Error> {
        let path = self.cache.part_path(&self.digest());
        let file = Arc::new(self.cache.open_part(&self.digest())?);
        let have = file.metadata().map_err(|source| Error::Read { path: path.clone(), source })?.len();
        if have == 0 || have > self.blob.layer.size {
            return self.truncated(file);
        }
        let hash = self.hash_file(&file, &path, have)?;
        self.counters.here.fetch_add(have, Ordering::Relaxed);
        Ok(Part { file, have, hash, hidden: true })
    }

    fn truncated(&self, file: Arc<File>) -> Result<Part, Error> {
        let path = self.cache.part_path(&self.digest());
        if file.metadata().is_ok_and(|metadata| metadata.len() > 0) {
            file.set_len(0).map_err(|source| Error::Write { path, source })?;
        }
        Ok(Part { file, have: 0, hash: Sha256::new(), hidden: false })
    }

    /// Until the part is as long as the blob, or there is no hope.
    fn fill(&self, part: &mut Part) -> Result<(), Error> {
        let size = self.blob.layer.size;
        let backoff = self.registry.client().settings().backoff;
        let (mut faults, mut have_before) = (0, part.have);
        while part.have < size {
            let (source, retry_after) = match self.attempt(part) {
                Ok(()) => continue,
                Err(Fault::Lasting(error)) => return Err(error),
                Err(Fault::Passing(source, retry_after)) => (source, retry_after),
            };
            if part.have - have_before >= limits::RETRY_PROGRESS_BYTES {
                faults = 0;
            }
            have_before = part.have;
            faults += 1;
            let digest = self.digest();
            let Some(wait) = backoff.wait_after(faults, retry_after) else {
                return Err(Error::Interrupted { digest, have: part.have, size, source });
            };
            log::warn!("layer {}: {}; trying again in {:.1} s", digest.short(), chain(&source), wait.as_secs_f32());
            if self.stop().wait(wait) {
                return Err(Error::Stopped);
            }
        }
        Ok(())
    }

    /// One request, from where the part ends.
    fn attempt(&self, part: &mut Part) -> Result<(), Fault> {
        let (mut body, mut skip) = self.registry.blob(self.digest(), part.have).map_err(Fault::from)?;
        let size = self.blob.layer.size;
        let mut buffer = vec![0; limits::BLOB_BUFFER_BYTES];
        loop {
            let count = body
                .read(&mut buffer)
                .map_err(|source| Fault::from(registry::Failure::from(self.registry.client_error(source))))?;
            if count == 0 {
                return if part.have == size { Ok(()) } else { Err(self.ended_early(part.have)) };
            }
            // A server that ignored `Range` repeats what is here; readers have had it, so it is passed over, not rewritten.
            let repeated = usize::try_from(skip).unwrap_or(usize::MAX).min(count);
            skip -= repeated as u64;
            let fresh = &buffer[repeated..count];
            if fresh.len() as u64 > size - part.have {
                return Err(Fault::Lasting(Error::TooLong { digest: self.digest(), size }));
            }
            self.append(part, fresh).map_err(Fault::Lasting)?;
            if self.stop().is_stopped() {
                return Err(Fault::Lasting(Error::Stopped));
            }
        }
    }

    fn append(&self, part: &mut Part, bytes: &[u8]) -> Result<(), Error> {
        part.file.write_all_at(bytes, part.have).map_err(|source| {
            let path = self.cache.part_path(&self.digest());
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Error::DiskFull { path, need: self.blob.layer.size - part.have }
                }
                _ => Error::Write { path, source },
            }
        })?;
        part.hash.update(bytes);
        part.have += bytes.len() as u64;
        self.counters.here.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.counters.fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if !part.hidden {
            self.blob.expose(&part.file, part.have);
        }
        Ok(())
    }

    fn ended_early(&self, have: u64) -> Fault {
        Fault::Passing(Box::new(registry::Error::Short { digest: self.digest(), have }), None)
    }

    fn hash_file(&self, file: &File, path: &Path, length: u64) -> Result<Sha256, Error> {
        let read_error = |source| Error::Read { path: path.to_owned(), source };
        let mut hash = Sha256::new();
        let mut buffer = vec![0; limits::BLOB_BUFFER_BYTES];
        let mut at = 0;
        while at < length {
            if self.stop().is_stopped() {
                return Err(Error::Stopped);
            }
            let room = usize::try_from(length - at).unwrap_or(usize::MAX).min(buffer.len());
            match file.read_at(&mut buffer[..room], at).map_err(read_error)? {
                0 => return Err(read_error(io::ErrorKind::UnexpectedEof.into())),
                count => {
                    hash.update(&buffer[..count]);
                    at += count as u64;
                }
            }
        }
        Ok(hash)
    }
}

impl From<registry::Failure> for Fault {
    fn from((error, retry_after): registry::Failure) -> Self {
        if error.is_transient() { Self::Passing(error, retry_after) } else { Self::Lasting(error.into()) }
    }
}

fn finish(hash: Sha256) -> Digest {
    Digest(hash.finalize().into())
}
