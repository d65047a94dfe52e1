//! `auroraboot cache`: what is kept of images in the state directory, whether it is sound, and less of it.

use crate::config::cli::CacheAction;
use crate::config::{self, CacheArgs, CacheStore, ConfigError, mask_urls};
use crate::daemon::inputs::HostInputs;
use crate::daemon::log::redraw;
use crate::daemon::state::{self, StateDir, StateError};
use crate::source::cache::{BlobCache, CachedImage, Evicted, Inventory};
use crate::source::progress::Style;
use crate::sys::time::LocalTime;
use crate::sys::user::effective_user;
use crate::sys::{disk, terminal};
use crate::units::{ByteSize, Digest};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::fmt::Write;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

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
    let Some(cache) = BlobCache::existing(&state_dir).filter(|_| state::is_one(&state_dir)) else {
        return Err(CacheError::None(state_dir));
    };
    match args.action {
        CacheAction::List => list(&state_dir, &cache, limit).map(|text| Report { text, is_well: true }),
        CacheAction::Verify => {
            let _lock = StateDir::open(&state_dir, effective_user())?;
            verify(&state_dir, &cache)
        }
        CacheAction::Prune => {
            let _lock = StateDir::open(&state_dir, effective_user())?;
            prune(&state_dir, &cache, limit).map(|text| Report { text, is_well: true })
        }
    }
}

/// What it is called, how large it is, and when it was last used.
fn list(state_dir: &Path, cache: &BlobCache, limit: Option<u64>) -> Result<String, CacheError> {
    let inventory = inventory(state_dir, cache)?;
    let mut text = String::new();
    let of_limit = limit.map(|limit| format!(" of {} (cache_limit)", ByteSize(limit))).unwrap_or_default();
    let place = state_dir.display();
    let _ = writeln!(text, "Images in {place}: {}{of_limit}", ByteSize(inventory.size));
    inventory.images.iter().for_each(|image| list_image(&mut text, image));
    for (files, what) in [(&inventory.strays, "blobs that no image needs"), (&inventory.parts, "half downloads")] {
        if !files.is_empty() {
            let size = ByteSize(files.iter().map(|file| file.size).sum());
            let _ = writeln!(text, "  {} {what}: {size}; `auroraboot cache prune` removes them", files.len());
        }
    }
    let media = media(state_dir)?;
    let size = ByteSize(media.iter().map(|medium| medium.size).sum());
    let _ = writeln!(text, "ISOs: {size}");
    for medium in &media {
        let from = medium.origin(&inventory);
        let name = medium.path.strip_prefix(state_dir).unwrap_or(&medium.path).display();
        let _ = writeln!(text, "  {name}\n      {}, {}{from}", ByteSize(medium.size), day(medium.modified));
    }
    if let Ok(free) = disk::free(state_dir) {
        let _ = writeln!(text, "Free on that disk: {}", ByteSize(free));
    }
    if StateDir::is_in_use(state_dir) {
        text.push_str("An auroraboot uses it now.\n");
    }
    Ok(text)
}

fn list_image(text: &mut String, image: &CachedImage) {
    for name in &image.names {
        let (name, arch) = name.rsplit_once(' ').unwrap_or((name, "unknown"));
        let _ = writeln!(text, "  {} ({arch})", mask_urls(name));
    }
    let layers = if image.layers.len() == 1 { "layer" } else { "layers" };
    let _ = write!(
        text,
        "      sha256:{}, {} in {} {layers}",
        image.digest.short(),
        ByteSize(image.size),
        image.layers.len()
    );
    if image.shared > 0 {
        let _ = write!(text, " ({} shared)", ByteSize(image.shared));
    }
    if image.missing > 0 {
        let _ = write!(text, ", {} files are not here", image.missing);
    }
    let _ = writeln!(text, ", used {}", day(image.used));
}

/// When, without seconds.
fn day(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let time = LocalTime::at(i64::try_from(seconds).unwrap_or(0)).to_string();
    time.rsplit_once(':').map_or(time.clone(), |(minutes, _)| minutes.to_owned())
}

