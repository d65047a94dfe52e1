//! The cloud config: where it is, its bytes, its template rendered.

use std::fmt;
use std::io;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::error::ConfigError;
use super::mask::mask_urls;
use super::origin::{Origin, Setting};
use super::warning::Warning;
use super::{Args, Config, Inputs};
use crate::limits::CLOUD_CONFIG_BYTES_MAX;
use crate::units::Digest;

const WHAT: &str = "cloud config";

/// The cloud config as the machines get it.
#[derive(Clone)]
pub struct CloudConfig {
    bytes: Vec<u8>,
    digest: Digest,
    name: String,
    origin: Origin,
    summary: Option<String>,
}

// By hand: it holds passwords.
impl fmt::Debug for CloudConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloudConfig({}, {} bytes, {})", self.name, self.bytes.len(), self.digest)
    }
}

impl CloudConfig {
    /// The rendered bytes; apart from placeholders they are those that were given.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The sha256 of [`CloudConfig::bytes`].
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The file, URL (credentials masked) or key it was read from.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What named it.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What it makes a machine do, in one line, when it could be read.
    #[must_use]
    pub fn summary(&self) -> Option<&str> {
        self.summary.as_deref()
    }
}

/// Where something is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    Stdin,
    Url(String),
    Path(String),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdin => f.write_str("standard input"),
            Self::Url(url) => f.write_str(&mask_urls(url)),
            Self::Path(path) => f.write_str(path),
        }
    }
}

impl Location {
    /// `-`, an http(s) URL, or a path (relative to the working directory).
    pub fn parse(named: &str, what: &'static str) -> Result<Self, ConfigError> {
        if named == "-" {
            return Ok(Self::Stdin);
        }
        match named.split_once("://") {
            Some((scheme, _)) if ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) => {
                Ok(Self::Url(named.to_owned()))
            }
            Some((scheme, _)) if scheme.chars().all(|c| c.is_ascii_alphanumeric()) => {
                Err(ConfigError::Scheme { what, name: mask_urls(named) })
            }
            _ => Ok(Self::Path(named.to_owned())),
        }
    }

    /// The content, which is not empty and not above `max` bytes.
    pub fn read(
        &self,
        what: &'static str,
        max: usize,
        ca_file: Option<&Path>,
        inputs: &mut dyn Inputs,
    ) -> Result<Vec<u8>, ConfigError> {
        let bytes = match self {
            Self::Stdin => inputs.read_stdin().map_err(|error| explain(&error)),
            Self::Path(path) => inputs.read_file(Path::new(path)).map_err(|error| explain(&error)),
            Self::Url(url) => inputs.fetch_url(url, ca_file).map_err(|reason| mask_urls(&reason)),
        };
        let name = || self.to_string();
        let bytes = bytes.map_err(|reason| ConfigError::Read { what, name: name(), reason })?;
        if bytes.len() > max {
            return Err(ConfigError::TooBig { what, name: name(), max });
        }
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(ConfigError::Empty { what, name: name() });
        }
        Ok(bytes)
    }
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// Reads and renders the cloud config that the flag names, or else the file's.
pub fn load(
    args: &Args,
    in_file: Setting<Option<String>>,
    config: &Config,
    inputs: &mut dyn Inputs,
    warnings: &mut Vec<Warning>,
) -> Result<Option<CloudConfig>, ConfigError> {
    let (bytes, name, origin) = match (args.cloud_config.as_deref(), in_file.value) {
        (Some(named), _) => {
            let (bytes, name) = read(named, args, config, inputs)?;
            (bytes, name, Origin::CloudConfigFlag)
        }
        (None, Some(text)) if is_content(&text) => {
            let name = format!("{}, cloud_config", in_file.origin);
            (text.into_bytes(), name, in_file.origin)
        }
        (None, Some(text)) if !text.trim().is_empty() => {
            let (bytes, name) = read(text.trim(), args, config, inputs)?;
            (bytes, name, in_file.origin)
        }
        (None, _) => {
            warnings.push(Warning::NoCloudConfig);
            return Ok(None);
        }
    };
    let digest = Digest(Sha256::digest(&bytes).into());
    Ok(Some(CloudConfig { digest, bytes, name, origin, summary: None }))
}

fn read(named: &str, args: &Args, config: &Config, inputs: &mut dyn Inputs) -> Result<(Vec<u8>, String), ConfigError> {
    let location = Location::parse(named, WHAT)?;
    if location == Location::Stdin && args.config.as_deref() == Some("-") {
        return Err(ConfigError::StdinTwice);
    }
    let bytes = location.read(WHAT, CLOUD_CONFIG_BYTES_MAX, config.ca_file.as_deref(), inputs)?;
    Ok((bytes, location.to_string()))
}

/// Whether the file's `cloud_config` is the content itself, and not the name of it.
fn is_content(text: &str) -> bool {
    let text = text.trim();
    text.starts_with('#') || text.contains('\n')
}
