//! Settings of all layers into typed values: booleans, ports, addresses, lists.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::cloud::{Location, is_home};
use super::error::{ConfigError, place};
use super::keys;
use super::machines::{MacPrefix, MachineFilter};
use super::mask::{MASK, printable};
use super::network::Network;
use super::node::Node;
use super::origin::{Origin, Setting};
use super::password::Password;
use super::{Config, Iso, Release};
use crate::units::{Arch, ByteSize};

/// The strongest layer's value of each key; keys are taken out as they are read.
#[derive(Debug, Default, Clone)]
pub struct Settings(BTreeMap<&'static str, Setting<Node>>);

impl Settings {
    /// Sets a key over what lower layers said.
    pub fn set(&mut self, key: &'static str, setting: Setting<Node>) {
        self.0.insert(key, setting);
    }

    /// Looks at every value, so that what a stronger layer hides is still right.
    ///
    /// # Errors
    /// As [`Settings::resolve`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut settings = self.clone();
        settings.cloud_config()?;
        settings.resolve().map(drop)
    }

    /// The raw value of a key.
    fn take(&mut self, key: &'static str) -> Option<Setting<Node>> {
        self.0.remove(key)
    }

    /// The keys that `--set` gave and that are settings.
    pub fn of(assignments: &BTreeMap<String, String>) -> Self {
        let known = |(key, value): (&String, &String)| {
            let setting = Setting { value: Node::Text(value.clone()), origin: Origin::Set };
            keys::find(key).filter(|key| key.is_supported()).map(|key| (key.name, setting))
        };
        Self(assignments.iter().filter_map(known).collect())
    }

    /// Everything but the cloud config and its data.
    ///
    /// # Errors
    /// The first value that is not what its key takes.
    pub fn resolve(&mut self) -> Result<Config, ConfigError> {
        Ok(Config {
            container_image: self.text("container_image")?,
            iso_url: self.file_or_url("iso_url")?,
            release: Release {
                repository: self.text("repository")?,
                release_version: self.text("release_version")?,
                artifact_version: self.text("artifact_version")?,
                flavor: self.text("flavor")?,
                flavor_release: self.text("flavor_release")?,
                variant: self.text("variant")?,
                model: self.text("model")?,
                platform: self.parsed("platform", ARCHITECTURE, None, |text| text.parse().ok().map(Some))?,
                github_url: self.text("github_url")?,
            },
            arch: self.parsed("arch", ARCHITECTURE, Arch::host(), |text| text.parse().ok())?,
            state_dir: self.state_dir()?,
            cache_limit: self.parsed("cache_limit", "a size, such as 20GB, or none", Some(CACHE_LIMIT), size_limit)?,
            offline: self.flag("offline")?,
            interfaces: self.list("interfaces", "an interface's name, such as eth0", interface)?,
            netboot_listen_addr: self.parsed(
                "netboot_listen_addr",
                "an IPv4 address, such as 192.168.1.2",
                Ipv4Addr::UNSPECIFIED,
                |text| text.parse().ok(),
            )?,
            netboot_http_port: self.parsed("netboot_http_port", "a port, a number from 1 to 65535", 8090, port)?,
            netboot_cmdline: self.text("netboot.cmdline")?,
            machines: MachineFilter { allow: self.machines("netboot.allow")?, deny: self.machines("netboot.deny")? },
            iso: Iso {
                override_name: self.text("iso.override_name")?,
                include_date: self.flag("iso.include_date")?,
                overlay_iso: self.overlay_iso()?,
                overlay_rootfs: self.path("iso.overlay_rootfs")?,
                live_console: self.text("iso.live_console")?,
                extend_live_cmdline: self.text("iso.extend-live-cmdline")?,
            },
            listen_addr: self.parsed(
                "listen_addr",
                "an address and port, such as :8080 or 192.168.1.2:8080",
                SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8080)),
                socket_address,
            )?,
            disable_netboot: self.flag("disable_netboot")?,
            disable_http_server: self.flag("disable_http_server")?,
            disable_iso: self.flag("disable_iso")?,
            allow_insecure_registries: self.insecure()?,
            ca_file: self.path("ca_file")?,
            loaders_dir: self.path("loaders_dir")?,
            network: Network::resolve(self)?,
            console_password: self.console_password()?,
            cloud_config: None,
            data: super::Data::default(),
        })
    }

    /// The file's `cloud_config`, which is often written without the `|` that makes a text of it.
    pub fn cloud_config(&mut self) -> Result<Setting<Option<String>>, ConfigError> {
        self.text_as("cloud_config", "a text: write `cloud_config: |` and the cloud config indented below it")
    }

    fn console_password(&mut self) -> Result<Setting<Option<Password>>, ConfigError> {
        let Setting { value, origin } = self.text("console.password")?;
        let wrong = |()| ConfigError::BadValue {
            key: "console.password",
            value: format!("sha256:{MASK}"),
            origin: origin.clone(),
            accepted: "sha256: and the 64 digits that sha256sum prints",
        };
        Ok(Setting { value: value.map(|text| text.parse().map_err(wrong)).transpose()?, origin })
    }

    /// A text; an empty one is none, so that `--set flavor=` takes back what the file says.
    fn text(&mut self, key: &'static str) -> Result<Setting<Option<String>>, ConfigError> {
        self.text_as(key, "one value")
    }

    fn text_as(&mut self, key: &'static str, accepted: &'static str) -> Result<Setting<Option<String>>, ConfigError> {
        let Some(Setting { value, origin }) = self.take(key) else { return Ok(Setting::default(None)) };
        match value {
            Node::Null => Ok(Setting { value: None, origin }),
            Node::Text(text) => Ok(Setting { value: Some(text).filter(|text| !text.is_empty()), origin }),
            other => Err(ConfigError::WrongShape { key, origin, found: other.kind(), accepted }),
        }
    }

    pub fn state_dir(&mut self) -> Result<Setting<PathBuf>, ConfigError> {
        Ok(self.path("state_dir")?.map(|dir| dir.unwrap_or_else(|| PathBuf::from("/tmp/auroraboot"))))
    }

    /// A file or directory.
    pub fn path(&mut self, key: &'static str) -> Result<Setting<Option<PathBuf>>, ConfigError> {
        let setting = self.text(key)?;
        if let Some(path) = setting.value.as_deref().filter(|path| is_home(path)) {
            return Err(ConfigError::Tilde { place: place(key, &printable(path), &setting.origin) });
        }
        Ok(setting.map(|text| text.map(PathBuf::from)))
    }

    /// A path or an http(s) URL.
    fn file_or_url(&mut self, key: &'static str) -> Result<Setting<Option<String>>, ConfigError> {
        let setting = self.text(key)?;
        if let Some(text) = setting.value.as_deref() {
            let place = || place(key, &printable(text), &setting.origin);
            match Location::parse(text, key) {
                Err(ConfigError::Tilde { .. }) => return Err(ConfigError::Tilde { place: place() }),
                Err(_) | Ok(Location::Stdin) => {
                    return Err(bad_value(key, text, setting.origin, "a path or an http(s) URL"));
                }
                Ok(_) => {}
            }
        }
        Ok(setting)
    }

    /// One setting under two names, as [`Settings::insecure`].
    fn overlay_iso(&mut self) -> Result<Setting<Option<PathBuf>>, ConfigError> {
        let old = self.path("iso.data")?;
        let new = self.path("iso.overlay_iso")?;
        Ok(newer(old, new))
    }

    pub fn parsed<T>(
        &mut self,
        key: &'static str,
        accepted: &'static str,
        default: T,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Setting<T>, ConfigError> {
        let Some(Setting { value, origin }) = self.take(key) else { return Ok(Setting::default(default)) };
        match value {
            Node::Null => Ok(Setting::default(default)),
            Node::Text(text) => match parse(text.trim()) {
                Some(value) => Ok(Setting { value, origin }),
                None => Err(bad_value(key, &text, origin, accepted)),
            },
            other => Err(ConfigError::WrongShape { key, origin, found: other.kind(), accepted }),
        }
    }

    pub fn flag(&mut self, key: &'static str) -> Result<Setting<bool>, ConfigError> {
        self.parsed(key, "a boolean: true or false", false, boolean)
    }

    /// One setting under two names; the stronger layer wins, and within one the present name.
    fn insecure(&mut self) -> Result<Setting<bool>, ConfigError> {
        let old = self.flag("insecure")?;
        let new = self.flag("allow-insecure-registries")?;
        Ok(newer(old, new))
    }

    fn machines(&mut self, key: &'static str) -> Result<Setting<Vec<MacPrefix>>, ConfigError> {
        let accepted = "a MAC address or the beginning of one, such as 52:54:00:12:34:56 or 52:54:00";
        self.list(key, accepted, |text| text.parse().ok())
    }

    /// A YAML list, or a text with commas as `--set` has it.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        accepted: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Setting<Vec<T>>, ConfigError> {
        let Some(Setting { value, origin }) = self.take(key) else { return Ok(Setting::default(Vec::new())) };
        let items: Vec<String> = match value {
            Node::Null => Vec::new(),
            Node::Text(text) if text.trim().is_empty() => Vec::new(),
            Node::Text(text) => text.split(',').map(str::to_owned).collect(),
            Node::List(nodes) => {
                let text = |node| match node {
                    Node::Text(text) => Ok(text),
                    _ => Err(ConfigError::WrongShape {
                        key,
                        origin: origin.clone(),
                        found: "a list of something else",
                        accepted: "a list of values",
                    }),
                };
                nodes.into_iter().map(text).collect::<Result<_, _>>()?
            }
            Node::Map(_) => {
                return Err(ConfigError::WrongShape {
                    key,
                    origin,
                    found: "a group of keys",
                    accepted: "a list of values",
                });
            }
        };
        let parse_item =
            |item: &String| parse(item.trim()).ok_or_else(|| bad_value(key, item, origin.clone(), accepted));
        let value = items.iter().map(parse_item).collect::<Result<_, _>>()?;
        Ok(Setting { value, origin })
    }
}

