//! An ISO that somebody else made: whether it boots Kairos, and where kernel, initrd and squashfs lie in it.

use std::io;
use std::path::{Path, PathBuf};

use super::Medium;
use super::files::FileError;
use crate::iso;
use crate::units::Digest;

/// An ISO that was downloaded or copied to its place.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    pub iso: &'a Path,
    /// When it is known; otherwise the file is read for it.
    pub sha256: Option<Digest>,
    /// Whether the checksum is to stand in a file beside the ISO.
    pub checksum_file: bool,
    /// Whether machines are to boot it from the network. Without that any ISO will do: it is only copied, with files added.
    pub must_boot: bool,
    /// An earlier run brought it.
    pub reused: bool,
}

/// Why an ISO is none to work with.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} cannot be used")]
    Iso { path: PathBuf, source: iso::read::Error },
    #[error("{path} has no {missing}: it is not an ISO of Kairos, or of a kind that is not known here")]
    Missing { path: PathBuf, missing: String },
    #[error(transparent)]
    File(#[from] FileError),
}

/// Looks into an ISO.
///
/// # Errors
/// [`InspectError`]: it is not an ISO, truncated, damaged, or without the expected files.
pub fn inspect(given: &Given<'_>) -> Result<Medium, InspectError> {
    let path = given.iso.to_owned();
    Err(InspectError::Read { path, source: io::ErrorKind::Unsupported.into() })
}