fn inventory(state_dir: &Path, cache: &BlobCache) -> Result<Inventory, CacheError> {
    cache.inventory().map_err(|source| CacheError::Read { path: state_dir.join("blobs"), source })
}

/// An ISO of the state directory.
struct Medium {
    path: PathBuf,
    /// Bytes.
    size: u64,
    modified: SystemTime,
    /// The note about it.
    stamp: Option<(PathBuf, Note)>,
}

/// What of the notes about ISOs, of whichever kind, is of interest here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Note {
    /// File name; a note about an ISO that was fetched names none.
    iso: Option<String>,
    url: Option<String>,
    sha256: Option<String>,
    inputs: Inputs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Inputs {
    /// The digests, of an ISO that was built.
    layers: Vec<String>,
}

impl Medium {
    fn is_custom(&self) -> bool {
        self.path.to_string_lossy().ends_with(".custom.iso")
    }

    fn expected(&self) -> Option<Digest> {
        let (_, note) = self.stamp.as_ref()?;
        let hex = note.sha256.as_deref()?;
        format!("sha256:{}", hex.strip_prefix("sha256:").unwrap_or(hex)).parse().ok()
    }

    /// Where it came from, to follow its size.
    fn origin(&self, inventory: &Inventory) -> String {
        if self.is_custom() {
            return ", with the operator's files".to_owned();
        }
        let Some((_, note)) = &self.stamp else { return ", of an earlier run".to_owned() };
        if let Some(url) = &note.url {
            return format!(", fetched from {}", mask_urls(url));
        }
        let is_of = |image: &&CachedImage| {
            let layers = image.layers.iter().map(Digest::to_string);
            layers.eq(note.inputs.layers.iter().take(image.layers.len()).cloned())
        };
        let image = inventory.images.iter().find(is_of).and_then(|image| image.names.first());
        let name = image.and_then(|name| name.rsplit_once(' ')).map(|(name, _)| mask_urls(name));
        name.map_or_else(|| ", built of layers that are not here".to_owned(), |name| format!(", built of {name}"))
    }
}

/// The directories of ISOs and the notes about what is in them; a custom ISO has its own.
const MEDIA: [(&str, &str, bool); 3] =
    [("iso", "iso.json", false), ("iso", "custom.json", true), ("netboot", "netboot.json", false)];

fn media(state_dir: &Path) -> Result<Vec<Medium>, CacheError> {
    let mut media = Vec::new();
    for (directory, stamp, custom) in MEDIA {
        let directory = state_dir.join(directory);
        let stamp = state_dir.join("stamps").join(stamp);
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.map_err(|source| CacheError::Read { path: directory, source })?,
        };
        let mut found: Vec<Medium> = entries.filter_map(|entry| medium(&entry.ok()?.path())).collect();
        found.retain(|medium| medium.is_custom() == custom);
        found.sort_by(|a, b| a.path.cmp(&b.path));
        let note: Note = fs::read(&stamp).ok().and_then(|note| serde_json::from_slice(&note).ok()).unwrap_or_default();
        let named =
            |medium: &&mut Medium| medium.path.file_name().is_some_and(|name| note.iso.as_deref() == name.to_str());
        let only = found.len() == 1 && note.iso.is_none() && note.sha256.is_some();
        if let Some(medium) = if only { found.first_mut() } else { found.iter_mut().find(named) } {
            medium.stamp = Some((stamp, note));
        }
        media.extend(found);
    }
    Ok(media)
}

fn medium(path: &Path) -> Option<Medium> {
    let metadata = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)?;
    (path.extension()? == "iso").then_some(())?;
    Some(Medium { path: path.to_owned(), size: metadata.len(), modified: metadata.modified().ok()?, stamp: None })
}

