//! From the configuration to the media in the state directory: the ISO of the image, and the one with the operator's files.

use crate::config::{Config, Origin};
use crate::daemon::check::Wanted;
use crate::daemon::fetch::{self, FetchError};
use crate::daemon::places::{PRODUCT, Places};
use crate::daemon::progress;
use crate::daemon::state::StateDir;
use crate::daemon::stop::Stop;
use crate::iso::read;
use crate::media::{self, Artifact, CustomError, Given, InspectError, Medium};
use crate::source::fetch as file;
use crate::source::{Client, FetchedIso, Settings, Token, Verified, client, fetch_iso, fetch_release, release};
use crate::units::{Arch, ByteSize, Digest};
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

/// Everything that is there to be served or copied to sticks.
#[derive(Debug)]
pub struct Prepared {
    pub medium: Medium,
    /// What it is for.
    pub arch: Arch,
    /// There when a cloud config or an overlay is given and ISOs are wanted.
    pub custom: Option<CustomIso>,
}

/// The ISO with the operator's files in it.
#[derive(Debug)]
pub struct CustomIso {
    pub iso: Artifact,
    pub sha256: Digest,
    pub has_cloud_config: bool,
}

/// Why there is nothing to boot.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error(transparent)]
    Iso(#[from] file::Error),
    #[error(transparent)]
    Release(#[from] release::Error),
    #[error(transparent)]
    Inspect(#[from] InspectError),
    #[error("{url} is not an ISO that can be used, and {path} was removed again")]
    NotAnIso { url: String, path: PathBuf, source: read::Error },
    #[error(transparent)]
    Custom(#[from] CustomError),
    #[error("stopped before everything was ready; the next start goes on from here")]
    Stopped,
}

/// Brings what is wanted into the state directory, or finds it there.
///
/// # Errors
/// [`PrepareError`]; nothing half-made is left in use.
pub fn prepare(
    wanted: Wanted<'_>,
    config: &Config,
    state: &StateDir,
    places: &Places,
    stop: &Stop,
) -> Result<Prepared, PrepareError> {
    let made = medium(wanted, config, state, places, stop).and_then(|medium| {
        let custom = if places.is_public { customise(&medium, config, places, stop)? } else { None };
        Ok(Prepared { arch: arch(&medium, wanted, config), medium, custom })
    });
    made.map_err(|error| if stop.is_asked() { PrepareError::Stopped } else { error })
}

/// The architecture that the configuration names, or else, of an ISO, that of its kernel.
fn arch(medium: &Medium, wanted: Wanted<'_>, config: &Config) -> Arch {
    let named = config.boots_arch();
    match medium.kernel_arch {
        Some(kernel) if matches!(wanted, Wanted::Iso(_)) && config.arch.origin == Origin::Default => kernel,
        Some(kernel) if kernel != named => {
            log::warn!(
                "the ISO's kernel is for {kernel}, and it is served as one for {named}: set arch={kernel} if that is wrong"
            );
            named
        }
        _ => named,
    }
}

fn medium(
    wanted: Wanted<'_>,
    config: &Config,
    state: &StateDir,
    places: &Places,
    stop: &Stop,
) -> Result<Medium, PrepareError> {
    if let Wanted::Container(image) = wanted {
        return Ok(fetch::medium(image, config, state, places, stop)?);
    }
    if config.iso.live_console.is_some() || config.iso.extend_live_cmdline.is_some() {
        log::warn!(
            "iso.live_console and iso.extend-live-cmdline have no effect: an ISO that is fetched has its own menu"
        );
    }
    let fetched = download(wanted, config, places, stop)?;
    let given = Given {
        iso: &fetched.path,
        sha256: Some(fetched.sha256),
        checksum_file: places.is_public,
        reused: fetched.reused,
        must_boot: !*config.disable_netboot,
    };
    match media::inspect(&given, stop.flag()) {
        // A login page, say. The next start would take it for what it has already.
        Err(InspectError::Iso { path, source }) if fs::remove_file(&path).is_ok() => {
            Err(PrepareError::NotAnIso { url: fetched.url, path, source })
        }
        inspected => Ok(inspected?),
    }
}

/// An ISO that others made, whole and at its place.
fn download(wanted: Wanted<'_>, config: &Config, places: &Places, stop: &Stop) -> Result<FetchedIso, PrepareError> {
    let client = Client::new(Settings { ca_file: (*config.ca_file).clone(), ..Settings::from_env() })?;
    let connection = client.clone();
    stop.tell(move || connection.stop());
    let (into, stamp, mut progress) = (places.iso(), &places.stamp, progress::of_download("Download"));
    let fetched = match wanted {
        Wanted::Release(query) => {
            log::info!("Release: Asking for {} {}", query.repository, query.release_version);
            let token = Token::from_env(|name| std::env::var(name).ok(), query.github_url);
            fetch_release(&client, &query, token.as_ref(), &into, stamp, &mut progress)?
        }
        Wanted::Iso(location) | Wanted::Container(location) => {
            fetch_iso(&client, location, &into, stamp, &mut progress)?
        }
    };
    let verified = match fetched.verified {
        Verified::Published => "its published sha256 is right",
        Verified::Unpublished => "no sha256 is published for it",
    };
    let (url, path, size) = (&fetched.url, fetched.path.display(), ByteSize(fetched.size));
    if fetched.reused {
        log::info!("ISO: Using {path} ({size}), which an earlier run fetched from {url}");
    } else {
        log::info!("ISO: {url} is {path} ({size}); {verified}");
    }
    Ok(fetched)
}

fn customise(
    medium: &Medium,
    config: &Config,
    places: &Places,
    stop: &Stop,
) -> Result<Option<CustomIso>, PrepareError> {
    let wanted = media::Wanted {
        config: config.cloud_config.as_ref().map(|cloud| cloud.bytes()),
        overlay: config.iso.overlay_iso.as_deref(),
        directory: &places.directory,
        stamp: &places.custom_stamp,
        product: PRODUCT,
    };
    let started = Instant::now();
    let Some(mut custom) = media::customise(medium, &wanted, stop.flag())? else { return Ok(None) };
    let sha256 = media::seal(&mut custom, &wanted, stop.flag())?;
    for warning in &custom.warnings {
        log::warn!("{warning}");
    }
    let (path, size) = (custom.iso.path.display(), ByteSize(custom.iso.size));
    let holds = match (wanted.config.is_some(), wanted.overlay.is_some()) {
        (true, true) => "the cloud config and the overlay",
        (true, false) => "the cloud config",
        _ => "the overlay",
    };
    if custom.reused {
        log::info!("ISO: Using {path} ({size}) of an earlier run, with {holds} in it");
    } else {
        log::info!("ISO: {path} ({size}) has {holds} in it, made in {:.1} s", started.elapsed().as_secs_f64());
    }
    Ok(Some(CustomIso { iso: custom.iso, sha256, has_cloud_config: wanted.config.is_some() }))
}
