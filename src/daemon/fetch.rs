//! From the name of a container image to its ISO: image, cache and builder joined.

use crate::daemon::image::{self, Image, ImageError, at};
use crate::daemon::job::Job;
use crate::daemon::progress::BuildProgress;
use crate::daemon::registry_layers::RegistryLayers;
use crate::media::{self, LayerSource, MediaError, Medium, Watch};
use crate::source::{Location, cache, registry};
use crate::units::{ByteSize, Digest};
use std::io;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Why there is no ISO of a container image.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Cache(#[from] cache::Error),
    #[error(transparent)]
    Media(#[from] MediaError),
    #[error("cannot read layer {layer}")]
    Layer { layer: Digest, source: io::Error },
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
    let mut image = image::find(location, job)?;
    let medium = match work(&image) {
        Err(error) if is_healed(&image, &error, job)? => {
            image = image::find(location, job)?;
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

/// The ISO of what a registry's image was in an earlier run, if it is there as it was made. Nobody is asked.
#[must_use]
pub fn earlier(location: &Location, job: &Job<'_>) -> Option<Medium> {
    let reference = match location {
        Location::Registry(reference) => reference,
        Location::Named { name, reference } => match image::ask_daemon(name, job) {
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
