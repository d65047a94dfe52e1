//! One run of the program, from arguments to the last machine served.

use crate::config::{self, Args, Config, ConfigError, mask_urls};
use crate::daemon::check::{self, CheckError, IsoSource, Wanted};
use crate::daemon::control;
use crate::daemon::inputs::HostInputs;
use crate::daemon::job::Job;
use crate::daemon::leftovers;
use crate::daemon::monitor::Monitor;
use crate::daemon::places::{self, Places};
use crate::daemon::prepare::{self, PrepareError, Prepared};
use crate::daemon::progress;
use crate::daemon::serve::{self, Offer, ServeError, Servers, Swap};
use crate::daemon::state::{StateDir, StateError};
use crate::daemon::stop::Stop;
use crate::media::{FileError, Medium};
use crate::netboot::names::Names;
use crate::sys::descriptors;
use crate::sys::inherited;
use crate::sys::user::effective_user;
use crate::units::{ByteSize, chain};
use std::fmt::{self, Write};
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::SystemTime;

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
    #[error(transparent)]
    Keep(#[from] FileError),
    #[error("--control {channel}: no such channel was handed down")]
    Control { channel: i32, source: io::Error },
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
    warn(&warnings);
    let stop = Stop::on_signals().map_err(RunError::Signals)?;
    descriptors::raise_limit().unwrap_or_else(|error| log::warn!("cannot raise the limit of open files: {error}"));
    let monitor = Monitor::default();
    if let Some(channel) = args.control {
        let stream = inherited::unix_stream(channel).map_err(|source| RunError::Control { channel, source })?;
        control::answer(stream, monitor.clone(), &stop).map_err(|source| RunError::Control { channel, source })?;
    } else {
        warn(&config.network.set_without_appliance());
    }
    let image = shown(&wanted);
    monitor.prepares(&image);
    let (state, places) = open(&config, &wanted)?;
    let job = Job { config: &config, state_dir: state.path(), places: &places, stop: &stop };
    let names = Names::new(state.secret()?, *config.netboot_http_port);
    let web_directory = state.path().join("web");
    if *config.disable_netboot && !serve::serves_media(&config) {
        let prepared = prepare::prepare(&wanted, &job)?;
        warn(&prepared.medium.warnings);
        if args.control.is_none() {
            return Ok(files(&prepared));
        }
        // Whoever looks after this program would start it again and again.
        files(&prepared).lines().for_each(|line| log::info!("{line}"));
        monitor.serves(None, false, Vec::new());
        stop.wait();
        return Ok(String::new());
    }
    serve::rehearse(&config, &names, &web_directory)?;
    let earlier = if *config.offline { None } else { prepare::earlier(&wanted, &job) };
    let is_current = earlier.is_none();
    let prepared = earlier.map_or_else(|| prepare::prepare(&wanted, &job), Ok)?;
    warn(&prepared.medium.warnings);
    let offer = Offer::new(&config, &image, &prepared)?;
    let servers = Servers::bind(&config, names, offer, &web_directory, &monitor)?;
    progress::end();
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
    let swap = servers.swap();
    thread::scope(|scope| {
        if !is_current {
            let refresh = || refresh(&wanted, &job, &prepared, &swap);
            let started = thread::Builder::new().name("refresh".to_owned()).spawn_scoped(scope, refresh);
            started
                .map(drop)
                .unwrap_or_else(|error| log::warn!("cannot ask whether {image} is still current: {error}"));
        }
        servers.run(&stop)
    })?;
    log::info!("Stopped");
    Ok(String::new())
}

/// Fetches what a later run with the same arguments needs. What it returns belongs on stdout.
///
/// # Errors
/// [`RunError`], for one line on stderr.
pub fn pull(args: &Args) -> Result<String, RunError> {
    let mut inputs = HostInputs::default();
    let (config, warnings) = config::load(args, &mut inputs)?;
    let wanted = check::check(&config)?;
    if *config.offline {
        return Err(CheckError::PullOffline { origin: config.offline.origin.clone() }.into());
    }
    if args.dry_run {
        return Ok(config::report(&config, &warnings));
    }
    let stop = Stop::on_signals().map_err(RunError::Signals)?;
    let (state, places) = open(&config, &wanted)?;
    let job = Job { config: &config, state_dir: state.path(), places: &places, stop: &stop };
    let medium = prepare::pull(&wanted, &job)?;
    warn(&medium.warnings);
    let kept = inputs.keep(state.path())?;
    let configs = if kept > 0 { ", with the configuration that was fetched" } else { "" };
    let (image, place) = (shown(&wanted), state.path().display());
    // What lies on this host is read where it is, and looked for there again.
    let beside = wanted.path().map(|path| format!(" and {}", path.display())).unwrap_or_default();
    Ok(format!(
        "{image} is in {place}{configs}; to use it without a network, copy that directory{beside}, and run with:\n  \
         --set state_dir=PATH --set offline=true\n"
    ))
}

fn warn<T: fmt::Display>(warnings: &[T]) {
    for warning in warnings {
        log::warn!("{warning}");
    }
}

/// The state directory, without what an earlier run left half-written in it.
fn open(config: &Config, wanted: &Wanted<'_>) -> Result<(StateDir, Places), RunError> {
    let state = StateDir::open(&config.state_dir, effective_user())?;
    let name = places::name(config).map_err(|(origin, source)| CheckError::Name { origin, source })?;
    let places = Places::new(state.path(), name, *config.disable_iso)
        .map_err(|(path, source)| RunError::Directory { path, source })?;
    let begun = match wanted {
        Wanted::Iso(_) => places.begun().to_vec(),
        Wanted::Container(_) => Vec::new(),
    };
    let removed = leftovers::remove(state.path(), &begun, SystemTime::now());
    if removed.bytes > 0 {
        log::info!("Removed {} that an earlier run left half-written", ByteSize(removed.bytes));
    }
    Ok((state, places))
}

/// Finds out whether what an earlier run left is still current, and serves what has taken its place.
fn refresh(wanted: &Wanted<'_>, job: &Job<'_>, served: &Prepared, swap: &Swap) {
    let image = shown(wanted);
    let now = match prepare::prepare(wanted, job) {
        Ok(now) => now,
        Err(PrepareError::Stopped) => return,
        Err(error) => {
            log::warn!("cannot find out whether {image} is still what is served: {}", chain(&error));
            return;
        }
    };
    if now.medium.sha256 == served.medium.sha256 {
        return;
    }
    warn(&now.medium.warnings);
    match Offer::new(job.config, &image, &now).and_then(|offer| swap.replace(offer)) {
        Ok(()) => log::info!("Image {image} is another one now: machines that begin from now on get it"),
        Err(error) => log::warn!("{image} is another one now, and cannot be served: {}", chain(&error)),
    }
}

/// What is booted, in a few words and without secrets.
fn shown(wanted: &Wanted<'_>) -> String {
    match wanted {
        Wanted::Container(location) => location.to_string(),
        Wanted::Iso(IsoSource::File(location)) => mask_urls(location),
        Wanted::Iso(IsoSource::Release(query)) => {
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
