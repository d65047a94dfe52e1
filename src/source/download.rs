//! One layer from the network into its part file: resumed where it broke, hashed while it streams.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sha2::Digest as _;

use super::blob::Blob;
use super::cache::BlobCache;
use super::client::Transient;
use super::part::{self, Broken, GaveUp, Part, hash_file, persist};
use super::pull::{Counters, Error};
use super::registry::{self, Registry};
use super::retry::Stop;
use crate::units::Digest;

/// What it takes to download one blob.
pub(super) struct Download<'a> {
    pub registry: &'a Registry,
    pub cache: &'a BlobCache,
    pub blob: &'a Blob,
    pub counters: &'a Counters,
}

/// The blob's part file.
struct Layer {
    part: Part,
    /// Begun by an earlier run that may have died with the power: nobody sees it before its digest is known.
    hidden: bool,
}

type Fault = part::Fault<Box<registry::Error>, Error>;

impl Download<'_> {
    /// The blob from the cache. It is hashed before anyone sees it, so that a damaged file costs a download and not the
    /// whole run.
    pub fn cached(&self) -> Result<Option<File>, Error> {
        let (digest, size) = (self.digest(), self.blob.layer.size);
        let Some(file) = self.cache.open_blob(&digest, size) else { return Ok(None) };
        let path = self.cache.path(&digest);
        let hash = hash_file(&file, &path, size, self.stop())?;
        if Digest(hash.finalize().into()) == digest {
            return Ok(Some(file));
        }
        log::warn!("{} is damaged and is fetched again", path.display());
        std::fs::remove_file(&path).map_err(|source| part::Error::Write { path, source })?;
        Ok(None)
    }

    /// Downloads the blob whole and verified. Readers follow along through [`Blob::expose`].
    pub fn run(&self) -> Result<Arc<File>, Error> {
        let digest = self.digest();
        let mut layer = self.open_part()?;
        loop {
            self.fill(&mut layer)?;
            let actual = layer.part.digest();
            if actual == digest {
                return Ok(layer.part.file);
            }
            let was_hidden = layer.hidden;
            self.counters.here.fetch_sub(layer.part.have, Ordering::Relaxed);
            layer = self.empty(layer.part.file)?;
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

    fn open_part(&self) -> Result<Layer, Error> {
        let path = self.cache.part_path(&self.digest());
        let file = Arc::new(self.cache.open_part(&self.digest())?);
        let have = file.metadata().map_err(|source| part::Error::Read { path: path.clone(), source })?.len();
        if have == 0 || have > self.blob.layer.size {
            return self.empty(file);
        }
        let part = Part::resumed(file, &path, have, self.stop())?;
        self.counters.here.fetch_add(have, Ordering::Relaxed);
        Ok(Layer { part, hidden: true })
    }

    fn empty(&self, file: Arc<File>) -> Result<Layer, Error> {
        let part = Part::empty(file, &self.cache.part_path(&self.digest()))?;
        Ok(Layer { part, hidden: false })
    }

    /// Until the part is as long as the blob, or there is no hope.
    fn fill(&self, layer: &mut Layer) -> Result<(), Error> {
        let (digest, size) = (self.digest(), self.blob.layer.size);
        let what = format!("layer {}", digest.short());
        let have = |layer: &Layer| layer.part.have;
        persist(self.registry.client(), &what, layer, have, |layer| self.attempt(layer)).map_err(|given_up| {
            match given_up {
                GaveUp::Faults(source) => Error::Interrupted { digest, have: layer.part.have, size, source },
                GaveUp::Lasting(error) => error,
                GaveUp::Stopped => Error::Stopped,
            }
        })
    }

    /// One request, from where the part ends.
    fn attempt(&self, layer: &mut Layer) -> Result<(), Fault> {
        let size = self.blob.layer.size;
        if layer.part.have == size {
            return Ok(());
        }
        let (mut body, skip) = self.registry.blob(self.digest(), layer.part.have).map_err(Fault::from)?;
        let hidden = layer.hidden;
        let poured = layer.part.pour(&mut body, skip, Some(size), self.stop(), |part, fresh| {
            self.counters.here.fetch_add(fresh, Ordering::Relaxed);
            self.counters.fetched.fetch_add(fresh, Ordering::Relaxed);
            // What a server repeated changes nothing; readers have had it.
            if !hidden {
                self.blob.expose(&part.file, part.have);
            }
        });
        match poured {
            Ok(()) if layer.part.have == size => Ok(()),
            Ok(()) => Err(self.ended_early(layer.part.have)),
            Err(Broken::Connection(error)) => {
                Err(Fault::from(registry::Failure::from(self.registry.client_error(error))))
            }
            Err(Broken::TooLong) => Err(Fault::Lasting(Error::TooLong { digest: self.digest(), size })),
            Err(Broken::Part(error)) => Err(Fault::Lasting(error.into())),
        }
    }

    fn ended_early(&self, have: u64) -> Fault {
        Fault::Passing(Box::new(registry::Error::Short { digest: self.digest(), have }), None)
    }
}

impl From<registry::Failure> for Fault {
    fn from((error, retry_after): (Box<registry::Error>, Option<Duration>)) -> Self {
        if error.is_transient() { Self::Passing(error, retry_after) } else { Self::Lasting(error.into()) }
    }
}
