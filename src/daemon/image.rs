//! Finds a container image: in a registry, in this host's container daemon, in an archive, in a directory.
//!
//! To find it is cheap; what is large begins to come with the first layer that is opened.

use crate::daemon::job::Job;
use crate::daemon::progress;
use crate::daemon::registry_layers::RegistryLayers;
use crate::media::LayerSource;
use crate::source::archive::{ArchiveImage, ArchiveRef};
use crate::source::credentials::Keychain;
use crate::source::daemon::{self, DaemonLayers};
use crate::source::directory::DirectoryLayer;
use crate::source::{
    BlobCache, ImageManifest, Location, Reference, Registry, Transferred, archive, cache, client, directory, manifest,
    registry,
};
use crate::sys::time::LocalTime;
use crate::units::{ByteSize, Digest, chain};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
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
    #[error(
        "offline is set, and {image} is not in {state_dir}; run `auroraboot pull` with this configuration where there is a network"
    )]
    NotPulled { image: String, state_dir: String },
}

impl ImageError {
    /// Whether nobody could be asked, or was to be.
    fn is_out_of_reach(&self) -> bool {
        match self {
            Self::NotPulled { .. } => true,
            Self::Registry(error) => error.is_unreachable(),
            _ => false,
        }
    }

    fn not_pulled(image: impl fmt::Display, job: &Job<'_>) -> Self {
        Self::NotPulled { image: image.to_string(), state_dir: job.state_dir.display().to_string() }
    }
}

/// An image that was found. Nothing of it need be here yet.
#[derive(Debug)]
pub struct Image {
    pub layers: Box<dyn Layered>,
    /// From then on the build's own progress is shown.
    pub is_here: Arc<AtomicBool>,
}

/// Layers, and what the cache has of their image by now.
pub trait Layered: LayerSource + fmt::Debug {
    fn blobs(&self) -> Vec<Digest>;

    /// Of these, what is given out while it is still being verified.
    fn unverified(&self) -> Vec<Digest> {
        self.blobs()
    }
}

