//! What an ISO was made from, noted in a file, so that the same is not made twice.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::files::{self, FileError};
use super::names::Name;
use super::overlay::Identity;
use super::{Artifact, ImageFacts, Medium};
use crate::fingerprint::{Fingerprint, Known};
use crate::limits::STAMP_BYTES_MAX;
use crate::storage::Extent;
use crate::units::Digest;

/// Raised when the same inputs give other files.
pub(super) const FORMAT: u32 = 4;

/// Everything that an ISO depends on; digests in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Inputs {
    pub(super) format: u32,
    pub(super) product: String,
    pub(super) layers: Vec<String>,
    /// Of the overlay's content.
    pub(super) overlay: Option<String>,
    pub(super) arch: String,
    /// Of the menu.
    pub(super) menu: String,
    /// Of the boot programs that come from this one.
    pub(super) loaders: String,
}

/// Offset and length.
type Place = Vec<(u64, u64)>;

/// An ISO that was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    pub(super) inputs: Inputs,
    /// The overlay as it was looked through.
    pub(super) overlay: Option<Identity>,
    /// Name of the file.
    iso: String,
    print: Fingerprint,
    sha256: String,
    kernel: Place,
    initrd: Place,
    squashfs: Place,
    facts: ImageFacts,
    warnings: Vec<String>,
}

impl Stamp {
    pub(super) fn of(medium: &Medium, inputs: Inputs, overlay: Option<Identity>) -> Result<Self, FileError> {
        let path = &medium.iso.path;
        let print = Fingerprint::at(path).map_err(|source| FileError::Read { path: path.clone(), source })?;
        let place = |extents: &[Extent]| extents.iter().map(|extent| (extent.offset, extent.length)).collect();
        Ok(Self {
            inputs,
            overlay,
            iso: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            print,
            sha256: medium.sha256.to_string(),
            kernel: place(&medium.kernel),
            initrd: place(&medium.initrd),
            squashfs: place(&medium.squashfs),
            facts: medium.facts.clone(),
            warnings: medium.warnings.clone(),
        })
    }

    /// The ISO, if it has this name, was made from these inputs, and nobody has altered it.
    pub(super) fn medium(
        &mut self,
        directory: &Path,
        name: &Name,
        inputs: &Inputs,
        cancelled: &AtomicBool,
    ) -> Option<Medium> {
        if self.inputs != *inputs || !name.is_iso(&self.iso) {
            return None;
        }
        let path = directory.join(&self.iso);
        let sha256 = self.sha256.parse::<Digest>().ok()?;
        if !is_unaltered(&mut self.print, &path, Some(sha256), cancelled) {
            return None;
        }
        let found = fs::symlink_metadata(&path).ok()?;
        let extents =
            |place: &Place| place.iter().map(|&(offset, length)| Extent { offset, length }).collect::<Vec<_>>();
        Some(Medium {
            built: found.modified().ok()?,
            iso: Artifact { path, size: found.len() },
            sha256,
            kernel: extents(&self.kernel),
            initrd: extents(&self.initrd),
            squashfs: extents(&self.squashfs),
            facts: self.facts.clone(),
            kernel_arch: None,
            warnings: self.warnings.clone(),
            reused: true,
        })
    }
}

/// Whether the file at `path` is the one that `print` was taken of. `print` is then that of the file as it is now.
pub(super) fn is_unaltered(
    print: &mut Fingerprint,
    path: &Path,
    sha256: Option<Digest>,
    cancelled: &AtomicBool,
) -> bool {
    match print.check(path, sha256, &|| cancelled.load(Ordering::Relaxed)) {
        Known::Untouched => true,
        Known::Unaltered(now) => {
            *print = now;
            true
        }
        Known::Altered | Known::Other => false,
    }
}

/// Reads a stamp. Whatever is wrong with it, it is none.
pub(super) fn load<T: DeserializeOwned>(path: &Path) -> Option<T> {
    if fs::metadata(path).ok()?.len() > STAMP_BYTES_MAX {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Notes what an ISO that is safe on the disk was made from. The stamp itself need not be: one that is lost or older is not believed.
pub(super) fn save<T: Serialize>(path: &Path, stamp: &T) -> Result<(), FileError> {
    files::make_parent(path)?;
    let refused = |error: serde_json::Error| FileError::Write { path: path.to_owned(), source: error.into() };
    files::write_soon(path, 0o600, &serde_json::to_vec_pretty(stamp).map_err(refused)?)
}
