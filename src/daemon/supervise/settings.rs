//! The configuration as consoles see and change it: what was given, and over it what consoles have set.
//!
//! What a console sets is a file of its own beside the others, `console.yaml` and `console-cloud-config.yaml`: what people wrote by hand stays as
//! they wrote it, and removing the file takes everything back. Nothing is kept that a server would refuse.

use crate::config::{self, Args, Config, ConfigError, Fetching, Inputs, Warning};
use crate::console::{Change, Shown};
use crate::daemon::check::{self, CheckError};
use crate::daemon::inputs::HostInputs;
use crate::limits;
use crate::source::manifest::digest_of;
use crate::units::chain;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Where files of settings are kept.
pub trait Store: Send + Sync {
    /// The directory that they are read from.
    fn directory(&self) -> &Path;

    /// Puts a whole file in the place of what is there; after a loss of power it is the old one or the new one.
    ///
    /// # Errors
    /// One sentence for the operator.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), String>;

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// One sentence for the operator.
    fn remove(&self, name: &str) -> Result<(), String>;
}

/// What was given besides consoles: a command line, or what stands for it.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    pub args: Args,
    /// Whether URLs are fetched to check what they hold; where the network comes later they are believed.
    pub fetches: bool,
    /// Whether this is everything: what consoles have set is left out, because it is damaged.
    pub is_complete: bool,
    /// Whether this stands in for a configuration that cannot be read.
    pub is_fallback: bool,
}

/// Why a change is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Check(#[from] CheckError),
    #[error("{0} is set by --set on the command line, which decides")]
    OnCommandLine(String),
    #[error("{path}: {why}; remove it to take back what consoles have set")]
    Damaged { path: PathBuf, why: String },
    #[error("too much is set at consoles; put it into the configuration file")]
    TooMuch,
    #[error("{0}")]
    Store(String),
}

pub struct Settings {
    layers: Layers,
    /// [`Layers::is_complete`], until what consoles have set is whole again.
    is_complete: AtomicBool,
    store: Box<dyn Store>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("directory", &self.store.directory()).finish_non_exhaustive()
    }
}

/// The keys that consoles set.
pub const CONSOLE_FILE: &str = "console.yaml";
/// The cloud config that they set.
pub const CONSOLE_CLOUD_FILE: &str = "console-cloud-config.yaml";

impl Settings {
    #[must_use]
    pub fn new(layers: Layers, store: Box<dyn Store>) -> Self {
        let is_complete = AtomicBool::new(layers.is_complete);
        Self { layers, is_complete, store }
    }

    /// Whether another configuration is used than the one that is there.
    #[must_use]
    pub fn is_fallback(&self) -> bool {
        self.layers.is_fallback
    }

    /// The arguments that a server is started with.
    #[must_use]
    pub fn args(&self) -> Args {
        let is_complete = self.is_complete.load(Ordering::Relaxed);
        let has = |name: &str| !is_complete && self.path(name).exists();
        self.args_with(has(CONSOLE_FILE), has(CONSOLE_CLOUD_FILE))
    }

    fn args_with(&self, console: bool, cloud: bool) -> Args {
        let mut args = self.layers.args.clone();
        let name = |name: &str| self.path(name).to_string_lossy().into_owned();
        args.with.extend(console.then(|| name(CONSOLE_FILE)));
        if cloud {
            args.cloud_config = Some(name(CONSOLE_CLOUD_FILE));
        }
        args
    }

