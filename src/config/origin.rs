//! Where a value came from, carried with the value.

use std::fmt;
use std::ops::Deref;

use super::mask::mask_urls;

/// The layer that decided a value; later ones win.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// The configuration file (its name as given, credentials masked) and the line of the key, where it can be told.
    File { name: String, line: Option<usize> },
    /// `--set`.
    Set,
    /// `--cloud-config`.
    CloudConfigFlag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { name, line: Some(line) } => write!(f, "{name}:{line}"),
            Self::File { name, line: None } => f.write_str(name),
            Self::Set => f.write_str("--set"),
            Self::CloudConfigFlag => f.write_str("--cloud-config"),
        }
    }
}

/// A value of the configuration and where it came from. Reads as the value: `*config.netboot_http_port`.
#[derive(Clone, PartialEq, Eq)]
pub struct Setting<T> {
    pub value: T,
    pub origin: Origin,
}

// By hand: a URL may carry credentials.
impl<T: fmt::Debug> fmt::Debug for Setting<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", mask_urls(&format!("{:?}", self.value)), self.origin)
    }
}

impl<T> Setting<T> {
    /// A value nobody set.
    #[must_use]
    pub const fn default(value: T) -> Self {
        Self { value, origin: Origin::Default }
    }

    /// The same origin under another value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Setting<U> {
        Setting { value: change(self.value), origin: self.origin }
    }
}

impl<T> Deref for Setting<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}
