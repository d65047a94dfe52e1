//! Every key of the configuration: its name, what it is for, whether this version acts on it.

use super::error::ConfigError;
use super::origin::Origin;
use super::suggest::{closest, one_slip_away};

/// A key, by its dotted name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    pub name: &'static str,
    /// One line for `--help`.
    pub help: &'static str,
    pub support: Support,
}

/// What this version makes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It is acted on.
    Now,
    /// It is known from AuroraBoot's own configuration files and accepted with a warning, so that a file made for it is
    /// not refused.
    Never,
}

impl Key {
    /// Whether the key is read at all.
    #[must_use]
    pub const fn is_supported(&self) -> bool {
        !matches!(self.support, Support::Never)
    }
}

const fn key(name: &'static str, help: &'static str) -> Key {
    Key { name, help, support: Support::Now }
}

const fn not_supported(name: &'static str) -> Key {
    Key { name, help: "", support: Support::Never }
}

const KEYS: &[Key] = &[
    key("container_image", "The image to boot; see Images below"),
    key("iso_url", "An ISO to boot instead: its path or URL"),
    key("repository", "A GitHub release to boot instead: its repository, OWNER/NAME"),
    key("release_version", "The release's version (its tag)"),
    key("artifact_version", "The artifact's version, k3s's included"),
    key("flavor", "The release's flavor, such as opensuse-leap"),
    key("flavor_release", "The flavor's own release, such as 15.6"),
    key("variant", "The release's variant: core or standard (default: by version)"),
    key("model", "The release's model (default generic)"),
    key("platform", "The release's architecture (default: arch if set, or amd64)"),
    key("github_url", "GitHub Enterprise or a mirror (default https://github.com)"),
    key("arch", "Architecture to boot: amd64, arm64, riscv64 (default: this host's)"),
    key("cloud_config", "The cloud config, or its path, URL or - (file only)"),
    key("values", "Data for the cloud config's template (file only)"),
    key("state_dir", "Where artifacts are kept (default /tmp/auroraboot)"),
    key("cache_limit", "How much images may take there (default 20GB; none: no limit)"),
    key("offline", "Ask no server: use what `auroraboot pull` fetched"),
    key("interfaces", "Interfaces to serve (default: all suitable ones)"),
    key("netboot_listen_addr", "IPv4 address to serve from (default: every one)"),
    key("netboot_http_port", "Port machines load from (default 8090)"),
    key("netboot.cmdline", "Kernel command line instead of the built one"),
    key("netboot.allow", "Only these machines boot: MAC addresses or prefixes"),
    key("netboot.deny", "These machines never boot: MAC addresses or prefixes"),
    key("listen_addr", "Where ISOs are served (default :8080)"),
    key("disable_netboot", "Do not boot machines from the network"),
    key("disable_http_server", "Do not serve ISOs"),
    key("disable_iso", "Keep nothing for sticks: no iso folder, no port 8080"),
    key("iso.override_name", "Name of the ISO without .iso (default kairos)"),
    key("iso.include_date", "Put the date into the ISO's name"),
    key("iso.overlay_iso", "Directory to lay over the files of the custom ISO"),
    key("iso.data", "The same, under its old name"),
    key("iso.overlay_rootfs", "Directory to lay over the image's root file system"),
    key("iso.live_console", "Consoles of the ISO's menu (default console=ttyS0 console=tty1)"),
    key("iso.extend-live-cmdline", "Kernel arguments to add to the ISO's menu"),
    key("allow-insecure-registries", "Allow http and unverified TLS to registries"),
    key("insecure", "The same, under its old name"),
    key("ca_file", "PEM file of certificate authorities to trust as well"),
    key("loaders_dir", "Directory of boot loaders instead of the embedded ones"),
    key("network.interface", "Appliance: its interface (default: where DHCP answers)"),
    key("network.address", "Appliance: dhcp, or such as 192.168.1.5/24 (default dhcp)"),
    key("network.gateway", "Appliance: its router, for a fixed address"),
    key("network.dns", "Appliance: name servers (default: DHCP's)"),
    key("network.ntp", "Appliance: time servers (default: DHCP's, or public ones)"),
    key("network.hostname", "Appliance: its name (default auroraboot)"),
    key("console.password", "What consoles ask for: as it is, or sha256:DIGEST"),
    not_supported("no_default_cloud_config"),
    not_supported("iso.name"),
    not_supported("disk.efi"),
    not_supported("disk.bios"),
    not_supported("disk.raw"),
    not_supported("disk.mbr"),
    not_supported("disk.gce"),
    not_supported("disk.vhd"),
    not_supported("disk.maas"),
    not_supported("disk.partitions"),
    not_supported("disk.size"),
    not_supported("disk.state_size"),
    not_supported("disk.recovery_image_size"),
    not_supported("system.memory"),
    not_supported("system.cores"),
    not_supported("system.qemu_bin"),
    not_supported("system.kvm"),
];

/// The keys that this version makes so much of.
pub fn with(support: Support) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.support == support)
}

/// The key of exactly this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Whether keys begin with `name` and a dot.
#[must_use]
pub fn is_group(name: &str) -> bool {
    members(name).next().is_some()
}

fn members(group: &str) -> impl Iterator<Item = &'static str> {
    KEYS.iter()
        .map(|key| key.name)
        .filter(move |name| name.strip_prefix(group).is_some_and(|rest| rest.starts_with('.')))
}

/// The error of a group that was given a value.
#[must_use]
pub fn group_error(group: &str, origin: Origin) -> ConfigError {
    let members: Vec<&str> = members(group).collect();
    ConfigError::IsGroup { key: group.to_owned(), origin, members: members.join(", ") }
}

/// The key that was probably meant by an unknown one.
#[must_use]
pub fn suggest(typed: &str) -> Option<&'static str> {
    closest(typed, KEYS.iter().map(|key| key.name))
}

/// The key that was certainly meant by an unknown one of `--set`.
#[must_use]
pub fn one_slip(typed: &str) -> Option<&'static str> {
    let settable = KEYS.iter().map(|key| key.name).filter(|name| *name != "values"); // `value` is good data
    one_slip_away(typed, settable)
}