/// Of one setting under an old and a new name: the stronger layer's; within one layer the new name's.
fn newer<T>(old: Setting<T>, new: Setting<T>) -> Setting<T> {
    let old_wins = new.origin == Origin::Default || (old.origin == Origin::Set && new.origin != Origin::Set);
    if old_wins { old } else { new }
}

const ARCHITECTURE: &str = "an architecture: amd64, arm64 or riscv64";

fn bad_value(key: &'static str, value: &str, origin: Origin, accepted: &'static str) -> ConfigError {
    ConfigError::BadValue { key, value: printable(value), origin, accepted }
}

/// The layers of about twenty images.
const CACHE_LIMIT: u64 = 20_000_000_000;

fn size_limit(text: &str) -> Option<Option<u64>> {
    if text.eq_ignore_ascii_case("none") {
        return Some(None);
    }
    text.parse().ok().map(|ByteSize(bytes)| Some(bytes))
}

/// The spellings of YAML 1.1, which the original's parser takes for booleans.
fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Some(true),
        "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()); // `parse` alone takes a sign
    text.parse().ok().filter(|port| digits && *port != 0)
}

/// `:8080` is every address of both families, as Go has it.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (host, number) = text.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let ip: IpAddr = if host.is_empty() { Ipv6Addr::UNSPECIFIED.into() } else { host.parse().ok()? };
    Some(SocketAddr::new(ip, port(number)?))
}

/// The kernel's own rule for names (dev_valid_name), less the characters nobody uses in one.
pub fn interface(text: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':' | ',' | '"' | '\'');
    let good = !text.is_empty() && text.len() < 16 && text.chars().all(plain) && text != "." && text != "..";
    good.then(|| text.to_owned())
}