    /// The configuration, which may lack an image still, and what the operator should know of it.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn load(&self) -> Result<(Config, Vec<Warning>), ConfigError> {
        config::load_incomplete(&self.args(), &mut self.inputs())
    }

    /// As [`Settings::load`], with everything told wrong that a server would refuse at once.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn load_sound(&self) -> Result<(Config, Vec<Warning>), SettingsError> {
        let loaded = self.load()?;
        fault(&loaded.0)?;
        Ok(loaded)
    }

    /// Every setting.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn shown(&self) -> Result<Vec<Shown>, ConfigError> {
        let (config, _) = self.load()?;
        // Nobody gave `--cloud-config` where the file was found beside the others; its name says where.
        let was_found =
            self.args().cloud_config.is_some_and(|path| Path::new(&path).starts_with(self.store.directory()));
        let shown = |row: config::Row| {
            let origin = row.origin.filter(|_| row.key != "cloud_config" || !was_found);
            Shown { key: row.key, value: row.value, origin: origin.unwrap_or_default() }
        };
        Ok(config::rows(&config).into_iter().map(shown).collect())
    }

    /// What a change would bring, in lines for the operator; nothing is changed.
    ///
    /// # Errors
    /// Why it would not be accepted.
    pub fn check(&self, change: &Change) -> Result<String, SettingsError> {
        let (config, warnings) = self.load_with(change)?;
        let now = self.load().ok();
        // What is not of this change was told before.
        let before = now.as_ref().map(|(_, warnings)| warnings.as_slice()).unwrap_or_default();
        let mut lines: Vec<String> =
            warnings.iter().filter(|warning| !before.contains(warning)).map(Warning::to_string).collect();
        if let Err(error) = fault(&config) {
            // What was wrong before must not keep anybody from mending it piece by piece.
            if now.is_some_and(|(config, _)| fault(&config).is_ok()) {
                return Err(error.into());
            }
            lines.push(chain(&error));
        }
        if let (Change::CloudConfig(Some(_)), Some(cloud)) = (change, &config.cloud_config) {
            lines.extend(cloud.summary().map(|does| format!("each machine: {does}")));
        }
        Ok(lines.join("\n"))
    }

    /// The configuration as a change would make it; nothing is changed.
    ///
    /// # Errors
    /// Why it would not be accepted.
    pub fn load_with(&self, change: &Change) -> Result<(Config, Vec<Warning>), SettingsError> {
        if self.is_complete.load(Ordering::Relaxed) {
            self.of_console()?;
        }
        let staged = self.stage(change)?;
        let mut inputs = self.inputs();
        inputs.staged = staged.iter().map(|(name, bytes)| (self.path(name), bytes.clone())).collect();
        let will_be = |name: &str| match staged.iter().find(|(staged, _)| *staged == name) {
            Some((_, bytes)) => bytes.is_some(),
            None => self.path(name).exists(),
        };
        let args = self.args_with(will_be(CONSOLE_FILE), will_be(CONSOLE_CLOUD_FILE));
        Ok(config::load_incomplete(&args, &mut inputs)?)
    }

    /// Makes a change.
    ///
    /// # Errors
    /// Why it is not accepted, or could not be kept; nothing is changed then.
    pub fn save(&self, change: &Change) -> Result<(), SettingsError> {
        self.check(change)?;
        self.stage(change)?.iter().try_for_each(|(name, bytes)| self.put(name, bytes.as_deref()))?;
        self.is_complete.store(false, Ordering::Relaxed); // it was checked with everything that consoles have set
        Ok(())
    }

    /// The files of consoles as they are, for [`Settings::restore`].
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn kept(&self) -> io::Result<Kept> {
        let read = |name| match std::fs::read(self.path(name)) {
            Ok(bytes) => Ok((name, Some(bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((name, None)),
            Err(error) => Err(error),
        };
        Ok(Kept([read(CONSOLE_FILE)?, read(CONSOLE_CLOUD_FILE)?]))
    }

    /// Makes the files of consoles what they were.
    ///
    /// # Errors
    /// One sentence for the operator.
    pub fn restore(&self, kept: &Kept) -> Result<(), SettingsError> {
        kept.0.iter().try_for_each(|(name, bytes)| self.put(name, bytes.as_deref()))
    }

    fn put(&self, name: &str, bytes: Option<&[u8]>) -> Result<(), SettingsError> {
        let put = match bytes {
            Some(bytes) => self.store.write(name, bytes),
            None => self.store.remove(name),
        };
        put.map_err(SettingsError::Store)
    }

    /// Takes back everything that consoles have set.
    ///
    /// # Errors
    /// One sentence for the operator.
    pub fn reset(&self) -> Result<(), SettingsError> {
        self.restore(&Kept([(CONSOLE_FILE, None), (CONSOLE_CLOUD_FILE, None)]))
    }

    /// The keys that consoles have set.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn of_console(&self) -> Result<BTreeMap<String, String>, SettingsError> {
        let path = self.path(CONSOLE_FILE);
        let damaged = |why: String| SettingsError::Damaged { path: path.clone(), why };
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            read => read.map_err(|error| damaged(error.to_string()))?,
        };
        let json: String = text.lines().filter(|line| !line.starts_with('#')).collect();
        serde_json::from_str(&json).map_err(|error| damaged(error.to_string()))
    }

    /// The files that a change alters, as they will be; none: it goes.
    fn stage(&self, change: &Change) -> Result<Vec<Staged>, SettingsError> {
        let keys = match change {
            Change::CloudConfig(bytes) => return Ok(vec![(CONSOLE_CLOUD_FILE, bytes.clone())]),
            Change::Setting { key, value } => vec![(key.clone(), value.clone())],
            Change::Settings(keys) | Change::Network(keys) => keys.clone(),
        };
        let mut set = self.of_console()?;
        for (key, value) in keys {
            if self.is_on_command_line(&key) {
                return Err(SettingsError::OnCommandLine(key));
            }
            match value {
                // The file lies where any computer can read it.
                Some(password) if key == "console.password" && !password.is_empty() => {
                    set.insert(key, hashed(password))
                }
                Some(value) => set.insert(key, value),
                None => set.remove(&key),
            };
        }
        if set.is_empty() {
            return Ok(vec![(CONSOLE_FILE, None)]);
        }
        // JSON is YAML.
        let json = serde_json::to_string_pretty(&set).map_err(|error| SettingsError::Store(error.to_string()))?;
        let text = format!("# Set at a console. Remove this file to take it back.\n{json}\n");
        if text.len() > limits::CONSOLE_SETTINGS_BYTES_MAX {
            return Err(SettingsError::TooMuch);
        }
        Ok(vec![(CONSOLE_FILE, Some(text.into_bytes()))])
    }

    fn is_on_command_line(&self, key: &str) -> bool {
        self.layers.args.set.iter().any(|set| set.split_once('=').is_some_and(|(name, _)| name.trim() == key))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.store.directory().join(name)
    }

    fn inputs(&self) -> StagedInputs {
        StagedInputs { staged: Vec::new(), fetches: self.layers.fetches, host: HostInputs::default() }
    }
}

