//! From the name of a container image to its layers, and from them to an ISO: sources, cache and builder joined.

use crate::daemon::job::Job;
use crate::daemon::progress::{self, BuildProgress};
use crate::media::{self, LayerSource, MediaError, Medium, Watch};
use crate::source::archive::{ArchiveImage, ArchiveRef};
use crate::source::credentials::Keychain;
use crate::source::daemon::{self, DaemonLayers};
use crate::source::directory::DirectoryLayer;
use crate::source::{
    BlobCache, ImageManifest, Layers, Location, Reference, Registry, Transferred, archive, cache, client, directory,
    manifest, pull, registry,
};
use crate::sys::time::LocalTime;
use crate::units::{ByteSize, Digest, chain};
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Why there is no ISO of a container image.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error(transparent)]
    Registry(#[from] registry::Error),
    #[error(transparent)]
    Daemon(#[from] daemon::Error),
    #[error(transparent)]
    Directory(#[from] directory::Error),
    #[error(transparent)]
    Archive(#[from] archive::OpenError),
    #[error(transparent)]
    Cache(#[from] cache::Error),
    #[error(transparent)]
    Media(#[from] MediaError),
    #[error("cannot read layer {layer}")]
    Layer { layer: Digest, source: io::Error },
    #[error(
        "offline is set, and {image} is not in {state_dir}; run `auroraboot pull` with this configuration where there is a network"
    )]
    NotPulled { image: String, state_dir: String },
}

/// An image that was found. Nothing of it need be here yet.
struct Image {
    layers: Box<dyn Layered>,
    /// From then on the build's own progress is shown.
    is_here: Arc<AtomicBool>,
}

/// Layers, and what the cache has of their image by now.
trait Layered: LayerSource {
    fn blobs(&self) -> Vec<Digest>;

    /// Of these, what is given out while it is still being verified.
    fn unverified(&self) -> Vec<Digest> {
        self.blobs()
    }
}

impl Layered for RegistryLayers {
    fn blobs(&self) -> Vec<Digest> {
        self.image.blobs()
    }

    fn unverified(&self) -> Vec<Digest> {
        Vec::new()
    }
}

impl Layered for DaemonLayers {
    fn blobs(&self) -> Vec<Digest> {
        self.blobs()
    }
}

impl Layered for ArchiveImage {
    fn blobs(&self) -> Vec<Digest> {
        self.manifest.blobs()
    }
}

impl Layered for DirectoryLayer {
    fn blobs(&self) -> Vec<Digest> {
        Vec::new()
    }
}

/// Makes the ISO of a container image, or finds it made by an earlier run.
///
/// # Errors
/// [`FetchError`]; nothing half-made is left in use.
pub fn medium(location: &Location, job: &Job<'_>) -> Result<Medium, FetchError> {
    with_image(location, job, |image| build(image, job))
}

/// The same, and sees to it that a later run finds all layers here.
///
/// # Errors
/// [`FetchError`]
pub fn complete(location: &Location, job: &Job<'_>) -> Result<Medium, FetchError> {
    with_image(location, job, |image| {
        let medium = build(image, job)?;
        // A build has read them all.
        if medium.reused {
            for layer in 0..image.layers.count() {
                let read = image.layers.open(layer).and_then(|mut layer| io::copy(&mut layer, &mut io::sink()));
                read.map_err(|source| FetchError::Layer { layer: image.layers.digest(layer), source })?;
            }
        }
        Ok(medium)
    })
}

/// Does something with an image. What fails because the cache is damaged is done once more, with what comes from the source anew.
fn with_image(
    location: &Location,
    job: &Job<'_>,
    work: impl Fn(&Image) -> Result<Medium, FetchError>,
) -> Result<Medium, FetchError> {
    let mut image = find(location, job)?;
    let medium = match work(&image) {
        Err(error) if is_healed(&image, &error, job)? => {
            image = find(location, job)?;
            work(&image)?
        }
        outcome => outcome?,
    };
    make_room(&image, job)?;
    Ok(medium)
}

/// Whether a layer could not be read because the cache is damaged. What was damaged is not there any more then.
fn is_healed(image: &Image, error: &FetchError, job: &Job<'_>) -> Result<bool, FetchError> {
    if !matches!(error, FetchError::Layer { .. } | FetchError::Media(MediaError::Read(_))) {
        return Ok(false);
    }
    let is_stopped = || job.stop.is_asked();
    Ok(job.cache()?.remove_damaged(&image.layers.unverified(), &is_stopped) > 0 && !is_stopped())
}

/// Removes other images from the cache when they take more than they may.
fn make_room(image: &Image, job: &Job<'_>) -> Result<(), FetchError> {
    let (cache, blobs) = (job.cache()?, image.layers.blobs());
    cache.touch(&blobs);
    let Some(limit) = *job.config.cache_limit else { return Ok(()) };
    match cache.evict(limit, &blobs) {
        Ok(evicted) if evicted.files > 0 => {
            let (names, size, limit) = (evicted.names.join(", "), ByteSize(evicted.bytes), ByteSize(limit));
            let what = if names.is_empty() { "what no image needs".to_owned() } else { names };
            log::info!("Cache: Removed {what}, {size}: cache_limit is {limit}");
        }
        Ok(_) => {}
        // There is room for this image; that others are still there must not stop it.
        Err(error) => log::warn!("the cache cannot be tidied up: {error}"),
    }
    Ok(())
}

/// The ISO of what a registry's image was in an earlier run, if it is there as it was made. Nobody is asked.
#[must_use]
pub fn earlier(location: &Location, job: &Job<'_>) -> Option<Medium> {
    let reference = match location {
        Location::Registry(reference) => reference,
        Location::Named { name, reference } => match ask_daemon(name, job) {
            Ok(None) => reference,
            // It is asked in no time.
            Ok(Some(_)) | Err(_) => return None,
        },
        Location::Daemon(_) | Location::Archive(_) | Location::Directory(_) => return None,
    };
    let cache = job.cache().ok()?;
    let (manifest, when) = registry::recall(reference, *job.config.arch, &cache)?;
    let layers = RegistryLayers::new(None, manifest, cache);
    let medium = media::find(&layers, &job.media_options(), job.stop.flag()).ok()??;
    log::info!("Pull: Using {reference} as it was {}; asking what it is now", at(when));
    Some(medium)
}

fn find(location: &Location, job: &Job<'_>) -> Result<Image, FetchError> {
    match location {
        Location::Registry(reference) => find_in_registry(reference, job),
        Location::Named { name, reference } => match ask_daemon(name, job)? {
            Some(found) => Ok(found_in_daemon(found, job)?),
            None => find_in_registry(reference, job),
        },
        Location::Daemon(name) => find_in_daemon(name, job),
        Location::Archive(archive) => find_in_archive(archive, job),
        Location::Directory(path) => find_in_directory(path, job),
    }
}

fn find_in_registry(reference: &Reference, job: &Job<'_>) -> Result<Image, FetchError> {
    let (cache, arch) = (job.cache()?, *job.config.arch);
    let keychain = Keychain::from_env(|name| std::env::var(name).ok());
    let registry = Registry::new(&job.registry_client()?, &keychain, reference.clone())?;
    job.ends(registry.client());
    let manifest = if *job.config.offline {
        let (manifest, when) =
            registry::recall(reference, arch, &cache).ok_or_else(|| job.not_pulled(&reference.to_string()))?;
        log::info!("Pull: offline: {reference} is what it was {}", at(when));
        manifest
    } else {
        log::info!("Pull: Asking for {reference} ({arch})");
        match registry::resolve(&registry, arch, &cache) {
            Err(error) if error.is_unreachable() && !job.stop.is_asked() => recall(reference, job, &cache, error)?,
            resolved => resolved?,
        }
    };
    log::info!("Pull: {}", manifest::summary(reference, &manifest));
    let layers = RegistryLayers::new(Some(registry), manifest, cache);
    let is_here = Arc::clone(&layers.is_here);
    Ok(Image { layers: Box::new(layers), is_here })
}

/// The container daemon's image, if there is a daemon that has it.
fn ask_daemon(name: &daemon::Name, job: &Job<'_>) -> Result<Option<daemon::Found>, FetchError> {
    let found = match job.daemon() {
        Ok(None) => return Ok(None),
        Ok(Some(daemon)) => daemon.find(name, *job.config.arch),
        Err(error) => Err(error),
    };
    match found {
        Ok(found) => Ok(found),
        Err(daemon::Error::Stopped) => Err(daemon::Error::Stopped.into()),
        Err(error) => {
            log::info!("Pull: Not looking for {name} on this host: {}", chain(&error));
            Ok(None)
        }
    }
}

fn find_in_daemon(name: &daemon::Name, job: &Job<'_>) -> Result<Image, FetchError> {
    let (cache, arch) = (job.cache()?, *job.config.arch);
    let recalled = |layers: DaemonLayers| Image { layers: Box::new(layers), is_here: Arc::new(AtomicBool::new(true)) };
    if *job.config.offline
        && let Some((layers, when)) = daemon::recall(name, arch, &cache)
    {
        log::info!("Export: offline: docker://{name} is what it was {}", at(Some(when)));
        return Ok(recalled(layers));
    }
    let daemon = job.daemon()?.ok_or_else(|| job.not_pulled(&format!("docker://{name}")))?;
    match daemon.require(name, arch) {
        Err(error) if error.is_unreachable() && !job.stop.is_asked() => {
            let Some((layers, when)) = daemon::recall(name, arch, &cache) else { return Err(error.into()) };
            log::warn!("{}: using what docker://{name} was {}", chain(&error), at(Some(when)));
            Ok(recalled(layers))
        }
        found => found_in_daemon(found?, job),
    }
}

fn found_in_daemon(found: daemon::Found, job: &Job<'_>) -> Result<Image, FetchError> {
    let (name, size, count) = (&found.name, ByteSize(found.size), found.diff_ids.len());
    let layers = if count == 1 { "layer" } else { "layers" };
    log::info!("Export: {name} for {} is in {}: {count} {layers}, {size}", found.arch, found.daemon());
    let (mut show, is_here) = (progress::of_reading("Export"), Arc::new(AtomicBool::new(false)));
    let ended = Arc::clone(&is_here);
    let observer = Box::new(move |now, transferred: Transferred| {
        show(now, transferred);
        ended.store(transferred.ended, Ordering::Relaxed);
    });
    let layers = daemon::layers(found, &job.cache()?, observer);
    Ok(Image { layers: Box::new(layers), is_here })
}

fn find_in_archive(archive: &ArchiveRef, job: &Job<'_>) -> Result<Image, FetchError> {
    let arch = *job.config.arch;
    log::info!("Archive: Looking into {archive} ({arch})");
    let mut show = progress::of_reading("Archive");
    let mut progress = |transferred| show(Instant::now(), transferred);
    let stop = job.source_stop();
    let image =
        archive::open(archive, arch, &job.cache()?, &mut archive::Watch { stop: &stop, progress: &mut progress })?;
    log::info!("Archive: {}", manifest::summary(archive, &image.manifest));
    Ok(Image { layers: Box::new(image), is_here: Arc::new(AtomicBool::new(true)) })
}

fn find_in_directory(path: &Path, job: &Job<'_>) -> Result<Image, FetchError> {
    log::info!("Directory: Looking through {}", path.display());
    let layer = directory::open(path, job.state_dir, &job.source_stop())?;
    for warning in &layer.warnings {
        log::warn!("{warning}");
    }
    Ok(Image { layers: Box::new(layer), is_here: Arc::new(AtomicBool::new(true)) })
}

/// What the name stood for in an earlier run, so that machines can be served while the registry or the way to it is down.
fn recall(
    reference: &Reference,
    job: &Job<'_>,
    cache: &BlobCache,
    error: registry::Error,
) -> Result<ImageManifest, FetchError> {
    let Some((image, when)) = registry::recall(reference, *job.config.arch, cache) else { return Err(error.into()) };
    let (cause, digest, when) = (chain(&error), image.digest, at(when));
    log::warn!("the registry cannot be asked ({cause}): using {digest} that {reference} was {when}");
    Ok(image)
}

/// When that was, as the end of a sentence.
fn at(when: Option<SystemTime>) -> String {
    let seconds = when.and_then(|when| when.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_secs());
    // A host without a battery-backed clock wrote it in 1970.
    match i64::try_from(seconds) {
        Ok(seconds @ CLOCK_IS_SET..) => format!("on {}", LocalTime::at(seconds)),
        _ => "in an earlier run".to_owned(),
    }
}

/// 2020-01-01 in seconds since 1970: no clock that was ever set shows less.
const CLOCK_IS_SET: i64 = 1_577_836_800;

fn build(image: &Image, job: &Job<'_>) -> Result<Medium, FetchError> {
    let started = Instant::now();
    let mut unpacked = 0;
    let mut told = BuildProgress::on_stderr();
    let mut progress = |progress: media::Progress| {
        unpacked = progress.bytes;
        if image.is_here.load(Ordering::Relaxed) {
            told.update(Instant::now(), progress);
        }
    };
    let mut watch = Watch { cancelled: job.stop.flag(), progress: &mut progress };
    let layers: &dyn LayerSource = &*image.layers;
    let medium = media::build(layers, &job.media_options(), &mut watch)?;
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

/// The layers of an image in a registry. The download begins with the first layer that is opened, so an ISO that an earlier run
/// made costs no traffic.
struct RegistryLayers {
    /// Taken when the download begins.
    pending: Mutex<Option<Registry>>,
    image: ImageManifest,
    cache: BlobCache,
    layers: OnceLock<Result<Layers, String>>,
    is_here: Arc<AtomicBool>,
}

impl RegistryLayers {
    /// Without a registry only what the layers are can be asked.
    fn new(registry: Option<Registry>, image: ImageManifest, cache: BlobCache) -> Self {
        let (layers, is_here) = (OnceLock::new(), Arc::default());
        Self { pending: Mutex::new(registry), image, cache, layers, is_here }
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
