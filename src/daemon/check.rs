//! What of a configuration can be told wrong without a registry or a port.
//!
//! The dry run and the real run both begin with it, so that the one accepts nothing that the other refuses at once.

use crate::config::{Config, ConfigError, Image, Origin, mask_urls};
use crate::loaders;
use crate::netboot::cmdline::{Cmdline, CmdlineError};
use crate::source::reference::BadReference;
use crate::source::{Client, Reference, Settings, client};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What the operator has to write differently.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("releases cannot be fetched yet; name a container image: --set container_image=IMAGE")]
    Release,
    /// The reason names the image, which may be a URL with a password.
    #[error("{origin}: container_image: {reason}")]
    Reference { origin: Origin, reason: String },
    #[error("{origin}")]
    Cmdline { origin: Origin, source: CmdlineError },
    /// `ca_file`, or a proxy of the environment.
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error("{origin}: cannot read the loaders_dir {path}")]
    LoadersDir { origin: Origin, path: PathBuf, source: io::Error },
    #[error("{origin}: the loaders_dir {path} has none of the boot loaders that can be replaced: {names}")]
    NoLoaders { origin: Origin, path: PathBuf, names: String },
}

/// The container image to boot, of a configuration with nothing wrong on its face.
///
/// # Errors
/// [`CheckError`]. Always exit code 2.
pub fn check(config: &Config) -> Result<&str, CheckError> {
    let Image::Container(image) = config.image()? else { return Err(CheckError::Release) };
    image.parse::<Reference>().map_err(|error: BadReference| CheckError::Reference {
        origin: config.container_image.origin.clone(),
        reason: mask_urls(&error.to_string()),
    })?;
    Cmdline::new(*config.arch, config.netboot_cmdline.as_deref())
        .map_err(|source| CheckError::Cmdline { origin: config.netboot_cmdline.origin.clone(), source })?;
    Client::new(Settings { ca_file: (*config.ca_file).clone(), ..Settings::from_env() })?;
    match config.loaders_dir.as_deref() {
        Some(path) => check_loaders(path, &config.loaders_dir.origin).map(|()| image),
        None => Ok(image),
    }
}

/// A directory without a single loader changes nothing, so it is not the one that was meant.
fn check_loaders(path: &Path, origin: &Origin) -> Result<(), CheckError> {
    let (origin, path) = (origin.clone(), path.to_owned());
    if let Err(source) = fs::read_dir(&path) {
        return Err(CheckError::LoadersDir { origin, path, source });
    }
    let names: Vec<&str> = loaders::netboot().map(|loader| loader.file).collect();
    if names.iter().any(|name| path.join(name).exists()) {
        return Ok(());
    }
    Err(CheckError::NoLoaders { origin, path, names: names.join(", ") })
}
