//! `auroraboot cache`: what is kept of images in the state directory, whether it is sound, and less of it.

mod media;
mod verify;

use crate::config::cli::CacheAction;
use crate::config::{self, CacheArgs, CacheStore, ConfigError, mask_urls};
use crate::daemon::inputs::HostInputs;
use crate::daemon::leftovers;
use crate::daemon::state::{self, StateDir, StateError};
use crate::source::cache::{BlobCache, CachedImage, Evicted, Inventory, Stored};
use crate::sys::disk;
use crate::sys::time::LocalTime;
use crate::sys::user::effective_user;
use crate::units::ByteSize;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Why nothing can be said of a cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("there is no auroraboot state in {0}; name its directory with --set state_dir=PATH")]
    None(PathBuf),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot remove {path}")]
    Remove { path: PathBuf, source: io::Error },
    #[error("cannot start a thread that reads files")]
    Thread(#[source] io::Error),
}

impl CacheError {
    /// Whether the command line or the configuration is to blame.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::Config(_) | Self::None(_))
    }
}

/// What there is to say, and whether it is good news.
#[derive(Debug)]
pub struct Report {
    pub text: String,
    pub is_well: bool,
}

/// Does what the arguments ask for.
///
/// # Errors
/// [`CacheError`], for one line on stderr.
pub fn run(args: &CacheArgs) -> Result<Report, CacheError> {
    let CacheStore { state_dir, limit } = config::cache_store(args, &mut HostInputs::default())?;
    if !state::is_one(&state_dir).map_err(|source| CacheError::Read { path: state_dir.clone(), source })? {
        return Err(CacheError::None(state_dir));
    }
    // Who boots from ISOs of others has none.
    let closed = |source| CacheError::Read { path: state_dir.join("blobs"), source };
    let cache = BlobCache::existing(&state_dir).map_err(closed)?;
    match args.action {
        CacheAction::List => list(&state_dir, cache.as_ref(), limit).map(|text| Report { text, is_well: true }),
        CacheAction::Verify => {
            let _lock = StateDir::open(&state_dir, effective_user())?;
            verify::verify(&state_dir, cache.as_ref())
        }
        CacheAction::Prune => {
            let _lock = StateDir::open(&state_dir, effective_user())?;
            prune(&state_dir, cache.as_ref(), limit).map(|text| Report { text, is_well: true })
        }
    }
}

/// What it is called, how large it is, and when it was last used.
fn list(state_dir: &Path, cache: Option<&BlobCache>, limit: Option<u64>) -> Result<String, CacheError> {
    let inventory = inventory(state_dir, cache)?;
    let mut text = String::new();
    let of_limit = limit.map(|limit| format!(" of {} (cache_limit)", ByteSize(limit))).unwrap_or_default();
    let place = state_dir.display();
    let _ = writeln!(text, "Images in {place}: {}{of_limit}", ByteSize(inventory.size));
    inventory.images.iter().for_each(|image| list_image(&mut text, image));
    let sizes = |files: &[Stored]| files.iter().map(|file| file.size).collect::<Vec<_>>();
    list_useless(&mut text, ["blob that no image needs", "blobs that no image needs"], &sizes(&inventory.strays));
    list_useless(&mut text, ["half download", "half downloads"], &sizes(&inventory.parts));
    let media = media::media(state_dir)?;
    let size = ByteSize(media.iter().map(|medium| medium.size).sum());
    let _ = writeln!(text, "ISOs: {size}");
    for medium in &media {
        let from = medium.origin(&inventory);
        let name = medium.path.strip_prefix(state_dir).unwrap_or(&medium.path).display();
        let _ = writeln!(text, "  {name}\n      {}, {}{from}", ByteSize(medium.size), day(medium.modified));
    }
    list_useless(&mut text, ["half-written", "half-written"], &leftovers::isos(state_dir));
    if let Ok(free) = disk::free(state_dir) {
        let _ = writeln!(text, "Free on that disk: {}", ByteSize(free));
    }
    if StateDir::is_in_use(state_dir) {
        text.push_str("An auroraboot uses it now.\n");
    }
    Ok(text)
}

/// A line about files of these sizes, if they take room: the lock of an archive's spool takes none.
fn list_useless(text: &mut String, [one, many]: [&str; 2], sizes: &[u64]) {
    let sizes: Vec<u64> = sizes.iter().copied().filter(|size| *size > 0).collect();
    let (what, them) = if sizes.len() == 1 { (one, "it") } else { (many, "them") };
    if !sizes.is_empty() {
        let (count, size) = (sizes.len(), ByteSize(sizes.iter().sum()));
        let _ = writeln!(text, "  {count} {what}: {size}; `auroraboot cache prune` removes {them}");
    }
}

fn list_image(text: &mut String, image: &CachedImage) {
    for name in &image.names {
        let (name, arch) = name.rsplit_once(' ').unwrap_or((name, "unknown"));
        let _ = writeln!(text, "  {} ({arch})", mask_urls(name));
    }
    let (digest, size, layers) = (image.digest.short(), ByteSize(image.size), counted(image.layers.len(), "layer"));
    let _ = write!(text, "      sha256:{digest}, {size} in {layers}");
    if image.shared > 0 {
        let _ = write!(text, " ({} shared)", ByteSize(image.shared));
    }
    if image.missing > 0 {
        let _ = write!(text, ", {} not here", counted(image.missing, "file"));
    }
    let _ = writeln!(text, ", used {}", day(image.used));
}

/// `1 file`, `2 files`.
fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// When, without seconds.
fn day(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let time = LocalTime::at(i64::try_from(seconds).unwrap_or(0)).to_string();
    time.rsplit_once(':').map_or(time.clone(), |(minutes, _)| minutes.to_owned())
}

fn inventory(state_dir: &Path, cache: Option<&BlobCache>) -> Result<Inventory, CacheError> {
    let inventory = cache.map(BlobCache::inventory).transpose();
    Ok(inventory.map_err(|source| CacheError::Read { path: state_dir.join("blobs"), source })?.unwrap_or_default())
}

/// Removes what no image needs and what is half-written, and then whole images until the rest is below the limit.
fn prune(state_dir: &Path, cache: Option<&BlobCache>, limit: Option<u64>) -> Result<String, CacheError> {
    let failed = |source| CacheError::Read { path: state_dir.join("blobs"), source };
    let mut pruned = cache.map(BlobCache::prune).transpose().map_err(failed)?.unwrap_or_default();
    let half = leftovers::remove(state_dir, &[], SystemTime::now());
    (pruned.files, pruned.bytes) = (pruned.files + half.files, pruned.bytes + half.bytes);
    let mut text = told(&pruned);
    if let (Some(cache), Some(limit)) = (cache, limit) {
        text.push_str(&told(&cache.evict(limit, &[]).map_err(failed)?));
    }
    let left = inventory(state_dir, cache)?;
    let _ = writeln!(text, "{} left, in {}", ByteSize(left.size), counted(left.images.len(), "image"));
    Ok(text)
}

/// What went, a line for each image.
fn told(evicted: &Evicted) -> String {
    let mut text = String::new();
    // The lock of an archive's spool is a file of no bytes.
    if evicted.bytes > 0 {
        let _ = writeln!(text, "removed {}, {}", counted(evicted.files, "file"), ByteSize(evicted.bytes));
    }
    for name in &evicted.names {
        let (name, arch) = name.rsplit_once(' ').unwrap_or((name, "unknown"));
        let _ = writeln!(text, "removed {} ({arch})", mask_urls(name));
    }
    text
}
