//! What of a configuration can be told wrong without a registry or a port.
//!
//! The dry run and the real run both begin with it, so that the one accepts nothing that the other refuses at once.

use crate::config::{Config, ConfigError, Image, Origin, mask_urls};
use crate::daemon::places;
use crate::loaders;
use crate::media::menu::{self, MenuError, MenuOptions};
use crate::media::names::BadName;
use crate::netboot::cmdline::{Cmdline, CmdlineError};
use crate::source::release::BadQuery;
use crate::source::{BadLocation, Client, Location, ReleaseQuery, Settings, client};
use crate::units::chain;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What the operator has to write differently.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Release(#[from] BadQuery),
    #[error("{origin}: {key} {path} is not a directory that can be read")]
    Overlay { origin: Origin, key: &'static str, path: PathBuf, source: io::Error },
    #[error("{origin}: iso.overlay_rootfs goes over the root file system of a container image; an ISO's is finished")]
    OverlayRootfs { origin: Origin },
    /// The reason names the image, which may be a URL with a password.
    #[error("{origin}: container_image: {reason}")]
    Image { origin: Origin, reason: String },
    #[error("{origin}: offline is set, and a pull is there to ask servers; leave it away")]
    PullOffline { origin: Origin },
    #[error("{origin}: iso.override_name")]
    Name { origin: Origin, source: BadName },
    #[error("the menu of the ISO cannot be made")]
    Menu(#[from] MenuError),
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

/// What is booted, as its source takes it.
#[derive(Debug, Clone)]
pub enum Wanted<'a> {
    /// An ISO is made of it.
    Container(Location),
    Iso(IsoSource<'a>),
}

impl Wanted<'_> {
    /// What has to be on this host.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Container(location) => location.path(),
            Self::Iso(IsoSource::File(location)) if !location.contains("://") => Some(Path::new(*location)),
            Self::Iso(_) => None,
        }
    }
}

/// Where an ISO that others made comes from.
#[derive(Debug, Clone, Copy)]
pub enum IsoSource<'a> {
    /// A path or URL.
    File(&'a str),
    Release(ReleaseQuery<'a>),
}

/// What to boot, of a configuration with nothing wrong on its face.
///
/// # Errors
/// [`CheckError`]. Always exit code 2.
pub fn check(config: &Config) -> Result<Wanted<'_>, CheckError> {
    let wanted = wanted(config)?;
    check_overlays(config, &wanted)?;
    menu::grub_cfg(&menu_options(config))?;
    places::name(config).map_err(|(origin, source)| CheckError::Name { origin, source })?;
    Cmdline::new(config.boots_arch(), config.netboot_cmdline.as_deref())
        .map_err(|source| CheckError::Cmdline { origin: config.netboot_cmdline.origin.clone(), source })?;
    Client::new(Settings { ca_file: (*config.ca_file).clone(), ..Settings::from_env() })?;
    if let Some(path) = config.loaders_dir.as_deref() {
        check_loaders(path, &config.loaders_dir.origin)?;
    }
    Ok(wanted)
}

/// In front of an ISO's path or URL, where an image is named.
const ISO: &str = "iso:";

fn wanted(config: &Config) -> Result<Wanted<'_>, CheckError> {
    match config.image()? {
        Image::Container(ISO) => Err(CheckError::Image {
            origin: config.container_image.origin.clone(),
            reason: "iso: lacks the path or URL of an ISO behind it".to_owned(),
        }),
        Image::Container(image) if image.starts_with(ISO) => Ok(Wanted::Iso(IsoSource::File(&image[ISO.len()..]))),
        Image::Container(image) => {
            let location: Location = image.parse().map_err(|error: BadLocation| CheckError::Image {
                origin: config.container_image.origin.clone(),
                reason: mask_urls(&chain(&error)),
            })?;
            if let Some(path) = location.path() {
                fs::metadata(path).map_err(|error| CheckError::Image {
                    origin: config.container_image.origin.clone(),
                    reason: format!("{}: {error}", path.display()),
                })?;
            }
            Ok(Wanted::Container(location))
        }
        Image::Iso(location) => Ok(Wanted::Iso(IsoSource::File(location))),
        Image::Release { repository, release_version, artifact_version, flavor } => {
            let release = &config.release;
            let query = ReleaseQuery {
                repository,
                release_version,
                artifact_version,
                flavor,
                flavor_release: release.flavor_release.as_deref(),
                variant: release.variant.as_deref(),
                platform: config.boots_arch(),
                model: release.model.as_deref(),
                github_url: release.github_url.as_deref(),
            };
            query.check()?;
            Ok(Wanted::Iso(IsoSource::Release(query)))
        }
    }
}

/// The menu that the configuration wants.
#[must_use]
pub fn menu_options(config: &Config) -> MenuOptions<'_> {
    MenuOptions {
        arch: config.boots_arch(),
        live_console: config.iso.live_console.as_deref(),
        extend_cmdline: config.iso.extend_live_cmdline.as_deref(),
    }
}

fn check_overlays(config: &Config, wanted: &Wanted<'_>) -> Result<(), CheckError> {
    let (overlay_iso, overlay_rootfs) = (&config.iso.overlay_iso, &config.iso.overlay_rootfs);
    if overlay_rootfs.is_some() && !matches!(wanted, Wanted::Container(_)) {
        return Err(CheckError::OverlayRootfs { origin: overlay_rootfs.origin.clone() });
    }
    for (key, overlay) in [("iso.overlay_iso", overlay_iso), ("iso.overlay_rootfs", overlay_rootfs)] {
        let Some(path) = overlay.as_deref() else { continue };
        fs::read_dir(path).map_err(|source| CheckError::Overlay {
            origin: overlay.origin.clone(),
            key,
            path: path.to_owned(),
            source,
        })?;
    }
    Ok(())
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