/// A file that a change alters, and what will be in it; none: it goes.
type Staged = (&'static str, Option<Vec<u8>>);

/// The files of consoles as they were.
#[derive(Clone)]
pub struct Kept([Staged; 2]);

// By hand: they may hold passwords.
impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kept")
    }
}

/// A password as it is kept: nobody reads it out of the file.
fn hashed(password: String) -> String {
    let is_hashed = password.get(..7).is_some_and(|begin| begin.eq_ignore_ascii_case("sha256:"));
    if is_hashed { password } else { digest_of(password.as_bytes()).to_string() }
}

/// What a server would refuse at once; that there is nothing to boot yet is nothing wrong.
fn fault(config: &Config) -> Result<(), CheckError> {
    match check::check(config) {
        Ok(_) | Err(CheckError::Config(ConfigError::NoSource)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The host's files, some of them as they will be.
struct StagedInputs {
    staged: Vec<(PathBuf, Option<Vec<u8>>)>,
    fetches: bool,
    host: HostInputs,
}

impl Inputs for StagedInputs {
    fn read_file(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        match self.staged.iter().find(|(staged, _)| staged == path) {
            Some((_, bytes)) => bytes.clone().ok_or_else(|| io::ErrorKind::NotFound.into()),
            None => self.host.read_file(path),
        }
    }

    fn fetch_url(&mut self, url: &str, how: Fetching<'_>) -> Result<Vec<u8>, String> {
        if self.fetches { self.host.fetch_url(url, how) } else { Ok(b"#cloud-config\n".to_vec()) }
    }

    fn read_stdin(&mut self) -> io::Result<Vec<u8>> {
        Err(io::Error::other("a server that has consoles does not read standard input"))
    }
}

/// A plain directory.
#[derive(Debug)]
pub struct Folder(pub PathBuf);

impl Store for Folder {
    fn directory(&self) -> &Path {
        &self.0
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        crate::media::write_file(&self.0.join(name), 0o600, bytes).map_err(|error| chain(&error))
    }

    fn remove(&self, name: &str) -> Result<(), String> {
        let path = self.0.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("cannot remove {}: {error}", path.display()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn settings(name: &str, set: &[&str], file: &str) -> (Settings, PathBuf) {
        let folder = std::env::temp_dir().join(format!("auroraboot-settings-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let base = folder.join("base.yaml");
        fs::write(&base, file).unwrap();
        let config = Some(base.to_string_lossy().into_owned());
        let set = set.iter().map(|set| (*set).to_owned()).collect();
        let layers = Layers { args: Args { config, set, ..Args::default() }, ..Layers::default() };
        (Settings::new(layers, Box::new(Folder(folder.clone()))), folder)
    }

    fn setting(key: &str, value: &str) -> Change {
        Change::Setting { key: key.to_owned(), value: Some(value.to_owned()) }
    }

    #[test]
    fn what_a_console_sets_wins_says_so_and_can_be_taken_back() {
        let (settings, folder) = settings("wins", &[], "container_image: a:1\nflavor: x\n");
        settings.save(&setting("container_image", "b:1")).unwrap();
        settings.save(&Change::Network(vec![("network.hostname".into(), Some("box".into()))])).unwrap();
        let (config, _) = settings.load().unwrap();
        assert_eq!(config.container_image.as_deref(), Some("b:1"));
        assert!(
            config.container_image.origin.to_string().ends_with("console.yaml:3"),
            "{}",
            config.container_image.origin
        );
        let shown = settings.shown().unwrap();
        assert!(shown.iter().any(|row| row.key == "network.hostname" && row.value == "box"));
        settings.save(&Change::Setting { key: "container_image".into(), value: None }).unwrap();
        assert_eq!(settings.load().unwrap().0.container_image.as_deref(), Some("a:1"));
        settings.save(&setting("console.password", "hunter2")).unwrap();
        assert!(!fs::read_to_string(folder.join(CONSOLE_FILE)).unwrap().contains("hunter2"));
        assert!(settings.load().unwrap().0.console_password.value.unwrap().is("hunter2"));
        settings.reset().unwrap();
        assert!(!folder.join(CONSOLE_FILE).exists());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_a_server_would_refuse_is_not_kept() {
        let (settings, folder) = settings("refuses", &["container_image=a:1"], "flavor: x\n");
        for (change, why) in [
            (setting("netboot_http_port", "http"), "netboot_http_port"),
            (setting("flavour", "x"), "unknown key flavour, did you mean flavor?"),
            (setting("container_image", "b:1"), "decides"),
            (Change::CloudConfig(Some(b"#cloud-config\nhostname: [[ .nowhere ]]\n".to_vec())), "nowhere"),
            (Change::CloudConfig(Some(b"\n".to_vec())), "empty"),
            (setting("values", "x"), "values"),
            (setting("iso.overlay_iso", "/nowhere"), "/nowhere is not a directory"),
        ] {
            let error = settings.save(&change).unwrap_err();
            assert!(chain(&error).contains(why), "{change:?}: {}", chain(&error));
        }
        let long = "x".repeat(limits::CONSOLE_SETTINGS_BYTES_MAX);
        assert!(matches!(settings.save(&setting("flavor", &long)), Err(SettingsError::TooMuch)));
        assert!(!folder.join(CONSOLE_FILE).exists() && !folder.join(CONSOLE_CLOUD_FILE).exists());
        fs::write(folder.join(CONSOLE_FILE), "{").unwrap();
        assert!(matches!(settings.save(&setting("flavor", "y")), Err(SettingsError::Damaged { .. })));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_cloud_config_is_shown_what_it_does_and_replaces_the_files() {
        let (settings, folder) =
            settings("cloud", &[], "container_image: a:1\ncloud_config: |\n  #cloud-config\n  a: 1\n");
        let cloud = b"#cloud-config\ninstall:\n  auto: true\nusers:\n- name: kairos\n".to_vec();
        let said = settings.check(&Change::CloudConfig(Some(cloud.clone()))).unwrap();
        assert!(said.contains("group admin") && said.contains("each machine: installs"), "{said}");
        assert!(!folder.join(CONSOLE_CLOUD_FILE).exists(), "a check changes nothing");
        settings.save(&Change::CloudConfig(Some(cloud.clone()))).unwrap();
        assert_eq!(settings.load().unwrap().0.cloud_config.unwrap().bytes(), cloud);
        let shown = settings.shown().unwrap().pop().unwrap();
        assert!(shown.value.contains(CONSOLE_CLOUD_FILE) && shown.origin.is_empty(), "{shown:?}");
        settings.save(&Change::CloudConfig(None)).unwrap();
        assert_eq!(settings.load().unwrap().0.cloud_config.unwrap().bytes(), b"#cloud-config\na: 1\n");
        fs::remove_dir_all(&folder).unwrap();
    }
}
