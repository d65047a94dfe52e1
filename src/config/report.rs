//! `--dry-run`: the resolved configuration for people, secrets masked.

use super::{Config, Warning};

/// The text of `--dry-run`.
#[must_use]
pub fn report(config: &Config, warnings: &[Warning]) -> String {
    format!("{:?} {}", config.image(), warnings.len())
}
