//! The layers of an image in a daemon: exported into the blob cache when the first of them is wanted, and found there ever after.

use std::io::{self, Read};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Instant, SystemTime};

use super::export::Export;
use super::{Error, Found, Name};
use crate::limits;
use crate::rootfs::LayerSource;
use crate::source::archive::{self, ArchiveImage, Watch};
use crate::source::cache::BlobCache;
use crate::source::pull::{Observer, Transferred};
use crate::source::registry;
use crate::units::{Arch, ByteSize, Digest, chain};

/// An image's layers. Whatever store the daemon has, a layer goes by the digest of its uncompressed tar, for that is what all of them
/// tell without an export.
pub struct DaemonLayers {
    name: Name,
    arch: Arch,
    diff_ids: Vec<Digest>,
    cache: BlobCache,
    /// Taken when the export begins; none of an image that was only remembered.
    pending: Mutex<Option<(Found, Observer)>>,
    image: OnceLock<Result<ArchiveImage, String>>,
}

impl std::fmt::Debug for DaemonLayers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DaemonLayers").field("name", &self.name).field("arch", &self.arch).finish_non_exhaustive()
    }
}

/// The layers of an image that was found. Nothing is exported yet; `observer` hears how far that is once it has begun.
#[must_use]
pub fn layers(found: Found, cache: &BlobCache, observer: Observer) -> DaemonLayers {
    DaemonLayers {
        name: found.name.clone(),
        arch: found.arch,
        diff_ids: found.diff_ids.clone(),
        cache: cache.clone(),
        pending: Mutex::new(Some((found, observer))),
        image: OnceLock::new(),
    }
}

/// What the name stood for when it was last exported, and when that was. No daemon is asked; layers that are not in the cache any more
/// cannot be opened.
#[must_use]
pub fn recall(name: &Name, arch: Arch, cache: &BlobCache) -> Option<(DaemonLayers, SystemTime)> {
    let (digest, when) = cache.recall(&tag_name(name, arch))?;
    let image = registry::recall_digest(digest, arch, cache)?;
    let config = cache.read_document(image.documents.last()?, limits::MANIFEST_BYTES_MAX)?;
    let diff_ids = archive::diff_ids(&config, "the configuration", image.layers.len()).ok()?;
    let (name, cache) = (name.clone(), cache.clone());
    let (pending, image) = (Mutex::default(), OnceLock::new());
    Some((DaemonLayers { name, arch, diff_ids, cache, pending, image }, when))
}

/// One name has an image for each architecture.
fn tag_name(name: &Name, arch: Arch) -> String {
    format!("docker://{name} {arch}")
}

impl DaemonLayers {
    /// Every blob of the image that is in the cache by now; none before an export.
    #[must_use]
    pub fn blobs(&self) -> Vec<Digest> {
        match self.image.get() {
            Some(Ok(image)) => image.manifest.blobs(),
            Some(Err(_)) => Vec::new(),
            None => self.cached().map(|image| image.manifest.blobs()).unwrap_or_default(),
        }
    }

    /// The image out of the cache, when an earlier export brought the same layers.
    fn cached(&self) -> Option<ArchiveImage> {
        let (digest, _) = self.cache.recall(&tag_name(&self.name, self.arch))?;
        ArchiveImage::cached(&digest, self.arch, &self.cache).filter(|image| image.diff_ids == self.diff_ids)
    }

    fn image(&self) -> Result<ArchiveImage, String> {
        let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(image) = self.cached() {
            if let Some((_, mut observer)) = pending {
                let here = image.manifest.total_size();
                observer(Instant::now(), Transferred { here, fetched: 0, total: Some(here), ended: true });
            }
            return Ok(image);
        }
        let Some((found, observer)) = pending else {
            return Err(format!("layers of {} are not in the cache any more", self.name));
        };
        export(&found, &self.cache, observer).map_err(|error| chain(&error))
    }
}

impl LayerSource for DaemonLayers {
    fn count(&self) -> usize {
        self.diff_ids.len()
    }

    fn digest(&self, layer: usize) -> Digest {
        self.diff_ids[layer]
    }

    fn open(&self, layer: usize) -> io::Result<Box<dyn Read + Send>> {
        match self.image.get_or_init(|| self.image()) {
            Ok(image) => image.open(layer),
            Err(error) => Err(io::Error::other(error.clone())),
        }
    }
}

/// Has the daemon export an image into the cache.
fn export(found: &Found, cache: &BlobCache, mut observer: Observer) -> Result<ArchiveImage, Error> {
    let engine = &found.engine;
    // Docker's own store and podman write the whole archive to their disk before any of it comes.
    log::info!("Export: {} prepares {} ({})", engine.shown(), found.name, ByteSize(found.size));
    let mut stream = Export::start(found)?;
    let mut progress = |state| observer(Instant::now(), estimated(state, found.size));
    let mut watch = Watch { stop: engine.client().stopper(), progress: &mut progress };
    // What was asked for by its ID has no name in the archive, and is the only one in it.
    let spooled = archive::spool(&mut stream, None, found.arch, cache, &mut watch);
    let spooled = spooled.map_err(|error| stream.explain(found, error))?;
    if spooled.diff_ids != found.diff_ids {
        return Err(Error::Changed { daemon: engine.shown().to_owned(), name: found.name.clone() });
    }
    let kept = || Error::NotKept { name: found.name.clone() };
    let image = spooled.image(cache).ok_or_else(kept)?;
    let remembered = cache.remember(&tag_name(&found.name, found.arch), &image.manifest.digest);
    // It is for a later start only, so that it cannot be written must not stop this one.
    remembered.unwrap_or_else(|error| log::warn!("{}", chain(&error)));
    Ok(image)
}

/// What comes is about as much as the daemon says that the image takes.
fn estimated(state: Transferred, size: u64) -> Transferred {
    let estimate = (size > state.here).then_some(size);
    Transferred { total: if state.ended { state.total } else { estimate }, ..state }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_gives_way_to_what_came() {
        let state = Transferred { here: 50, fetched: 50, total: None, ended: false };
        assert_eq!(estimated(state, 100).total, Some(100));
        assert_eq!(estimated(state, 40).total, None, "no more than all");
        let ended = Transferred { total: Some(50), ended: true, ..state };
        assert_eq!(estimated(ended, 100).total, Some(50));
    }

    #[test]
    fn the_longest_name_can_be_remembered() {
        let name: Name = "a".repeat(limits::DAEMON_NAME_BYTES_MAX).parse().unwrap();
        let line = format!("sha256:{} {}\n", "0".repeat(64), tag_name(&name, Arch::Riscv64));
        assert!(line.len() as u64 <= limits::TAG_LINE_BYTES_MAX);
    }
}
