//! Flags, file, --set and cloud config, resolved to one Config.
//!
//! ```text
//!  defaults ◂ file ◂ --set ─▶ Settings ─▶ Config          every value knows its Origin
//!  values:  ◂        --set ─▶ Data ─▶ template ─▶ CloudConfig ◂── --cloud-config, else the file's cloud_config
//! ```
//! Nothing here reads a file or the network itself: [`load`] asks its [`Inputs`]. The cloud config stays the bytes it is; only
//! placeholders of the template are replaced in it.

pub mod cli;
mod cloud;
mod error;
mod file;
mod keys;
mod machines;
mod mask;
mod network;
mod node;
mod origin;
mod password;
mod report;
mod resolve;
mod set;
mod suggest;
mod survey;
mod template;
mod warning;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

pub use cli::{Args, CacheArgs, Command, FlashArgs, UsageError};
pub use cloud::CloudConfig;
pub use error::ConfigError;
pub use machines::{MacPrefix, MachineFilter, Refused};
pub use mask::mask_urls;
pub use network::{Address, Network};
pub use origin::{Origin, Setting};
pub use password::Password;
pub use report::{Row, report, rows};
pub use template::TemplateError;
pub use warning::Warning;

use crate::limits::CONFIG_FILE_BYTES_MAX;
use crate::units::Arch;
use cli::Verb;
use cloud::Location;
use node::Node;
use resolve::Settings;

/// What the configuration is read through. Implementations stop reading above
/// [`CLOUD_CONFIG_BYTES_MAX`](crate::limits::CLOUD_CONFIG_BYTES_MAX) + 1 bytes; [`load`] refuses what is longer.
pub trait Inputs {
    /// The content of a file.
    ///
    /// # Errors
    /// The operating system's.
    fn read_file(&mut self, path: &Path) -> io::Result<Vec<u8>>;

    /// The body of an http(s) URL.
    ///
    /// # Errors
    /// One line for the operator.
    fn fetch_url(&mut self, url: &str, how: Fetching<'_>) -> Result<Vec<u8>, String>;

    /// Standard input to its end.
    ///
    /// # Errors
    /// The operating system's.
    fn read_stdin(&mut self) -> io::Result<Vec<u8>>;
}

/// How a URL is fetched.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fetching<'a> {
    /// The certificate authorities in it are trusted as well.
    pub ca_file: Option<&'a Path>,
    /// No server is asked: the state directory that holds what was fetched before.
    pub offline: Option<&'a Path>,
}

/// The whole configuration: every key has a value, and every value knows where it came from.
#[derive(Debug, Clone)]
pub struct Config {
    /// The image as it was named, with its prefix. When set, the release is ignored; see [`Config::image`].
    pub container_image: Setting<Option<String>>,
    /// Path or URL of an ISO.
    pub iso_url: Setting<Option<String>>,
    pub release: Release,
    /// The architecture to take out of a multi-architecture image.
    pub arch: Setting<Arch>,
    pub state_dir: Setting<PathBuf>,
    /// Bytes that images in the state directory may take; `None`: no limit.
    pub cache_limit: Setting<Option<u64>>,
    /// No server is asked for anything.
    pub offline: Setting<bool>,
    /// Empty: every suitable one.
    pub interfaces: Setting<Vec<String>>,
    /// Unspecified: every address of the interfaces.
    pub netboot_listen_addr: Setting<Ipv4Addr>,
    pub netboot_http_port: Setting<u16>,
    /// The kernel command line that replaces ours.
    pub netboot_cmdline: Setting<Option<String>>,
    /// `netboot.allow` and `netboot.deny`.
    pub machines: MachineFilter,
    pub iso: Iso,
    /// Where ISOs are served.
    pub listen_addr: Setting<SocketAddr>,
    pub disable_netboot: Setting<bool>,
    pub disable_http_server: Setting<bool>,
    pub disable_iso: Setting<bool>,
    pub allow_insecure_registries: Setting<bool>,
    /// PEM file of certificate authorities to trust besides the built-in ones.
    pub ca_file: Setting<Option<PathBuf>>,
    /// Boot loaders to use instead of the embedded ones.
    pub loaders_dir: Setting<Option<PathBuf>>,
    /// How the appliance is on the network.
    pub network: Network,
    /// What the console asks for first: as it is, or as `sha256:` and its digest.
    pub console_password: Setting<Option<Password>>,
    /// Rendered; `None` when nobody named one.
    pub cloud_config: Option<CloudConfig>,
    /// What the cloud config's template could use.
    pub data: Data,
}

/// The keys that name a release on GitHub.
#[derive(Debug, Clone)]
pub struct Release {
    pub repository: Setting<Option<String>>,
    pub release_version: Setting<Option<String>>,
    pub artifact_version: Setting<Option<String>>,
    pub flavor: Setting<Option<String>>,
    pub flavor_release: Setting<Option<String>>,
    pub variant: Setting<Option<String>>,
    pub model: Setting<Option<String>>,
    pub platform: Setting<Option<Arch>>,
    /// Base URL of GitHub, an Enterprise server or a mirror.
    pub github_url: Setting<Option<String>>,
}

