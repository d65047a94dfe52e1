//! Images in, bootable ISOs out: built from layers, looked into when somebody else made them, copied with the operator's files in them.
//!
//! ```text
//! layers ── build ──▶ kairos.iso ──┬─▶ Medium ──▶ netboot serves kernel, initrd and squashfs as ranges of the file
//! an ISO ── inspect ───────────────┘      └── customise ──▶ kairos.iso.custom.iso
//! ```
//! Everything is written under names that end in `.part`, synced and renamed; a stamp, which comes last, says what a file was made from.
//! Without a stamp that fits, nothing is used again.

mod build;
mod checksum;
mod contents;
mod custom;
pub mod efi;
mod facts;
mod feed;
mod files;
mod inspect;
mod kernel;
mod medium;
pub mod menu;
pub mod names;
mod overlay;
mod overlay_layer;
mod stamp;

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

pub use self::build::{build, find};
pub use self::checksum::Hashing;
pub use self::custom::{Custom, CustomError, Wanted, customise, seal};
use self::efi::{EfiError, EspError};
pub use self::facts::ImageFacts;
pub use self::files::{FileError, write as write_file};
pub use self::inspect::{Given, InspectError, inspect};
pub use self::medium::{Artifact, Medium};
use self::menu::{MenuError, MenuOptions};
use self::names::Name;
pub use self::overlay::OverlayError;
use crate::iso;
use crate::rootfs::{BootError, ReadError};
pub use crate::rootfs::{LayerSource, Progress};
use crate::squashfs;

/// Where and how an ISO is made.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    /// Holds the ISO; made when missing.
    pub directory: &'a Path,
    pub name: &'a Name,
    /// Whether the checksum is to stand in a file beside the ISO.
    pub checksum_file: bool,
    /// Where it is noted what the ISO was made from.
    pub stamp: &'a Path,
    /// Name and version of this program: another one rebuilds.
    pub product: &'a str,
    /// The architecture, and what the operator changes about the menu.
    pub menu: MenuOptions<'a>,
    /// A directory that is laid over the image's root.
    pub overlay_rootfs: Option<&'a Path>,
    /// Threads that compress.
    pub workers: NonZeroUsize,
}

/// What the caller keeps an eye and a hand on while something is being made.
pub struct Watch<'a> {
    /// Set it to end the work.
    pub cancelled: &'a AtomicBool,
    /// Called very often: do little.
    pub progress: &'a mut dyn FnMut(Progress),
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("cancelled", &self.cancelled).finish_non_exhaustive()
    }
}

/// Why there is no ISO.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot read the image")]
    Read(#[source] ReadError),
    #[error(transparent)]
    Boot(#[from] BootError),
    #[error(transparent)]
    Menu(#[from] MenuError),
    #[error(transparent)]
    Efi(#[from] EfiError),
    #[error(transparent)]
    Esp(#[from] EspError),
    #[error(transparent)]
    Overlay(OverlayError),
    #[error("cannot unpack the boot programs of this one; the binary is damaged")]
    Loaders(#[source] io::Error),
    #[error("cannot write {path}")]
    Squashfs { path: PathBuf, source: squashfs::Error },
    #[error("cannot write {path}")]
    Iso { path: PathBuf, source: iso::Error },
    #[error("cancelled")]
    Cancelled,
}

impl From<OverlayError> for MediaError {
    fn from(error: OverlayError) -> Self {
        if matches!(error, OverlayError::Cancelled) { Self::Cancelled } else { Self::Overlay(error) }
    }
}
