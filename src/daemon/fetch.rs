//! From the name of an image to its boot set: registry, cache and builder joined.

use crate::config::Config;
use crate::daemon::log::redraw;
use crate::daemon::state::StateDir;
use crate::daemon::stop::Stop;
use crate::limits;
use crate::media::{self, LayerSource, MediaError, Medium, Watch};
use crate::source::credentials::Keychain;
use crate::source::progress::{Progress, Style};
use crate::source::reference::BadReference;
use crate::source::{
    BlobCache, Client, ImageManifest, Layers, Reference, Registry, Settings, Transferred, cache, client, manifest,
    pull, registry,
};
use crate::sys::terminal;
use crate::sys::time::LocalTime;
use crate::units::{Arch, ByteSize, Digest, chain};
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Instant, UNIX_EPOCH};

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
    #[error(transparent)]
    Name(#[from] media::names::BadName),
    #[error("stopped before the image was ready; the next start goes on from here")]
    Stopped,
}

/// Makes the boot set of container image `name`, or finds it made by an earlier run.
///
/// # Errors
/// [`FetchError`]; nothing half-made is left in use.
pub fn boot_set(name: &str, config: &Config, state: &StateDir, stop: &Stop) -> Result<Medium, FetchError> {
    make(name, config, state, stop).map_err(|error| if stop.is_asked() { FetchError::Stopped } else { error })
}

fn make(name: &str, config: &Config, state: &StateDir, stop: &Stop) -> Result<Medium, FetchError> {
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
    build(&layers, config, state, stop)
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

fn build(layers: &RegistryLayers, config: &Config, state: &StateDir, stop: &Stop) -> Result<Medium, FetchError> {
    let directory = state.path().join("netboot");
    let options = media::Options {
        directory: &directory,
        name: &"boot".parse()?,
        checksum_file: false,
        stamp: &state.path().join("stamps/netboot.json"),
        menu: media::menu::MenuOptions {
            arch: *config.arch,
            live_console: config.iso.live_console.as_deref(),
            extend_cmdline: config.iso.extend_live_cmdline.as_deref(),
        },
        overlay_rootfs: config.iso.overlay_rootfs.as_deref(),
        product: concat!("auroraboot ", env!("CARGO_PKG_VERSION")),
        workers: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
    };
    let started = Instant::now();
    let mut unpacked = 0;
    let mut told = BuildProgress::new(terminal::columns(&io::stderr()));
    let mut progress = |progress: media::Progress| {
        unpacked = progress.bytes;
        if layers.download_ended.load(Ordering::Relaxed) {
            told.update(Instant::now(), progress);
        }
    };
    let mut watch = Watch { cancelled: stop.flag(), progress: &mut progress };
    let set = media::build(layers, &options, &mut watch)?;
    if set.reused {
        log::info!("Build: Using what an earlier run made of this image in {}", directory.display());
    } else {
        log::info!(
            "Build: {} of layers became a {} squashfs in {:.1} s",
            ByteSize(unpacked),
            ByteSize(set.squashfs_size()),
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
    /// From then on the build's own progress is shown.
    download_ended: Arc<AtomicBool>,
}

impl RegistryLayers {
    fn download(&self) -> Result<Layers, String> {
        let registry = self.pending.lock().unwrap_or_else(PoisonError::into_inner).take();
        let registry = registry.ok_or("the download was begun already")?;
        let order = pull::top_first(&self.image);
        pull::fetch(
            registry,
            &self.image,
            &self.cache,
            &order,
            Box::new(show_progress(Arc::clone(&self.download_ended))),
        )
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
fn show_progress(ended: Arc<AtomicBool>) -> impl FnMut(Instant, Transferred) + Send {
    let columns = terminal::columns(&io::stderr());
    let mut progress = Progress::new(columns.map_or(Style::Lines, |columns| Style::Terminal { columns }));
    move |now, transferred| {
        if let Some(text) = progress.update(now, transferred) {
            match columns {
                Some(_) if !transferred.ended => redraw(&text),
                // The end stays: a log line, in the place of the line of progress.
                _ => log::info!("Pull: {text}"),
            }
        }
        ended.store(transferred.ended, Ordering::Relaxed);
    }
}

/// Told while a build goes on after its download.
struct BuildProgress {
    columns: Option<usize>,
    shown: Option<Instant>,
}

impl BuildProgress {
    const fn new(columns: Option<usize>) -> Self {
        Self { columns, shown: None }
    }

    fn update(&mut self, now: Instant, progress: media::Progress) {
        match (self.text(now, progress), self.columns) {
            (Some(text), Some(_)) => redraw(&text),
            (Some(text), None) => log::info!("{text}"),
            (None, _) => {}
        }
    }

    /// What to show now, if anything.
    fn text(&mut self, now: Instant, progress: media::Progress) -> Option<String> {
        let every = if self.columns.is_some() { limits::PROGRESS_REDRAW } else { limits::PROGRESS_LOG };
        // The end of the download has just been told.
        if now - *self.shown.get_or_insert(now) < every {
            return None;
        }
        self.shown = Some(now);
        let layer = (progress.layers_done + 1).min(progress.layers);
        let text = format!("Build: layer {layer} of {}, {} unpacked", progress.layers, ByteSize(progress.bytes));
        Some(match self.columns {
            // The last column stays free: some terminals wrap when it is written.
            Some(columns) => {
                format!("\r\x1b[K{}", text.chars().take(columns.saturating_sub(1)).collect::<String>())
            }
            None => text,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_build_is_told_now_and_then() {
        let progress = media::Progress { layers_done: 1, layers: 3, bytes: 2_000_000 };
        let start = Instant::now();
        let mut log = BuildProgress::new(None);
        assert_eq!(log.text(start, progress), None);
        assert_eq!(log.text(start + limits::PROGRESS_LOG / 2, progress), None);
        let text = log.text(start + limits::PROGRESS_LOG, progress).unwrap();
        assert_eq!(text, format!("Build: layer 2 of 3, {} unpacked", ByteSize(2_000_000)));
        assert_eq!(log.text(start + limits::PROGRESS_LOG, progress), None);
        let mut terminal = BuildProgress::new(Some(13));
        assert_eq!(terminal.text(start, progress), None);
        assert_eq!(terminal.text(start + limits::PROGRESS_REDRAW, progress).unwrap(), "\r\x1b[KBuild: layer");
    }
}
