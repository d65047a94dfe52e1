//! From the configuration to the media in the state directory: the ISO of the image, and the one with the operator's files.

use crate::config::{Config, Origin};
use crate::daemon::check::{IsoSource, Wanted};
use crate::daemon::fetch::{self, FetchError};
use crate::daemon::job::Job;
use crate::daemon::places::PRODUCT;
use crate::daemon::progress;
use crate::iso::read;
use crate::media::{self, Artifact, CustomError, FileError, Given, InspectError, Medium};
use crate::source::fetch as file;
use crate::source::{Client, FetchedIso, Settings, Token, Verified, client, fetch_iso, fetch_release, release};
use crate::units::{Arch, ByteSize, Digest};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
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
    #[error("{path} lies in {directory}, where the ISOs are put; move it elsewhere, or name another state_dir")]
    AmongOutputs { path: PathBuf, directory: PathBuf },
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
pub fn prepare(wanted: &Wanted<'_>, job: &Job<'_>) -> Result<Prepared, PrepareError> {
    let medium = match wanted {
        Wanted::Container(location) => fetch::medium(location, job).map_err(PrepareError::from),
        Wanted::Iso(source) => iso(source, job),
    };
    finish(medium, wanted, job)
}

/// What an earlier run left of an image that lies behind a network, as it was then: nobody is asked whether it is still that.
#[must_use]
pub fn earlier(wanted: &Wanted<'_>, job: &Job<'_>) -> Option<Prepared> {
    let medium = match wanted {
        Wanted::Container(location) => fetch::earlier(location, job)?,
        Wanted::Iso(IsoSource::File(location)) if !location.contains("://") => return None,
        Wanted::Iso(source) => {
            let client = Client::new(Settings { offline: true, ..Settings::default() }).ok()?;
            job.ends(&client);
            let fetched = download(source, job, &client).ok()?;
            log::info!("ISO: asking whether {} is still the same", fetched.url);
            inspect(fetched, job).ok()?
        }
    };
    finish(Ok(medium), wanted, job).ok()
}

/// Fetches all that a later run needs, so that it can do without a network.
///
/// # Errors
/// [`PrepareError`]
pub fn pull(wanted: &Wanted<'_>, job: &Job<'_>) -> Result<Medium, PrepareError> {
    let medium = match wanted {
        Wanted::Container(location) => fetch::complete(location, job).map_err(PrepareError::from),
        Wanted::Iso(source) => iso(source, job),
    };
    medium.map_err(|error| stopped(error, job))
}

fn finish(medium: Result<Medium, PrepareError>, wanted: &Wanted<'_>, job: &Job<'_>) -> Result<Prepared, PrepareError> {
    let prepared = medium.and_then(|medium| {
        let custom = if job.places.is_public { customise(&medium, job)? } else { None };
        Ok(Prepared { arch: arch(&medium, wanted, job.config), medium, custom })
    });
    prepared.map_err(|error| stopped(error, job))
}

/// What went wrong because the run is to end was no fault.
fn stopped(error: PrepareError, job: &Job<'_>) -> PrepareError {
    if job.stop.is_asked() { PrepareError::Stopped } else { error }
}

/// The architecture that the configuration names, or else, of an ISO, that of its kernel.
fn arch(medium: &Medium, wanted: &Wanted<'_>, config: &Config) -> Arch {
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

fn iso(source: &IsoSource<'_>, job: &Job<'_>) -> Result<Medium, PrepareError> {
    if let IsoSource::File(location) = source {
        let (path, directory) = (Path::new(location), &job.places.directory);
        // What is made would take its place, or be it.
        if let (Ok(source), Ok(output)) = (path.canonicalize(), directory.canonicalize())
            && source.starts_with(&output)
        {
            return Err(PrepareError::AmongOutputs { path: path.to_owned(), directory: directory.clone() });
        }
        look_into(path)?;
    }
    inspect(download(source, job, &job.client()?)?, job)
}

/// Whether a file of this host is an ISO at all, before it takes the place of what an earlier run made.
fn look_into(path: &Path) -> Result<(), InspectError> {
    let Ok(found) = fs::metadata(path) else { return Ok(()) };
    if !found.is_file() {
        return Ok(()); // fetching says what it is
    }
    let file = File::open(path).map_err(|source| FileError::Read { path: path.to_owned(), source })?;
    let looked = read::Image::open(&file, found.len()).map(drop);
    looked.map_err(|source| InspectError::Iso { path: path.to_owned(), source })
}

/// An ISO that others made, whole and at its place.
fn download(source: &IsoSource<'_>, job: &Job<'_>, client: &Client) -> Result<FetchedIso, PrepareError> {
    let (into, stamp) = (job.places.iso(), &job.places.stamp);
    let mut downloading = progress::of_download("Download");
    let fetched = match source {
        IsoSource::Release(query) => {
            log::info!("Release: Asking for {} {}", query.repository, query.release_version);
            let token = Token::from_env(|name| std::env::var(name).ok(), query.github_url);
            fetch_release(client, query, token.as_ref(), &into, stamp, &mut downloading)?
        }
        IsoSource::File(url) if url.contains("://") => fetch_iso(client, url, &into, stamp, &mut downloading)?,
        IsoSource::File(path) => fetch_iso(client, path, &into, stamp, &mut progress::of_reading("ISO"))?,
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

fn inspect(fetched: FetchedIso, job: &Job<'_>) -> Result<Medium, PrepareError> {
    let iso = &job.config.iso;
    if iso.live_console.is_some() || iso.extend_live_cmdline.is_some() {
        log::warn!(
            "iso.live_console and iso.extend-live-cmdline have no effect: an ISO that is fetched has its own menu"
        );
    }
    let given = Given {
        iso: &fetched.path,
        sha256: Some(fetched.sha256),
        checksum_file: job.places.is_public,
        reused: fetched.reused,
        must_boot: !*job.config.disable_netboot,
    };
    match media::inspect(&given, job.stop.flag()) {
        // A login page, say. The next start would take it for what it has already.
        Err(InspectError::Iso { path, source }) if fs::remove_file(&path).is_ok() => {
            Err(PrepareError::NotAnIso { url: fetched.url, path, source })
        }
        inspected => Ok(inspected?),
    }
}

fn customise(medium: &Medium, job: &Job<'_>) -> Result<Option<CustomIso>, PrepareError> {
    let wanted = media::Wanted {
        config: job.config.cloud_config.as_ref().map(|cloud| cloud.bytes()),
        overlay: job.config.iso.overlay_iso.as_deref(),
        directory: &job.places.directory,
        stamp: &job.places.custom_stamp,
        product: PRODUCT,
    };
    let started = Instant::now();
    let Some(mut custom) = media::customise(medium, &wanted, job.stop.flag())? else { return Ok(None) };
    let sha256 = media::seal(&mut custom, &wanted, job.stop.flag())?;
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
