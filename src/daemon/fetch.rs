//! From the name of an image to its boot set: registry, cache and builder joined.

use crate::config::Config;
use crate::daemon::state::StateDir;
use crate::daemon::stop::Stop;
use crate::media::{self, BootSet, LayerSource, MediaError, Watch};
use crate::source::credentials::Keychain;
use crate::source::progress::{Progress, Style};
use crate::source::reference::BadReference;
use crate::source::{
    BlobCache, Client, ImageManifest, Layers, Reference, Registry, Settings, Transferred, cache, client, manifest,
    pull, registry,
};
use crate::sys::terminal;
use crate::units::{ByteSize, Digest, chain};
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Instant;

/// Why there is nothing to boot.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Reference(#[from] BadReference),
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error(transparent)]
    Registry(#[from] registry::Error),
    #[error(transparent)]
    Cache(#[from] cache::Error),
    #[error(transparent)]
    Media(#[from] MediaError),
    #[error("stopped before the image was ready; the next start goes on from here")]
    Stopped,
}

/// Makes the boot set of container image `name`, or finds it made by an earlier run.
///
/// # Errors
/// [`FetchError`]; nothing half-made is left in use.
pub fn boot_set(name: &str, config: &Config, state: &StateDir, stop: &Stop) -> Result<BootSet, FetchError> {
    make(name, config, state, stop).map_err(|error| if stop.is_asked() { FetchError::Stopped } else { error })
}

fn make(name: &str, config: &Config, state: &StateDir, stop: &Stop) -> Result<BootSet, FetchError> {
    let reference: Reference = name.parse()?;
    let client = Client::new(Settings {
        allow_insecure: *config.allow_insecure_registries,
        ca_file: (*config.ca_file).clone(),
        ..Settings::from_env()
    })?;
    let keychain = Keychain::from_env(|name| std::env::var(name).ok());
    let cache = BlobCache::open(state.path())?;
    let registry = Registry::new(&client, &keychain, reference)?;
    let connection = registry.client().clone();
    stop.tell(move || connection.stop());

    log::info!("Pull: Asking for {} ({})", registry.reference(), *config.arch);
    let image = registry::resolve(&registry, *config.arch, &cache)?;
    log::info!("Pull: {}", manifest::summary(registry.reference(), &image));
    let layers = RegistryLayers { pending: Mutex::new(Some(registry)), image, cache, layers: OnceLock::new() };
    build(&layers, state, stop)
}

fn build(layers: &RegistryLayers, state: &StateDir, stop: &Stop) -> Result<BootSet, FetchError> {
    let directory = state.path().join("netboot");
    let options = media::Options {
        directory: &directory,
        product: concat!("auroraboot ", env!("CARGO_PKG_VERSION")),
        created: 0,
        workers: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
    };
    let started = Instant::now();
    let mut unpacked = 0;
    let mut watch = Watch { cancelled: stop.flag(), progress: &mut |progress| unpacked = progress.bytes };
    let set = media::build(layers, &options, &mut watch)?;
    if set.reused {
        log::info!("Build: Using what an earlier run made of this image in {}", directory.display());
    } else {
        log::info!(
            "Build: {} of layers became a {} squashfs in {:.1} s",
            ByteSize(unpacked),
            ByteSize(set.squashfs.size),
            started.elapsed().as_secs_f64()
        );
    }
    Ok(set)
}

/// The layers of an image in a registry. The download begins with the first layer that is opened, so a boot set that an earlier run
/// made costs no traffic.
struct RegistryLayers {
    /// Taken when the download begins.
    pending: Mutex<Option<Registry>>,
    image: ImageManifest,
    cache: BlobCache,
    layers: OnceLock<Result<Layers, String>>,
}

impl RegistryLayers {
    fn download(&self) -> Result<Layers, String> {
        let registry = self.pending.lock().unwrap_or_else(PoisonError::into_inner).take();
        let registry = registry.ok_or("the download was begun already")?;
        let order = pull::top_first(&self.image);
        pull::fetch(registry, &self.image, &self.cache, &order, Box::new(show_progress()))
            .map_err(|error| chain(&error))
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

/// Progress on stderr: one line redrawn on a terminal, log lines elsewhere.
fn show_progress() -> impl FnMut(Instant, Transferred) + Send {
    let columns = terminal::columns(&io::stderr());
    let mut progress = Progress::new(columns.map_or(Style::Lines, |columns| Style::Terminal { columns }));
    move |now, transferred| {
        let Some(text) = progress.update(now, transferred) else { return };
        if columns.is_some() {
            let mut stderr = io::stderr().lock();
            let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
        } else {
            log::info!("Pull: {text}");
        }
    }
}