impl Layered for RegistryLayers {
    fn blobs(&self) -> Vec<Digest> {
        self.image().blobs()
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

impl Image {
    /// One whose layers are here already.
    fn here(layers: impl Layered + 'static) -> Self {
        Self { layers: Box::new(layers), is_here: Arc::new(AtomicBool::new(true)) }
    }
}

/// Finds the image at `location`.
///
/// # Errors
/// [`ImageError`]
pub fn find(location: &Location, job: &Job<'_>) -> Result<Image, ImageError> {
    match location {
        Location::Registry(reference) => find_in_registry(reference, job),
        Location::Named { name, reference } => match ask_daemon(name, job)? {
            Some(found) => found_in_daemon(found, job),
            None => match find_in_registry(reference, job) {
                // It may have come out of a daemon that is not here now.
                Err(error) if error.is_out_of_reach() && !job.stop.is_asked() => match recall_from_daemon(name, job)? {
                    Some(image) => {
                        if !matches!(error, ImageError::NotPulled { .. }) {
                            log::warn!("{}: using what this host's daemon had", chain(&error));
                        }
                        Ok(image)
                    }
                    None => Err(error),
                },
                found => found,
            },
        },
        Location::Daemon(name) => find_in_daemon(name, job),
        Location::Archive(archive) => find_in_archive(archive, job),
        Location::Directory(path) => find_in_directory(path, job),
    }
}

fn find_in_registry(reference: &Reference, job: &Job<'_>) -> Result<Image, ImageError> {
    let (cache, arch) = (job.cache()?, *job.config.arch);
    let keychain = Keychain::from_env(|name| std::env::var(name).ok());
    let registry = Registry::new(&job.registry_client()?, &keychain, reference.clone())?;
    job.ends(registry.client());
    let manifest = if *job.config.offline {
        let (manifest, when) =
            registry::recall(reference, arch, &cache).ok_or_else(|| ImageError::not_pulled(reference, job))?;
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
    let is_here = layers.is_here();
    Ok(Image { layers: Box::new(layers), is_here })
}

/// The container daemon's image, if there is a daemon that has it.
///
/// # Errors
/// The run is to end.
pub fn ask_daemon(name: &daemon::Name, job: &Job<'_>) -> Result<Option<daemon::Found>, ImageError> {
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

fn find_in_daemon(name: &daemon::Name, job: &Job<'_>) -> Result<Image, ImageError> {
    let (cache, arch) = (job.cache()?, *job.config.arch);
    if *job.config.offline
        && let Some(image) = recall_from_daemon(name, job)?
    {
        return Ok(image);
    }
    let daemon = job.daemon()?.ok_or_else(|| ImageError::not_pulled(format_args!("docker://{name}"), job))?;
    match daemon.require(name, arch) {
        Err(error) if error.is_unreachable() && !job.stop.is_asked() => {
            let Some((layers, when)) = daemon::recall(name, arch, &cache) else { return Err(error.into()) };
            log::warn!("{}: using what docker://{name} was {}", chain(&error), at(Some(when)));
            Ok(Image::here(layers))
        }
        found => found_in_daemon(found?, job),
    }
}

/// What an earlier run exported from a daemon under that name.
fn recall_from_daemon(name: &daemon::Name, job: &Job<'_>) -> Result<Option<Image>, ImageError> {
    let Some((layers, when)) = daemon::recall(name, *job.config.arch, &job.cache()?) else { return Ok(None) };
    log::info!("Export: docker://{name} is what it was {}", at(Some(when)));
    Ok(Some(Image::here(layers)))
}

fn found_in_daemon(found: daemon::Found, job: &Job<'_>) -> Result<Image, ImageError> {
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

fn find_in_archive(archive: &ArchiveRef, job: &Job<'_>) -> Result<Image, ImageError> {
    let arch = *job.config.arch;
    log::info!("Archive: Looking into {archive} ({arch})");
    let mut show = progress::of_reading("Archive");
    let mut progress = |transferred| show(Instant::now(), transferred);
    let stop = job.source_stop();
    let image =
        archive::open(archive, arch, &job.cache()?, &mut archive::Watch { stop: &stop, progress: &mut progress })?;
    log::info!("Archive: {}", manifest::summary(archive, &image.manifest));
    Ok(Image::here(image))
}

fn find_in_directory(path: &Path, job: &Job<'_>) -> Result<Image, ImageError> {
    log::info!("Directory: Looking through {}", path.display());
    let layer = directory::open(path, job.state_dir, &job.source_stop())?;
    for warning in &layer.warnings {
        log::warn!("{warning}");
    }
    Ok(Image::here(layer))
}

/// What the name stood for in an earlier run, so that machines can be served while the registry or the way to it is down.
fn recall(
    reference: &Reference,
    job: &Job<'_>,
    cache: &BlobCache,
    error: registry::Error,
) -> Result<ImageManifest, ImageError> {
    let Some((image, when)) = registry::recall(reference, *job.config.arch, cache) else { return Err(error.into()) };
    let (cause, digest, when) = (chain(&error), image.digest, at(when));
    log::warn!("the registry cannot be asked ({cause}): using {digest} that {reference} was {when}");
    Ok(image)
}

/// When that was, as the end of a sentence.
#[must_use]
pub fn at(when: Option<SystemTime>) -> String {
    let seconds = when.and_then(|when| when.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_secs());
    // A host without a battery-backed clock wrote it in 1970.
    match i64::try_from(seconds) {
        Ok(seconds @ CLOCK_IS_SET..) => format!("on {}", LocalTime::at(seconds)),
        _ => "in an earlier run".to_owned(),
    }
}

/// 2020-01-01 in seconds since 1970: no clock that was ever set shows less.
const CLOCK_IS_SET: i64 = 1_577_836_800;