/// The keys that shape the ISO.
#[derive(Debug, Clone)]
pub struct Iso {
    /// File name without `.iso`.
    pub override_name: Setting<Option<String>>,
    pub include_date: Setting<bool>,
    /// A directory whose content goes into the custom ISO.
    pub overlay_iso: Setting<Option<PathBuf>>,
    /// A directory whose content goes over the image's root file system.
    pub overlay_rootfs: Setting<Option<PathBuf>>,
    /// `console=` arguments of the menu.
    pub live_console: Setting<Option<String>>,
    /// Kernel arguments added to the menu's entries.
    pub extend_live_cmdline: Setting<Option<String>>,
}

/// What is booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Image<'a> {
    /// A container image, as it was named.
    Container(&'a str),
    /// An ISO: path or URL.
    Iso(&'a str),
    /// A release; these four are always set, see [`Config::release`] for the others.
    Release { repository: &'a str, release_version: &'a str, artifact_version: &'a str, flavor: &'a str },
}

/// The data of the cloud config's template: `--set` over the file's `values:`.
#[derive(Debug, Clone, Default)]
pub struct Data {
    pub(crate) tree: Node,
    /// Keys that `--set` gave and that are no settings.
    pub(crate) from_set: BTreeSet<String>,
    /// Where each value below `values:` stands.
    pub(crate) from_file: BTreeMap<String, Origin>,
}

impl Config {
    /// What is booted: the container image when there is one, else the ISO, else the release.
    ///
    /// # Errors
    /// Neither is there, or a release with parts missing.
    pub fn image(&self) -> Result<Image<'_>, ConfigError> {
        if let Some(image) = self.container_image.as_deref() {
            return Ok(Image::Container(image));
        }
        if let Some(iso) = self.iso_url.as_deref() {
            return Ok(Image::Iso(iso));
        }
        let release = &self.release;
        let parts = [
            ("repository", &release.repository),
            ("release_version", &release.release_version),
            ("artifact_version", &release.artifact_version),
            ("flavor", &release.flavor),
        ];
        let values = parts.map(|(_, part)| part.as_deref());
        if let [Some(repository), Some(release_version), Some(artifact_version), Some(flavor)] = values {
            return Ok(Image::Release { repository, release_version, artifact_version, flavor });
        }
        if values.iter().all(Option::is_none) {
            return Err(ConfigError::NoSource);
        }
        let missing: Vec<&str> = parts.iter().filter(|(_, part)| part.is_none()).map(|(name, _)| *name).collect();
        Err(ConfigError::ReleaseIncomplete { missing: missing.join(", ") })
    }

    /// The architecture of what is booted, as far as the configuration tells: releases are for amd64 unless told otherwise, whatever
    /// this host is.
    #[must_use]
    pub fn boots_arch(&self) -> Arch {
        match self.image() {
            Ok(Image::Release { .. }) => match (*self.release.platform, &self.arch.origin) {
                (Some(platform), _) => platform,
                (None, Origin::Default) => Arch::Amd64,
                (None, _) => *self.arch,
            },
            _ => *self.arch,
        }
    }
}

/// Resolves the command line to the configuration, and what the operator should know before it runs.
///
/// # Errors
/// [`ConfigError`]: the first thing that is wrong, in one line. Always exit code 2.
pub fn load(args: &Args, inputs: &mut dyn Inputs) -> Result<(Config, Vec<Warning>), ConfigError> {
    load_for(Purpose::Run, args, inputs)
}

/// As [`load`], of a configuration that may still lack what it takes to boot something.
///
/// # Errors
/// As [`load`], less the lack of an image.
pub fn load_incomplete(args: &Args, inputs: &mut dyn Inputs) -> Result<(Config, Vec<Warning>), ConfigError> {
    load_for(Purpose::Show, args, inputs)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Run,
    Show,
}

fn load_for(purpose: Purpose, args: &Args, inputs: &mut dyn Inputs) -> Result<(Config, Vec<Warning>), ConfigError> {
    let assignments = set::parse(&args.set)?;
    let mut warnings = Vec::new();
    let mut settings = Settings::default();
    let mut data = Data::default();
    for file in read_files(args, &assignments, inputs)? {
        if let Some(values) = file.values {
            data.tree.merge(values.node);
            data.from_file.extend(values.origins);
        }
        for (key, setting) in file.settings {
            if keys::find(key).is_some_and(|key| !key.is_supported()) {
                warnings.push(Warning::NotSupported { key: key.to_owned(), origin: setting.origin });
            } else {
                settings.set(key, setting);
            }
        }
        settings.check()?;
    }
    for (key, value) in assignments {
        data.tree.insert(key.split('.'), &value);
        match keys::find(&key) {
            Some(known) if known.is_supported() => {
                settings.set(known.name, Setting { value: Node::Text(value), origin: Origin::Set });
            }
            Some(_) => warnings.push(Warning::NotSupported { key, origin: Origin::Set }),
            None => {
                data.from_set.insert(key);
            }
        }
    }

    let cloud_config = settings.cloud_config()?;
    let mut config = settings.resolve()?;
    config.data = data;
    match config.image() {
        Err(ConfigError::NoSource) if purpose == Purpose::Show => {}
        image => drop(image?),
    }
    if *config.disable_iso && *config.disable_netboot {
        return Err(ConfigError::NothingToDo);
    }
    config.cloud_config = cloud::load(args, cloud_config, &config, inputs, &mut warnings)?;
    Ok((config, warnings))
}

