//! One run of the program, from arguments to the last machine served.

use crate::config::{self, Args, Config, ConfigError, mask_urls};
use crate::daemon::check::{self, CheckError, Wanted};
use crate::daemon::inputs::HostInputs;
use crate::daemon::places::{self, Places};
use crate::daemon::prepare::{self, PrepareError, Prepared};
use crate::daemon::serve::{self, Offer, ServeError, Servers};
use crate::daemon::state::{StateDir, StateError};
use crate::daemon::stop::Stop;
use crate::media::Medium;
use crate::netboot::names::Names;
use crate::sys::descriptors;
use crate::sys::user::effective_user;
use crate::units::ByteSize;
use std::fmt::Write;
use std::io;
use std::path::PathBuf;

/// Why a run ended badly.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Check(#[from] CheckError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("cannot make the directory {path}")]
    Directory { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
}

impl RunError {
    /// Whether the command line or the configuration is to blame, before anything was begun.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::Config(_) | Self::Check(_))
    }
}

/// Does what the arguments ask for. What it returns belongs on stdout.
///
/// # Errors
/// [`RunError`], for one line on stderr.
pub fn run(args: &Args) -> Result<String, RunError> {
    let (config, warnings) = config::load(args, &mut HostInputs::default())?;
    let wanted = check::check(&config)?;
    if args.dry_run {
        return Ok(config::report(&config, &warnings));
    }
    for warning in &warnings {
        log::warn!("{warning}");
    }
    let stop = Stop::on_signals().map_err(RunError::Signals)?;
    descriptors::raise_limit().unwrap_or_else(|error| log::warn!("cannot raise the limit of open files: {error}"));
    let state = StateDir::open(&config.state_dir, effective_user())?;
    let names = Names::new(state.secret()?, *config.netboot_http_port);
    let name = places::name(&config).map_err(|(origin, source)| CheckError::Name { origin, source })?;
    let places = Places::new(state.path(), name, *config.disable_iso)
        .map_err(|(path, source)| RunError::Directory { path, source })?;
    let web_directory = state.path().join("web");
    let serves = !*config.disable_netboot || serve::serves_media(&config);
    if serves {
        serve::rehearse(&config, &names, &web_directory)?;
    }
    let prepared = prepare::prepare(wanted, &config, &state, &places, &stop)?;
    for warning in &prepared.medium.warnings {
        log::warn!("{warning}");
    }
    if !serves {
        return Ok(files(&prepared));
    }
    let image = shown(wanted);
    let servers = Servers::bind(&config, names, Offer::new(&config, &image, &prepared)?, &web_directory)?;
    for line in summary(&config, &image, &prepared, &servers) {
        log::info!("{line}");
    }
    if !*config.disable_netboot && memory_needed(&prepared.medium) > COMMON_MEMORY_BYTES {
        log::warn!(
            "machines with less memory than {} will fail while they load the image",
            ByteSize(memory_needed(&prepared.medium))
        );
    }
    let ready = if *config.disable_netboot { "" } else { ": switch on machines that boot from the network" };
    log::info!("Ready{ready}; Ctrl-C ends");
    servers.run(&stop)?;
    log::info!("Stopped");
    Ok(String::new())
}

/// What is booted, in a few words and without secrets.
fn shown(wanted: Wanted<'_>) -> String {
    match wanted {
        Wanted::Container(name) | Wanted::Iso(name) => mask_urls(name),
        Wanted::Release(query) => {
            format!("{} {} ({} {})", query.repository, query.release_version, query.flavor, query.artifact_version)
        }
    }
}

/// What was made, for a run that serves nobody.
fn files(prepared: &Prepared) -> String {
    let mut text = String::new();
    let custom = prepared.custom.as_ref().map(|custom| &custom.iso);
    for iso in [Some(&prepared.medium.iso), custom].into_iter().flatten() {
        let _ = writeln!(text, "{:>9}  {}", ByteSize(iso.size).to_string(), iso.path.display());
    }
    text
}

/// What the operator wants to know before the first machine is switched on.
fn summary(config: &Config, image: &str, prepared: &Prepared, servers: &Servers) -> Vec<String> {
    let medium = &prepared.medium;
    let mut lines = Vec::new();
    if let Some(address) = servers.media_addr() {
        lines.push(format!("Listening on {address}: ISOs for sticks and how to write them"));
    }
    let facts = &medium.facts;
    let named = facts.name.as_deref().map(|name| format!(" ({name})")).unwrap_or_default();
    let kernel = facts.kernel_version.as_deref().unwrap_or("of unknown version");
    let image = format!("Image {image}{named} for {}, kernel {kernel}", prepared.arch);
    match servers.summary() {
        None => lines.push(image),
        Some(interfaces) => {
            lines.push(format!(
                "Serving on {interfaces}: udp 67 (beside the DHCP server), 4011, 69; http {}",
                *config.netboot_http_port
            ));
            if !interfaces.skipped.is_empty() {
                lines.push(format!("Not serving on {}", interfaces.skipped));
            }
            lines.push(image);
            lines.push(format!(
                "Each machine fetches {} kernel, {} initrd, {} root file system, and needs {} of memory",
                ByteSize(medium.kernel_size()),
                ByteSize(medium.initrd_size()),
                ByteSize(medium.squashfs_size()),
                ByteSize(memory_needed(medium)),
            ));
        }
    }
    if let Some(cloud) = &config.cloud_config {
        let does = cloud.summary().map(|does| format!(": {does}")).unwrap_or_default();
        lines.push(format!("Cloud config {}{does}", cloud.name()));
    }
    lines
}

/// Bytes of memory of a machine that boots the image: dracut keeps the squashfs in a tmpfs of half the memory, beside the unpacked initrd.
fn memory_needed(medium: &Medium) -> u64 {
    2 * (medium.squashfs_size() + medium.initrd_size()) + (3 << 29)
}

/// Machines with less memory than this are common enough for a warning.
const COMMON_MEMORY_BYTES: u64 = 8 << 30;
