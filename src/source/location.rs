//! Where a container image is, by what stands in front of its name.

use std::fmt;
use std::str::FromStr;

use super::reference::{BadReference, Reference};

/// Where an image is taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// Without a prefix: from this host's Docker daemon when it has it, else from the registry.
    Named(Reference),
    /// `registry://`
    Registry(Reference),
}

/// Why a text names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLocation {
    #[error(transparent)]
    Reference(#[from] BadReference),
}

impl FromStr for Location {
    type Err = BadLocation;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let named = |name: &str| -> Result<Self, BadLocation> { Ok(Self::Registry(name.parse()?)) };
        if let Some(name) = text.strip_prefix("registry://") {
            return named(name);
        }
        Ok(Self::Named(text.parse()?))
    }
}

/// As it is written.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(reference) | Self::Registry(reference) => reference.fmt(f),
        }
    }
}