/// Hashes everything that has a digest, removes what is damaged, and drops the notes about ISOs that are not as they were.
fn verify(state_dir: &Path, cache: &BlobCache) -> Result<Report, CacheError> {
    let (blobs, media) = (
        cache.blobs().map_err(|source| CacheError::Read { path: state_dir.join("blobs"), source })?,
        media(state_dir)?,
    );
    let expected = media.iter().filter(|medium| medium.expected().is_some()).map(|medium| medium.size);
    let total = blobs.iter().map(|blob| blob.size).chain(expected).sum();
    let (mut hashing, mut text, mut damaged) = (Hashing::new(total), String::new(), 0);
    for (blob, digest) in blobs.iter().filter_map(|blob| Some((blob, blob.digest()?))) {
        let path = cache.path(&digest);
        if hashing.digest(&path)? != digest {
            remove(&path)?;
            damaged += 1;
            let size = ByteSize(blob.size);
            let _ = writeln!(text, "damaged and removed: {} ({size}); the next run fetches it again", path.display());
        }
    }
    for medium in &media {
        let path = medium.path.display();
        let Some(expected) = medium.expected() else {
            let _ = writeln!(text, "not verified: {path}: nothing is noted about it");
            continue;
        };
        if let (true, Some((stamp, _))) = (hashing.digest(&medium.path)? != expected, &medium.stamp) {
            remove(stamp)?;
            damaged += 1;
            let _ = writeln!(text, "not as it was made: {path}; the next run makes it again");
        }
    }
    let verdict = match damaged {
        0 => "all as it should be".to_owned(),
        1 => "1 was damaged".to_owned(),
        many => format!("{many} were damaged"),
    };
    let _ = writeln!(text, "{} files, {} read: {verdict}", hashing.files, ByteSize(hashing.done));
    Ok(Report { text, is_well: damaged == 0 })
}

fn remove(path: &Path) -> Result<(), CacheError> {
    fs::remove_file(path).map_err(|source| CacheError::Remove { path: path.to_owned(), source })
}

/// Hashes files, and shows how far it is.
struct Hashing {
    total: u64,
    done: u64,
    files: usize,
    style: Style,
    shown: Instant,
}

impl Hashing {
    fn new(total: u64) -> Self {
        let style = terminal::columns(&io::stderr()).map_or(Style::Lines, |columns| Style::Terminal { columns });
        Self { total, done: 0, files: 0, style, shown: Instant::now() }
    }

    fn digest(&mut self, path: &Path) -> Result<Digest, CacheError> {
        const BUFFER_BYTES: usize = 1 << 20;
        let unreadable = |source| CacheError::Read { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(unreadable)?;
        let (mut hash, mut buffer) = (Sha256::new(), vec![0; BUFFER_BYTES]);
        loop {
            let count = file.read(&mut buffer).map_err(unreadable)?;
            if count == 0 {
                self.files += 1;
                return Ok(Digest(hash.finalize().into()));
            }
            hash.update(&buffer[..count]);
            self.done += count as u64;
            self.tell();
        }
    }

    fn tell(&mut self) {
        if self.shown.elapsed() < self.style.interval() {
            return;
        }
        self.shown = Instant::now();
        let text = format!("Verify: {} of {}", ByteSize(self.done), ByteSize(self.total));
        match self.style {
            Style::Terminal { .. } => redraw(&self.style.dress(text)),
            Style::Lines => log::info!("{text}"),
        }
    }
}

/// Removes what no image needs, and then whole images until the rest is below the limit.
fn prune(state_dir: &Path, cache: &BlobCache, limit: Option<u64>) -> Result<String, CacheError> {
    let failed = |source| CacheError::Read { path: state_dir.join("blobs"), source };
    let mut text = told(&cache.prune().map_err(failed)?);
    if let Some(limit) = limit {
        text.push_str(&told(&cache.evict(limit, &[]).map_err(failed)?));
    }
    let left = inventory(state_dir, cache)?;
    let _ = writeln!(text, "{} left, in {} images", ByteSize(left.size), left.images.len());
    Ok(text)
}

/// What went, a line for each image.
fn told(evicted: &Evicted) -> String {
    let mut text = String::new();
    if evicted.files > 0 {
        let _ = writeln!(text, "removed {} files, {}", evicted.files, ByteSize(evicted.bytes));
    }
    for name in &evicted.names {
        let (name, arch) = name.rsplit_once(' ').unwrap_or((name, "unknown"));
        let _ = writeln!(text, "removed {} ({arch})", mask_urls(name));
    }
    text
}