/// The state directory of `auroraboot flash`, which no other key concerns.
///
/// # Errors
/// [`ConfigError`]: what `--set` may not say, in one line. Always exit code 2.
pub fn flash_state_dir(args: &FlashArgs) -> Result<PathBuf, ConfigError> {
    let mut settings = Settings::default();
    for (key, value) in set::parse(&args.set)? {
        if key != "state_dir" {
            return Err(ConfigError::NotOfFlash { key });
        }
        settings.set("state_dir", Setting { value: Node::Text(value), origin: Origin::Set });
    }
    Ok(settings.resolve()?.state_dir.value)
}

/// Where `auroraboot cache` looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheStore {
    pub state_dir: PathBuf,
    /// Bytes; `None`: as much as there is.
    pub limit: Option<u64>,
}

/// What concerns `auroraboot cache` of its configuration file and `--set`; a file made for a run may name any other key.
///
/// # Errors
/// [`ConfigError`]: what is wrong, in one line. Always exit code 2.
pub fn cache_store(args: &CacheArgs, inputs: &mut dyn Inputs) -> Result<CacheStore, ConfigError> {
    const KEYS: [&str; 2] = ["state_dir", "cache_limit"];
    let assignments = set::parse(&args.set)?;
    if let Some(key) = assignments.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(ConfigError::NotOfCache { key: key.clone() });
    }
    let run = Args { config: args.config.clone(), ..Args::default() };
    let files = read_files(&run, &assignments, inputs)?;
    let mut settings = Settings::default();
    for (key, setting) in files.into_iter().flat_map(|file| file.settings).filter(|(key, _)| KEYS.contains(key)) {
        settings.set(key, setting);
    }
    for (key, value) in assignments {
        if let Some(known) = keys::find(&key) {
            settings.set(known.name, Setting { value: Node::Text(value), origin: Origin::Set });
        }
    }
    let config = settings.resolve()?;
    Ok(CacheStore { state_dir: config.state_dir.value, limit: config.cache_limit.value })
}

/// The configuration files, the weakest first.
fn read_files(
    args: &Args,
    assignments: &BTreeMap<String, String>,
    inputs: &mut dyn Inputs,
) -> Result<Vec<file::File>, ConfigError> {
    let named: Vec<&str> = args.config.iter().chain(&args.with).map(String::as_str).collect();
    let from_stdin = |named: &&str| *named == "-";
    if named.iter().copied().chain(args.cloud_config.as_deref()).filter(from_stdin).count() > 1 {
        return Err(ConfigError::StdinTwice);
    }
    named.into_iter().map(|named| read_file(named, assignments, inputs)).collect()
}

fn read_file(
    named: &str,
    assignments: &BTreeMap<String, String>,
    inputs: &mut dyn Inputs,
) -> Result<file::File, ConfigError> {
    const WHAT: &str = "configuration file";
    let location = Location::parse(named, WHAT)?;
    // What the file itself says of this comes too late.
    let mut from_set = Settings::of(assignments);
    let (ca_file, offline, state_dir) = (from_set.path("ca_file")?, from_set.flag("offline")?, from_set.state_dir()?);
    let how = Fetching { ca_file: ca_file.as_deref(), offline: offline.then_some(state_dir.as_path()) };
    let bytes = location.read(WHAT, CONFIG_FILE_BYTES_MAX, how, inputs).map_err(|error| match error {
        ConfigError::Read { what, name, reason } => {
            let hint = hint(&location).unwrap_or_default();
            ConfigError::Read { what, name, reason: reason + &hint }
        }
        other => other,
    })?;
    file::parse(&bytes, &location.to_string())
}

/// What was probably meant by a configuration file that cannot be read.
fn hint(location: &Location) -> Option<String> {
    let Location::Path(path) = location else { return None };
    let (first, is_yaml) = (path.split('/').next()?, path.ends_with(".yaml") || path.ends_with(".yml"));
    if first.contains('=') {
        Some(format!("; did you mean --set {location}?"))
    } else if path.contains(':') && !is_yaml {
        Some(format!("; did you mean --set container_image={location}?"))
    } else if !path.contains(['.', '/']) {
        let commands = Verb::WORDS.map(|(word, _)| word);
        Some(match suggest::closest(path, commands.into_iter()) {
            Some(command) => format!("; did you mean the command {command}?"),
            None => format!(", and no such command; there are {}", commands.join(", ")),
        })
    } else {
        None
    }
}
