//! One run of the program, from arguments to the last machine served.

use crate::config::{self, Args, Config, ConfigError, mask_urls};
use crate::daemon::check::{self, CheckError};
use crate::daemon::fetch::{self, FetchError};
use crate::daemon::inputs::HostInputs;
use crate::daemon::serve::{self, ServeError, Servers};
use crate::daemon::state::{StateDir, StateError};
use crate::daemon::stop::Stop;
use crate::media::Medium;
use crate::netboot::names::Names;
use crate::sys::descriptors;
use crate::sys::user::effective_user;
use crate::units::ByteSize;
use std::fmt::Write;
use std::io;

/// Why a run ended badly.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Check(#[from] CheckError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
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
    let (config, warnings) = config::load(args, &mut HostInputs)?;
    let image = check::check(&config)?;
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
    if !*config.disable_netboot {
        serve::rehearse(&config, &names)?;
    }
    let set = fetch::boot_set(image, &config, &state, &stop)?;
    for warning in &set.warnings {
        log::warn!("{warning}");
    }
    if *config.disable_netboot {
        return Ok(files(&set));
    }
    let servers = Servers::bind(&config, names, serve::boot_set(&config, &set)?)?;
    for line in summary(&config, image, &set, &servers) {
        log::info!("{line}");
    }
    if memory_needed(&set) > COMMON_MEMORY_BYTES {
        log::warn!(
            "machines with less memory than {} will fail while they load the image",
            ByteSize(memory_needed(&set))
        );
    }
    log::info!("Ready: switch on machines that boot from the network; Ctrl-C ends");
    servers.run(&stop)?;
    log::info!("Stopped");
    Ok(String::new())
}

/// What was made, for a run that serves nobody.
fn files(set: &Medium) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{:>9}  {}", ByteSize(set.iso.size).to_string(), set.iso.path.display());
    text
}

/// What the operator wants to know before the first machine is switched on.
fn summary(config: &Config, image: &str, set: &Medium, servers: &Servers) -> Vec<String> {
    let interfaces = servers.summary();
    let mut lines = vec![format!(
        "Serving on {interfaces}: udp 67 (beside the DHCP server), 4011, 69; http {}",
        *config.netboot_http_port
    )];
    if !interfaces.skipped.is_empty() {
        lines.push(format!("Not serving on {}", interfaces.skipped));
    }
    let named = set.facts.name.as_deref().map(|name| format!(" ({name})")).unwrap_or_default();
    let kernel = set.facts.kernel_version.as_deref().unwrap_or("of unknown version");
    lines.push(format!("Image {}{named} for {}, kernel {kernel}", mask_urls(image), *config.arch));
    lines.push(format!(
        "Each machine fetches {} kernel, {} initrd, {} root file system, and needs {} of memory",
        ByteSize(set.kernel_size()),
        ByteSize(set.initrd_size()),
        ByteSize(set.squashfs_size()),
        ByteSize(memory_needed(set)),
    ));
    if let Some(cloud) = &config.cloud_config {
        let does = cloud.summary().map(|does| format!(": {does}")).unwrap_or_default();
        lines.push(format!("Cloud config {}{does}", cloud.name()));
    }
    lines
}

/// Bytes of memory of a machine that boots the image: dracut keeps the squashfs in a tmpfs of half the memory, beside the unpacked initrd.
fn memory_needed(set: &Medium) -> u64 {
    2 * (set.squashfs_size() + set.initrd_size()) + (3 << 29)
}

/// Machines with less memory than this are common enough for a warning.
const COMMON_MEMORY_BYTES: u64 = 8 << 30;
