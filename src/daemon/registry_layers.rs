//! The layers of an image in a registry, downloaded when the first of them is wanted.

use crate::daemon::progress;
use crate::media::LayerSource;
use crate::source::{BlobCache, ImageManifest, Layers, Registry, Transferred, pull};
use crate::units::{Digest, chain};
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The layers of an image in a registry. The download begins with the first layer that is opened, so an ISO that an earlier run
/// made costs no traffic.
#[derive(Debug)]
pub struct RegistryLayers {
    /// Taken when the download begins.
    pending: Mutex<Option<Registry>>,
    image: ImageManifest,
    cache: BlobCache,
    layers: OnceLock<Result<Layers, String>>,
    is_here: Arc<AtomicBool>,
}

impl RegistryLayers {
    /// Without a registry only what the layers are can be asked.
    #[must_use]
    pub fn new(registry: Option<Registry>, image: ImageManifest, cache: BlobCache) -> Self {
        let (layers, is_here) = (OnceLock::new(), Arc::default());
        Self { pending: Mutex::new(registry), image, cache, layers, is_here }
    }

    #[must_use]
    pub fn image(&self) -> &ImageManifest {
        &self.image
    }

    /// Set when the download has ended.
    #[must_use]
    pub fn is_here(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_here)
    }

    fn download(&self) -> Result<Layers, String> {
        let registry = self.pending.lock().unwrap_or_else(PoisonError::into_inner).take();
        let registry = registry.ok_or("the download was begun already")?;
        let order = pull::top_first(&self.image);
        let (mut show, is_here) = (progress::of_download("Pull"), Arc::clone(&self.is_here));
        let progress = Box::new(move |now, transferred: Transferred| {
            show(now, transferred);
            is_here.store(transferred.ended, Ordering::Relaxed);
        });
        pull::fetch(registry, &self.image, &self.cache, &order, progress).map_err(|error| chain(&error))
    }
}

impl LayerSource for RegistryLayers {
    fn count(&self) -> usize {
        self.image.layers.len()
    }

    fn digest(&self, layer: usize) -> Digest {
        self.image.layers[layer].digest
    }

    fn open(&self, layer: usize) -> io::Result<Box<dyn Read + Send>> {
        match self.layers.get_or_init(|| self.download()) {
            Ok(layers) => Ok(Box::new(layers.open(layer).map_err(io::Error::other)?)),
            Err(error) => Err(io::Error::other(error.clone())),
        }
    }
}
