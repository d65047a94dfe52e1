//! The ISOs of a state directory, and what is noted about them.

use super::CacheError;
use crate::config::mask_urls;
use crate::fingerprint::Fingerprint;
use crate::source::cache::{CachedImage, Inventory};
use crate::units::Digest;
use serde::Deserialize;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// An ISO of the state directory.
#[derive(Debug)]
pub struct Medium {
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    pub modified: SystemTime,
    /// The note about it.
    pub stamp: Option<(PathBuf, Note)>,
}

/// What of the notes about ISOs, of whichever kind, is of interest here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Note {
    /// File name; a note about an ISO that was fetched names none.
    iso: Option<String>,
    /// Of an ISO that was fetched.
    file: Option<Fingerprint>,
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

    /// The sha256 that it had when it was made.
    pub fn expected(&self) -> Option<Digest> {
        let (_, note) = self.stamp.as_ref()?;
        let hex = note.sha256.as_deref()?;
        format!("sha256:{}", hex.strip_prefix("sha256:").unwrap_or(hex)).parse().ok()
    }

    /// Where it came from, to follow its size.
    pub fn origin(&self, inventory: &Inventory) -> String {
        if self.is_custom() {
            return ", with the operator's files".to_owned();
        }
        let Some((_, note)) = &self.stamp else { return ", of an earlier run".to_owned() };
        if let Some(url) = &note.url {
            return format!(", fetched from {}", mask_urls(url));
        }
        let is_of = |image: &&CachedImage| {
            [&image.layers, &image.diff_ids].iter().any(|layers| {
                let layers = layers.iter().map(Digest::to_string);
                layers.eq(note.inputs.layers.iter().cloned())
            })
        };
        let image = inventory.images.iter().find(is_of).and_then(|image| image.names.first());
        let name = image.and_then(|name| name.rsplit_once(' ')).map(|(name, _)| mask_urls(name));
        name.map_or_else(|| ", built of what is not in the cache".to_owned(), |name| format!(", built of {name}"))
    }
}

impl Note {
    /// An ISO that was fetched is known by its fingerprint; after a copy of its directory there is still only one to choose from.
    fn is_about(&self, path: &Path, only: bool) -> bool {
        match (&self.iso, &self.file) {
            (Some(name), _) => path.file_name().is_some_and(|file| file == name.as_str()),
            (None, Some(file)) => only || Fingerprint::at(path).is_ok_and(|found| found == *file),
            (None, None) => false,
        }
    }
}

/// The directories of ISOs and the notes about what is in them; a custom ISO has its own.
const MEDIA: [(&str, &str, bool); 3] =
    [("iso", "iso.json", false), ("iso", "custom.json", true), ("netboot", "netboot.json", false)];

/// All of them, each with its note.
pub fn media(state_dir: &Path) -> Result<Vec<Medium>, CacheError> {
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
        let only = found.len() == 1;
        if let Some(medium) = found.iter_mut().find(|medium| note.is_about(&medium.path, only)) {
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
