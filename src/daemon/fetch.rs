//! From the name of a container image to its layers, and from them to an ISO: registry, cache and builder joined.

use crate::config::Config;
use crate::daemon::check::menu_options;
use crate::daemon::places::{PRODUCT, Places};
use crate::daemon::progress::{self, BuildProgress};
use crate::daemon::state::StateDir;
use crate::daemon::stop::Stop;
use crate::media::{self, LayerSource, MediaError, Medium, Watch};
use crate::source::credentials::Keychain;
use crate::source::reference::BadReference;
use crate::source::{
    BlobCache, Client, ImageManifest, Layers, Reference, Registry, Settings, Transferred, cache, client, manifest,
    pull, registry,
};
use crate::sys::time::LocalTime;
use crate::units::{Arch, ByteSize, Digest, chain};
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Instant, UNIX_EPOCH};

/// Why there is no ISO of a container image.
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
}

/// Makes the ISO of container image `name`, or finds it made by an earlier run.
///
/// # Errors
/// [`FetchError`]; nothing half-made is left in use.
pub fn medium(
    name: &str,
    config: &Config,
    state: &StateDir,
    places: &Places,
    stop: &Stop,
) -> Result<Medium, FetchError> {
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
    let image = match registry::resolve(&registry, *config.arch, &cache) {
        Err(error) if error.is_unreachable() && !stop.is_asked() => recall(&registry, *config.arch, &cache, error)?,
        resolved => resolved?,
    };
    log::info!("Pull: {}", manifest::summary(registry.reference(), &image));
    let layers = RegistryLayers {
        pending: Mutex::new(Some(registry)),
        image,
        cache,
        layers: OnceLock::new(),
        download_ended: Arc::default(),
    };
    build(&layers, config, places, stop)
}

/// What the name stood for in an earlier run, so that machines can be served while the registry or the way to it is down.
fn recall(
    registry: &Registry,
    arch: Arch,
    cache: &BlobCache,
    error: registry::Error,
) -> Result<ImageManifest, FetchError> {
    let Some((image, when)) = registry::recall(registry, arch, cache) else { return Err(error.into()) };
    let seconds = when.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // A host without a battery-backed clock wrote it in 1970.
    let when = match i64::try_from(seconds) {
        Ok(seconds @ CLOCK_IS_SET..) => format!("on {}", LocalTime::at(seconds)),
        _ => "in an earlier run".to_owned(),
    };
    let (cause, digest, name) = (chain(&error), image.digest, registry.reference());
    log::warn!("the registry cannot be asked ({cause}): using {digest} that {name} was {when}");
    Ok(image)
}

/// 2020-01-01 in seconds since 1970: no clock that was ever set shows less.
const CLOCK_IS_SET: i64 = 1_577_836_800;

fn build(layers: &RegistryLayers, config: &Config, places: &Places, stop: &Stop) -> Result<Medium, FetchError> {
    let options = media::Options {
        directory: &places.directory,
        name: &places.name,
        checksum_file: places.is_public,
        stamp: &places.stamp,
        product: PRODUCT,
        menu: menu_options(config),
        overlay_rootfs: config.iso.overlay_rootfs.as_deref(),
        workers: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
    };
    let started = Instant::now();
    let mut unpacked = 0;
    let mut told = BuildProgress::on_stderr();
    let mut progress = |progress: media::Progress| {
        unpacked = progress.bytes;
        if layers.download_ended.load(Ordering::Relaxed) {
            told.update(Instant::now(), progress);
        }
    };
    let mut watch = Watch { cancelled: stop.flag(), progress: &mut progress };
    let medium = media::build(layers, &options, &mut watch)?;
    let path = medium.iso.path.display();
    if medium.reused {
        log::info!("Build: Using what an earlier run made of this image: {path}");
    } else {
        log::info!(
            "Build: {} of layers became {path}, {}, in {:.1} s",
            ByteSize(unpacked),
            ByteSize(medium.iso.size),
            started.elapsed().as_secs_f64()
        );
    }
    Ok(medium)
}

/// The layers of an image in a registry. The download begins with the first layer that is opened, so a boot set that an earlier run
/// made costs no traffic.
struct RegistryLayers {
    /// Taken when the download begins.
    pending: Mutex<Option<Registry>>,
    image: ImageManifest,
    cache: BlobCache,
    layers: OnceLock<Result<Layers, String>>,
    /// From then on the build's own progress is shown.
    download_ended: Arc<AtomicBool>,
}

impl RegistryLayers {
    fn download(&self) -> Result<Layers, String> {
        let registry = self.pending.lock().unwrap_or_else(PoisonError::into_inner).take();
        let registry = registry.ok_or("the download was begun already")?;
        let order = pull::top_first(&self.image);
        let (mut show, ended) = (progress::of_download("Pull"), Arc::clone(&self.download_ended));
        let progress = Box::new(move |now, transferred: Transferred| {
            show(now, transferred);
            ended.store(transferred.ended, Ordering::Relaxed);
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
