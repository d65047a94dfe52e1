//! What is known of an ISO: where it is, what boots in it, what its image says of itself.

use std::path::PathBuf;
use std::time::SystemTime;

use super::ImageFacts;
use crate::storage::Extent;
use crate::units::{Arch, Digest};

/// A file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
}

/// An ISO with everything that machines boot, from a stick or from the network. It is never changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Medium {
    pub iso: Artifact,
    pub sha256: Digest,
    /// Where they lie in the ISO.
    pub kernel: Vec<Extent>,
    pub initrd: Vec<Extent>,
    pub squashfs: Vec<Extent>,
    pub facts: ImageFacts,
    /// What the kernel of an ISO that others made is for, where its first bytes tell.
    pub kernel_arch: Option<Arch>,
    /// For the operator, one sentence each.
    pub warnings: Vec<String>,
    /// True when an earlier run built it from the same inputs.
    pub reused: bool,
    /// When it was built.
    pub built: SystemTime,
}

impl Medium {
    /// Bytes.
    #[must_use]
    pub fn kernel_size(&self) -> u64 {
        size(&self.kernel)
    }

    /// Bytes.
    #[must_use]
    pub fn initrd_size(&self) -> u64 {
        size(&self.initrd)
    }

    /// Bytes.
    #[must_use]
    pub fn squashfs_size(&self) -> u64 {
        size(&self.squashfs)
    }
}

fn size(extents: &[Extent]) -> u64 {
    extents.iter().fold(0, |size, extent| size.saturating_add(extent.length))
}
